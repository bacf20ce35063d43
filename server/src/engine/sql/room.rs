//! How many more subjects of a tenant may wait.
//!
//! Counting takes time that grows with the queue, and every admission asks. Far from the limit a count is therefore used for a second, with what was
//! admitted here since added; from nine tenths of the limit on it is counted every time. Several servers together can exceed a limit only if they admit
//! more than a tenth of it within that second.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::super::EngineError;
use super::{SqlEngine, Writing};

/// How long a count is used.
const FRESH: Duration = Duration::from_secs(1);
/// Tenants whose counts are kept; with more, all are forgotten.
const MAX_TENANTS: usize = 10_000;

/// What is free, and of how much.
pub(super) struct Room {
    pub(super) free: i64,
    limit: i64,
}

impl Room {
    pub(super) fn exceeded(&self) -> EngineError {
        EngineError::QuotaExceeded { what: "queued jobs", limit: u32::try_from(self.limit).unwrap_or(u32::MAX) }
    }
}

/// A count, and what was asked for since.
#[derive(Debug, Clone, Copy)]
struct Counted {
    waiting: i64,
    at: Instant,
}

/// The counts of tenants.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<HashMap<String, Counted>>);

impl Counts {
    /// A count that is still good enough for `n` more below `limit`; adds them.
    fn estimate(&self, tenant: &str, n: i64, limit: i64) -> Option<i64> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = counts.get_mut(tenant)?;
        let before = counted.waiting;
        if counted.at.elapsed() > FRESH || before.saturating_add(n) > limit / 10 * 9 {
            return None;
        }
        counted.waiting = before.saturating_add(n);
        Some(before)
    }

    fn keep(&self, tenant: &str, waiting: i64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= MAX_TENANTS {
            counts.clear();
        }
        counts.insert(tenant.to_owned(), Counted { waiting, at: Instant::now() });
    }
}

impl SqlEngine {
    /// Room for `n` more subjects of a tenant.
    pub(super) async fn room(&self, writing: &mut Writing, tenant: &str, n: i64) -> Result<Room, EngineError> {
        let own: Option<Option<i64>> = sqlx::query_scalar("SELECT max_queued FROM tenants WHERE tenant = $1")
            .bind(tenant)
            .fetch_optional(writing.connection())
            .await?;
        let limit = own.flatten().unwrap_or(i64::from(self.rules.queued_per_tenant));
        if let Some(waiting) = self.counts.estimate(tenant, n, limit) {
            return Ok(Room { free: limit - waiting, limit });
        }
        let waiting: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM jobs WHERE tenant = $1 AND state = 1) \
               + (SELECT count(*) FROM tasks WHERE kind = 'REGISTER' AND tenant = $1 AND state = 'READY')",
        )
        .bind(tenant)
        .fetch_one(writing.connection())
        .await?;
        self.counts.keep(tenant, waiting.saturating_add(n));
        Ok(Room { free: limit - waiting, limit })
    }

    pub(super) async fn check_room(&self, writing: &mut Writing, tenant: &str, n: i64) -> Result<(), EngineError> {
        let room = self.room(writing, tenant, n).await?;
        if room.free < n { Err(room.exceeded()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_used_only_far_from_the_limit() {
        let counts = Counts::default();
        assert_eq!(counts.estimate("acme", 1, 100), None, "nothing was counted");
        counts.keep("acme", 50);
        assert_eq!(counts.estimate("acme", 1, 100), Some(50));
        assert_eq!(counts.estimate("acme", 39, 100), Some(51));
        assert_eq!(counts.estimate("acme", 1, 100), None, "90 of 100 wait");
        assert_eq!(counts.estimate("acme", 1, 1000), Some(90));
        assert_eq!(counts.estimate("other", 1, 100), None);
    }
}
