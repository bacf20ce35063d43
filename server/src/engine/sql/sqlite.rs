//! Opening SQLite: write-ahead log, `synchronous = FULL`, one connection that writes (each transaction `BEGIN IMMEDIATE`, so that it never fails half
//! way for want of a lock; writers share their commits, see `group`), a few that read. A lock on a file beside the database keeps a second process out; `quick_check` runs at start; migrations
//! are embedded and only go forward. A schema that a newer program left is taken if it works with this one: see `compatibility`.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AnyPool, ConnectOptions as _, Connection as _, Executor as _};

use super::compatibility::{Incompatible, NEWER, Newer, Schema, judge, newest};
use super::group::Group;
use super::notices::Notices;
use super::{Dialect, SqlEngine, Writers};
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
    /// A migration failed.
    #[error("the database cannot be brought to this version's schema")]
    Migrate(#[source] MigrateError),
    /// It was written by a newer version that this one cannot follow.
    #[error(transparent)]
    Incompatible(#[from] Incompatible),
    /// Anything else of the database.
    #[error("the database cannot be opened")]
    Database(#[source] sqlx::Error),
}

static MIGRATOR: Migrator = sqlx::migrate!("./migrations/sqlite");

impl SqlEngine {
    /// Opens or creates a SQLite database in `directory`, which exists.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open_sqlite(directory: &Path, limits: &Limits) -> Result<Self, OpenError> {
        let lock = lock_directory(directory)?;
        let path = directory.join("zkinfer.db");
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .disable_statement_logging();
        check(&path, &options).await?;
        migrate(&options).await?;
        sqlx::any::install_default_drivers();
        let writers = pool(&path, "rw", 1).await.map_err(OpenError::Database)?;
        let writer = writers.acquire().await.map_err(OpenError::Database)?;
        let readers = pool(&path, "ro", 4).await.map_err(OpenError::Database)?;
        Ok(Self::over(Dialect::Sqlite, Writers::Group(Group::new(writer.detach(), lock)), readers, limits, Notices::silent()))
    }
}

/// Connections to the database; `mode` is SQLite's: `rw`, `ro`, or `rwc` to make it.
pub(super) async fn pool(path: &Path, mode: &str, n_connections: u32) -> Result<AnyPool, sqlx::Error> {
    // What a URL reads otherwise is escaped.
    let escaped: String = path
        .as_os_str()
        .as_encoded_bytes()
        .iter()
        .map(|&byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect();
    let options = AnyConnectOptions::from_str(&format!("sqlite://{escaped}?mode={mode}"))?.disable_statement_logging();
    AnyPoolOptions::new()
        .max_connections(n_connections)
        .acquire_timeout(Duration::from_secs(10))
        .after_connect(|connection, _| {
            Box::pin(async move {
                connection.execute("PRAGMA busy_timeout = 5000").await?;
                connection.execute("PRAGMA synchronous = FULL").await?;
                connection.execute("PRAGMA foreign_keys = ON").await?;
                Ok(())
            })
        })
        .connect_with(options)
        .await
}

async fn migrate(options: &SqliteConnectOptions) -> Result<(), OpenError> {
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options.clone()).await.map_err(OpenError::Database)?;
    match MIGRATOR.run(&pool).await {
        Ok(()) => {}
        Err(error @ MigrateError::VersionMissing(_)) => {
            let known = newest(&MIGRATOR);
            let newer: Vec<Newer> = sqlx::query_as(NEWER).bind(known).fetch_all(&pool).await.map_err(OpenError::Database)?;
            match judge(known, &newer)? {
                Schema::Own { .. } => return Err(OpenError::Migrate(error)),
                schema => schema.note(),
            }
        }
        Err(error) => return Err(OpenError::Migrate(error)),
    }
    pool.close().await;
    Ok(())
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
        Err(error) if is_damage(&error) => Err(damaged(error.to_string())),
        Err(error) => Err(OpenError::Database(error)),
    }
}

fn is_damage(error: &sqlx::Error) -> bool {
    let code = super::code(error).and_then(|code| code.parse::<i32>().ok());
    matches!(code.map(|code| code & 0xff), Some(11 | 26))
}
