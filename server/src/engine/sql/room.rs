//! How many more subjects of a tenant may wait.
//!
//! Counting takes time that grows with the queue, and every admission asks. Far from the limit a count is therefore used for a second, or for ten times as
//! long as it took up to ten seconds, with what was admitted here since added, and so is the limit; from nine tenths of it on both are read every time. Several servers
//! together can exceed a limit only if they admit more than a tenth of it within that time.
//!
//! In PostgreSQL a count does not see what others are admitting at the same time, jobs or batches. So one at a time counts a tenant's, and the next waits
//! until it is known what became of that; what this server admits by a count of before is reserved while it is on its way, and added. In SQLite one
//! connection writes, which sees everything.

use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::super::EngineError;
use super::{Dialect, SqlEngine, Writing};

/// How long a count is used, at least and at most.
const FRESH: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(10);
/// A count that took t is used for so many t: a million jobs take 0.2 s.
const SHARE: u32 = 10;
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
    /// None: it is being counted again.
    until: Option<Instant>,
}

/// The counts of tenants.
#[derive(Debug, Default)]
pub(super) struct Counts(Mutex<Tenants>);

#[derive(Debug, Default)]
struct Tenants {
    counted: HashMap<String, Counted>,
    /// Places that were taken without a look at the database, and are not filled there yet.
    reserved: HashMap<String, i64>,
}

/// Places of a tenant that are taken until this is dropped: when the transaction that fills them has ended.
#[derive(Debug)]
pub(super) struct Reservation {
    counts: Arc<Counts>,
    tenant: String,
    n: i64,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let reserved = &mut self.counts.lock().reserved;
        if let Some(n) = reserved.get_mut(&self.tenant) {
            *n -= self.n;
            if *n <= 0 {
                reserved.remove(&self.tenant);
            }
        }
    }
}

/// Whether a count is good enough for `n` more.
fn is_far(waiting: i64, n: i64, limit: i64) -> bool {
    waiting.saturating_add(n) <= limit / 10 * 9
}

impl Counts {
    /// The room for `n` more, if a count is still good enough; reserves it.
    fn estimate(self: &Arc<Self>, tenant: &str, n: i64) -> Option<(Room, Reservation)> {
        let mut tenants = self.lock();
        let Tenants { counted, reserved } = &mut *tenants;
        let Counted { waiting, limit, until } = counted.get_mut(tenant)?;
        let before = *waiting;
        if until.is_none_or(|until| Instant::now() > until) {
            return None;
        }
        if !is_far(before, n, *limit) {
            return None;
        }
        *waiting = before.saturating_add(n);
        *reserved.entry(tenant.to_owned()).or_default() += n;
        Some((Room { free: *limit - before, limit: *limit }, Reservation { counts: self.clone(), tenant: tenant.to_owned(), n }))
    }

    /// The room at the last count, however old, if that was far from the limit: who is refused by a newer one has made it the last.
    fn last(&self, tenant: &str, n: i64) -> Option<Room> {
        let Counted { waiting, limit, .. } = *self.lock().counted.get(tenant)?;
        is_far(waiting, n, limit).then_some(Room { free: limit - waiting, limit })
    }

    /// From now on nothing is admitted by a count of before; answers how many are on their way by one.
    fn begin(&self, tenant: &str) -> i64 {
        let mut tenants = self.lock();
        if let Some(counted) = tenants.counted.get_mut(tenant) {
            counted.until = None;
        }
        tenants.reserved.get(tenant).copied().unwrap_or(0)
    }

    fn keep(&self, tenant: &str, waiting: i64, limit: i64, took: Duration) {
        let counted = &mut self.lock().counted;
        if counted.len() >= MAX_TENANTS {
            counted.clear();
        }
        counted.insert(
            tenant.to_owned(),
            Counted { waiting, limit, until: Some(Instant::now() + took.saturating_mul(SHARE).clamp(*FRESH.start(), *FRESH.end())) },
        );
    }

    /// The tenant's limit is another one now.
    pub(super) fn forget(&self, tenant: &str) {
        self.lock().counted.remove(tenant);
    }

    fn lock(&self) -> MutexGuard<'_, Tenants> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A tenant's own limit, if it has one, and how many wait.
const WAITING: &str = "SELECT (SELECT max_queued FROM tenants WHERE tenant = $1), (SELECT count(*) FROM jobs WHERE tenant = $1 AND state = 1) \
   + (SELECT count(*) FROM tasks WHERE kind = 'REGISTER' AND tenant = $1 AND state = 'READY')";

impl SqlEngine {
    /// Room for `n` more subjects of a tenant.
    pub(super) async fn room(&self, writing: &mut Writing, tenant: &str, n: i64) -> Result<Room, EngineError> {
        if let Some(room) = self.estimate(writing, tenant, n) {
            return Ok(room);
        }
        let mut elsewhere = 0;
        if writing.dialect == Dialect::Postgres {
            count_alone(writing, "room", tenant).await?;
            // Whoever was waited for may just have counted.
            if let Some(room) = self.estimate(writing, tenant, n) {
                return Ok(room);
            }
            // Asked before the new count: what arrives in between is counted twice, never not at all.
            elsewhere = self.counts.begin(tenant);
        }
        let began = Instant::now();
        let (own, waiting): (Option<i64>, i64) = sqlx::query_as(WAITING).bind(tenant).fetch_one(writing.connection()).await?;
        let waiting = waiting.saturating_add(elsewhere);
        let limit = own.unwrap_or(i64::from(self.rules.queued_per_tenant));
        self.counts.keep(tenant, waiting.saturating_add(n), limit, began.elapsed());
        Ok(Room { free: limit - waiting, limit })
    }

    /// The room by the last count, if that is good enough; the places are taken until the transaction ends.
    fn estimate(&self, writing: &mut Writing, tenant: &str, n: i64) -> Option<Room> {
        let (room, reservation) = self.counts.estimate(tenant, n)?;
        writing.reserved.push(reservation);
        Some(room)
    }

    /// Room for `n` more, as far as it can be told without a transaction; reserves nothing.
    pub(super) async fn likely_room(&self, tenant: &str, n: i64) -> Result<Room, EngineError> {
        if let Some(room) = self.counts.last(tenant, n) {
            return Ok(room);
        }
        let (own, waiting): (Option<i64>, i64) = sqlx::query_as(WAITING).bind(tenant).fetch_one(&self.readers).await?;
        let limit = own.unwrap_or(i64::from(self.rules.queued_per_tenant));
        Ok(Room { free: limit - waiting, limit })
    }

    pub(super) async fn check_room(&self, writing: &mut Writing, tenant: &str, n: i64) -> Result<(), EngineError> {
        let room = self.room(writing, tenant, n).await?;
        if room.free < n { Err(room.exceeded()) } else { Ok(()) }
    }
}

/// Waits until nobody else counts what a tenant has of something, in order to add to it. In SQLite nobody else writes.
pub(super) async fn count_alone(writing: &mut Writing, what: &'static str, tenant: &str) -> Result<(), EngineError> {
    if writing.dialect == Dialect::Postgres {
        // Held until the transaction ends.
        sqlx::query("SELECT 1 FROM pg_advisory_xact_lock(hashtextextended($1 || ' of ' || $2, 0))")
            .bind(what)
            .bind(tenant)
            .execute(writing.connection())
            .await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_used_only_far_from_the_limit() {
        let counts = Arc::new(Counts::default());
        let estimate = |tenant, n| counts.estimate(tenant, n).map(|(room, _)| room);
        assert_eq!(estimate("acme", 1), None, "nothing was counted");
        assert_eq!(counts.last("acme", 1), None);
        counts.keep("acme", 50, 100, Duration::ZERO);
        assert_eq!(counts.last("acme", 40), Some(Room { free: 50, limit: 100 }), "nothing is taken");
        assert_eq!(counts.last("acme", 41), None);
        assert_eq!(estimate("acme", 1), Some(Room { free: 50, limit: 100 }));
        assert_eq!(estimate("acme", 39), Some(Room { free: 49, limit: 100 }));
        assert_eq!(estimate("acme", 1), None, "90 of 100 wait");
        assert_eq!(estimate("other", 1), None);
        counts.keep("acme", 50, 1000, Duration::ZERO);
        assert!(estimate("acme", 1).is_some());
        counts.forget("acme");
        assert_eq!(estimate("acme", 1), None);
    }

    #[test]
    fn what_is_long_to_count_is_counted_less_often() {
        let counts = Counts::default();
        let used_for = |took| {
            counts.keep("acme", 0, 100, took);
            counts.lock().counted["acme"].until.unwrap().duration_since(Instant::now()).as_secs_f64().round()
        };
        assert_eq!([0, 50, 500, 30_000].map(|took_ms| used_for(Duration::from_millis(took_ms))), [1.0, 1.0, 5.0, 10.0]);
    }

    #[test]
    fn what_is_admitted_by_a_count_of_before_is_reserved_until_it_is_done() {
        let counts = Arc::new(Counts::default());
        counts.keep("acme", 0, 100, Duration::ZERO);
        let (_, first) = counts.estimate("acme", 30).unwrap();
        let (_, second) = counts.estimate("acme", 40).unwrap();
        assert_eq!((counts.begin("acme"), counts.begin("other")), (70, 0), "whoever counts meanwhile knows of them");
        assert!(counts.estimate("acme", 1).is_none(), "and nobody joins them before the new count is there");
        assert_eq!(counts.last("acme", 1), Some(Room { free: 30, limit: 100 }), "but who only looks ahead asks nobody");
        drop(first);
        counts.keep("acme", 30, 100, Duration::ZERO);
        assert_eq!(counts.begin("acme"), 40);
        drop(second);
        assert!(counts.begin("acme") == 0 && counts.lock().reserved.is_empty());
    }
}
