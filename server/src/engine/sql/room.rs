//! How many more subjects of a tenant may wait.
//!
//! Counting takes time that grows with the queue, and every admission asks. Far from the limit a count is therefore used for a second, with what was
//! admitted here since added, and so is the limit; from nine tenths of it on both are read every time. Several servers together can exceed a limit only if
//! they admit more than a tenth of it within that second.

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
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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
    limit: i64,
    at: Instant,
}

/// The counts of tenants.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<HashMap<String, Counted>>);

impl Counts {
    /// The room for `n` more, if a count is still good enough; takes it.
    fn estimate(&self, tenant: &str, n: i64) -> Option<Room> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Counted { waiting, limit, at } = counts.get_mut(tenant)?;
        let before = *waiting;
        if at.elapsed() > FRESH {
            // This one counts again; the others need not wait for that.
            *at = Instant::now();
            return None;
        }
        if before.saturating_add(n) > *limit / 10 * 9 {
            return None;
        }
        *waiting = before.saturating_add(n);
        Some(Room { free: *limit - before, limit: *limit })
    }

    fn keep(&self, tenant: &str, waiting: i64, limit: i64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= MAX_TENANTS {
            counts.clear();
        }
        counts.insert(tenant.to_owned(), Counted { waiting, limit, at: Instant::now() });
    }

    /// The tenant's limit is another one now.
    pub(super) fn forget(&self, tenant: &str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(tenant);
    }
}

impl SqlEngine {
    /// Room for `n` more subjects of a tenant.
    pub(super) async fn room(&self, writing: &mut Writing, tenant: &str, n: i64) -> Result<Room, EngineError> {
        if let Some(room) = self.counts.estimate(tenant, n) {
            return Ok(room);
        }
        let (own, waiting): (Option<i64>, i64) = sqlx::query_as(
            "SELECT (SELECT max_queued FROM tenants WHERE tenant = $1), (SELECT count(*) FROM jobs WHERE tenant = $1 AND state = 1) \
               + (SELECT count(*) FROM tasks WHERE kind = 'REGISTER' AND tenant = $1 AND state = 'READY')",
        )
        .bind(tenant)
        .fetch_one(writing.connection())
        .await?;
        let limit = own.unwrap_or(i64::from(self.rules.queued_per_tenant));
        self.counts.keep(tenant, waiting.saturating_add(n), limit);
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
        assert_eq!(counts.estimate("acme", 1), None, "nothing was counted");
        counts.keep("acme", 50, 100);
        assert_eq!(counts.estimate("acme", 1), Some(Room { free: 50, limit: 100 }));
        assert_eq!(counts.estimate("acme", 39), Some(Room { free: 49, limit: 100 }));
        assert_eq!(counts.estimate("acme", 1), None, "90 of 100 wait");
        assert_eq!(counts.estimate("other", 1), None);
        counts.keep("acme", 50, 1000);
        assert!(counts.estimate("acme", 1).is_some());
        counts.forget("acme");
        assert_eq!(counts.estimate("acme", 1), None);
    }
}
