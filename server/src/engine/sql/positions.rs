//! Places in a tenant's queue.
//!
//! Counting takes time that grows with the place, and clients ask again and again. A place near the front is counted each time. What is farther back is
//! looked for in the order of the queue as it was a moment ago, so that a place far from the front may be behind by so long.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::AnyConnection;
use zkinfer_proto::v1;

use super::super::{EngineError, Subject, timestamp_ms};
use super::SqlEngine;

/// Places that are told; farther back it is the last of them.
const LAST: usize = 1000;
/// Places before this one are counted each time.
const COUNTED: usize = 100;
/// How long an order is used.
const FRESH: Duration = Duration::from_millis(250);
/// Tenants whose orders are kept; with more, all are forgotten.
const MAX_TENANTS: usize = 64;

/// How many jobs of the tenant go before this one, of those that wait as a whole; none if it does not wait any more.
const COUNT: &str = "SELECT (SELECT count(*) FROM (SELECT 1 FROM jobs AS other WHERE other.tenant = mine.tenant AND other.state = 1 \
       AND other.priority > mine.priority LIMIT 1000) AS above) \
     + (SELECT count(*) FROM (SELECT 1 FROM jobs AS other WHERE other.tenant = mine.tenant AND other.state = 1 \
       AND other.priority = mine.priority AND (other.created_ms, other.id) < (mine.created_ms, mine.id) LIMIT 1000) AS before) \
   FROM jobs AS mine WHERE tenant = $1 AND id = $2 AND state = 1";

/// The front of a tenant's queue.
const FRONT: &str =
    "SELECT priority, created_ms, id FROM jobs WHERE tenant = $1 AND state = 1 ORDER BY priority DESC, created_ms, id LIMIT $2";

/// How many registrations of the tenant go before this one.
const REGISTRATIONS: &str = "SELECT (SELECT count(*) FROM tasks AS other \
       WHERE other.kind = 'REGISTER' AND other.tenant = mine.tenant AND other.state = 'READY' \
       AND (other.created_ms < mine.created_ms OR (other.created_ms = mine.created_ms AND other.subject < mine.subject))) \
   FROM tasks AS mine WHERE kind = 'REGISTER' AND tenant = $1 AND subject = $2 AND state = 'READY'";

/// A job's place among those of its tenant: a higher priority goes first, then who came first.
type Rank = (Reverse<i64>, i64, String);

/// The first of a queue, in order, at a time.
#[derive(Debug)]
struct Front {
    ranks: Vec<Rank>,
    at: Instant,
}

/// The orders of queues.
#[derive(Debug, Default)]
pub(super) struct Positions(Mutex<HashMap<String, Front>>);

impl Positions {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Front>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The place, if it is far from the front and the order is good enough.
    fn look_up(&self, tenant: &str, rank: &Rank) -> Option<usize> {
        let mut fronts = self.lock();
        let front = fronts.get(tenant)?;
        if front.at.elapsed() > FRESH {
            fronts.remove(tenant);
            return None;
        }
        let place = front.ranks.partition_point(|other| other < rank);
        (place >= COUNTED).then_some(place)
    }

    fn keep(&self, tenant: &str, ranks: Vec<Rank>) {
        let mut fronts = self.lock();
        if fronts.len() >= MAX_TENANTS {
            fronts.clear();
        }
        fronts.insert(tenant.to_owned(), Front { ranks, at: Instant::now() });
    }
}

impl SqlEngine {
    /// Tells a waiting job's place in its progress. One that a worker has, or had, is at no place.
    pub(super) async fn set_job_position(
        &self,
        reader: &mut AnyConnection,
        subject: &Subject,
        job: &mut v1::Job,
    ) -> Result<(), EngineError> {
        let created_ms = job.create_time.as_ref().map_or(0, timestamp_ms);
        let rank = (Reverse(i64::from(job.priority)), created_ms, subject.id.clone());
        let place = match self.positions.look_up(&subject.tenant, &rank) {
            Some(place) => Some(place),
            None => self.count_place(reader, subject).await?,
        };
        set_position(&mut job.progress, place);
        Ok(())
    }

    async fn count_place(&self, reader: &mut AnyConnection, subject: &Subject) -> Result<Option<usize>, EngineError> {
        let place = count(COUNT, reader, subject).await?;
        if place.is_some_and(|place| place >= COUNTED) {
            let ranks: Vec<(i64, i64, String)> =
                sqlx::query_as(FRONT).bind(&subject.tenant).bind(LAST as i64).fetch_all(&mut *reader).await?;
            self.positions
                .keep(&subject.tenant, ranks.into_iter().map(|(priority, created_ms, id)| (Reverse(priority), created_ms, id)).collect());
        }
        Ok(place)
    }
}

/// As [`SqlEngine::set_job_position`], for a model that is being registered.
pub(super) async fn set_model_position(reader: &mut AnyConnection, subject: &Subject, model: &mut v1::Model) -> Result<(), EngineError> {
    let place = count(REGISTRATIONS, reader, subject).await?;
    set_position(&mut model.progress, place);
    Ok(())
}

async fn count(sql: &'static str, reader: &mut AnyConnection, subject: &Subject) -> Result<Option<usize>, EngineError> {
    let ahead: Option<i64> = sqlx::query_scalar(sql).bind(&subject.tenant).bind(&subject.id).fetch_optional(reader).await?;
    Ok(ahead.map(|ahead| usize::try_from(ahead).unwrap_or(LAST)))
}

fn set_position(progress: &mut Option<v1::Progress>, place: Option<usize>) {
    progress.get_or_insert_default().queue_position = place.map_or(-1, |place| place.min(LAST) as i32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_places_far_from_the_front_are_looked_up_in_an_order_of_the_past() {
        let positions = Positions::default();
        let rank = |priority: i64, number: usize| (Reverse(priority), 7, format!("{number:04}"));
        assert_eq!(positions.look_up("acme", &rank(0, 500)), None, "there is no order yet");
        positions.keep("acme", (0..1000).map(|number| rank(0, number)).collect());
        assert_eq!(positions.look_up("acme", &rank(0, 500)), Some(500));
        assert_eq!(positions.look_up("acme", &rank(-1, 0)), Some(1000), "behind all that are known");
        assert_eq!(positions.look_up("acme", &rank(0, COUNTED - 1)), None);
        assert_eq!(positions.look_up("acme", &rank(1, 5000)), None, "before all of them");
        assert_eq!(positions.look_up("other", &rank(0, 500)), None);
        positions.lock().get_mut("acme").unwrap().at -= 2 * FRESH;
        for _ in 0..2 {
            assert_eq!(positions.look_up("acme", &rank(0, 500)), None, "it is counted again, until the order is known");
        }
    }
}
