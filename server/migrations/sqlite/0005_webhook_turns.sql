-- A webhook has one delivery on its way at a time, and is left alone for a while after it did not hear: others do not wait for it.
ALTER TABLE webhooks ADD COLUMN not_before_ms INTEGER NOT NULL DEFAULT 0;  -- then it has its next turn
ALTER TABLE webhooks ADD COLUMN failures INTEGER NOT NULL DEFAULT 0;       -- since it last heard
DROP INDEX outbox_due;
CREATE INDEX outbox_next ON outbox(tenant, webhook, not_before_ms);
