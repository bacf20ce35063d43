//! What the service remembers: models, jobs, their tasks and events, artifacts' facts, uploads, request ids.
//!
//! [`Engine`] is the seam. Its contract, which every implementation keeps and one conformance suite checks:
//! - what was answered survives a crash: a method returns after its transaction is on disk;
//! - a subject's tasks, all of its graph, are written in the transaction that admits it;
//! - a worker's write carries the epoch it was given at [`TaskEngine::lease`]; with another epoch, or after its lease was given to another, it changes
//!   nothing and answers [`EngineError::Fenced`];
//! - a final state never changes; a result appears in the same transaction as SUCCEEDED or READY, once;
//! - events of a subject are numbered 1, 2, 3 … without gaps, each written in the transaction that it tells of.

mod document;
pub mod graph;
mod overview;
pub mod sql;
mod verdict;

use futures::future::BoxFuture;
pub use overview::{Census, Overview, RunningTask};
use zkinfer_proto::v1;

use crate::artifacts::{Class, GarbageRecords};

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
    /// An artifact that is referred to or stored is being deleted, or was.
    #[error("an artifact that this needs is being deleted, or is gone; try again, and store it again if it is not there then")]
    ArtifactGone,
    /// A worker wrote with an epoch that is not the newest.
    #[error("the task was given to another worker")]
    Fenced,
    /// A worker's session was closed, or never opened.
    #[error("the session is not open; open another")]
    NoSession,
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

/// A task of a subject.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TaskKey {
    /// What it works for.
    pub subject: Subject,
    /// Its name in the subject's graph, such as `register`, `prove` or `layer-0007`.
    pub name: String,
}

/// A task in the hands of a worker. Whoever holds an older epoch of it can change nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The task.
    pub task: TaskKey,
    /// Rises each time the task is given to somebody, and when it is taken away.
    pub epoch: i64,
}

/// A leased task with all that is needed to do it.
#[derive(Debug)]
pub struct Leased {
    /// The task and its epoch.
    pub lease: Lease,
    /// From 1; a release gives it back.
    pub attempt: u32,
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
    /// Proves a job from its first step to its last.
    Prove(Box<ProofWork>),
    /// Does one step of a job's proof.
    Step {
        /// The job.
        proof: Box<ProofWork>,
        /// The results that the step reads, by the names of their tasks: internal artifacts of the job's tenant.
        results: Vec<(String, Digest)>,
    },
}

/// A job with what its proof needs.
pub struct ProofWork {
    /// The job.
    pub job: v1::Job,
    /// Its model.
    pub model: v1::Model,
    /// Internal artifact of the model.
    pub private_digest: Digest,
    /// Salt of the input commitment.
    pub input_salt: [u8; 32],
    /// Seed of the rest.
    pub seed: [u8; 32],
}

impl Work {
    /// The trace that the job or the model was created in; empty if there is none.
    pub fn trace_parent(&self) -> &str {
        match self {
            Self::Register { model, .. } => &model.trace_parent,
            Self::Prove(proof) | Self::Step { proof, .. } => &proof.job.trace_parent,
        }
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Salts and seeds stay out of every log.
        match self {
            Self::Register { model, .. } => f.debug_tuple("Register").field(&model.name).finish(),
            Self::Prove(proof) => f.debug_tuple("Prove").field(&proof.job.name).finish(),
            Self::Step { proof, .. } => f.debug_tuple("Step").field(&proof.job.name).finish(),
        }
    }
}

/// What a task gave.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A registration, with its artifacts.
    Registered {
        /// What clients see.
        registered: Box<v1::RegisteredModel>,
        /// What proving needs: an internal artifact.
        private_digest: Digest,
        /// The tasks of each of its jobs.
        graph: v1::TaskGraph,
        /// All artifacts that it made.
        artifacts: Vec<ArtifactFacts>,
    },
    /// Bytes for other tasks of the job: an internal artifact.
    Result(ArtifactFacts),
    /// A job's result, with its artifacts.
    Proved {
        /// What clients see.
        result: Box<v1::JobResult>,
        /// All artifacts that it made.
        artifacts: Vec<ArtifactFacts>,
    },
}

/// What an attempt took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// Where it ran, such as `cpu` or `cuda:0`.
    pub device: String,
    /// Why it ran elsewhere than it should have, such as a device that failed; empty if it did not.
    pub fallback: String,
    /// Largest resident memory of the process since its start; 0 if it cannot be told.
    pub peak_host_bytes: i64,
    /// Largest memory taken on the device since its start; 0 if it cannot be told.
    pub peak_device_bytes: i64,
    /// How long each stage took.
    pub stage_times: Vec<v1::StageTime>,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedAttempt {
    /// The kind of failure, which decides what becomes of the task.
    pub cause: FailureCause,
    /// Stable reason for the client, such as `SHAPE_MISMATCH`; empty: the cause's own.
    pub reason: String,
    /// For people; never inputs, weights or salts.
    pub message: String,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureCause {
    /// The caller's fault: another attempt gives the same.
    InvalidInput,
    /// A bug: another attempt gives the same.
    Internal,
    /// The host's memory did not suffice.
    HostMemory,
    /// The device's memory did not suffice.
    DeviceMemory,
    /// The device failed.
    DeviceLost,
    /// Stored bytes could not be read or written.
    Storage,
    /// The proof just made did not verify.
    VerifyFailed,
    /// It took too long.
    Timeout,
}

/// A worker that asks for tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewSession {
    /// Name for people, such as a pod's; no identity.
    pub worker: String,
    /// It is part of the process that has the database: it is dead when that process starts again.
    pub is_local: bool,
    /// Its devices, for people.
    pub devices: Vec<String>,
}

/// A session's name, made by the engine.
pub type SessionId = String;

/// What a session can take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Tasks, at most.
    pub max_tasks: u32,
    /// Free memory of its freest device; tasks that need more are not given. `u64::MAX` for a host without devices, which pages nothing to one.
    pub free_device_bytes: u64,
    /// Models that it holds ready, by their private digests: their tasks are preferred.
    pub cached_models: Vec<Digest>,
}

/// The answer to a sign of life.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renewal {
    /// No longer this session's: stop, and write nothing.
    pub lost: Vec<Lease>,
    /// No longer wanted: stop, and fail or release them.
    pub stop: Vec<Lease>,
}

/// What the reaper did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Subjects whose tasks wait again for a worker.
    pub requeued: Vec<Subject>,
    /// Subjects that ended: their tasks died with too many workers.
    pub ended: Vec<Subject>,
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

/// Jobs to create together.
pub struct NewBatch {
    /// Owner.
    pub tenant: String,
    /// UUID of the batch.
    pub id: String,
    /// In order; their own keys are not looked at.
    pub jobs: Vec<NewJob>,
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
    /// Of this batch.
    pub batch_id: Option<String>,
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
    /// When it was first stored. A record has the time of the engine's clock instead.
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
    /// Admits all jobs of a batch, or none; answers the jobs in order, or the first answer if the request id is known.
    ///
    /// # Errors
    /// [`EngineError::InBatch`] for what is wrong with one of them.
    fn create_jobs(&self, new: NewBatch) -> EngineFuture<'_, v1::BatchCreateJobsResponse>;
    /// How far a batch is.
    fn batch(&self, tenant: &str, id: &str) -> EngineFuture<'_, Option<v1::Batch>>;
    /// Ids of a batch's jobs that are final, in order.
    fn ended_of_batch(&self, tenant: &str, id: &str) -> EngineFuture<'_, Vec<String>>;
    /// The tasks of a subject with their attempts, in the order of the graph.
    fn tasks(&self, subject: &Subject) -> EngineFuture<'_, Vec<TaskFacts>>;
    /// A job.
    fn job(&self, tenant: &str, id: &str) -> EngineFuture<'_, Option<v1::Job>>;
    /// Jobs of a tenant, newest first.
    fn list_jobs(&self, tenant: &str, filter: JobFilter, page: PageRequest) -> EngineFuture<'_, Page<v1::Job>>;
    /// Cancels a job: at once if it is queued; else its task must be told to stop. Final jobs stay as they are.
    fn cancel_job(&self, tenant: &str, id: &str, note: &str) -> EngineFuture<'_, Option<v1::Job>>;
    /// Events of a subject with numbers from `from` on, in order.
    fn events(&self, subject: &Subject, from: i64, limit: u32) -> EngineFuture<'_, Vec<StoredEvent>>;
}

/// Facts of artifacts and uploads. Who stores bytes holds them first: [`GarbageRecords::hold`].
pub trait ArtifactRecords: GarbageRecords {
    /// Records an artifact whose bytes are stored, now. Again is no error; the first record stays.
    ///
    /// # Errors
    /// [`EngineError::ArtifactGone`] if it is being deleted.
    fn add_artifact(&self, facts: ArtifactFacts) -> EngineFuture<'_, ()>;
    /// Facts of an artifact; `None` also while it is being deleted.
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

/// The queue, as workers and the scheduler see it.
pub trait TaskEngine: Send + Sync {
    /// Opens a session.
    fn open_session(&self, new: NewSession) -> EngineFuture<'_, SessionId>;
    /// Ends a session. Its tasks are taken away: a `crashed` one counts against them, otherwise no attempt is counted.
    fn close_session(&self, session: &str, crashed: bool) -> EngineFuture<'_, Reaped>;
    /// Gives ready tasks to a session, until its next renewals or the lease's end.
    ///
    /// # Errors
    /// [`EngineError::NoSession`] if the session was closed.
    fn lease(&self, session: &str, offer: Offer) -> EngineFuture<'_, Vec<Leased>>;
    /// A sign of life: renews the leases that a session holds.
    ///
    /// # Errors
    /// [`EngineError::NoSession`] if the session was closed.
    fn renew(&self, session: &str, held: Vec<Lease>) -> EngineFuture<'_, Renewal>;
    /// Records progress. Answers whether the task should go on.
    fn progress(&self, lease: &Lease, progress: v1::Progress) -> EngineFuture<'_, TaskFlow>;
    /// Ends a task well: its successors become ready, or its subject ends. A job that was told to stop ends that way instead.
    fn complete(&self, lease: &Lease, outcome: Outcome, usage: Usage) -> EngineFuture<'_, ()>;
    /// Ends an attempt badly: the task is queued again or its subject fails, as the cause and the attempts so far decide.
    fn fail(&self, lease: &Lease, failed: FailedAttempt, usage: Usage) -> EngineFuture<'_, ()>;
    /// Gives a task back unharmed: it is queued again and the attempt does not count.
    fn release(&self, lease: &Lease) -> EngineFuture<'_, ()>;
    /// Takes away the tasks of sessions that gave no sign of life for the length of a lease.
    fn reap(&self) -> EngineFuture<'_, Reaped>;
    /// After a start: takes away the tasks of sessions that were part of the earlier process.
    fn recover(&self) -> EngineFuture<'_, Reaped>;
    /// Ends jobs whose deadline has passed; answers those that are running and must be told to stop, and those that
    /// have ended.
    fn expire(&self) -> EngineFuture<'_, Expired>;
    /// What other processes on the same database do, as hints that may be lost; `None` if no other process can share it.
    fn notices(&self) -> Option<tokio::sync::broadcast::Receiver<Notice>>;
}

/// A hint from another process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A task may be ready.
    Ready,
    /// Something happened to a subject.
    Changed(Subject),
}

/// The queue in numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QueueFacts {
    /// Waiting for other tasks.
    pub waiting: u64,
    /// Waiting for a worker.
    pub ready: u64,
    /// In the hands of a worker.
    pub running: u64,
    /// When the oldest job that no worker has begun was created, in milliseconds since 1970.
    pub oldest_queued_ms: Option<i64>,
}

/// A task as it is told to clients.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskFacts {
    /// Its name in the graph.
    pub name: String,
    /// The kind of step, such as `layer`.
    pub step: String,
    /// `WAITING`, `READY`, `RUNNING`, `DONE`, `FAILED` or `CANCELLED`.
    pub state: String,
    /// Names of the tasks that it reads.
    pub needs: Vec<String>,
    /// All attempts, oldest first.
    pub attempts: Vec<AttemptFacts>,
}

/// One attempt at a task.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptFacts {
    /// The worker's name.
    pub worker: String,
    /// Where it ran; empty while it runs.
    pub device: String,
    /// When it was leased.
    pub started_ms: i64,
    /// When it ended; `None` while it runs.
    pub ended_ms: Option<i64>,
    /// `DONE`, `RELEASED`, `LOST` or a cause of failure; empty while it runs.
    pub outcome: String,
}

/// A worker's session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionFacts {
    /// Its name.
    pub id: SessionId,
    /// The worker's name.
    pub worker: String,
    /// Its devices.
    pub devices: Vec<String>,
    /// When it was opened.
    pub opened_ms: i64,
    /// Its last sign of life.
    pub seen_ms: i64,
    /// It is given no tasks.
    pub is_cordoned: bool,
    /// Tasks in its hands.
    pub running: u64,
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
    /// Its job was cancelled, has expired or has failed.
    Stop,
}

/// Webhooks, and what is still to be sent to them.
pub trait Webhooks: Send + Sync {
    /// Keeps a webhook.
    ///
    /// # Errors
    /// [`EngineError::QuotaExceeded`] if the tenant has `limit` of them.
    fn create_webhook(&self, new: NewWebhook, limit: u32) -> EngineFuture<'_, ()>;
    /// A tenant's webhooks, oldest first.
    fn webhooks(&self, tenant: &str) -> EngineFuture<'_, Vec<v1::Webhook>>;
    /// Forgets a webhook and what was to be sent to it. Answers whether there was one.
    fn delete_webhook(&self, tenant: &str, id: &str) -> EngineFuture<'_, bool>;
    /// Takes what is due, each for so long that no other process sends it meanwhile; oldest first.
    fn take_deliveries(&self, limit: u32, hold: std::time::Duration) -> EngineFuture<'_, Vec<Delivery>>;
    /// A delivery was received, or is given up.
    fn delivered(&self, delivery: &DeliveryKey) -> EngineFuture<'_, ()>;
    /// A delivery is tried again after this has passed.
    fn postpone(&self, delivery: &DeliveryKey, after: std::time::Duration) -> EngineFuture<'_, ()>;
}

/// A webhook to keep.
#[derive(Clone)]
pub struct NewWebhook {
    /// Owner.
    pub tenant: String,
    /// UUID.
    pub id: String,
    /// Where to send.
    pub url: String,
    /// Key of the signatures.
    pub secret: [u8; 32],
}

/// Names what is sent to whom.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DeliveryKey {
    /// Owner.
    pub tenant: String,
    /// UUID of the webhook.
    pub webhook: String,
    /// UUID of the job.
    pub job: String,
    /// Sequence of the event that it tells of.
    pub sequence: i64,
}

/// What is to be sent to a webhook.
#[derive(Clone)]
pub struct Delivery {
    /// Its name.
    pub key: DeliveryKey,
    /// Where to.
    pub url: String,
    /// Key of the signature.
    pub secret: [u8; 32],
    /// The job as it is.
    pub job: v1::Job,
    /// Tries before this one.
    pub tries: u32,
}

/// What operators see and set.
pub trait Operations: Send + Sync {
    /// Tasks by state.
    fn queue(&self) -> EngineFuture<'_, QueueFacts>;
    /// Sessions that are open, newest first.
    fn sessions(&self) -> EngineFuture<'_, Vec<SessionFacts>>;
    /// Gives a session no more tasks, or some again. Answers whether there is such a session.
    fn cordon(&self, session: &str, cordoned: bool) -> EngineFuture<'_, bool>;
    /// A tenant's quota; the usual one if none was set.
    fn quota(&self, tenant: &str) -> EngineFuture<'_, v1::Quota>;
    /// Replaces a tenant's quota.
    fn set_quota(&self, tenant: &str, quota: v1::Quota) -> EngineFuture<'_, ()>;
}

/// The whole engine.
pub trait Engine: Resources + ArtifactRecords + TaskEngine + Webhooks + Operations + Overview + 'static {}

impl<T: Resources + ArtifactRecords + TaskEngine + Webhooks + Operations + Overview + 'static> Engine for T {}

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
