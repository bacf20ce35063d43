//! Places in a tenant's queue.
//!
//! The front of a queue is read in order, which takes time that grows with its length, and clients ask again and again. For a place among the first it is
//! read each time. What is farther back is looked for in the order of the queue as it was a moment ago, so that a place far from the front may be behind by
//! so long.

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
/// Places before this one are looked for each time.
const EXACT: usize = 100;
/// How long an order is used.
const FRESH: Duration = Duration::from_millis(250);
/// Tenants whose orders are kept; with more, all are forgotten.
const MAX_TENANTS: usize = 64;

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

/// Where a job is in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// So many go before it.
    At(usize),
    /// Behind all that were read.
    Behind,
    /// It does not wait any more.
    Gone,
}

impl Place {
    /// In the front of a queue, of which at most `limit` were read.
    fn among(ranks: &[Rank], limit: usize, rank: &Rank) -> Self {
        let place = ranks.partition_point(|other| other < rank);
        match ranks.get(place) {
            Some(other) if other == rank => Self::At(place),
            None if ranks.len() >= limit => Self::Behind,
            Some(_) | None => Self::Gone,
        }
    }
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
        (place >= EXACT).then_some(place)
    }

    fn keep(&self, tenant: &str, ranks: Vec<Rank>) {
        let mut fronts = self.lock();
        if fronts.len() >= MAX_TENANTS && !fronts.contains_key(tenant) {
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
            None => self.find_place(reader, &subject.tenant, &rank).await?,
        };
        set_position(&mut job.progress, place);
        Ok(())
    }

    async fn find_place(&self, reader: &mut AnyConnection, tenant: &str, rank: &Rank) -> Result<Option<usize>, EngineError> {
        match Place::among(&front(reader, tenant, EXACT).await?, EXACT, rank) {
            Place::At(place) => return Ok(Some(place)),
            Place::Gone => return Ok(None),
            Place::Behind => {}
        }
        let ranks = front(reader, tenant, LAST).await?;
        let place = Place::among(&ranks, LAST, rank);
        self.positions.keep(tenant, ranks);
        Ok(match place {
            Place::At(place) => Some(place),
            Place::Behind => Some(LAST),
            Place::Gone => None,
        })
    }
}

/// The first of a tenant's jobs that wait as a whole, in order.
async fn front(reader: &mut AnyConnection, tenant: &str, limit: usize) -> Result<Vec<Rank>, EngineError> {
    let ranks: Vec<(i64, i64, String)> = sqlx::query_as(FRONT).bind(tenant).bind(limit as i64).fetch_all(reader).await?;
    Ok(ranks.into_iter().map(|(priority, created_ms, id)| (Reverse(priority), created_ms, id)).collect())
}

/// As [`SqlEngine::set_job_position`], for a model that is being registered.
pub(super) async fn set_model_position(reader: &mut AnyConnection, subject: &Subject, model: &mut v1::Model) -> Result<(), EngineError> {
    let ahead: Option<i64> = sqlx::query_scalar(REGISTRATIONS).bind(&subject.tenant).bind(&subject.id).fetch_optional(reader).await?;
    set_position(&mut model.progress, ahead.map(|ahead| usize::try_from(ahead).unwrap_or(LAST)));
    Ok(())
}

fn set_position(progress: &mut Option<v1::Progress>, place: Option<usize>) {
    progress.get_or_insert_default().queue_position = place.map_or(-1, |place| place.min(LAST) as i32);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_is_among_the_first_of_its_queue_or_behind_all_that_were_read_or_gone() {
        let rank = |number: usize| (Reverse(0), 7, format!("{number:04}"));
        let ranks: Vec<Rank> = (0..10).filter(|number| *number != 4).map(rank).collect();
        let place = |limit, number| Place::among(&ranks, limit, &rank(number));
        assert_eq!((place(9, 3), place(9, 5)), (Place::At(3), Place::At(4)));
        assert_eq!(place(9, 4), Place::Gone, "others behind it are there");
        assert_eq!((place(9, 11), place(20, 11)), (Place::Behind, Place::Gone));
    }

    #[test]
    fn only_places_far_from_the_front_are_looked_up_in_an_order_of_the_past() {
        let positions = Positions::default();
        let rank = |priority: i64, number: usize| (Reverse(priority), 7, format!("{number:04}"));
        assert_eq!(positions.look_up("acme", &rank(0, 500)), None, "there is no order yet");
        positions.keep("acme", (0..1000).map(|number| rank(0, number)).collect());
        assert_eq!(positions.look_up("acme", &rank(0, 500)), Some(500));
        assert_eq!(positions.look_up("acme", &rank(-1, 0)), Some(1000), "behind all that are known");
        assert_eq!(positions.look_up("acme", &rank(0, EXACT - 1)), None);
        assert_eq!(positions.look_up("acme", &rank(1, 5000)), None, "before all of them");
        assert_eq!(positions.look_up("other", &rank(0, 500)), None);
        positions.lock().get_mut("acme").unwrap().at -= 2 * FRESH;
        for _ in 0..2 {
            assert_eq!(positions.look_up("acme", &rank(0, 500)), None, "it is read again");
        }
    }
}
