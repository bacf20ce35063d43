-- Ready tasks that need a host of some size, or of which it was told that nobody can hold them: looked for every few seconds, however many others are ready.
CREATE INDEX tasks_of_hosts ON tasks(host_bytes) WHERE state = 'READY' AND host_bytes > 0;
CREATE INDEX tasks_too_large ON tasks(too_large_ms) WHERE state = 'READY' AND too_large_ms IS NOT NULL;

-- An earlier program finds the same, reading more.
INSERT INTO schema_compatibility(version, oldest_program) VALUES (16, 10);
