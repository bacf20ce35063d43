-- What refers to artifacts, so that those that nothing refers to are deleted.

-- 0: recorded by an earlier version, which did not write down what refers to it. That is inside documents, which SQL cannot read: such an artifact stays.
-- The default is what a process of that version writes that still runs while others are upgraded.
ALTER TABLE artifacts ADD COLUMN is_counted INTEGER NOT NULL DEFAULT 0;
ALTER TABLE artifacts ADD COLUMN doomed_ms INTEGER;     -- NULL: it is there; else its bytes are being deleted, since then
CREATE INDEX artifacts_doomed ON artifacts(doomed_ms) WHERE doomed_ms IS NOT NULL;
CREATE INDEX artifacts_age ON artifacts(created_ms) WHERE doomed_ms IS NULL AND is_counted = 1;
CREATE INDEX uploads_digest ON uploads(tenant, digest);

CREATE TABLE artifact_references(
  tenant TEXT NOT NULL,
  class TEXT NOT NULL,
  digest BLOB NOT NULL,
  kind TEXT NOT NULL CHECK(kind IN ('MODEL', 'JOB', 'TASK')),
  subject TEXT NOT NULL,               -- model or job; TASK: the job whose tasks read it, until it is final
  PRIMARY KEY(tenant, class, digest, kind, subject)
) STRICT, WITHOUT ROWID;
CREATE INDEX artifact_references_subject ON artifact_references(tenant, kind, subject);

-- Who is about to store or to refer to an artifact holds it for a time.
CREATE TABLE artifact_holds(
  tenant TEXT NOT NULL,
  class TEXT NOT NULL,
  digest BLOB NOT NULL,
  until_ms INTEGER NOT NULL,
  PRIMARY KEY(tenant, class, digest)
) STRICT, WITHOUT ROWID;
CREATE INDEX artifact_holds_until ON artifact_holds(until_ms);
