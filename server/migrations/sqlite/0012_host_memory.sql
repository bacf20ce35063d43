-- Memory of the host of a session's worker; NULL: not known.
ALTER TABLE sessions ADD COLUMN host_bytes INTEGER;

-- Host memory that a task needs, which is known once a worker ended for want of it; 0: not known.
ALTER TABLE tasks ADD COLUMN host_bytes INTEGER NOT NULL DEFAULT 0;

-- An earlier program sets none of it, and reads none.
INSERT INTO schema_compatibility(version, oldest_program) VALUES (12, 10);
