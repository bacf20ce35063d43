//! Tasks are given to those who are to have them: all that were chosen at once, each with all that its worker needs.

use std::collections::{HashMap, HashSet};

use super::super::document::{Change, Document};
use super::super::{EngineError, Lease, Leased, Notice, Subject, SubjectKind, TaskKey, graph};
use super::admission::EVENTS;
use super::lease::get;
use super::many::{Many, Part, Value, row};
use super::memory::note_on_processors;
use super::ready::Ready;
use super::work::{OfModel, Opened, Taken, results, try_lock, work};
use super::{SqlEngine, Writing};

/// So long nobody looks at a task whose subject cannot be read or opened, in milliseconds: it keeps no other from workers.
const PUT_OFF_MS: i64 = 60_000;
/// Given at once, at most.
const MAX_AT_ONCE: usize = 256;

/// A task that a session is to have.
pub(super) struct Wanted<'a> {
    pub(super) ready: &'a Ready,
    pub(super) session: &'a str,
    pub(super) worker: &'a str,
    pub(super) has_device: bool,
}

/// What became of a task that a session was to have.
pub(super) enum Tried {
    Given(Box<Leased>),
    /// Its subject is in the hands of another transaction, or has been told to stop; or somebody else was faster.
    Busy,
    /// Its subject is damaged, or its secrets cannot be opened.
    PutOff,
}

/// A task whose subject is locked and may be worked at.
struct Free<'a> {
    wanted: &'a Wanted<'a>,
    place: usize,
    told: Told,
}

/// What its worker is told, besides its subject's document.
struct Told {
    secrets: Opened,
    model: Option<OfModel>,
    results: Vec<(String, [u8; 32])>,
}

/// The subjects of tasks that are being given, as they are then: several may be of one.
#[derive(Default)]
struct Documents(HashMap<Subject, Document>);

impl SqlEngine {
    /// Gives tasks; answers for each what became of it. No task is there twice.
    pub(super) async fn give(&self, writing: &mut Writing, wanted: &[Wanted<'_>]) -> Result<Vec<Tried>, EngineError> {
        let mut tried = Vec::with_capacity(wanted.len());
        for wanted in wanted.chunks(MAX_AT_ONCE) {
            tried.append(&mut self.give_at_once(writing, wanted).await?);
        }
        Ok(tried)
    }

    async fn give_at_once(&self, writing: &mut Writing, wanted: &[Wanted<'_>]) -> Result<Vec<Tried>, EngineError> {
        let mut tried: Vec<Tried> = wanted.iter().map(|_| Tried::Busy).collect();
        let mut documents = Documents::default();
        let mut free = Vec::new();
        for kind in [SubjectKind::Model, SubjectKind::Job] {
            let of_kind: Vec<(usize, &Wanted<'_>)> =
                wanted.iter().enumerate().filter(|(_, wanted)| wanted.ready.task.subject.kind == kind).collect();
            let tasks: Vec<&Ready> = of_kind.iter().map(|(_, wanted)| wanted.ready).collect();
            let mut locked = try_lock(writing, kind, &tasks).await?;
            for (place, wanted) in of_kind {
                let Some(locked) = locked.remove(&wanted.ready.task) else { continue };
                match self.prepare(writing, wanted, locked).await {
                    Ok(None) => {}
                    Ok(Some((document, told))) => {
                        free.push(Free { wanted, place, told });
                        documents.0.entry(wanted.ready.task.subject.clone()).or_insert(document);
                    }
                    Err(error) if is_of_one_row(&error) => {
                        put_off(writing, wanted.ready, error).await?;
                        tried[place] = Tried::PutOff;
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let taken = take(writing, &free, self.rules.lease_ms).await?;
        free.retain(|free| taken.contains(&key(free.wanted.ready)));
        documents.start(writing, &free).await?;
        for Free { wanted, place, told } in free {
            tried[place] = Tried::Given(Box::new(self.hand_out(writing, &mut documents, wanted, told).await?));
        }
        Ok(tried)
    }

    /// All that is read of a task whose subject is locked, before anything is written: what is damaged is found here. None: it is not to be worked at.
    async fn prepare(
        &self,
        writing: &mut Writing,
        Wanted { ready, .. }: &Wanted<'_>,
        locked: Result<Taken, EngineError>,
    ) -> Result<Option<(Document, Told)>, EngineError> {
        let Taken { document, is_stopped, sealed, model } = locked?;
        if document.is_final() || is_stopped {
            return Ok(None);
        }
        let secrets = sealed.open(&self.seal, &ready.task.subject).map_err(EngineError::Sealed)?;
        Ok(Some((document, Told { secrets, model, results: results(writing, ready).await? })))
    }

    /// What the worker of a task is told.
    async fn hand_out(
        &self,
        writing: &mut Writing,
        documents: &mut Documents,
        wanted: &Wanted<'_>,
        Told { secrets, model, results }: Told,
    ) -> Result<Leased, EngineError> {
        let Wanted { ready, has_device, .. } = wanted;
        let subject = &ready.task.subject;
        let (lease, attempt) = (Lease { task: ready.task.clone(), epoch: ready.epoch + 1 }, attempt(ready));
        // It was locked with its task.
        let document = documents.0.get_mut(subject).ok_or(EngineError::Fenced)?;
        let need_bytes = ready.candidate.need_device_bytes;
        if !has_device && need_bytes > 0 {
            note_on_processors(writing, subject, document, (&ready.task.name, attempt), (need_bytes, self.rules.lease_ms)).await?;
        }
        let work = work(&lease.task, document.clone(), secrets, model, results)?;
        writing.changed.push(Notice::Changed(subject.clone()));
        Ok(Leased { lease, attempt, work })
    }
}

/// The attempt that begins.
fn attempt(ready: &Ready) -> u32 {
    u32::try_from(ready.attempts + 1).unwrap_or(u32::MAX)
}

/// Takes tasks whose subjects are locked; answers which of them nobody else was faster to take.
async fn take(writing: &mut Writing, free: &[Free<'_>], lease_ms: i64) -> Result<HashSet<(String, String, String, i64)>, EngineError> {
    let until_ms = writing.now_ms.saturating_add(lease_ms);
    let given = |Free { wanted, .. }: &Free<'_>| {
        let Wanted { ready, session, .. } = wanted;
        let Subject { kind, tenant, id } = &ready.task.subject;
        // The state is a value and no literal: with that PostgreSQL may take the index of ready tasks, and read as much of it as tasks wait.
        row![ready.attempts + 1, *session, until_ms, kind.task_kind(), tenant, id, ready.ordinal, ready.epoch, "READY"]
    };
    let rows: Vec<_> = free.iter().map(given).collect();
    let taken = TAKE.fetch(writing.connection(), &rows).await?;
    taken.iter().map(|row| Ok((get(row, "kind")?, get(row, "tenant")?, get(row, "subject")?, get(row, "ordinal")?))).collect()
}

/// A task as [`TAKE`] names it.
fn key(ready: &Ready) -> (String, String, String, i64) {
    let Subject { kind, tenant, id } = &ready.task.subject;
    (kind.task_kind().to_owned(), tenant.clone(), id.clone(), ready.ordinal)
}

impl Documents {
    /// Writes that attempts begin, and that those subjects are worked at which have not been.
    async fn start(&mut self, writing: &mut Writing, free: &[Free<'_>]) -> Result<(), EngineError> {
        let (mut attempts, mut events, mut started) = (Vec::new(), Vec::new(), Vec::new());
        for Free { wanted, .. } in free {
            let Wanted { ready, worker, .. } = wanted;
            let TaskKey { subject, name } = &ready.task;
            let Subject { kind, tenant, id } = subject;
            attempts.push(row![kind.task_kind(), tenant, id, ready.ordinal, ready.epoch + 1, *worker, writing.now_ms]);
            let Some(document) = self.0.get_mut(subject) else { continue };
            if graph::is_whole(name) || document.is_queued() {
                let body = document.apply(Change::Started(attempt(ready)), writing.now_ms);
                events.push(row![kind.task_kind(), tenant, id, document.last_sequence(), body]);
                // Once each: a whole subject has no other task, and of the others only the first finds it queued.
                started.push(subject);
            }
        }
        let documents = |wanted: SubjectKind| -> Vec<Vec<Value>> {
            let rows = started.iter().filter(|subject| subject.kind == wanted);
            rows.filter_map(|subject| Some(document_row(subject, self.0.get(*subject)?))).collect()
        };
        let tables = [(ATTEMPTS, attempts), (MODELS, documents(SubjectKind::Model)), (JOBS, documents(SubjectKind::Job)), (EVENTS, events)];
        let parts: Vec<Part> = tables.into_iter().filter_map(|(table, rows)| table.part(rows)).collect();
        writing.execute_together(&parts).await
    }
}

fn document_row(Subject { tenant, id, .. }: &Subject, document: &Document) -> Vec<Value> {
    row![i64::from(document.state()), document.last_sequence(), document.encode(), tenant, id]
}

/// What is wrong with one row, while the transaction and all others are well.
fn is_of_one_row(error: &EngineError) -> bool {
    use sqlx::Error::{ColumnDecode, Decode};
    matches!(error, EngineError::Damaged(_) | EngineError::Sealed(_) | EngineError::Database(Decode(_) | ColumnDecode { .. }))
}

/// Leaves a task ready, for a time in which nobody looks at it. It is no worker's fault, and costs no attempt.
async fn put_off(writing: &mut Writing, ready: &Ready, error: EngineError) -> Result<(), EngineError> {
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

const TAKE: Many = Many::new(
    "UPDATE tasks SET state = 'RUNNING', epoch = epoch + 1, attempts = given.column1, session = given.column2, lease_until_ms = given.column3 FROM (VALUES ",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?)",
    ") AS given WHERE kind = given.column4 AND tenant = given.column5 AND subject = given.column6 AND ordinal = given.column7 \
       AND epoch = given.column8 AND state = given.column9 RETURNING kind, tenant, subject, ordinal",
)
.kept_for_one_row();
const ATTEMPTS: Many =
    Many::new("INSERT INTO attempts(kind, tenant, subject, ordinal, epoch, worker, started_ms) VALUES ", "(?, ?, ?, ?, ?, ?, ?)", "");
const MODELS: Many = Many::new(
    "UPDATE models SET state = given.column1, last_seq = given.column2, doc = given.column3 FROM (VALUES ",
    "(?, ?, ?, ?, ?)",
    ") AS given WHERE tenant = given.column4 AND id = given.column5",
)
.kept_for_one_row();
const JOBS: Many = Many::new(
    "UPDATE jobs SET state = given.column1, last_seq = given.column2, doc = given.column3 FROM (VALUES ",
    "(?, ?, ?, ?, ?)",
    ") AS given WHERE tenant = given.column4 AND id = given.column5",
)
.kept_for_one_row();
