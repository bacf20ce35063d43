-- When a tenant was last given something, with the condition that the question for it names.
DROP INDEX attempts_recent;
CREATE INDEX attempts_recent ON attempts(tenant, started_ms) WHERE started_ms > 0;

-- Whether a tenant has something ready for so much memory. Only that question names the second condition, so that lists in another order do not come here.
CREATE INDEX tasks_ready_by_memory ON tasks(tenant, device_bytes, host_bytes, not_before_ms) WHERE state = 'READY' AND device_bytes >= 0;

-- An earlier program finds the same, reading more.
INSERT INTO schema_compatibility(version, oldest_program) VALUES (15, 10);
