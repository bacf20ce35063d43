//! What operators see of all tenants at once: counts, the newest jobs and models, and what runs where.

use zkinfer_proto::v1;

use super::{EngineFuture, JobFilter, Page, PageRequest, SessionId, Subject};

/// How many jobs and models there are in each state; states without any are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// Jobs by state.
    pub jobs: Vec<(v1::job::State, u64)>,
    /// Models by state.
    pub models: Vec<(v1::model::State, u64)>,
}

/// A task in the hands of a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunningTask {
    /// Who has it.
    pub session: SessionId,
    /// What it works for.
    pub subject: Subject,
    /// Its name in the subject's graph.
    pub name: String,
    /// The kind of step, such as `layer`.
    pub step: String,
    /// When it was leased, in milliseconds since 1970.
    pub started_ms: i64,
}

/// A view over all tenants. Only for operators: nothing here looks at who asks.
pub trait Overview: Send + Sync {
    /// Jobs and models by state.
    fn census(&self) -> EngineFuture<'_, Census>;
    /// Tasks that run, of at most `limit`; those of one session follow one another, oldest first.
    fn running_tasks(&self, limit: u32) -> EngineFuture<'_, Vec<RunningTask>>;
    /// Jobs of all tenants, newest first.
    fn recent_jobs(&self, filter: JobFilter, page: PageRequest) -> EngineFuture<'_, Page<v1::Job>>;
    /// Models of all tenants, newest first.
    fn recent_models(&self, page: PageRequest) -> EngineFuture<'_, Page<v1::Model>>;
}
