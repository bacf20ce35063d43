-- What operators see of all tenants at once: the newest jobs, those of one state, and how many there are of each.
CREATE INDEX jobs_recent ON jobs(created_ms DESC, id DESC);
CREATE INDEX jobs_by_state ON jobs(state, created_ms DESC, id DESC);
CREATE INDEX models_recent ON models(created_ms DESC, id DESC, state);
