//! Opening PostgreSQL 15 or later: a pool of connections, each with its own bounds on how long a statement, a lock and an idle transaction may
//! last. Migrations are embedded and only go forward; an advisory lock keeps two servers from running them at once. A schema that a newer program left is taken
//! if it works with this one: see `compatibility`.

use std::str::FromStr as _;
use std::sync::Arc;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, Executor as _, PgConnection};

use super::compatibility::{Incompatible, NEWER, Newer, Schema, judge, newest};
use super::lines::Lines;
use super::notices::Notices;
use super::statistics::take_first;
use super::{Dialect, SqlEngine, Writers, code};
use crate::limits::Limits;

/// The oldest version that is tested.
const MIN_VERSION: i32 = 150_000;
/// One to write and one to read.
const MIN_CONNECTIONS: u32 = 2;

/// How long a connection that nobody uses is taken to be alive.
const TRUSTED: Duration = Duration::from_secs(1);

/// Why PostgreSQL cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// The URL cannot be read.
    #[error("the database's URL cannot be read; write it as postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    Url(#[source] sqlx::Error),
    /// Nobody answers, or refuses.
    #[error("the database at {place} cannot be reached")]
    Connect {
        /// Host and database, without credentials.
        place: String,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// Too old.
    #[error("the database is PostgreSQL {found}; version 15 or later is needed")]
    Version {
        /// As the server writes it.
        found: String,
    },
    /// The schema is older.
    #[error("the database's schema is of an earlier version; run `zkinferd migrate` with the same --database")]
    NotMigrated,
    /// The schema is newer, and not for this program.
    #[error(transparent)]
    Incompatible(#[from] Incompatible),
    /// Its version cannot be read.
    #[error("the version of the database's schema cannot be read")]
    Schema(#[source] sqlx::Error),
    /// A migration waited too long.
    #[error(
        "the database is not brought to this version's schema yet: others hold what a migration must lock; try again when long transactions, or another \
         `zkinferd migrate`, have ended (pg_stat_activity shows them)"
    )]
    Locked(#[source] MigrateError),
    /// A migration failed.
    #[error("the database cannot be brought to this version's schema")]
    Migrate(#[source] MigrateError),
}

/// How long a statement waits for a lock. Behind a migration that waits for a long transaction, all others wait too.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '10s'";
/// What PostgreSQL answers when that time is over.
const LOCK_NOT_AVAILABLE: &str = "55P03";

static MIGRATOR: Migrator = sqlx::migrate!("./migrations/postgres");

impl SqlEngine {
    /// Opens a PostgreSQL database whose schema is up to date, or newer and for this program too.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn open_postgres(url: &str, n_connections: u32, limits: &Limits) -> Result<Self, PostgresError> {
        let mut connection = connect(url).await?;
        check_schema(&mut connection).await?.note();
        // A connection that does not close well was only looking.
        let _ = connection.close().await;
        sqlx::any::install_default_drivers();
        let n_connections = n_connections.max(MIN_CONNECTIONS);
        let options = AnyConnectOptions::from_str(url).map_err(PostgresError::Url)?.disable_statement_logging();
        let pool = AnyPoolOptions::new()
            .max_connections(n_connections)
            .acquire_timeout(Duration::from_secs(10))
            // A connection that was used a moment ago is not asked for a sign of life.
            .test_before_acquire(false)
            .before_acquire(|connection, used| {
                Box::pin(async move {
                    if used.idle_for > TRUSTED {
                        connection.ping().await?;
                    }
                    Ok(true)
                })
            })
            .after_connect(|connection, _| {
                Box::pin(async move {
                    connection.execute("SET statement_timeout = '30s'").await?;
                    connection.execute(LOCK_TIMEOUT).await?;
                    connection.execute("SET idle_in_transaction_session_timeout = '60s'").await?;
                    Ok(())
                })
            })
            .connect_with(options)
            .await
            .map_err(|source| PostgresError::Connect { place: place(url), source })?;
        let notices = Notices::over(url).map_err(PostgresError::Url)?;
        // Some of the connections are left for those who read.
        let lines = Lines::new(pool.clone(), (n_connections - n_connections / 4).min(n_connections - 1) as usize);
        tokio::spawn(take_first(pool.clone(), Arc::downgrade(&notices)));
        Ok(Self::over(Dialect::Postgres, Writers::Lines(lines), pool, limits, notices))
    }

    /// Brings a PostgreSQL database to this program's schema; one that is newer is left alone.
    ///
    /// # Errors
    /// See [`PostgresError`].
    pub async fn migrate_postgres(url: &str) -> Result<Schema, PostgresError> {
        let mut connection = connect(url).await?;
        connection.execute(LOCK_TIMEOUT).await.map_err(|error| PostgresError::Migrate(error.into()))?;
        let schema = match MIGRATOR.run(&mut connection).await {
            Ok(()) => Schema::Own { version: newest(&MIGRATOR) },
            Err(error @ MigrateError::VersionMissing(_)) => match check_schema(&mut connection).await? {
                Schema::Own { .. } => return Err(PostgresError::Migrate(error)),
                schema => schema,
            },
            Err(error) if has_waited(&error) => return Err(PostgresError::Locked(error)),
            Err(error) => return Err(PostgresError::Migrate(error)),
        };
        let _ = connection.close().await;
        Ok(schema)
    }
}

async fn connect(url: &str) -> Result<PgConnection, PostgresError> {
    let options = PgConnectOptions::from_str(url).map_err(PostgresError::Url)?.disable_statement_logging();
    let failed = |source| PostgresError::Connect { place: place(url), source };
    let mut connection = options.connect().await.map_err(failed)?;
    let (number, text): (i32, String) =
        sqlx::query_as("SELECT current_setting('server_version_num')::int, current_setting('server_version')")
            .fetch_one(&mut connection)
            .await
            .map_err(failed)?;
    if number < MIN_VERSION {
        return Err(PostgresError::Version { found: text });
    }
    Ok(connection)
}

/// Whether a migration could not have its locks. Those before it stay; it has changed nothing.
fn has_waited(error: &MigrateError) -> bool {
    let (MigrateError::Execute(cause) | MigrateError::ExecuteMigration(cause, _)) = error else { return false };
    code(cause).is_some_and(|code| code == LOCK_NOT_AVAILABLE)
}

/// Refuses a schema that is older, as servers do not race to migrate, and one that is newer and not for this program.
async fn check_schema(connection: &mut PgConnection) -> Result<Schema, PostgresError> {
    let known = newest(&MIGRATOR);
    let applied = sqlx::query_scalar("SELECT max(version) FROM _sqlx_migrations WHERE success").fetch_one(&mut *connection).await;
    match applied {
        Ok(Some(version)) if version == known => Ok(Schema::Own { version }),
        Ok(Some(version)) if version > known => {
            let newer: Vec<Newer> = sqlx::query_as(NEWER).bind(known).fetch_all(connection).await.map_err(PostgresError::Schema)?;
            Ok(judge(known, &newer)?)
        }
        Ok(Some(_) | None) => Err(PostgresError::NotMigrated),
        // There is no table of migrations.
        Err(error) if code(&error).is_some_and(|code| code == "42P01") => Err(PostgresError::NotMigrated),
        Err(error) => Err(PostgresError::Schema(error)),
    }
}

/// Where the database is, without who asks.
fn place(url: &str) -> String {
    PgConnectOptions::from_str(url).map_or_else(
        |_| "an unreadable URL".to_owned(),
        |options| format!("{}:{}/{}", options.get_host(), options.get_port(), options.get_database().unwrap_or("")),
    )
}
