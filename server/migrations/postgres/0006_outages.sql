-- When tasks of silent workers were last looked for, and the end of the leases that were given after an outage. One row.
CREATE TABLE reaping(
  id BIGINT NOT NULL PRIMARY KEY CHECK(id = 1),
  reaped_ms BIGINT NOT NULL,
  grace_until_ms BIGINT NOT NULL
);
INSERT INTO reaping(id, reaped_ms, grace_until_ms) VALUES (1, 0, 0);
