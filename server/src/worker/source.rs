//! Where a worker's tasks come from, and where their results go: the engine of this process, or a service elsewhere.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use zkinfer_proto::v1;

use crate::artifacts::Class;
use crate::engine::{
    ArtifactFacts, Digest, FailedAttempt, Lease, Leased, NewSession, Offer, Outcome, Renewal, SessionEnd, SessionId, TaskFlow, Usage,
};

/// A future of a source.
pub type SourceFuture<'a, T> = BoxFuture<'a, Result<T, SourceError>>;

/// Why a source did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The task was given to another worker.
    #[error("the task was given to another worker")]
    Fenced,
    /// The session was closed.
    #[error("the session is not open any more")]
    NoSession,
    /// It may work later: a service that starts again, a busy database, a full disk.
    #[error("not available: {0}")]
    Unavailable(String),
    /// Bytes that were to be read are missing or damaged.
    #[error("{0}")]
    Damaged(String),
    /// It will not work.
    #[error("refused: {0}")]
    Refused(String),
}

/// What a session is told when it is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Its name.
    pub session: SessionId,
    /// A worker that gives no sign of life for so long is taken for dead.
    pub lease: Duration,
    /// A job that is expected to take less is not split into tasks.
    pub fuse_below: Duration,
    /// A task that runs longer has failed.
    pub task_limit: Duration,
}

/// A session, and a task that it holds.
#[derive(Debug, Clone, Copy)]
pub struct Holding<'a> {
    /// The session.
    pub session: &'a str,
    /// The task.
    pub lease: &'a Lease,
}

/// Tasks for a worker. All methods may be called from several threads at once, and repeated.
pub trait TaskSource: Send + Sync + 'static {
    /// Opens a session.
    fn open(&self, new: NewSession) -> SourceFuture<'_, Terms>;
    /// Waits a while for tasks; may come back with none.
    fn lease<'a>(&'a self, session: &'a str, offer: Offer) -> SourceFuture<'a, Vec<Leased>>;
    /// A sign of life.
    fn renew<'a>(&'a self, session: &'a str, held: Vec<Lease>) -> SourceFuture<'a, Renewal>;
    /// Records progress.
    fn progress<'a>(&'a self, holding: Holding<'a>, progress: v1::Progress) -> SourceFuture<'a, TaskFlow>;
    /// Progress is sent at most this often, the first time after so long.
    fn progress_interval(&self) -> Duration;
    /// Ends a task well.
    fn complete<'a>(&'a self, holding: Holding<'a>, outcome: Outcome, usage: Usage) -> SourceFuture<'a, ()>;
    /// Ends an attempt badly.
    fn fail<'a>(&'a self, holding: Holding<'a>, failed: FailedAttempt, usage: Usage) -> SourceFuture<'a, ()>;
    /// Gives a task back unharmed.
    fn release<'a>(&'a self, holding: Holding<'a>, usage: Usage) -> SourceFuture<'a, ()>;
    /// Ends a session; a crashed one counts an attempt at its tasks.
    fn close<'a>(&'a self, session: &'a str, end: SessionEnd) -> SourceFuture<'a, ()>;
    /// The bytes of an artifact of the task's tenant.
    fn read<'a>(&'a self, holding: Holding<'a>, class: Class, digest: Digest) -> SourceFuture<'a, Bytes>;
    /// Stores bytes for the task's tenant.
    fn write<'a>(&'a self, holding: Holding<'a>, class: Class, media_type: &'a str, bytes: Bytes) -> SourceFuture<'a, ArtifactFacts>;
    /// The same source, for a runtime of its own: signs of life do not wait for what else goes on. Called on that runtime.
    fn beside(&self) -> Arc<dyn TaskSource>;
}
