-- Everything that must survive a crash: the schema of the SQLite engine at its version 2, for PostgreSQL 15 and later. All tables are logged.
-- Times are milliseconds since 1970 of the database's clock. `doc` and `body` are messages of zkinfer.v1 in their wire encoding.

CREATE TABLE models(
  tenant TEXT COLLATE "C" NOT NULL,
  id TEXT COLLATE "C" NOT NULL,
  state BIGINT NOT NULL,
  created_ms BIGINT NOT NULL,
  last_seq BIGINT NOT NULL,
  doc BYTEA NOT NULL,                -- zkinfer.v1.Model
  salt BYTEA NOT NULL,               -- of the model commitment; zero if the weights are public
  seed BYTEA NOT NULL,               -- makes each attempt give the same bytes
  private_digest BYTEA,              -- internal artifact: what proving needs
  graph BYTEA,                       -- zkinfer.v1.TaskGraph of its jobs; NULL: one task, `prove`
  PRIMARY KEY(tenant, id)
);
CREATE INDEX models_list ON models(tenant, created_ms DESC, id DESC);

CREATE TABLE jobs(
  tenant TEXT COLLATE "C" NOT NULL,
  id TEXT COLLATE "C" NOT NULL,
  model_id TEXT COLLATE "C" NOT NULL,
  state BIGINT NOT NULL,
  created_ms BIGINT NOT NULL,
  deadline_ms BIGINT,
  priority BIGINT NOT NULL,
  batch TEXT COLLATE "C",
  last_seq BIGINT NOT NULL,
  doc BYTEA NOT NULL,                -- zkinfer.v1.Job
  stop_cause TEXT COLLATE "C" CHECK(stop_cause IN ('CANCEL', 'DEADLINE')),
  stop_note TEXT COLLATE "C",
  input_salt BYTEA,                  -- erased when the job is final
  seed BYTEA,                        -- erased when the job is final
  PRIMARY KEY(tenant, id),
  FOREIGN KEY(tenant, model_id) REFERENCES models(tenant, id)
);
CREATE INDEX jobs_list ON jobs(tenant, created_ms DESC, id DESC);
CREATE INDEX jobs_deadline ON jobs(deadline_ms) WHERE deadline_ms IS NOT NULL AND stop_cause IS NULL AND state IN (1, 2);
CREATE INDEX jobs_queued ON jobs(tenant, priority DESC, id) WHERE state = 1;
CREATE INDEX jobs_batch ON jobs(tenant, batch, id) WHERE batch IS NOT NULL;

CREATE TABLE job_labels(
  tenant TEXT COLLATE "C" NOT NULL,
  job TEXT COLLATE "C" NOT NULL,
  key TEXT COLLATE "C" NOT NULL,
  value TEXT COLLATE "C" NOT NULL,
  PRIMARY KEY(tenant, key, value, job)
);

CREATE TABLE batches(
  tenant TEXT COLLATE "C" NOT NULL,
  id TEXT COLLATE "C" NOT NULL,
  n_jobs BIGINT NOT NULL,
  created_ms BIGINT NOT NULL,
  PRIMARY KEY(tenant, id)
);

-- The queue. Every write of a worker carries the epoch it was given; another epoch is a stale worker.
CREATE TABLE tasks(
  kind TEXT COLLATE "C" NOT NULL CHECK(kind IN ('REGISTER', 'PROVE')),
  tenant TEXT COLLATE "C" NOT NULL,
  subject TEXT COLLATE "C" NOT NULL,
  ordinal BIGINT NOT NULL,            -- in the graph
  name TEXT COLLATE "C" NOT NULL,
  step TEXT COLLATE "C" NOT NULL,
  state TEXT COLLATE "C" NOT NULL CHECK(state IN ('WAITING', 'READY', 'RUNNING', 'DONE', 'FAILED', 'CANCELLED')),
  waiting_on BIGINT NOT NULL CHECK(waiting_on >= 0),
  priority BIGINT NOT NULL,
  level BIGINT NOT NULL,            -- placement::level: priority and age in one number
  created_ms BIGINT NOT NULL,         -- of the subject
  rank_ms BIGINT NOT NULL,            -- longest way to the end
  estimated_ms BIGINT NOT NULL,
  device_bytes BIGINT NOT NULL,
  model_digest BYTEA,                   -- whoever holds this model ready is preferred
  sibling TEXT COLLATE "C",                        -- session that holds what this task opens
  epoch BIGINT NOT NULL DEFAULT 0,
  session TEXT COLLATE "C",
  lease_until_ms BIGINT NOT NULL DEFAULT 0,
  not_before_ms BIGINT NOT NULL DEFAULT 0,
  attempts BIGINT NOT NULL DEFAULT 0,
  failed_task BIGINT NOT NULL DEFAULT 0,
  failed_infra BIGINT NOT NULL DEFAULT 0,
  failed_memory BIGINT NOT NULL DEFAULT 0,
  deaths BIGINT NOT NULL DEFAULT 0,
  output BYTEA,                         -- digest of an internal artifact
  PRIMARY KEY(kind, tenant, subject, ordinal),
  UNIQUE(kind, tenant, subject, name)
) WITH (fillfactor = 70);
CREATE INDEX tasks_ready ON tasks(tenant, level DESC, rank_ms DESC, created_ms, subject, ordinal) WHERE state = 'READY';
CREATE INDEX tasks_of_model ON tasks(model_digest, level DESC, rank_ms DESC, created_ms, subject, ordinal) WHERE state = 'READY';
CREATE INDEX tasks_of_sibling ON tasks(sibling, level DESC, rank_ms DESC) WHERE state = 'READY' AND sibling IS NOT NULL;
CREATE INDEX tasks_running ON tasks(session, lease_until_ms) WHERE state = 'RUNNING';
CREATE INDEX tasks_running_of ON tasks(tenant) WHERE state = 'RUNNING';
CREATE INDEX tasks_waiting ON tasks(tenant) WHERE state = 'WAITING';

-- Task `task` reads the result of task `needs`; both ordinals of one job's graph.
CREATE TABLE deps(
  tenant TEXT COLLATE "C" NOT NULL,
  job TEXT COLLATE "C" NOT NULL,
  needs BIGINT NOT NULL,
  task BIGINT NOT NULL,
  PRIMARY KEY(tenant, job, needs, task)
);

CREATE TABLE attempts(
  kind TEXT COLLATE "C" NOT NULL,
  tenant TEXT COLLATE "C" NOT NULL,
  subject TEXT COLLATE "C" NOT NULL,
  ordinal BIGINT NOT NULL,
  epoch BIGINT NOT NULL,
  worker TEXT COLLATE "C" NOT NULL,
  device TEXT COLLATE "C" NOT NULL DEFAULT '',
  started_ms BIGINT NOT NULL,
  ended_ms BIGINT,
  outcome TEXT COLLATE "C" NOT NULL DEFAULT '',
  PRIMARY KEY(kind, tenant, subject, ordinal, epoch)
);

-- When a tenant was last given something.
CREATE INDEX attempts_recent ON attempts(tenant, started_ms);

CREATE TABLE sessions(
  id TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  worker TEXT COLLATE "C" NOT NULL,
  is_local BIGINT NOT NULL,
  devices TEXT COLLATE "C" NOT NULL,               -- a line each
  opened_ms BIGINT NOT NULL,
  seen_ms BIGINT NOT NULL,
  is_cordoned BIGINT NOT NULL DEFAULT 0
);

-- The key is the promise that a job has one result.
CREATE TABLE results(
  tenant TEXT COLLATE "C" NOT NULL,
  job TEXT COLLATE "C" NOT NULL,
  proof TEXT COLLATE "C" NOT NULL,                 -- artifact's name
  published_ms BIGINT NOT NULL,
  PRIMARY KEY(tenant, job)
);

CREATE TABLE tenants(
  tenant TEXT COLLATE "C" NOT NULL PRIMARY KEY,
  share_milli BIGINT NOT NULL DEFAULT 1000 CHECK(share_milli > 0),
  max_queued BIGINT,                  -- NULL: the service's limit
  max_running BIGINT,                 -- NULL: none
  is_paused BIGINT NOT NULL DEFAULT 0
);

CREATE TABLE webhooks(
  tenant TEXT COLLATE "C" NOT NULL,
  id TEXT COLLATE "C" NOT NULL,
  url TEXT COLLATE "C" NOT NULL,
  secret BYTEA NOT NULL,
  created_ms BIGINT NOT NULL,
  PRIMARY KEY(tenant, id)
);

-- What is still to be sent to webhooks: written with the event that it tells of.
CREATE TABLE outbox(
  tenant TEXT COLLATE "C" NOT NULL,
  webhook TEXT COLLATE "C" NOT NULL,
  job TEXT COLLATE "C" NOT NULL,
  seq BIGINT NOT NULL,
  not_before_ms BIGINT NOT NULL,
  tries BIGINT NOT NULL DEFAULT 0,
  PRIMARY KEY(tenant, webhook, job, seq)
);
CREATE INDEX outbox_due ON outbox(not_before_ms);

CREATE TABLE events(
  kind TEXT COLLATE "C" NOT NULL CHECK(kind IN ('REGISTER', 'PROVE')),
  tenant TEXT COLLATE "C" NOT NULL,
  subject TEXT COLLATE "C" NOT NULL,
  seq BIGINT NOT NULL,
  body BYTEA NOT NULL,               -- zkinfer.v1.ModelEvent or JobEvent
  PRIMARY KEY(kind, tenant, subject, seq)
);

CREATE TABLE artifacts(
  tenant TEXT COLLATE "C" NOT NULL,
  class TEXT COLLATE "C" NOT NULL CHECK(class IN ('PUBLIC', 'INTERNAL')),
  digest BYTEA NOT NULL,
  size_bytes BIGINT NOT NULL,
  media_type TEXT COLLATE "C" NOT NULL,
  created_ms BIGINT NOT NULL,
  PRIMARY KEY(tenant, class, digest)
);

CREATE TABLE uploads(
  tenant TEXT COLLATE "C" NOT NULL,
  id TEXT COLLATE "C" NOT NULL,
  digest BYTEA NOT NULL,
  size_bytes BIGINT NOT NULL,
  media_type TEXT COLLATE "C" NOT NULL,
  committed_bytes BIGINT NOT NULL DEFAULT 0,
  is_complete BIGINT NOT NULL DEFAULT 0,
  created_ms BIGINT NOT NULL,
  PRIMARY KEY(tenant, id)
);
CREATE INDEX uploads_age ON uploads(created_ms);

CREATE TABLE idempotency(
  tenant TEXT COLLATE "C" NOT NULL,
  method TEXT COLLATE "C" NOT NULL,
  request_id TEXT COLLATE "C" NOT NULL,
  request_hash BYTEA NOT NULL,
  response BYTEA NOT NULL,
  created_ms BIGINT NOT NULL,
  PRIMARY KEY(tenant, method, request_id)
);
CREATE INDEX idempotency_age ON idempotency(created_ms);
