-- When a tenant was last given something. With a condition that holds for every row, which only that question names: PostgreSQL keeps plans that it made
-- when tables were almost empty, and then this index, being narrow, looked better for finding one attempt than the attempt's own key.
DROP INDEX attempts_recent;
CREATE INDEX attempts_recent ON attempts(tenant, started_ms) WHERE started_ms > 0;

-- An earlier program finds the same, reading more.
INSERT INTO schema_compatibility(version, oldest_program) VALUES (15, 10);
