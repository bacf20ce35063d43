//! Outages: times in which nobody looked for silent workers, since the database or all servers were away. Nobody could renew a lease then either.
//!
//! The database keeps when silent workers were last looked for. If that is longer ago than half a lease, whoever holds a task is first given a whole
//! lease from now: a worker that lives renews within a third of it. Who does not may have gone with what was away; whose fault that was is not known.

use super::super::EngineError;
use super::{SqlEngine, Writing};

/// Gives what is held until $1, unless it is held for longer. Rows are locked in the order in which renewals lock them.
const EXTEND: &str = "UPDATE tasks SET lease_until_ms = $1 WHERE state = 'RUNNING' AND lease_until_ms < $1";
const EXTEND_LOCKED: &str = "WITH held AS MATERIALIZED ( \
       SELECT kind, tenant, subject, ordinal FROM tasks WHERE state = 'RUNNING' AND lease_until_ms < $1 \
       ORDER BY tenant, subject, name FOR UPDATE) \
     UPDATE tasks SET lease_until_ms = $1 FROM held \
     WHERE tasks.kind = held.kind AND tasks.tenant = held.tenant AND tasks.subject = held.subject AND tasks.ordinal = held.ordinal";

/// A look for silent workers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// The database's time.
    pub(super) now_ms: i64,
    /// A lease that ends then or earlier was given before the last outage, or because of it, and was not renewed since.
    pub(super) grace_until_ms: i64,
}

impl Look {
    /// Workers may still be on their way back from an outage.
    pub(super) fn is_in_grace(&self) -> bool {
        self.now_ms <= self.grace_until_ms
    }
}

impl SqlEngine {
    /// Begins a look for silent workers. After an outage, no lease has ended.
    pub(super) async fn begin_look(&self) -> Result<Look, EngineError> {
        let mut writing = self.begin().await?;
        // Whoever looks at the same time waits, and then sees no outage.
        let sql = writing.dialect.pick(
            "SELECT reaped_ms, grace_until_ms FROM reaping WHERE id = 1",
            "SELECT reaped_ms, grace_until_ms FROM reaping WHERE id = 1 FOR UPDATE",
        );
        let (reaped_ms, grace_until_ms): (i64, i64) = sqlx::query_as(sql).fetch_one(writing.connection()).await?;
        let now_ms = writing.now_ms;
        let look = if reaped_ms < now_ms.saturating_sub(self.rules.lease_ms / 2) {
            // A new database never was away.
            if reaped_ms > 0 {
                let away_ms = now_ms.saturating_sub(reaped_ms);
                tracing::warn!(away_ms, "nobody looked for silent workers meanwhile; whoever holds a task has a lease to come back");
            }
            Look { now_ms, grace_until_ms: self.extend_leases(&mut writing).await? }
        } else {
            sqlx::query("UPDATE reaping SET reaped_ms = $1 WHERE id = 1").bind(now_ms).execute(writing.connection()).await?;
            Look { now_ms, grace_until_ms }
        };
        self.commit(writing).await?;
        Ok(look)
    }

    /// Gives whoever holds a task the length of a lease from now; answers its end.
    pub(super) async fn extend_leases(&self, writing: &mut Writing) -> Result<i64, EngineError> {
        let (now_ms, until_ms) = (writing.now_ms, writing.now_ms.saturating_add(self.rules.lease_ms));
        let sql = writing.dialect.pick(EXTEND, EXTEND_LOCKED);
        sqlx::query(sql).bind(until_ms).execute(writing.connection()).await?;
        sqlx::query("UPDATE reaping SET reaped_ms = $1, grace_until_ms = $2 WHERE id = 1")
            .bind(now_ms)
            .bind(until_ms)
            .execute(writing.connection())
            .await?;
        Ok(until_ms)
    }
}
