-- When a tenant was last given something, with the condition that the question for it names.
DROP INDEX attempts_recent;
CREATE INDEX attempts_recent ON attempts(tenant, started_ms) WHERE started_ms > 0;

-- An earlier program finds the same, reading more.
INSERT INTO schema_compatibility(version, oldest_program) VALUES (15, 10);
