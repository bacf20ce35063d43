-- When a tenant was last given a task of a job that was deleted: deleting its jobs does not bring it forward.
ALTER TABLE tenants ADD COLUMN last_leased_ms BIGINT NOT NULL DEFAULT 0;
