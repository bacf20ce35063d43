-- The oldest program that works with the schema as each migration from this one on leaves it: CONTRIBUTING.md, Migrations. A program is named by the newest
-- migration that it has. Programs that do not have this one do not look here: they refuse whatever is newer.
CREATE TABLE schema_compatibility(
  version INTEGER NOT NULL PRIMARY KEY,
  oldest_program INTEGER NOT NULL CHECK(oldest_program BETWEEN 1 AND version)
) STRICT;
-- This table is nothing to an earlier program, but the secrets of jobs, which a program of this version encrypts if it has keys, are.
INSERT INTO schema_compatibility(version, oldest_program) VALUES (10, 10);
