-- Most device memory that a session ever offered; NULL: it has not asked for tasks yet; the largest integer: it computes on processors, which hold any task.
ALTER TABLE sessions ADD COLUMN device_bytes INTEGER;

-- Since when no worker could hold a ready task; NULL: one can, or it was not looked at.
ALTER TABLE tasks ADD COLUMN too_large_ms INTEGER;
