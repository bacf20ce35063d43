//! What the queue says of itself.

/// Facts about the queue, from the database.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueFacts {
    /// Tasks that a worker may take, now or after a wait.
    pub ready: u64,
    /// Tasks that workers have.
    pub running: u64,
    /// When the oldest job that no worker has was created, in milliseconds since 1970.
    pub oldest_queued_ms: Option<i64>,
}
