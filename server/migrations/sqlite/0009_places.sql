-- A job's place in its tenant's queue is told by when it was created, by the database's clock. Its id begins with the clock of the server that admitted it.
CREATE INDEX jobs_places ON jobs(tenant, priority DESC, created_ms, id) WHERE state = 1;
DROP INDEX jobs_queued;
