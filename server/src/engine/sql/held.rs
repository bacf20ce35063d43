//! A task in the hands of who reports on it.

use std::collections::HashMap;

use sqlx::any::AnyRow;

use super::super::document::Document;
use super::super::verdict::Failed;
use super::super::{EngineError, Lease, Subject, SubjectKind, TaskKey, graph};
use super::lease::get;
use super::many::{Many, row};
use super::model_artifacts::ModelKey;
use super::stopping::Stop;
use super::{Dialect, Writing};
use crate::placement::retry::History;

/// A running task whose epoch was checked, its subject locked.
pub(super) struct Held {
    pub(super) subject: Subject,
    pub(super) name: String,
    pub(super) ordinal: i64,
    pub(super) epoch: i64,
    pub(super) session: Option<String>,
    pub(super) attempts: u32,
    pub(super) history: History,
    pub(super) device_bytes: u64,
    pub(super) host_bytes: u64,
    /// Something that it reads was done again, or is being, since it was given out.
    pub(super) is_outdated: bool,
    pub(super) document: Document,
    /// When the job's model was created.
    model_ms: i64,
    pub(super) stop: Option<Stop>,
}

impl Held {
    /// The task is all that its subject has.
    pub(super) fn is_whole(&self) -> bool {
        graph::is_whole(&self.name)
    }

    /// The job's model.
    pub(super) fn model(&self) -> ModelKey {
        let id = match &self.document {
            Document::Job(job) => job.model.rsplit('/').next().unwrap_or_default(),
            Document::Model(_) => "",
        };
        (id.to_owned(), self.model_ms)
    }

    /// The task, as far as it matters when it failed or its worker died.
    pub(super) fn failed(&self) -> Failed<'_> {
        Failed {
            history: self.history,
            attempts: self.attempts,
            device_bytes: self.device_bytes,
            host_bytes: self.host_bytes,
            peak_device_bytes: 0,
            peak_host_bytes: 0,
            largest_device_bytes: None,
            largest_host_bytes: None,
            name: &self.name,
            epoch: self.epoch,
        }
    }
}

/// What is read of a running task and its subject.
macro_rules! columns {
    () => {
        "subject.doc, task.ordinal, task.epoch, task.attempts, task.failed_task, task.failed_infra, task.failed_memory, task.deaths, task.device_bytes, \
         task.host_bytes, task.waiting_on, task.session"
    };
}

macro_rules! columns_of_job {
    () => {
        concat!(
            columns!(),
            ", subject.stop_cause, subject.stop_note, \
              (SELECT created_ms FROM models WHERE models.tenant = subject.tenant AND models.id = subject.model_id) AS model_ms"
        )
    };
}

macro_rules! by_lease {
    () => {
        " AS subject JOIN tasks AS task ON task.tenant = subject.tenant AND task.subject = subject.id \
          WHERE subject.tenant = $1 AND subject.id = $2 AND task.kind = $3 AND task.name = $4 AND task.epoch = $5 AND task.state = $6"
    };
}

macro_rules! of_model {
    () => {
        concat!("SELECT ", columns!(), ", NULL AS stop_cause, NULL AS stop_note, subject.created_ms AS model_ms FROM models", by_lease!())
    };
}

macro_rules! of_job {
    () => {
        concat!("SELECT ", columns_of_job!(), " FROM jobs", by_lease!())
    };
}

/// As [`hold`], for who may change other running steps of the job too: all of them are locked in the order in which renewals lock them. The job's row first:
/// then no other step begins or ends.
///
/// # Errors
/// [`EngineError::Fenced`].
pub(super) async fn hold_with_others(writing: &mut Writing, lease: &Lease) -> Result<Held, EngineError> {
    if writing.dialect == Dialect::Postgres && !graph::is_whole(&lease.task.name) {
        let subject = &lease.task.subject;
        sqlx::query("SELECT 1 FROM jobs WHERE tenant = $1 AND id = $2 FOR UPDATE")
            .bind(&subject.tenant)
            .bind(&subject.id)
            .execute(writing.connection())
            .await?;
        lock_running(writing, subject).await?;
    }
    hold(writing, lease).await
}

/// Locks the running tasks of a subject whose row is locked, in the order in which renewals lock them.
pub(super) async fn lock_running(writing: &mut Writing, subject: &Subject) -> Result<(), EngineError> {
    // In SQLite one writes at a time.
    if writing.dialect == Dialect::Postgres {
        sqlx::query("SELECT 1 FROM tasks WHERE kind = $1 AND tenant = $2 AND subject = $3 AND state = 'RUNNING' ORDER BY name FOR UPDATE")
            .bind(subject.kind.task_kind())
            .bind(&subject.tenant)
            .bind(&subject.id)
            .execute(writing.connection())
            .await?;
    }
    Ok(())
}

/// Locks the subject and then the task, if the lease is the newest.
///
/// # Errors
/// [`EngineError::Fenced`].
pub(super) async fn hold(writing: &mut Writing, lease: &Lease) -> Result<Held, EngineError> {
    let subject = &lease.task.subject;
    let sql = match subject.kind {
        SubjectKind::Model => writing.dialect.pick(of_model!(), concat!(of_model!(), " FOR UPDATE OF subject, task")),
        SubjectKind::Job => writing.dialect.pick(of_job!(), concat!(of_job!(), " FOR UPDATE OF subject, task")),
    };
    let row = sqlx::query(sql)
        .bind(&subject.tenant)
        .bind(&subject.id)
        .bind(subject.kind.task_kind())
        .bind(&lease.task.name)
        .bind(lease.epoch)
        .bind("RUNNING")
        .fetch_optional(writing.connection())
        .await?
        .ok_or(EngineError::Fenced)?;
    held(&row, &lease.task)?.ok_or(EngineError::Fenced)
}

/// Locks the jobs and then the tasks of those leases that are the newest, in one order, and waits for none: what another has is not among them, nor what is
/// fenced.
pub(super) async fn hold_those_that_are_free<'a>(
    writing: &mut Writing,
    leases: &[&'a Lease],
) -> Result<HashMap<&'a Lease, Held>, EngineError> {
    let those = match writing.dialect {
        Dialect::Sqlite => THOSE_OF_SQLITE,
        Dialect::Postgres => THOSE_OF_POSTGRES,
    };
    let given = |(place, lease): (i64, &&Lease)| {
        let Subject { tenant, id, .. } = &lease.task.subject;
        row![place, tenant, id, &lease.task.name, lease.epoch, "RUNNING"]
    };
    let rows: Vec<_> = (0..).zip(leases).map(given).collect();
    let mut free = HashMap::new();
    for row in those.fetch(writing.connection(), &rows).await? {
        let place = usize::try_from(get::<i64>(&row, "place")?).unwrap_or(usize::MAX);
        let Some(lease) = leases.get(place) else { continue };
        if let Some(held) = held(&row, &lease.task)? {
            free.insert(*lease, held);
        }
    }
    Ok(free)
}

/// Of a row of [`columns`]; `None` if its subject is at its end.
fn held(row: &AnyRow, task: &TaskKey) -> Result<Option<Held>, EngineError> {
    let subject = &task.subject;
    let document = Document::decode(subject.kind, &get::<Vec<u8>>(row, "doc")?)?;
    if document.is_final() {
        return Ok(None);
    }
    let count = |column: &str| Ok::<u32, sqlx::Error>(u32::try_from(get::<i64>(row, column)?).unwrap_or(u32::MAX));
    Ok(Some(Held {
        subject: subject.clone(),
        name: task.name.clone(),
        ordinal: get(row, "ordinal")?,
        epoch: get(row, "epoch")?,
        session: get(row, "session")?,
        attempts: count("attempts")?,
        history: History {
            task: count("failed_task")?,
            infrastructure: count("failed_infra")?,
            memory: count("failed_memory")?,
            killed_sessions: count("deaths")?,
        },
        device_bytes: u64::try_from(get::<i64>(row, "device_bytes")?).unwrap_or(0),
        host_bytes: u64::try_from(get::<i64>(row, "host_bytes")?).unwrap_or(0),
        is_outdated: get::<i64>(row, "waiting_on")? > 0,
        document,
        // It is there as long as the job is not over.
        model_ms: get::<Option<i64>>(row, "model_ms")?.unwrap_or_default(),
        stop: Stop::from_columns(get(row, "stop_cause")?, get(row, "stop_note")?),
    }))
}

const THOSE: &str = concat!("SELECT given.column1 AS place, ", columns_of_job!(), " FROM (VALUES ");
const GIVEN: &str = "(?, ?, ?, ?, ?, ?)";
macro_rules! by_leases {
    () => {
        ") AS given JOIN jobs AS subject ON subject.tenant = given.column2 AND subject.id = given.column3 \
           JOIN tasks AS task ON task.kind = 'PROVE' AND task.tenant = given.column2 AND task.subject = given.column3 AND task.name = given.column4 \
             AND task.epoch = given.column5 AND task.state = given.column6"
    };
}
const THOSE_OF_SQLITE: Many = Many::new(THOSE, GIVEN, by_leases!()).kept_for_one_row();
const THOSE_OF_POSTGRES: Many =
    Many::new(THOSE, GIVEN, concat!(by_leases!(), " ORDER BY subject.tenant, subject.id FOR UPDATE OF subject, task SKIP LOCKED"))
        .kept_for_one_row();
