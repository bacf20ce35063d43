//! Which database remembers what the service does.

use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::engine::sql::{OpenError, PostgresError, SqlEngine};
use crate::engine::{Notice, TaskEngine};
use crate::limits::Limits;
use crate::scheduler::Hub;

/// A database.
#[derive(Debug, Clone, Default)]
pub enum Database {
    /// SQLite in the data directory, for one process.
    #[default]
    Embedded,
    /// PostgreSQL, shared by many processes.
    Postgres {
        /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE`.
        url: SecretString,
        /// Connections, at most.
        connections: u32,
    },
}

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// SQLite.
    #[error(transparent)]
    Embedded(#[from] OpenError),
    /// PostgreSQL.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
}

impl Database {
    /// Opens it.
    pub(crate) fn open<'a>(&'a self, data_dir: &'a Path, limits: &'a Limits) -> BoxFuture<'a, Result<SqlEngine, DatabaseError>> {
        Box::pin(async move {
            Ok(match self {
                Self::Embedded => SqlEngine::open_sqlite(data_dir, limits).await?,
                Self::Postgres { url, connections } => SqlEngine::open_postgres(url.expose_secret(), *connections, limits).await?,
            })
        })
    }

    /// No other process can have it: what its workers had is nobody's when it starts.
    pub(crate) fn is_own(&self) -> bool {
        matches!(self, Self::Embedded)
    }
}

/// Wakes those who wait here for what other processes do, until `closing`.
pub(crate) fn forward_notices(engine: &dyn TaskEngine, hub: Arc<Hub>, closing: CancellationToken) {
    let Some(mut notices) = engine.notices() else { return };
    tokio::spawn(async move {
        loop {
            match closing.run_until_cancelled(notices.recv()).await {
                Some(Ok(Notice::Ready)) => hub.task_ready(),
                Some(Ok(Notice::Changed(subject))) => hub.changed(&subject),
                // Some were missed: whoever waits looks again at its next poll or heartbeat.
                Some(Err(RecvError::Lagged(_))) => hub.task_ready(),
                Some(Err(RecvError::Closed)) | None => return,
            }
        }
    });
}
