//! How full the queue is. Reads only what is ready or running, of which there is an index each.

use super::super::EngineError;
use super::SqliteEngine;
use crate::observe::QueueFacts;

impl SqliteEngine {
    pub(super) async fn queue_facts(&self) -> Result<QueueFacts, EngineError> {
        let count = "SELECT count(*) FROM tasks WHERE state = 'READY' UNION ALL SELECT count(*) FROM tasks WHERE state = 'RUNNING'";
        let counts: Vec<i64> = sqlx::query_scalar(count).fetch_all(&self.readers).await?;
        let oldest = "SELECT min(jobs.created_ms) FROM tasks JOIN jobs ON jobs.tenant = tasks.tenant AND jobs.id = tasks.subject \
                      WHERE tasks.state = 'READY' AND tasks.kind = 'PROVE'";
        let oldest_queued_ms: Option<i64> = sqlx::query_scalar(oldest).fetch_one(&self.readers).await?;
        let nth = |index: usize| counts.get(index).copied().unwrap_or(0).unsigned_abs();
        Ok(QueueFacts { ready: nth(0), running: nth(1), oldest_queued_ms })
    }
}
