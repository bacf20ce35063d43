-- From one task a subject to a graph of tasks with leases. Jobs in flight keep their place: what was READY or RUNNING is a graph of one task.

ALTER TABLE models ADD COLUMN graph BLOB;              -- zkinfer.v1.TaskGraph of its jobs; NULL: one task, `prove`
ALTER TABLE jobs ADD COLUMN priority INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN batch TEXT;
UPDATE jobs SET priority = coalesce((SELECT priority FROM tasks WHERE kind = 'PROVE' AND tasks.tenant = jobs.tenant AND subject = jobs.id), 0);

CREATE TABLE job_labels(
  tenant TEXT NOT NULL,
  job TEXT NOT NULL,
  key TEXT NOT NULL,
  value TEXT NOT NULL,
  PRIMARY KEY(tenant, key, value, job)
) STRICT, WITHOUT ROWID;
INSERT INTO job_labels(tenant, job, key, value) SELECT jobs.tenant, jobs.id, label.key, label.value FROM jobs, json_each(jobs.labels) AS label;
ALTER TABLE jobs DROP COLUMN labels;
CREATE INDEX jobs_queued ON jobs(tenant, priority DESC, id) WHERE state = 1;
CREATE INDEX jobs_batch ON jobs(tenant, batch, id) WHERE batch IS NOT NULL;

CREATE TABLE batches(
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  n_jobs INTEGER NOT NULL,
  created_ms INTEGER NOT NULL,
  PRIMARY KEY(tenant, id)
) STRICT, WITHOUT ROWID;

-- The queue. Every write of a worker carries the epoch it was given; another epoch is a stale worker.
CREATE TABLE graph_tasks(
  kind TEXT NOT NULL CHECK(kind IN ('REGISTER', 'PROVE')),
  tenant TEXT NOT NULL,
  subject TEXT NOT NULL,
  ordinal INTEGER NOT NULL,            -- in the graph
  name TEXT NOT NULL,
  step TEXT NOT NULL,
  state TEXT NOT NULL CHECK(state IN ('WAITING', 'READY', 'RUNNING', 'DONE', 'FAILED', 'CANCELLED')),
  waiting_on INTEGER NOT NULL CHECK(waiting_on >= 0),
  priority INTEGER NOT NULL,
  level INTEGER NOT NULL,            -- placement::level: priority and age in one number
  created_ms INTEGER NOT NULL,         -- of the subject
  rank_ms INTEGER NOT NULL,            -- longest way to the end
  estimated_ms INTEGER NOT NULL,
  device_bytes INTEGER NOT NULL,
  model_digest BLOB,                   -- whoever holds this model ready is preferred
  sibling TEXT,                        -- session that holds what this task opens
  epoch INTEGER NOT NULL DEFAULT 0,
  session TEXT,
  lease_until_ms INTEGER NOT NULL DEFAULT 0,
  not_before_ms INTEGER NOT NULL DEFAULT 0,
  attempts INTEGER NOT NULL DEFAULT 0,
  failed_task INTEGER NOT NULL DEFAULT 0,
  failed_infra INTEGER NOT NULL DEFAULT 0,
  failed_memory INTEGER NOT NULL DEFAULT 0,
  deaths INTEGER NOT NULL DEFAULT 0,
  output BLOB,                         -- digest of an internal artifact
  PRIMARY KEY(kind, tenant, subject, ordinal),
  UNIQUE(kind, tenant, subject, name)
) STRICT, WITHOUT ROWID;
INSERT INTO graph_tasks(kind, tenant, subject, ordinal, name, step, state, waiting_on, priority, level, created_ms, rank_ms, estimated_ms, device_bytes,
    model_digest, epoch, not_before_ms, attempts, failed_infra)
  SELECT tasks.kind, tasks.tenant, subject, 0, CASE tasks.kind WHEN 'REGISTER' THEN 'register' ELSE 'prove' END,
    CASE tasks.kind WHEN 'REGISTER' THEN 'register' ELSE 'prove' END,
    CASE tasks.state WHEN 'RUNNING' THEN 'READY' ELSE tasks.state END, 0, tasks.priority,
    max(-9, min(9, tasks.priority)) - coalesce(jobs.created_ms, models.created_ms, 0) / 20000, coalesce(jobs.created_ms, models.created_ms, 0), 0, 0, 0,
    (SELECT private_digest FROM models AS own WHERE own.tenant = jobs.tenant AND own.id = jobs.model_id), epoch + 1, not_before_ms, attempt,
    CASE tasks.state WHEN 'RUNNING' THEN 1 ELSE 0 END
  FROM tasks LEFT JOIN jobs ON tasks.kind = 'PROVE' AND jobs.tenant = tasks.tenant AND jobs.id = subject
    LEFT JOIN models ON tasks.kind = 'REGISTER' AND models.tenant = tasks.tenant AND models.id = subject;
-- A job that ran and was told to stop ends at the next start, when its deadline or its cancellation is looked at.
DROP TABLE tasks;
ALTER TABLE graph_tasks RENAME TO tasks;
CREATE INDEX tasks_ready ON tasks(tenant, level DESC, rank_ms DESC, created_ms, subject, ordinal) WHERE state = 'READY';
CREATE INDEX tasks_of_model ON tasks(model_digest, level DESC, rank_ms DESC, created_ms, subject, ordinal) WHERE state = 'READY';
CREATE INDEX tasks_of_sibling ON tasks(sibling, level DESC, rank_ms DESC) WHERE state = 'READY' AND sibling IS NOT NULL;
CREATE INDEX tasks_running ON tasks(session, lease_until_ms) WHERE state = 'RUNNING';
CREATE INDEX tasks_running_of ON tasks(tenant) WHERE state = 'RUNNING';
CREATE INDEX tasks_waiting ON tasks(tenant) WHERE state = 'WAITING';

-- Task `task` reads the result of task `needs`; both ordinals of one job's graph.
CREATE TABLE deps(
  tenant TEXT NOT NULL,
  job TEXT NOT NULL,
  needs INTEGER NOT NULL,
  task INTEGER NOT NULL,
  PRIMARY KEY(tenant, job, needs, task)
) STRICT, WITHOUT ROWID;

CREATE TABLE attempts(
  kind TEXT NOT NULL,
  tenant TEXT NOT NULL,
  subject TEXT NOT NULL,
  ordinal INTEGER NOT NULL,
  epoch INTEGER NOT NULL,
  worker TEXT NOT NULL,
  device TEXT NOT NULL DEFAULT '',
  started_ms INTEGER NOT NULL,
  ended_ms INTEGER,
  outcome TEXT NOT NULL DEFAULT '',
  PRIMARY KEY(kind, tenant, subject, ordinal, epoch)
) STRICT, WITHOUT ROWID;

-- When a tenant was last given something.
CREATE INDEX attempts_recent ON attempts(tenant, started_ms);

CREATE TABLE sessions(
  id TEXT NOT NULL PRIMARY KEY,
  worker TEXT NOT NULL,
  is_local INTEGER NOT NULL,
  devices TEXT NOT NULL,               -- a line each
  opened_ms INTEGER NOT NULL,
  seen_ms INTEGER NOT NULL,
  is_cordoned INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- The key is the promise that a job has one result.
CREATE TABLE results(
  tenant TEXT NOT NULL,
  job TEXT NOT NULL,
  proof TEXT NOT NULL,                 -- artifact's name
  published_ms INTEGER NOT NULL,
  PRIMARY KEY(tenant, job)
) STRICT, WITHOUT ROWID;

CREATE TABLE tenants(
  tenant TEXT NOT NULL PRIMARY KEY,
  share_milli INTEGER NOT NULL DEFAULT 1000 CHECK(share_milli > 0),
  max_queued INTEGER,                  -- NULL: the service's limit
  max_running INTEGER,                 -- NULL: none
  is_paused INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

CREATE TABLE webhooks(
  tenant TEXT NOT NULL,
  id TEXT NOT NULL,
  url TEXT NOT NULL,
  secret BLOB NOT NULL,
  created_ms INTEGER NOT NULL,
  PRIMARY KEY(tenant, id)
) STRICT, WITHOUT ROWID;

-- What is still to be sent to webhooks: written with the event that it tells of.
CREATE TABLE outbox(
  tenant TEXT NOT NULL,
  webhook TEXT NOT NULL,
  job TEXT NOT NULL,
  seq INTEGER NOT NULL,
  not_before_ms INTEGER NOT NULL,
  tries INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY(tenant, webhook, job, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX outbox_due ON outbox(not_before_ms);
