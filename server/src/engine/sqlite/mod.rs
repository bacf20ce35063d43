//! The engine on SQLite: one file, one writer, every commit on disk before it is answered.
//!
//! Settings: write-ahead log, `synchronous = FULL`, one connection that writes (each transaction `BEGIN IMMEDIATE`, so
//! that it never fails half way for want of a lock), a few that read. A lock on a file beside the database keeps a
//! second process out; `quick_check` runs at start; migrations are embedded and only go forward.

mod artifact_records;
mod idempotency;
mod queue;
mod resources;
mod tasks;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, Sqlite, SqliteConnection, Transaction};

use super::document::{Change, Document};
use super::{EngineError, Subject, SubjectKind, now_ms};
use crate::limits::Limits;

/// Why the database could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory cannot be used.
    #[error("cannot use the data directory {path}")]
    Directory {
        /// Which directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Another process has it.
    #[error("the data directory {path} is used by another process; stop that one, or choose another directory")]
    Locked {
        /// Which directory.
        path: PathBuf,
    },
    /// The file is damaged.
    #[error("the database {path} is damaged ({finding}); restore it from a backup")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What `quick_check` says.
        finding: String,
    },
    /// It was written by a newer version, or a migration failed.
    #[error("the database cannot be brought to this version's schema")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// Anything else of the database.
    #[error("the database cannot be opened")]
    Database(#[source] sqlx::Error),
}

/// The engine on SQLite.
#[derive(Debug)]
pub struct SqliteEngine {
    writer: SqlitePool,
    readers: SqlitePool,
    queued_per_tenant: u32,
    uploads_per_tenant: u32,
    page_bytes: usize,
    // Held as long as anything may still write, and released by the system if the process dies.
    _lock: File,
}

type WriteTransaction = Transaction<'static, Sqlite>;

impl SqliteEngine {
    /// Opens or creates the database in `directory`, which exists.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(directory: &Path, limits: &Limits) -> Result<Self, OpenError> {
        let lock = lock_directory(directory)?;
        let path = directory.join("zkinfer.db");
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(5))
            .disable_statement_logging();
        check(&path, &options).await?;
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options.clone())
            .await
            .map_err(OpenError::Database)?;
        sqlx::migrate!("./migrations").run(&writer).await.map_err(OpenError::Migrate)?;
        let readers = SqlitePoolOptions::new()
            .max_connections(4)
            .acquire_timeout(Duration::from_secs(10))
            .connect_with(options.read_only(true))
            .await
            .map_err(OpenError::Database)?;
        Ok(Self {
            writer,
            readers,
            queued_per_tenant: limits.queued_per_tenant,
            uploads_per_tenant: limits.uploads_per_tenant,
            // Room for names, tags and lengths.
            page_bytes: limits.message_bytes / 4 * 3,
            _lock: lock,
        })
    }

    async fn begin(&self) -> Result<WriteTransaction, EngineError> {
        Ok(self.writer.begin_with("BEGIN IMMEDIATE").await?)
    }
}

fn lock_directory(directory: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Directory { path: directory.into(), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(directory.join("lock")).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::Locked { path: directory.into() }),
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

async fn check(path: &Path, options: &SqliteConnectOptions) -> Result<(), OpenError> {
    let damaged = |finding: String| OpenError::Damaged { path: path.to_path_buf(), finding };
    let checked: Result<String, sqlx::Error> = async {
        let mut connection = options.clone().connect().await?;
        let finding = sqlx::query_scalar("PRAGMA quick_check(1)").fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(finding)
    }
    .await;
    match checked {
        Ok(finding) if finding == "ok" => Ok(()),
        Ok(finding) => Err(damaged(finding)),
        // SQLITE_CORRUPT and SQLITE_NOTADB.
        Err(error) if matches!(primary_code(&error), Some(11 | 26)) => Err(damaged(error.to_string())),
        Err(error) => Err(OpenError::Database(error)),
    }
}

fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code: i32 = error.as_database_error()?.code()?.parse().ok()?;
    Some(code & 0xff)
}

impl From<sqlx::Error> for EngineError {
    fn from(error: sqlx::Error) -> Self {
        match primary_code(&error) {
            // SQLITE_BUSY, SQLITE_LOCKED
            Some(5 | 6) => Self::Busy(error),
            // SQLITE_FULL
            Some(13) => Self::Full(error),
            _ if matches!(error, sqlx::Error::PoolTimedOut) => Self::Busy(error),
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

async fn load(connection: &mut SqliteConnection, subject: &Subject) -> Result<Option<Document>, EngineError> {
    let sql = match subject.kind {
        SubjectKind::Model => "SELECT doc FROM models WHERE tenant = ? AND id = ?",
        SubjectKind::Job => "SELECT doc FROM jobs WHERE tenant = ? AND id = ?",
    };
    let bytes: Option<Vec<u8>> = sqlx::query_scalar(sql).bind(&subject.tenant).bind(&subject.id).fetch_optional(connection).await?;
    bytes.map(|bytes| Document::decode(subject.kind, &bytes)).transpose()
}

/// Applies a change to a document, and writes it and its event.
async fn apply(connection: &mut SqliteConnection, subject: &Subject, document: &mut Document, change: Change) -> Result<(), EngineError> {
    let body = document.apply(change, now_ms());
    let sql = match subject.kind {
        SubjectKind::Model => "UPDATE models SET state = ?, last_seq = ?, doc = ? WHERE tenant = ? AND id = ?",
        SubjectKind::Job => "UPDATE jobs SET state = ?, last_seq = ?, doc = ? WHERE tenant = ? AND id = ?",
    };
    sqlx::query(sql)
        .bind(document.state())
        .bind(document.last_sequence())
        .bind(document.encode())
        .bind(&subject.tenant)
        .bind(&subject.id)
        .execute(&mut *connection)
        .await?;
    append_event(connection, subject, document.last_sequence(), body).await?;
    if document.is_final() && subject.kind == SubjectKind::Job {
        sqlx::query("UPDATE jobs SET input_salt = NULL, seed = NULL WHERE tenant = ? AND id = ?")
            .bind(&subject.tenant)
            .bind(&subject.id)
            .execute(connection)
            .await?;
    }
    Ok(())
}

async fn append_event(connection: &mut SqliteConnection, subject: &Subject, sequence: i64, body: Vec<u8>) -> Result<(), EngineError> {
    sqlx::query("INSERT INTO events(kind, tenant, subject, seq, body) VALUES (?, ?, ?, ?, ?)")
        .bind(subject.kind.task_kind())
        .bind(&subject.tenant)
        .bind(&subject.id)
        .bind(sequence)
        .bind(body)
        .execute(connection)
        .await?;
    Ok(())
}
