//! Sessions, and giving them tasks: a bounded list of the best ready tasks of each tenant is read by index, [`crate::placement`] chooses, and what it
//! chose is leased if nobody else was faster.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use sqlx::any::AnyRow;
use sqlx::{Decode, Row as _, Type};

use super::super::document::Change;
use super::super::{EngineError, Lease, Leased, NewSession, Notice, Offer, Renewal, SessionId, Subject, TaskKey, graph};
use super::many::{Many, Part, row};
use super::memory::{Offered, keep_offered, note_on_processors};
use super::ready::{Asking, Ready, ReadyLists, WINDOW};
use super::stopping::load_stop;
use super::tenants::{Memory, Tenant, ready_tenants, sort_tenants};
use super::work::{Taken, try_lock, work};
use super::{Dialect, SqlEngine, Writing, apply_with};
use crate::placement::{self, Candidate, DeviceClass, DeviceId, DeviceOffer, KindSet, Sharing, TenantLoad, WeightsKey};
use crate::record_seal::{RecordSeal, Unsealed};

/// How often it is chosen again, if others were faster.
const ROUNDS: usize = WINDOW as usize;
/// So long nobody looks at a task whose subject's secrets cannot be opened, in milliseconds: it keeps no other from workers.
const PUT_OFF_MS: i64 = 60_000;

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

    /// Gives tasks to sessions, one after another; answers what each is given.
    pub(super) async fn lease_in(&self, writing: &mut Writing, asked: &[(&str, &Offer)]) -> Result<Vec<Given>, EngineError> {
        let mut sessions = held_by(writing, asked).await?;
        let since_ms = writing.now_ms.saturating_sub(self.rules.lease_ms);
        self.holders.refresh(writing.connection(), since_ms).await?;
        for (session, offer) in asked.iter().filter(|(session, _)| sessions.get(*session).is_some_and(|held| !held.is_cordoned)) {
            self.holders.keep(writing.connection(), session, &offer.cached_models).await?;
        }
        let asking: Vec<Asking<'_>> = asked
            .iter()
            .map(|&(session, offer)| Asking { session, offer, free_bytes: sessions.get(session).map_or(0, |held| held.free_bytes(offer)) })
            .collect();
        let mut tenants = ready_tenants(writing, largest(&asking, &sessions)).await?;
        let lists = ReadyLists::read(writing, &tenants, &asking, &self.holders).await?;
        let mut tried = HashSet::new();
        let mut given = Vec::with_capacity(asked.len());
        for asking in &asking {
            let Some(held) = sessions.get_mut(asking.session) else {
                // That is no reason to give the others nothing.
                given.push(Err(EngineError::NoSession));
                continue;
            };
            sort_tenants(&mut tenants);
            let ready = lists.of(&tenants, asking);
            given.push(Ok(self.lease_to(writing, &mut tenants, (asking.session, asking.offer), held, ready, &mut tried).await?));
        }
        Ok(given)
    }

    async fn lease_to<'a>(
        &self,
        writing: &mut Writing,
        tenants: &mut [Tenant],
        (session, offer): (&str, &Offer),
        held: &mut Holding,
        ready: impl Iterator<Item = &'a Ready>,
        tried: &mut HashSet<&'a TaskKey>,
    ) -> Result<Vec<Leased>, EngineError> {
        let mut given = Vec::new();
        if held.is_cordoned {
            return Ok(given);
        }
        let offered = Offered::of(offer);
        if offered.is_news(held.known) {
            keep_offered(writing, session, offered).await?;
            held.known = offered;
        }
        let has_device = offer.device_bytes < u64::MAX;
        let worker = held.worker.clone();
        let holder = Holder { session, worker: &worker, lease_ms: self.rules.lease_ms, has_device, seal: &self.seal };
        let mut ready = untried(ready, tried, tenants);
        let (mut must_run_alone, mut look_again) = (false, None);
        let mut rounds = ROUNDS;
        while rounds > 0 {
            rounds -= 1;
            let n_given = u32::try_from(given.len()).unwrap_or(u32::MAX);
            let placement::Chosen { choices, look_again_ms } = choose_tasks(&ready, tenants, session, offer, held, n_given);
            let choices: Vec<usize> = choices.iter().map(|choice| choice.candidate).collect();
            if choices.is_empty() {
                look_again = look_again_ms.map(Duration::from_millis);
                break;
            }
            for &index in &choices {
                let (tenant, ready) = ready[index];
                let Some(tenant) = tenants.get_mut(tenant) else { continue };
                // One call may give a tenant several; how many it may have is its own limit, not placement's.
                if tenant.load.running >= tenant.may_run {
                    continue;
                }
                // What was given is gone; so is what somebody else had.
                tried.insert(&ready.task);
                let leased = match give(writing, ready, &holder).await? {
                    Tried::Given(leased) => leased,
                    Tried::Busy => continue,
                    Tried::PutOff => {
                        // However many there are, those of other tenants have their turn.
                        rounds += 1;
                        continue;
                    }
                };
                tenant.load.running += 1;
                tenant.load.last_leased_ms = writing.now_ms.unsigned_abs();
                must_run_alone |= ready.candidate.sharing == Sharing::Alone;
                held.promised_bytes = held.promised_bytes.saturating_add(ready.candidate.need_device_bytes);
                given.push(*leased);
            }
            let mut index = 0;
            ready.retain(|_| {
                index += 1;
                !choices.contains(&(index - 1))
            });
        }
        self.desk.note_look_again(session, look_again.filter(|_| given.is_empty()));
        // For the next of this session.
        held.n_tasks = held.n_tasks.saturating_add(u32::try_from(given.len()).unwrap_or(u32::MAX));
        held.runs_alone |= must_run_alone;
        Ok(given)
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

/// Who is given a task, and until when.
struct Holder<'a> {
    session: &'a str,
    worker: &'a str,
    lease_ms: i64,
    has_device: bool,
    seal: &'a RecordSeal,
}

/// What became of a task that a session was to have.
enum Tried {
    Given(Box<Leased>),
    /// Its subject is in the hands of another transaction, or has been told to stop; or somebody else was faster.
    Busy,
    /// Its subject's secrets cannot be opened.
    PutOff,
}

/// A session, and what it holds.
struct Holding {
    worker: String,
    is_cordoned: bool,
    /// What it offered, as far as that was kept.
    known: Offered,
    n_tasks: u32,
    /// Device memory that they are expected to take.
    promised_bytes: u64,
    /// One of them must run alone.
    runs_alone: bool,
}

impl Holding {
    /// What is left of the device.
    fn free_bytes(&self, offer: &Offer) -> u64 {
        // Without a device there is nothing to count.
        if offer.device_bytes == u64::MAX { u64::MAX } else { offer.device_bytes.saturating_sub(self.promised_bytes) }
    }
}

/// The sessions of those who ask; one that was closed is left out.
async fn held_by(writing: &mut Writing, asked: &[(&str, &Offer)]) -> Result<HashMap<String, Holding>, EngineError> {
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
    let sessions: BTreeSet<&str> = asked.iter().map(|(session, _)| *session).collect();
    let rows: Vec<_> = sessions.into_iter().map(|session| row![session]).collect();
    let mut held = HashMap::new();
    for row in SESSIONS.fetch(writing.connection(), &rows).await? {
        let holding = Holding {
            worker: get(&row, "worker")?,
            is_cordoned: get::<i64>(&row, "is_cordoned")? != 0,
            known: Offered { device_bytes: get(&row, "device_bytes")?, host_bytes: get(&row, "host_bytes")? },
            n_tasks: u32::try_from(get::<i64>(&row, "n_tasks")?).unwrap_or(u32::MAX),
            promised_bytes: u64::try_from(get::<i64>(&row, "promised")?).unwrap_or(0),
            runs_alone: get::<i64>(&row, "alone")? > 0,
        };
        held.insert(get(&row, "id")?, holding);
    }
    Ok(held)
}

/// Of what is ready, once each, what was not tried yet and is of a tenant that may run more; with that tenant's place. One that is paused, or runs as many
/// as it may, is not in the list.
fn untried<'a>(ready: impl Iterator<Item = &'a Ready>, tried: &HashSet<&TaskKey>, tenants: &[Tenant]) -> Vec<(usize, &'a Ready)> {
    let mut known = HashSet::new();
    ready
        .filter(|ready| !tried.contains(&ready.task) && known.insert(&ready.task))
        .filter_map(|ready| Some((tenants.iter().position(|tenant| tenant.name == ready.task.subject.tenant)?, ready)))
        .collect()
}

/// The most that is free, and the most that there is, among those who ask and may be given something.
fn largest(asking: &[Asking<'_>], sessions: &HashMap<String, Holding>) -> Memory {
    let column = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    let takers = asking.iter().filter(|asking| sessions.get(asking.session).is_some_and(|held| !held.is_cordoned));
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

/// The tasks that the session is to have, by their positions.
///
/// What the session tells is one device without a queue of its own, which takes at once what it is given; only what another session committed waits a
/// little for that one, and what another holds the weights of. What a task needs of its host is known only once it must run alone: nothing else takes of it.
fn choose_tasks(
    ready: &[(usize, &Ready)],
    tenants: &[Tenant],
    session: &str,
    offer: &Offer,
    held: &Holding,
    n_given: u32,
) -> placement::Chosen {
    let slots = offer.max_tasks.saturating_sub(n_given);
    let running = held.n_tasks.saturating_add(n_given);
    let device = DeviceOffer {
        id: device_of(session),
        class: DeviceClass::Gpu,
        total_bytes: offer.device_bytes,
        free_bytes: held.free_bytes(offer),
        running,
        runs_alone: held.runs_alone,
        cached: offer.cached_models.iter().copied().map(WeightsKey).collect(),
        is_healthy: true,
    };
    let of_session = placement::Offer { slots, devices: vec![device], host_free_bytes: offer.host_bytes, kinds: KindSet::ALL };
    let limits = placement::Limits {
        tasks_per_device: running.saturating_add(slots).max(offer.n_slots).max(1),
        share_after_ms: 0,
        ..placement::Limits::default()
    };
    let loads: Vec<TenantLoad> = tenants.iter().map(|tenant| tenant.load).collect();
    let candidates: Vec<Candidate> = ready.iter().map(|(tenant, ready)| Candidate { tenant: *tenant, ..ready.candidate }).collect();
    placement::choose(&candidates, &of_session, &loads, &limits)
}

/// Gives one task, if that can be.
async fn give(writing: &mut Writing, ready: &Ready, holder: &Holder<'_>) -> Result<Tried, EngineError> {
    let subject = ready.task.subject.clone();
    let Some(Taken { mut document, is_stopped, sealed, model }) = try_lock(writing, ready).await? else { return Ok(Tried::Busy) };
    if document.is_final() || is_stopped {
        return Ok(Tried::Busy);
    }
    let secrets = match sealed.open(holder.seal, &subject) {
        Ok(secrets) => secrets,
        Err(error) => return put_off(writing, ready, error).await.map(|()| Tried::PutOff),
    };
    let attempts = ready.attempts + 1;
    let taken = sqlx::query(
        "UPDATE tasks SET state = 'RUNNING', epoch = epoch + 1, attempts = $1, session = $2, lease_until_ms = $3 \
         WHERE kind = $4 AND tenant = $5 AND subject = $6 AND ordinal = $7 AND epoch = $8 AND state = $9",
    )
    .bind(attempts)
    .bind(holder.session)
    .bind(writing.now_ms.saturating_add(holder.lease_ms))
    .bind(subject.kind.task_kind())
    .bind(&subject.tenant)
    .bind(&subject.id)
    .bind(ready.ordinal)
    .bind(ready.epoch)
    // A value and no literal: with that PostgreSQL may take the index of ready tasks, and read as much of it as tasks wait.
    .bind("READY")
    .execute(writing.connection())
    .await?;
    if taken.rows_affected() == 0 {
        return Ok(Tried::Busy);
    }
    let (lease, now_ms) = (Lease { task: ready.task.clone(), epoch: ready.epoch + 1 }, writing.now_ms);
    let begun = Part::new(
        "INSERT INTO attempts(kind, tenant, subject, ordinal, epoch, worker, started_ms) VALUES (?, ?, ?, ?, ?, ?, ?)",
        row![subject.kind.task_kind(), &subject.tenant, &subject.id, ready.ordinal, lease.epoch, holder.worker, now_ms],
    );
    let attempt = u32::try_from(attempts).unwrap_or(u32::MAX);
    if graph::is_whole(&lease.task.name) || document.is_queued() {
        apply_with(writing, &subject, &mut document, Change::Started(attempt), vec![begun]).await?;
    } else {
        writing.execute_together(&[begun]).await?;
    }
    let need_bytes = ready.candidate.need_device_bytes;
    if !holder.has_device && need_bytes > 0 {
        note_on_processors(writing, &subject, &mut document, (&lease.task.name, attempt), (need_bytes, holder.lease_ms)).await?;
    }
    let work = work(writing, &lease.task, ready.ordinal, document, secrets, model).await?;
    writing.changed.push(Notice::Changed(subject));
    Ok(Tried::Given(Box::new(Leased { lease, attempt, work })))
}

/// Leaves a task ready, for a time in which nobody looks at it. It is nobody's fault but the keys', and costs no attempt.
async fn put_off(writing: &mut Writing, ready: &Ready, error: Unsealed) -> Result<(), EngineError> {
    let Subject { kind, tenant, id } = &ready.task.subject;
    tracing::error!(%error, tenant, id, task = ready.task.name, "a task waits, since it cannot be given to a worker");
    sqlx::query(
        "UPDATE tasks SET not_before_ms = $1 WHERE kind = $2 AND tenant = $3 AND subject = $4 AND ordinal = $5 AND epoch = $6 AND state = $7",
    )
    .bind(writing.now_ms.saturating_add(PUT_OFF_MS))
    .bind(kind.task_kind())
    .bind(tenant)
    .bind(id)
    .bind(ready.ordinal)
    .bind(ready.epoch)
    .bind("READY")
    .execute(writing.connection())
    .await?;
    Ok(())
}
