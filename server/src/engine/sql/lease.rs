//! Sessions, and giving them tasks: a bounded list of the best ready tasks of each tenant is read by index, [`crate::placement`] chooses, and what it
//! chose is leased if nobody else was faster.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use sqlx::any::AnyRow;
use sqlx::{Decode, Row as _, Type};

use super::super::{EngineError, Lease, Leased, NewSession, Offer, Renewal, SessionId};
use super::choosing::{Table, Turn};
use super::giving::{Tried, Wanted};
use super::idle::{IdleSessions, LEFT_MS};
use super::many::{Many, Value, row};
use super::memory::{Offered, keep_offered};
use super::ready::{Asking, Ready, ReadyLists};
use super::stopping::load_stop;
use super::tenants::{Memory, ready_tenants};
use super::{Dialect, SqlEngine, Writing};
use crate::placement::DeviceId;

/// After so long a session asks again that another server gave tasks to meanwhile.
const WHILE_ELSEWHERE: Duration = Duration::from_millis(50);

/// What a session is given.
pub(super) type Given = Result<Vec<Leased>, EngineError>;

impl SqlEngine {
    pub(super) async fn insert_session(&self, new: NewSession) -> Result<SessionId, EngineError> {
        let mut writing = self.begin().await?;
        let id = uuid::Uuid::now_v7().to_string();
        let now_ms = writing.now_ms;
        sqlx::query("INSERT INTO sessions(id, worker, is_local, devices, opened_ms, seen_ms) VALUES ($1, $2, $3, $4, $5, $5)")
            .bind(&id)
            .bind(&new.worker)
            .bind(i64::from(new.is_local))
            .bind(new.devices.join("\n"))
            .bind(now_ms)
            .execute(writing.connection())
            .await?;
        self.commit(writing).await?;
        Ok(id)
    }

    /// Gives tasks to sessions; answers what each is given.
    pub(super) async fn lease_in(&self, writing: &mut Writing, asked: &[(&str, &Offer)]) -> Result<Vec<Given>, EngineError> {
        let elsewhere = given_elsewhere(writing, asked).await?;
        let mut sessions = held_by(writing, asked, &elsewhere).await?;
        let since_ms = writing.now_ms.saturating_sub(self.rules.lease_ms);
        self.holders.refresh(writing.connection(), since_ms).await?;
        for (session, offer) in asked.iter().filter(|(session, _)| sessions.get(*session).is_some_and(|held| held.may_take)) {
            self.holders.keep(writing.connection(), session, &offer.cached_models).await?;
        }
        let asking: Vec<Asking<'_>> = asked
            .iter()
            .map(|&(session, offer)| Asking { session, offer, free_bytes: sessions.get(session).map_or(0, |held| held.free_bytes(offer)) })
            .collect();
        let tenants = ready_tenants(writing, largest(&asking, &sessions)).await?;
        let lists = ReadyLists::read(writing, &tenants, &asking, &self.holders).await?;
        // What has waited joins others at once: then it need not be known who is idle.
        let is_news = lists.have_news(LEFT_MS);
        let idle = if is_news { IdleSessions::read(writing, since_ms, asked.len(), &self.holders).await? } else { IdleSessions::none() };
        let mut turns: Vec<Turn<'_>> = asking.into_iter().map(Turn::new).collect();
        self.give_turns(writing, &mut Table::new(&lists, tenants, idle), &mut turns, &mut sessions).await?;
        let given = turns.into_iter().map(|turn| {
            // That one is closed is no reason to give the others nothing.
            sessions.get(turn.asking.session).ok_or(EngineError::NoSession)?;
            let soon = elsewhere.contains(turn.asking.session).then_some(WHILE_ELSEWHERE);
            self.desk.note_look_again(turn.asking.session, turn.look_again.or(soon).filter(|_| turn.given.is_empty()));
            Ok(turn.given)
        });
        Ok(given.collect())
    }

    /// Chooses for all, gives what was chosen at once, and chooses again for those who could not be given theirs.
    async fn give_turns<'a>(
        &self,
        writing: &mut Writing,
        table: &mut Table<'a>,
        turns: &mut [Turn<'a>],
        sessions: &mut HashMap<String, Holding>,
    ) -> Result<(), EngineError> {
        for turn in turns.iter() {
            if let Some(held) = taker(sessions, turn.asking.session) {
                self.note_offer(writing, &turn.asking, held).await?;
            }
        }
        loop {
            let mut chosen: Vec<(usize, &Ready)> = Vec::new();
            for (place, turn) in turns.iter_mut().enumerate() {
                if let Some(held) = taker(sessions, turn.asking.session) {
                    chosen.extend(turn.choose(table, held).into_iter().map(|ready| (place, ready)));
                }
            }
            if chosen.is_empty() {
                return Ok(());
            }
            let wanted = |&(place, ready): &(usize, _)| wanted(&turns[place].asking, ready, sessions);
            let wanted: Vec<Wanted<'_>> = chosen.iter().map(wanted).collect::<Result<_, _>>()?;
            let tried = self.give(writing, &wanted).await?;
            for ((place, ready), tried) in chosen.into_iter().zip(tried) {
                let turn = &mut turns[place];
                match (tried, taker(sessions, turn.asking.session)) {
                    (Tried::Given(leased), _) => turn.hit(table, *leased, writing.now_ms),
                    (tried, Some(held)) => turn.miss(table, held, ready, matches!(tried, Tried::PutOff)),
                    (_, None) => {}
                }
            }
        }
    }

    async fn note_offer(&self, writing: &mut Writing, asking: &Asking<'_>, held: &mut Holding) -> Result<(), EngineError> {
        let offered = Offered::of(asking.offer);
        if offered.is_news(held.known) {
            keep_offered(writing, asking.session, offered).await?;
            held.known = offered;
        }
        Ok(())
    }

    pub(super) async fn has_ready(&self) -> Result<bool, EngineError> {
        let ready: Option<i64> = match self.dialect {
            Dialect::Sqlite => {
                sqlx::query_scalar("SELECT ordinal FROM tasks WHERE state = 'READY' AND not_before_ms <= $1 LIMIT 1")
                    .bind(self.clock.now_ms())
                    .fetch_optional(&self.readers)
                    .await?
            }
            Dialect::Postgres => {
                const READY: &str = "SELECT ordinal FROM tasks WHERE state = 'READY' \
                   AND not_before_ms <= (extract(epoch FROM clock_timestamp()) * 1000)::bigint LIMIT 1";
                sqlx::query_scalar(READY).fetch_optional(&self.readers).await?
            }
        };
        Ok(ready.is_some())
    }

    pub(super) async fn check_session(&self, session: &str, offer: &Offer) -> Result<(), EngineError> {
        let known: Option<(Option<i64>, Option<i64>)> = sqlx::query_as("SELECT device_bytes, host_bytes FROM sessions WHERE id = $1")
            .bind(session)
            .fetch_optional(&self.readers)
            .await?;
        let (device_bytes, host_bytes) = known.ok_or(EngineError::NoSession)?;
        let is_news = Offered::of(offer).is_news(Offered { device_bytes, host_bytes });
        if is_news || self.holders.is_news(session, &offer.cached_models) {
            self.keep_told_by_idle(session, offer).await?;
        }
        self.desk.note_look_again(session, None);
        Ok(())
    }

    pub(super) async fn renew_leases(&self, session: &str, mut held: Vec<Lease>) -> Result<Renewal, EngineError> {
        // Rows are locked in one order everywhere.
        held.sort_by(|a, b| {
            (&a.task.subject.tenant, &a.task.subject.id, &a.task.name).cmp(&(&b.task.subject.tenant, &b.task.subject.id, &b.task.name))
        });
        let mut writing = self.begin().await?;
        let (now_ms, until_ms) = (writing.now_ms, writing.now_ms.saturating_add(self.rules.lease_ms));
        let seen =
            sqlx::query("UPDATE sessions SET seen_ms = $1 WHERE id = $2").bind(now_ms).bind(session).execute(writing.connection()).await?;
        if seen.rows_affected() == 0 {
            return Err(EngineError::NoSession);
        }
        let mut renewal = Renewal::default();
        for lease in held {
            let renewed = sqlx::query(
                "UPDATE tasks SET lease_until_ms = $1 \
                 WHERE kind = $2 AND tenant = $3 AND subject = $4 AND name = $5 AND epoch = $6 AND session = $7 AND state = 'RUNNING'",
            )
            .bind(until_ms)
            .bind(lease.task.subject.kind.task_kind())
            .bind(&lease.task.subject.tenant)
            .bind(&lease.task.subject.id)
            .bind(&lease.task.name)
            .bind(lease.epoch)
            .bind(session)
            .execute(writing.connection())
            .await?;
            if renewed.rows_affected() == 0 {
                renewal.lost.push(lease);
            } else if load_stop(&mut writing, &lease.task.subject).await?.is_some() {
                renewal.stop.push(lease);
            }
        }
        self.commit(writing).await?;
        Ok(renewal)
    }

    pub(super) async fn set_cordoned(&self, session: &str, cordoned: bool) -> Result<bool, EngineError> {
        let mut writing = self.begin().await?;
        let changed = sqlx::query("UPDATE sessions SET is_cordoned = $1 WHERE id = $2")
            .bind(i64::from(cordoned))
            .bind(session)
            .execute(writing.connection())
            .await?;
        self.commit(writing).await?;
        Ok(changed.rows_affected() > 0)
    }
}

/// A session, and what it holds.
pub(super) struct Holding {
    worker: String,
    /// It is not cordoned, and no other server gives it something now.
    may_take: bool,
    /// What it offered, as far as that was kept.
    known: Offered,
    pub(super) n_tasks: u32,
    /// Device memory that they are expected to take.
    pub(super) promised_bytes: u64,
    /// One of them must run alone.
    pub(super) runs_alone: bool,
}

impl Holding {
    /// What is left of the device.
    pub(super) fn free_bytes(&self, offer: &Offer) -> u64 {
        // Without a device there is nothing to count.
        if offer.device_bytes == u64::MAX { u64::MAX } else { offer.device_bytes.saturating_sub(self.promised_bytes) }
    }
}

/// The sessions that another server gives tasks to at this moment: each would see only what they held before, and promise the same memory twice. From here
/// to the end of the transaction no other gives to the rest. Those who are given nothing ask again.
async fn given_elsewhere(writing: &mut Writing, asked: &[(&str, &Offer)]) -> Result<HashSet<String>, EngineError> {
    const LOCKED: Many = Many::new(
        "SELECT given.column1 AS id FROM (VALUES ",
        "(?)",
        ") AS given WHERE NOT pg_try_advisory_xact_lock(hashtextextended('tasks for ' || given.column1, 0))",
    );
    // In SQLite one writes at a time.
    if writing.dialect == Dialect::Sqlite {
        return Ok(HashSet::new());
    }
    let rows = rows_of_sessions(asked);
    LOCKED.fetch(writing.connection(), &rows).await?.iter().map(|row| Ok(get(row, "id")?)).collect()
}

/// Each session of those who ask, once.
fn rows_of_sessions(asked: &[(&str, &Offer)]) -> Vec<Vec<Value>> {
    let sessions: BTreeSet<&str> = asked.iter().map(|(session, _)| *session).collect();
    sessions.into_iter().map(|session| row![session]).collect()
}

/// The sessions of those who ask; one that was closed is left out.
async fn held_by(
    writing: &mut Writing,
    asked: &[(&str, &Offer)],
    elsewhere: &HashSet<String>,
) -> Result<HashMap<String, Holding>, EngineError> {
    // No device has 2^50 bytes; with more for each task the sum might overflow.
    const SESSIONS: Many = Many::new(
        "SELECT id, worker, is_cordoned, device_bytes, host_bytes, \
           (SELECT count(*) FROM tasks WHERE state = 'RUNNING' AND session = sessions.id) AS n_tasks, \
           CAST(coalesce((SELECT sum(CASE WHEN device_bytes < 1125899906842624 THEN device_bytes ELSE 1125899906842624 END) FROM tasks \
             WHERE state = 'RUNNING' AND session = sessions.id), 0) AS BIGINT) AS promised, \
           coalesce((SELECT max(deaths + failed_memory) FROM tasks WHERE state = 'RUNNING' AND session = sessions.id), 0) AS alone \
         FROM sessions WHERE id IN (",
        "?",
        ")",
    );
    let mut held = HashMap::new();
    for row in SESSIONS.fetch(writing.connection(), &rows_of_sessions(asked)).await? {
        let id: String = get(&row, "id")?;
        let holding = Holding {
            worker: get(&row, "worker")?,
            may_take: get::<i64>(&row, "is_cordoned")? == 0 && !elsewhere.contains(&id),
            known: Offered { device_bytes: get(&row, "device_bytes")?, host_bytes: get(&row, "host_bytes")? },
            n_tasks: u32::try_from(get::<i64>(&row, "n_tasks")?).unwrap_or(u32::MAX),
            promised_bytes: u64::try_from(get::<i64>(&row, "promised")?).unwrap_or(0),
            runs_alone: get::<i64>(&row, "alone")? > 0,
        };
        held.insert(id, holding);
    }
    Ok(held)
}

/// What a session holds that may be given something.
fn taker<'a>(sessions: &'a mut HashMap<String, Holding>, session: &str) -> Option<&'a mut Holding> {
    sessions.get_mut(session).filter(|held| held.may_take)
}

/// A task that was chosen for one who asks.
fn wanted<'a>(asking: &Asking<'a>, ready: &'a Ready, sessions: &'a HashMap<String, Holding>) -> Result<Wanted<'a>, EngineError> {
    let has_device = asking.offer.device_bytes < u64::MAX;
    let held = sessions.get(asking.session).ok_or(EngineError::NoSession)?;
    Ok(Wanted { ready, session: asking.session, worker: &held.worker, has_device })
}

/// The most that is free, and the most that there is, among those who ask and may be given something.
fn largest(asking: &[Asking<'_>], sessions: &HashMap<String, Holding>) -> Memory {
    let column = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let takers = asking.iter().filter(|asking| sessions.get(asking.session).is_some_and(|held| held.may_take));
    takers.fold(Memory::default(), |largest, asking| Memory {
        free: largest.free.max(column(asking.free_bytes)),
        all: largest.all.max(column(asking.offer.device_bytes)),
        host: largest.host.max(column(asking.offer.host_bytes)),
    })
}

pub(super) fn get<'r, T: Decode<'r, sqlx::Any> + Type<sqlx::Any>>(row: &'r AnyRow, column: &str) -> Result<T, sqlx::Error> {
    row.try_get(column)
}

/// Where a session computes, as placement names it.
pub(super) fn device_of(session: &str) -> DeviceId {
    DeviceId(uuid::Uuid::parse_str(session).map_or(0, |id| id.as_u128()))
}
