//! The engine over SQL: one code for two databases.
//!
//! SQLite is embedded: one file, one writer. PostgreSQL makes a cluster: many servers, many writers. All statements are those of both; where they
//! differ, `Dialect::pick` holds the two texts side by side. A transaction that changes a subject locks its row first and then its tasks, in this
//! order everywhere, so that no two wait for each other; in SQLite the one writer does the same.

mod admission;
mod artifact_records;
mod choosing;
mod compatibility;
mod deletion;
mod desk;
mod expiry;
mod facts;
mod foresight;
mod forgetting;
mod garbage;
mod giving;
mod group;
mod held;
mod holders;
mod idempotency;
mod idle;
mod joint;
mod lease;
mod lines;
mod many;
mod memory;
mod model_artifacts;
mod model_deletion;
mod notices;
mod operations;
mod outage;
mod overview;
mod positions;
mod postgres;
mod proofs;
mod ready;
mod reaping;
mod remake;
mod resources;
mod room;
mod settle;
mod spending;
mod sqlite;
mod statistics;
mod stopping;
mod task_engine;
mod tenants;
mod too_large;
mod webhooks;
mod work;

use std::sync::Arc;
use std::time::Instant;

use sqlx::{AnyConnection, AnyPool};
use tokio::runtime::Handle;

use super::document::{Change, Document};
use super::verdict::budgets;
use super::{EngineError, Notice, Subject, SubjectKind, now_ms};
use crate::limits::Limits;
use crate::placement::retry::Budgets;
use crate::record_seal::RecordSeal;
pub use compatibility::{Incompatible, Schema};
use desk::Desk;
use foresight::ReadyModels;
use garbage::SweptTo;
use group::{Group, Member};
use holders::Holders;
use joint::Newcomers;
use lines::{Line, Lines, Waits};
use many::{Part, execute_together, row};
use model_artifacts::ModelArtifacts;
use notices::Notices;
use positions::Positions;
pub use postgres::PostgresError;
use proofs::Provers;
use room::{Counts, Reservation};
pub use sqlite::OpenError;
use stopping::Stop;

/// Which database it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    /// The text for this database.
    pub(super) fn pick(self, sqlite: &'static str, postgres: &'static str) -> &'static str {
        match self {
            Self::Sqlite => sqlite,
            Self::Postgres => postgres,
        }
    }
}

/// What the engine takes from the service's limits.
#[derive(Debug, Clone)]
struct Rules {
    queued_per_tenant: u32,
    uploads_per_tenant: u32,
    page_bytes: usize,
    budgets: Budgets,
    lease_ms: i64,
}

impl Rules {
    fn new(limits: &Limits) -> Self {
        Self {
            queued_per_tenant: limits.queued_per_tenant,
            uploads_per_tenant: limits.uploads_per_tenant,
            // Room for names, tags and lengths.
            page_bytes: limits.message_bytes / 4 * 3,
            budgets: budgets(limits.attempts, limits.worker_deaths, limits.retry_backoff),
            lease_ms: i64::try_from(limits.lease.as_millis()).unwrap_or(i64::MAX),
        }
    }
}

/// The clock of an embedded database: no jump of the wall clock moves it while the process lives.
#[derive(Debug, Clone, Copy)]
struct ProcessClock {
    started: Instant,
    started_ms: i64,
}

impl ProcessClock {
    fn start() -> Self {
        Self { started: Instant::now(), started_ms: now_ms() }
    }

    fn now_ms(&self) -> i64 {
        self.started_ms.saturating_add(i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX))
    }
}

/// The engine on SQLite or PostgreSQL. Cheap to clone: clones are one engine.
#[derive(Debug, Clone)]
pub struct SqlEngine {
    dialect: Dialect,
    writers: Writers,
    readers: AnyPool,
    rules: Rules,
    clock: ProcessClock,
    notices: Arc<Notices>,
    counts: Arc<Counts>,
    positions: Arc<Positions>,
    model_artifacts: Arc<ModelArtifacts>,
    ready_models: Arc<ReadyModels>,
    desk: Arc<Desk>,
    holders: Arc<Holders>,
    newcomers: Arc<Newcomers>,
    provers: Arc<Provers>,
    swept_to: Arc<SweptTo>,
    seal: RecordSeal,
    /// Of the connections.
    runtime: Handle,
}

/// Who may write.
#[derive(Debug, Clone)]
enum Writers {
    /// SQLite: one at a time, who share their commits.
    Group(Group),
    /// PostgreSQL: many, and the server flushes for several at once by itself.
    Lines(Lines),
}

/// What can be rolled back.
enum Unit {
    Member(Member),
    Line(Line),
}

/// A transaction that may write, and the database's time at its start.
struct Writing {
    unit: Unit,
    dialect: Dialect,
    now_ms: i64,
    changed: Vec<Notice>,
    /// Places of tenants that it fills.
    reserved: Vec<Reservation>,
}

impl Writing {
    fn connection(&mut self) -> &mut AnyConnection {
        match &mut self.unit {
            Unit::Member(member) => member.connection(),
            Unit::Line(line) => line.connection(),
        }
    }

    async fn execute_together(&mut self, parts: &[Part]) -> Result<(), EngineError> {
        let dialect = self.dialect;
        execute_together(dialect, self.connection(), parts).await
    }
}

impl SqlEngine {
    /// An engine that remembers nothing yet; on the runtime that it is called on.
    fn over(dialect: Dialect, writers: Writers, readers: AnyPool, limits: &Limits, notices: Arc<Notices>) -> Self {
        Self {
            dialect,
            writers,
            readers,
            rules: Rules::new(limits),
            clock: ProcessClock::start(),
            counts: Arc::default(),
            positions: Arc::default(),
            model_artifacts: Arc::default(),
            ready_models: Arc::default(),
            desk: Arc::new(Desk::new()),
            holders: Arc::default(),
            newcomers: Arc::new(Newcomers::new()),
            provers: Arc::new(Provers::new()),
            swept_to: Arc::default(),
            seal: RecordSeal::default(),
            runtime: Handle::current(),
            notices,
        }
    }

    /// Encrypts the salts and seeds of models and jobs, and opens those that are.
    #[must_use]
    pub fn sealing(self, seal: RecordSeal) -> Self {
        Self { seal, ..self }
    }

    /// Gives an embedded database back, whoever still has a clone: what was being written is on disk, its folder is free, and whoever asks it later is told
    /// [`EngineError::Busy`]. PostgreSQL is not this process's alone, and needs no end.
    pub async fn close(&self) {
        if let Writers::Group(group) = &self.writers {
            group.close().await;
            self.readers.close().await;
        }
    }

    async fn begin(&self) -> Result<Writing, EngineError> {
        self.begin_with(Waits::Long).await
    }

    async fn begin_with(&self, waits: Waits) -> Result<Writing, EngineError> {
        let (unit, now_ms) = match &self.writers {
            Writers::Group(group) => (Unit::Member(group.begin().await?), self.clock.now_ms()),
            Writers::Lines(lines) => {
                let (line, now_ms) = lines.begin(waits).await?;
                (Unit::Line(line), now_ms)
            }
        };
        Ok(Writing { unit, dialect: self.dialect, now_ms, changed: Vec::new(), reserved: Vec::new() })
    }

    /// Commits, then tells other processes what changed: a hint that may be lost. Also for those who wrote nothing, and answer with what they read.
    async fn commit(&self, writing: Writing) -> Result<(), EngineError> {
        match writing.unit {
            Unit::Member(member) => member.commit().await?,
            Unit::Line(line) => line.commit().await?,
        }
        drop(writing.reserved);
        self.notices.tell(writing.changed);
        Ok(())
    }

    /// The database's time, outside of a transaction.
    async fn clock_ms(&self) -> Result<i64, EngineError> {
        match self.dialect {
            Dialect::Sqlite => Ok(self.clock.now_ms()),
            Dialect::Postgres => Ok(database_ms(&mut *self.readers.acquire().await?).await?),
        }
    }
}

async fn database_ms(connection: &mut AnyConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint").fetch_one(connection).await
}

/// A code of SQLite is a number; SQLSTATE has five characters.
fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

impl EngineError {
    /// Others had what was wanted: the database says so.
    fn is_contention(&self) -> bool {
        matches!(self, Self::Busy(source) if source.as_database_error().is_some())
    }

    /// The database does not answer.
    fn is_away(&self) -> bool {
        matches!(self, Self::Busy(source) if source.as_database_error().is_none())
    }
}

impl From<sqlx::Error> for EngineError {
    fn from(error: sqlx::Error) -> Self {
        if matches!(error, sqlx::Error::PoolTimedOut | sqlx::Error::PoolClosed | sqlx::Error::Io(_)) {
            return Self::Busy(error);
        }
        let Some(code) = code(&error) else { return Self::Database(error) };
        if code.len() == 5 {
            return match code.as_str() {
                "53100" | "53200" => Self::Full(error),
                // Serialization, deadlock, no connections, shutting down, starting up, lost connection, cancelled by a time-out.
                "40001" | "40P01" | "53300" | "57P01" | "57P02" | "57P03" | "57014" | "55P03" | "25006" => Self::Busy(error),
                code if code.starts_with("08") => Self::Busy(error),
                "23505" => Self::AlreadyExists,
                "22021" => Self::Text(error),
                _ => Self::Database(error),
            };
        }
        let code = code.parse::<i32>().unwrap_or(0);
        match (code, code & 0xff) {
            // SQLITE_CONSTRAINT_PRIMARYKEY, SQLITE_CONSTRAINT_UNIQUE
            (1555 | 2067, _) => Self::AlreadyExists,
            // SQLITE_BUSY, SQLITE_LOCKED
            (_, 5 | 6) => Self::Busy(error),
            // SQLITE_FULL
            (_, 13) => Self::Full(error),
            _ => Self::Database(error),
        }
    }
}

impl SubjectKind {
    /// As the columns `kind` of tasks and events name it.
    fn task_kind(self) -> &'static str {
        match self {
            Self::Model => "REGISTER",
            Self::Job => "PROVE",
        }
    }

    fn from_task_kind(kind: &str) -> Self {
        if kind == "REGISTER" { Self::Model } else { Self::Job }
    }
}

fn subject(kind: SubjectKind, tenant: &str, id: &str) -> Subject {
    Subject { kind, tenant: tenant.to_owned(), id: id.to_owned() }
}

/// Reads a document.
async fn load(connection: &mut AnyConnection, subject: &Subject) -> Result<Option<Document>, EngineError> {
    let sql = match subject.kind {
        SubjectKind::Model => "SELECT doc FROM models WHERE tenant = $1 AND id = $2",
        SubjectKind::Job => "SELECT doc FROM jobs WHERE tenant = $1 AND id = $2",
    };
    let bytes: Option<Vec<u8>> = sqlx::query_scalar(sql).bind(&subject.tenant).bind(&subject.id).fetch_optional(connection).await?;
    bytes.map(|bytes| Document::decode(subject.kind, &bytes)).transpose()
}

/// Reads a document, and the word left for its workers, and locks its row until the transaction ends.
async fn lock(writing: &mut Writing, subject: &Subject) -> Result<Option<Locked>, EngineError> {
    let sql = match subject.kind {
        SubjectKind::Model => writing.dialect.pick(
            "SELECT doc, NULL, NULL FROM models WHERE tenant = $1 AND id = $2",
            "SELECT doc, NULL, NULL FROM models WHERE tenant = $1 AND id = $2 FOR UPDATE",
        ),
        SubjectKind::Job => writing.dialect.pick(
            "SELECT doc, stop_cause, stop_note FROM jobs WHERE tenant = $1 AND id = $2",
            "SELECT doc, stop_cause, stop_note FROM jobs WHERE tenant = $1 AND id = $2 FOR UPDATE",
        ),
    };
    let row: Option<(Vec<u8>, Option<String>, Option<String>)> =
        sqlx::query_as(sql).bind(&subject.tenant).bind(&subject.id).fetch_optional(writing.connection()).await?;
    let locked = |(bytes, cause, note): (Vec<u8>, _, _)| {
        Ok(Locked { document: Document::decode(subject.kind, &bytes)?, stop: Stop::from_columns(cause, note) })
    };
    row.map(locked).transpose()
}

/// What was read of a row that is locked.
struct Locked {
    document: Document,
    stop: Option<Stop>,
}

/// Applies a change to a document, and writes it, its event, and what webhooks are to be told.
async fn apply(writing: &mut Writing, subject: &Subject, document: &mut Document, change: Change) -> Result<(), EngineError> {
    apply_with(writing, subject, document, change, Vec::new()).await
}

/// As [`apply`], together with statements that write other rows.
async fn apply_with(
    writing: &mut Writing,
    subject: &Subject,
    document: &mut Document,
    change: Change,
    mut parts: Vec<Part>,
) -> Result<(), EngineError> {
    let body = document.apply(change, writing.now_ms);
    let sql = match (subject.kind, document.is_final()) {
        (SubjectKind::Model, _) => "UPDATE models SET state = ?, last_seq = ?, doc = ? WHERE tenant = ? AND id = ?",
        (SubjectKind::Job, false) => "UPDATE jobs SET state = ?, last_seq = ?, doc = ? WHERE tenant = ? AND id = ?",
        // At the end of a job its secrets are erased.
        (SubjectKind::Job, true) => {
            "UPDATE jobs SET state = ?, last_seq = ?, doc = ?, input_salt = NULL, seed = NULL WHERE tenant = ? AND id = ?"
        }
    };
    let sequence = document.last_sequence();
    parts.push(Part::new(sql, row![i64::from(document.state()), sequence, document.encode(), &subject.tenant, &subject.id]));
    parts.push(Part::new(
        "INSERT INTO events(kind, tenant, subject, seq, body) VALUES (?, ?, ?, ?, ?)",
        row![subject.kind.task_kind(), &subject.tenant, &subject.id, sequence, body],
    ));
    if document.is_final() && subject.kind == SubjectKind::Job {
        // What follows from a job's end: its tasks' results are garbage, and webhooks are to hear of it.
        parts.push(garbage::drop_task_references(subject));
        parts.push(Part::new(
            "INSERT INTO outbox(tenant, webhook, job, seq, not_before_ms) SELECT tenant, id, ?, ?, ? FROM webhooks WHERE tenant = ?",
            row![&subject.id, sequence, writing.now_ms, &subject.tenant],
        ));
    }
    writing.execute_together(&parts).await?;
    writing.changed.push(Notice::Changed(subject.clone()));
    Ok(())
}

/// A column of 32 bytes.
fn fixed(bytes: &[u8]) -> Result<[u8; 32], EngineError> {
    bytes.try_into().map_err(|_| {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidData, "not 32 bytes");
        EngineError::Database(sqlx::Error::Decode(source.into()))
    })
}
