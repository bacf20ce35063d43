//! Connections to PostgreSQL that write, kept ready.
//!
//! A pool asks a connection for a sign of life before it lends it and when it comes back: two round trips more for each transaction. Here the statement
//! that begins a transaction is the sign; a connection that has died while nobody used it is replaced, as nothing was done with it yet. The same statement
//! tells the database's time. What is dropped before its commit is rolled back by a task.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::pool::PoolConnection;
use sqlx::{Any, AnyConnection, AnyPool, Executor as _, Row as _};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a connection is waited for.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a transaction waits for locks of others.
#[derive(Debug, Clone, Copy)]
pub(super) enum Waits {
    /// As long as the connection's limit says.
    Long,
    /// Not long: others wait for the transaction.
    Briefly,
}

impl Waits {
    fn begin(self) -> &'static str {
        match self {
            Self::Long => "BEGIN; SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint",
            Self::Briefly => "BEGIN; SET LOCAL lock_timeout = '250ms'; SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint",
        }
    }
}

/// The connections. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    pool: AnyPool,
    free: Arc<Semaphore>,
    idle: Arc<Idle>,
    runtime: Handle,
}

/// Connections that nobody uses.
#[derive(Debug)]
struct Idle {
    connections: Mutex<Vec<PoolConnection<Any>>>,
    runtime: Handle,
}

impl Idle {
    fn lock(&self) -> MutexGuard<'_, Vec<PoolConnection<Any>>> {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Idle {
    fn drop(&mut self) {
        // A connection goes back to its pool by a task. Where there is no runtime that panics; a runtime that has ended only drops it.
        let _entered = self.runtime.enter();
        self.lock().clear();
    }
}

impl Lines {
    /// At most `n` of the pool's; on the runtime that it is called on.
    pub(super) fn new(pool: AnyPool, n: usize) -> Self {
        let runtime = Handle::current();
        let idle = Idle { connections: Mutex::default(), runtime: runtime.clone() };
        Self { pool, free: Arc::new(Semaphore::new(n)), idle: Arc::new(idle), runtime }
    }

    /// Begins a transaction; answers the database's time too, in milliseconds.
    pub(super) async fn begin(&self, waits: Waits) -> Result<(Line, i64), sqlx::Error> {
        let waiting = tokio::time::timeout(PATIENCE, self.free.clone().acquire_owned());
        let permit = waiting.await.map_err(|_| sqlx::Error::PoolTimedOut)?.map_err(|_| sqlx::Error::PoolClosed)?;
        let mut line = Line { lines: self.clone(), connection: None, permit: Some(permit) };
        while let Some(connection) = self.take_idle() {
            match line.enter(connection, waits).await {
                Ok(now_ms) => return Ok((line, now_ms)),
                Err(error) => {
                    tracing::debug!(%error, "a connection to the database is replaced");
                    line.discard();
                }
            }
        }
        let now_ms = match line.enter(self.pool.acquire().await?, waits).await {
            // The pool's connections may have died a moment ago, all of them; a new one has not.
            Err(sqlx::Error::Io(_)) => {
                line.discard();
                line.enter(self.pool.acquire().await?, waits).await?
            }
            entered => entered?,
        };
        Ok((line, now_ms))
    }

    fn take_idle(&self) -> Option<PoolConnection<Any>> {
        self.idle.lock().pop()
    }

    fn keep(&self, connection: PoolConnection<Any>) {
        self.idle.lock().push(connection);
    }
}

/// A transaction. Rolled back if it is dropped.
#[derive(Debug)]
pub(super) struct Line {
    lines: Lines,
    // Always there until the transaction ends.
    connection: Option<PoolConnection<Any>>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Line {
    async fn enter(&mut self, connection: PoolConnection<Any>, waits: Waits) -> Result<i64, sqlx::Error> {
        // From here on a drop rolls back, also in the middle of the statement.
        let connection = self.connection.insert(connection);
        let rows = connection.fetch_all(waits.begin()).await?;
        rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get(0)
    }

    /// Closes a connection that does not answer.
    fn discard(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(connection.detach());
        }
    }

    pub(super) fn connection(&mut self) -> &mut AnyConnection {
        self.connection.as_mut().expect("it is given away only by what takes the transaction")
    }

    pub(super) async fn commit(mut self) -> Result<(), sqlx::Error> {
        // If this is dropped in the middle, the rollback that follows finds a transaction, or none.
        self.connection().execute("COMMIT").await?;
        if let Some(connection) = self.connection.take() {
            self.lines.keep(connection);
        }
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let (lines, permit) = (self.lines.clone(), self.permit.take());
        // If the runtime has ended, the task is dropped here, with its connection: see `Idle`.
        let _entered = self.lines.runtime.enter();
        self.lines.runtime.spawn(async move {
            match connection.execute("ROLLBACK").await {
                Ok(_) => lines.keep(connection),
                Err(_) => drop(connection.detach()),
            }
            drop(permit);
        });
    }
}
