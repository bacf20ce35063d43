-- Everything that must survive a crash. Times are milliseconds since 1970. `doc` and `body` are messages of zkinfer.v1
-- in their wire encoding; the columns beside them are what queries need.

CREATE TABLE models(
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  state INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  last_seq INTEGER NOT NULL,
  doc BLOB NOT NULL,                -- zkinfer.v1.Model
  salt BLOB NOT NULL,               -- of the model commitment; zero if the weights are public
  seed BLOB NOT NULL,               -- makes each attempt give the same bytes
  private_digest BLOB,              -- internal artifact: what proving needs
  PRIMARY KEY(tenant, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX models_list ON models(tenant, created_ms DESC, id DESC);

CREATE TABLE jobs(
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  model_id TEXT NOT NULL,
  state INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  deadline_ms INTEGER,
  labels TEXT NOT NULL,             -- a JSON object
  last_seq INTEGER NOT NULL,
  doc BLOB NOT NULL,                -- zkinfer.v1.Job
  stop_cause TEXT CHECK(stop_cause IN ('CANCEL', 'DEADLINE')),
  stop_note TEXT,
  input_salt BLOB,                  -- erased when the job is final
  seed BLOB,                        -- erased when the job is final
  PRIMARY KEY(tenant, id),
  FOREIGN KEY(tenant, model_id) REFERENCES models(tenant, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX jobs_list ON jobs(tenant, created_ms DESC, id DESC);
CREATE INDEX jobs_deadline ON jobs(deadline_ms) WHERE deadline_ms IS NOT NULL AND stop_cause IS NULL AND state IN (1, 2);

-- The queue. Every write of a worker carries the epoch it was given; another epoch is a stale worker.
CREATE TABLE tasks(
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  kind TEXT NOT NULL CHECK(kind IN ('REGISTER', 'PROVE')),
  tenant TEXT NOT NULL,
  subject TEXT NOT NULL,
  state TEXT NOT NULL CHECK(state IN ('READY', 'RUNNING', 'DONE', 'FAILED', 'CANCELLED')),
  priority INTEGER NOT NULL,
  epoch INTEGER NOT NULL DEFAULT 0,
  attempt INTEGER NOT NULL DEFAULT 0,
  not_before_ms INTEGER NOT NULL DEFAULT 0,
  UNIQUE(kind, tenant, subject)
) STRICT;
CREATE INDEX tasks_ready ON tasks(priority DESC, id) WHERE state = 'READY';
CREATE INDEX tasks_running ON tasks(id) WHERE state = 'RUNNING';

CREATE TABLE events(
  kind TEXT NOT NULL CHECK(kind IN ('REGISTER', 'PROVE')),
  tenant TEXT NOT NULL,
  subject TEXT NOT NULL,
  seq INTEGER NOT NULL,
  body BLOB NOT NULL,               -- zkinfer.v1.ModelEvent or JobEvent
  PRIMARY KEY(kind, tenant, subject, seq)
) STRICT, WITHOUT ROWID;

CREATE TABLE artifacts(
  tenant TEXT NOT NULL,
  class TEXT NOT NULL CHECK(class IN ('PUBLIC', 'INTERNAL')),
  digest BLOB NOT NULL,
  size_bytes INTEGER NOT NULL,
  media_type TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  PRIMARY KEY(tenant, class, digest)
) STRICT, WITHOUT ROWID;

CREATE TABLE uploads(
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  digest BLOB NOT NULL,
  size_bytes INTEGER NOT NULL,
  media_type TEXT NOT NULL,
  committed_bytes INTEGER NOT NULL DEFAULT 0,
  is_complete INTEGER NOT NULL DEFAULT 0,
  created_ms INTEGER NOT NULL,
  PRIMARY KEY(tenant, id)
) STRICT, WITHOUT ROWID;
CREATE INDEX uploads_age ON uploads(created_ms);

CREATE TABLE idempotency(
  tenant TEXT NOT NULL,
  method TEXT NOT NULL,
  request_id TEXT NOT NULL,
  request_hash BLOB NOT NULL,
  response BLOB NOT NULL,
  created_ms INTEGER NOT NULL,
  PRIMARY KEY(tenant, method, request_id)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_age ON idempotency(created_ms);
