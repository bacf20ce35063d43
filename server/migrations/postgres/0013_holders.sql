-- Models that a session holds ready, as it told last: their private digests, one behind the other; NULL: it has told none.
ALTER TABLE sessions ADD COLUMN models BYTEA;

-- What a task takes longer where the weights that it works with do not lie ready.
ALTER TABLE tasks ADD COLUMN load_ms BIGINT NOT NULL DEFAULT 0;

-- An earlier program sets none of it, and reads none.
INSERT INTO schema_compatibility(version, oldest_program) VALUES (13, 10);
