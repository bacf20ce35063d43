-- Old artifacts are looked at page by page.
DROP INDEX artifacts_age;
CREATE INDEX artifacts_age ON artifacts(created_ms, tenant, class, digest) WHERE doomed_ms IS NULL AND is_counted = 1;
