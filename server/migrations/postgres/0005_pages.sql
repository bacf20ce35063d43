-- Old artifacts are looked at page by page.
DROP INDEX artifacts_age;
CREATE INDEX artifacts_age ON artifacts(created_ms, tenant, class, digest) WHERE doomed_ms IS NULL AND is_counted = 1;
-- A job's row is written a few times; what changes none of its indexed columns stays on its page.
ALTER TABLE jobs SET (fillfactor = 70);
ALTER TABLE attempts SET (fillfactor = 80);
