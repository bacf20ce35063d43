//! What the service remembers: models, jobs, their tasks and events, artifacts' facts, uploads, request ids.
//!
//! [`Engine`] is the seam. Its contract, which every implementation keeps and the tests check:
//! - what was answered survives a crash: a method returns after its transaction is on disk;
//! - a worker's write carries the epoch it was given at [`Tasks::claim`]; with another epoch it changes nothing and
//!   answers [`EngineError::Fenced`];
//! - a final state never changes; a result appears in the same transaction as SUCCEEDED or READY;
//! - events of a subject are numbered 1, 2, 3 … without gaps, each written in the transaction that it tells of.

mod document;
pub mod sqlite;

use futures::future::BoxFuture;
use zkinfer_proto::v1;

use crate::artifacts::Class;
use crate::observe::QueueFacts;

/// BLAKE3 hash of an artifact.
pub type Digest = [u8; 32];

/// A future of the engine.
pub type EngineFuture<'a, T> = BoxFuture<'a, Result<T, EngineError>>;

/// Why the engine did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The same request id came with another request.
    #[error("the request id was used for another request")]
    RequestIdReused,
    /// A resource of this name exists.
    #[error("a resource of this name exists")]
    AlreadyExists,
    /// The job's model does not exist.
    #[error("the model does not exist")]
    ModelNotFound,
    /// The job's model cannot take jobs.
    #[error("the model is not ready")]
    ModelNotReady(v1::model::State),
    /// The tenant has as many entries as it may have.
    #[error("at most {limit} {what} at a time")]
    QuotaExceeded {
        /// What is counted.
        what: &'static str,
        /// How many there may be.
        limit: u32,
    },
    /// One job of a batch was refused, and so the batch.
    #[error("job {index} of the batch was refused")]
    InBatch {
        /// Its place in the batch.
        index: usize,
        /// Why.
        source: Box<EngineError>,
    },
    /// A worker wrote with an epoch that is not the newest.
    #[error("the task was given to another worker")]
    Fenced,
    /// The database did not answer in time.
    #[error("the database is busy")]
    Busy(#[source] sqlx::Error),
    /// No space is left.
    #[error("no space is left for the database")]
    Full(#[source] sqlx::Error),
    /// A stored document cannot be decoded.
    #[error("a stored document is damaged")]
    Damaged(#[source] prost::DecodeError),
    /// Anything else of the database.
    #[error("the database failed")]
    Database(#[source] sqlx::Error),
}

/// What a task works for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubjectKind {
    /// A model's registration.
    Model,
    /// A job's proof.
    Job,
}

/// A model or a job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// Which kind.
    pub kind: SubjectKind,
    /// Owner.
    pub tenant: String,
    /// Model id or job id.
    pub id: String,
}

/// A task as given to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// What it works for.
    pub subject: Subject,
    /// Rises with every claim.
    pub epoch: i64,
    /// From 1; a release gives it back.
    pub attempt: u32,
}

/// A claimed task with all that is needed to do it.
#[derive(Debug)]
pub struct Claimed {
    /// The task.
    pub task: Task,
    /// The work.
    pub work: Work,
}

/// What a task does.
pub enum Work {
    /// Registers a model.
    Register {
        /// The model.
        model: Box<v1::Model>,
        /// Salt of its commitment.
        salt: [u8; 32],
        /// Seed of the rest.
        seed: [u8; 32],
    },
    /// Proves a job.
    Prove {
        /// The job.
        job: Box<v1::Job>,
        /// Its model.
        model: Box<v1::Model>,
        /// Internal artifact of the model.
        private_digest: Digest,
        /// Salt of the input commitment.
        input_salt: [u8; 32],
        /// Seed of the rest.
        seed: [u8; 32],
    },
}

impl Work {
    /// Name of the task within its job or registration.
    pub fn task_name(&self) -> &'static str {
        match self {
            Self::Register { .. } => "register",
            Self::Prove { .. } => "prove",
        }
    }

    /// The trace that the job or the model was created in; empty if there is none.
    pub fn trace_parent(&self) -> &str {
        match self {
            Self::Register { model, .. } => &model.trace_parent,
            Self::Prove { job, .. } => &job.trace_parent,
        }
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Salts and seeds stay out of every log.
        match self {
            Self::Register { model, .. } => f.debug_tuple("Register").field(&model.name).finish(),
            Self::Prove { job, .. } => f.debug_tuple("Prove").field(&job.name).finish(),
        }
    }
}

/// Makes a create idempotent.
#[derive(Debug, Clone)]
pub struct RequestKey {
    /// The client's UUID.
    pub request_id: String,
    /// Hash of the request without it.
    pub request_hash: Digest,
}

/// A model to create.
pub struct NewModel {
    /// As it will be answered, in COMPILING.
    pub model: v1::Model,
    /// Salt of its commitment.
    pub salt: [u8; 32],
    /// Seed of the rest.
    pub seed: [u8; 32],
    /// Request id, if the client gave one.
    pub key: Option<RequestKey>,
}

/// A job to create.
pub struct NewJob {
    /// As it will be answered, in QUEUED.
    pub job: v1::Job,
    /// Salt of the input commitment.
    pub input_salt: [u8; 32],
    /// Seed of the rest.
    pub seed: [u8; 32],
    /// Request id, if the client gave one.
    pub key: Option<RequestKey>,
}

/// Which page of a list.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// Entries, at most.
    pub size: u32,
    /// Only entries that come after this one: creation time and id.
    pub after: Option<(i64, String)>,
}

/// A page of a list, newest first.
#[derive(Debug)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Where the next page starts, if there is one.
    pub next: Option<(i64, String)>,
}

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Of this model.
    pub model_id: Option<String>,
    /// In one of these states; empty: in any.
    pub states: Vec<v1::job::State>,
    /// With all of these labels.
    pub labels: Vec<(String, String)>,
}

/// Facts of a stored artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactFacts {
    /// Who may read it.
    pub class: Class,
    /// Owner.
    pub tenant: String,
    /// Hash.
    pub digest: Digest,
    /// Size.
    pub size_bytes: u64,
    /// What it is.
    pub media_type: String,
    /// When it was first stored.
    pub created_ms: i64,
}

/// An upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadFacts {
    /// Owner.
    pub tenant: String,
    /// UUID.
    pub id: String,
    /// Hash that the bytes must have.
    pub digest: Digest,
    /// Size that they must have.
    pub size_bytes: u64,
    /// What they are.
    pub media_type: String,
    /// How many are on disk.
    pub committed_bytes: u64,
    /// They are an artifact now.
    pub is_complete: bool,
}

/// A stored event.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// Its number.
    pub sequence: i64,
    /// Encoded `ModelEvent` or `JobEvent`.
    pub body: Vec<u8>,
}

/// Models and jobs, as clients see them.
pub trait Resources: Send + Sync {
    /// Admits a registration; answers the model, or the first answer if the request id is known.
    fn create_model(&self, new: NewModel) -> EngineFuture<'_, v1::Model>;
    /// A model.
    fn model(&self, tenant: &str, id: &str) -> EngineFuture<'_, Option<v1::Model>>;
    /// Models of a tenant, newest first.
    fn list_models(&self, tenant: &str, page: PageRequest) -> EngineFuture<'_, Page<v1::Model>>;
    /// Admits a job; answers the job, or the first answer if the request id is known.
    fn create_job(&self, new: NewJob) -> EngineFuture<'_, v1::Job>;
    /// Admits all jobs of a batch of one tenant's, or none; answers the jobs in order, or the first answer if the request id is known. The keys of the
    /// single jobs are not looked at.
    ///
    /// # Errors
    /// [`EngineError::InBatch`] for what is wrong with one of them.
    fn create_jobs(&self, tenant: &str, batch: Vec<NewJob>, key: Option<RequestKey>) -> EngineFuture<'_, Vec<v1::Job>>;
    /// A job.
    fn job(&self, tenant: &str, id: &str) -> EngineFuture<'_, Option<v1::Job>>;
    /// Jobs of a tenant, newest first.
    fn list_jobs(&self, tenant: &str, filter: JobFilter, page: PageRequest) -> EngineFuture<'_, Page<v1::Job>>;
    /// Cancels a job: at once if it is queued; else its task must be told to stop. Final jobs stay as they are.
    fn cancel_job(&self, tenant: &str, id: &str, note: &str) -> EngineFuture<'_, Option<v1::Job>>;
    /// Events of a subject with numbers from `from` on, in order.
    fn events(&self, subject: &Subject, from: i64, limit: u32) -> EngineFuture<'_, Vec<StoredEvent>>;
}

/// Facts of artifacts and uploads.
pub trait ArtifactRecords: Send + Sync {
    /// Records an artifact whose bytes are stored. Again is no error; the first record stays.
    fn add_artifact(&self, facts: ArtifactFacts) -> EngineFuture<'_, ()>;
    /// Facts of an artifact.
    fn artifact(&self, class: Class, tenant: &str, digest: Digest) -> EngineFuture<'_, Option<ArtifactFacts>>;
    /// Opens an upload; answers the first one if the request id is known.
    fn create_upload(&self, upload: UploadFacts, key: Option<RequestKey>) -> EngineFuture<'_, UploadFacts>;
    /// An upload.
    fn upload(&self, tenant: &str, id: &str) -> EngineFuture<'_, Option<UploadFacts>>;
    /// Records how many bytes of an upload are on disk.
    fn set_committed(&self, tenant: &str, id: &str, bytes: u64) -> EngineFuture<'_, ()>;
    /// Completes an upload: its bytes are the artifact `facts`.
    fn complete_upload(&self, id: &str, facts: ArtifactFacts) -> EngineFuture<'_, ()>;
    /// Forgets request ids and unfinished uploads that are older; answers the ids of those uploads.
    fn forget_before(&self, created_ms: i64) -> EngineFuture<'_, Vec<String>>;
}

/// The queue, as workers see it.
pub trait Tasks: Send + Sync {
    /// After a crash: what was running is queued again, or fails if it has had `max_attempts`. Answers how many were
    /// queued and how many failed.
    fn recover(&self, max_attempts: u32) -> EngineFuture<'_, (u32, u32)>;
    /// Takes the first ready task, if any.
    fn claim(&self) -> EngineFuture<'_, Option<Claimed>>;
    /// Records progress. Answers whether the task should go on.
    fn progress(&self, task: &Task, progress: v1::Progress) -> EngineFuture<'_, TaskFlow>;
    /// Publishes a registration together with its artifacts.
    fn complete_model(
        &self,
        task: &Task,
        registered: v1::RegisteredModel,
        private_digest: Digest,
        artifacts: Vec<ArtifactFacts>,
    ) -> EngineFuture<'_, ()>;
    /// Publishes a job's result together with its artifacts, unless the job was told to stop: then it ends that way.
    fn complete_job(&self, task: &Task, result: v1::JobResult, artifacts: Vec<ArtifactFacts>) -> EngineFuture<'_, ()>;
    /// Ends a subject as FAILED, or as CANCELLED or EXPIRED if it was told to stop.
    fn fail(&self, task: &Task, failure: v1::Failure) -> EngineFuture<'_, ()>;
    /// Queues a task again, not before a time. A job that was told to stop ends that way.
    fn retry(&self, task: &Task, not_before_ms: i64) -> EngineFuture<'_, ()>;
    /// Gives a task back unharmed: it is queued again and the attempt does not count.
    fn release(&self, task: &Task) -> EngineFuture<'_, ()>;
    /// Ends jobs whose deadline has passed; answers those that are running and must be told to stop, and those that
    /// have ended.
    fn expire(&self) -> EngineFuture<'_, Expired>;
    /// How much is ready and running, and since when.
    fn queue(&self) -> EngineFuture<'_, QueueFacts>;
}

/// Jobs whose deadline has passed.
#[derive(Debug, Default)]
pub struct Expired {
    /// Told to stop.
    pub stopping: Vec<Subject>,
    /// At their end.
    pub ended: Vec<Subject>,
}

/// Whether a running task is still wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskFlow {
    /// Go on.
    Continue,
    /// Its job was cancelled or has expired.
    Stop,
}

/// The whole engine.
pub trait Engine: Resources + ArtifactRecords + Tasks + 'static {}

impl<T: Resources + ArtifactRecords + Tasks + 'static> Engine for T {}

/// Milliseconds since 1970.
pub fn now_ms() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
}

/// A time on the wire.
pub fn timestamp(ms: i64) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: ms.div_euclid(1000), nanos: i32::try_from(ms.rem_euclid(1000)).unwrap_or(0) * 1_000_000 }
}

/// Milliseconds of a time on the wire, saturating.
pub fn timestamp_ms(time: &prost_types::Timestamp) -> i64 {
    time.seconds.saturating_mul(1000).saturating_add(i64::from(time.nanos) / 1_000_000)
}
