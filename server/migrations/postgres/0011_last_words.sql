-- The end of what a worker's process wrote to its standard error before it died with the attempt; for operators only.
ALTER TABLE attempts ADD COLUMN last_words TEXT COLLATE "C" NOT NULL DEFAULT '';

-- An earlier program sets none of it, and reads none.
INSERT INTO schema_compatibility(version, oldest_program) VALUES (11, 10);
