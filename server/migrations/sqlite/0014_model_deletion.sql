-- Models are deleted, and jobs that are over outlive them: that a job's model is there is seen to by whoever admits the job.
CREATE TABLE jobs_alone(
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  model_id TEXT NOT NULL,
  state INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  deadline_ms INTEGER,
  priority INTEGER NOT NULL DEFAULT 0,
  batch TEXT,
  last_seq INTEGER NOT NULL,
  doc BLOB NOT NULL,                -- zkinfer.v1.Job
  stop_cause TEXT CHECK(stop_cause IN ('CANCEL', 'DEADLINE')),
  stop_note TEXT,
  input_salt BLOB,                  -- erased when the job is final
  seed BLOB,                        -- erased when the job is final
  PRIMARY KEY(tenant, id)
) STRICT, WITHOUT ROWID;
INSERT INTO jobs_alone(tenant, id, model_id, state, created_ms, deadline_ms, priority, batch, last_seq, doc, stop_cause, stop_note, input_salt, seed)
  SELECT tenant, id, model_id, state, created_ms, deadline_ms, priority, batch, last_seq, doc, stop_cause, stop_note, input_salt, seed FROM jobs;
DROP TABLE jobs;
ALTER TABLE jobs_alone RENAME TO jobs;
CREATE INDEX jobs_list ON jobs(tenant, created_ms DESC, id DESC);
CREATE INDEX jobs_deadline ON jobs(deadline_ms) WHERE deadline_ms IS NOT NULL AND stop_cause IS NULL AND state IN (1, 2);
CREATE INDEX jobs_batch ON jobs(tenant, batch, id) WHERE batch IS NOT NULL;
CREATE INDEX jobs_recent ON jobs(created_ms DESC, id DESC);
CREATE INDEX jobs_by_state ON jobs(state, created_ms DESC, id DESC);
CREATE INDEX jobs_places ON jobs(tenant, priority DESC, created_ms, id) WHERE state = 1;
-- Of a model that is to be deleted, those that are not over.
CREATE INDEX jobs_unfinished ON jobs(tenant, model_id, state) WHERE state < 4;

-- Programs before this one do not lock the model of a job that they admit, which could be deleted meanwhile.
INSERT INTO schema_compatibility(version, oldest_program) VALUES (14, 14);
