//! What the service remembers: models, jobs, their tasks and events, artifacts' facts, uploads, request ids.
//!
//! [`Engine`] is the seam. Its contract, which every implementation keeps and one conformance suite checks:
//! - what was answered survives a crash: a method returns after its transaction is on disk;
//! - a subject's tasks, all of its graph, are written in the transaction that admits it;
//! - a worker's write carries the epoch it was given at [`TaskEngine::lease`]; with another epoch, or after its lease was given to another, it changes
//!   nothing and answers [`EngineError::Fenced`];
//! - a final state never changes; a result appears in the same transaction as SUCCEEDED or READY, once;
//! - events of a subject are numbered 1, 2, 3 … without gaps, each written in the transaction that it tells of;
//! - every time that is stored, or compared with one that is, comes from the engine's clock: on PostgreSQL the database's, on SQLite the one process's. The
//!   clocks of those who call decide nothing; the only times of others are deadlines, which clients set.

mod document;
pub mod graph;
mod overview;
mod records;
pub mod sql;
mod tasks;
mod verdict;

use std::fmt;

use futures::future::BoxFuture;
pub use overview::{Census, Overview, RunningTask};
pub use records::{ArtifactFacts, JobFilter, NewBatch, NewJob, NewModel, Page, PageRequest, RequestKey, StoredEvent, UploadFacts};
pub use tasks::{
    AskedProof, Crash, Ended, FailedAttempt, FailureCause, Lease, Leased, NewSession, Offer, Outcome, ProofWork, Reaped, Renewal,
    SessionEnd, SessionId, Subject, SubjectKind, TaskKey, Usage, Work,
};
use zeroize::Zeroizing;
use zkinfer_proto::name::ModelName;
use zkinfer_proto::v1;

use crate::artifacts::{Class, GarbageRecords};
use crate::record_seal::Unsealed;

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
    /// A worker ended a task with what a task of another kind gives. Nothing was written.
    #[error("the task {task} ends with {expected}, not with {got}")]
    OtherOutcome {
        /// The task's name.
        task: String,
        /// What it gives.
        expected: &'static str,
        /// What the worker gave.
        got: &'static str,
    },
    /// A worker's session was closed, or never opened.
    #[error("the session is not open; open another")]
    NoSession,
    /// The database did not answer in time.
    #[error("the database is busy")]
    Busy(#[source] sqlx::Error),
    /// A text with a character that the database cannot store: NUL.
    #[error("a text has a NUL character, which cannot be stored")]
    Text(#[source] sqlx::Error),
    /// No space is left.
    #[error("no space is left for the database")]
    Full(#[source] sqlx::Error),
    /// A stored document cannot be decoded.
    #[error("a stored document is damaged")]
    Damaged(#[source] prost::DecodeError),
    /// A stored secret cannot be opened.
    #[error(transparent)]
    Sealed(Unsealed),
    /// The operating system gives no random bytes.
    #[error("no random bytes: {0}")]
    NoRandom(getrandom::Error),
    /// Anything else of the database.
    #[error("the database failed")]
    Database(#[source] sqlx::Error),
}

/// Models and jobs, as clients see them.
pub trait Resources: Send + Sync {
    /// Admits a registration; answers the model, or the first answer if the request id is known.
    fn create_model(&self, new: NewModel) -> EngineFuture<'_, v1::Model>;
    /// A model.
    fn model(&self, tenant: &str, id: &str) -> EngineFuture<'_, Option<v1::Model>>;
    /// Models of a tenant, newest first.
    fn list_models(&self, tenant: &str, page: PageRequest) -> EngineFuture<'_, Page<v1::Model>>;
    /// Deletes a model whose registration and jobs are over, with all that belongs to it; its artifacts lose its references. Its jobs stay as they are. The
    /// answer to its request id stays for its own time.
    fn delete_model(&self, tenant: &str, id: &str) -> EngineFuture<'_, ModelDeletion>;
    /// Looks whether a job of each model, in this order, would be admitted for a tenant now, before anything is stored for them. Whoever asks
    /// [`Self::create_job`] or [`Self::create_jobs`] then is told what counts. A request that was answered is not refused.
    ///
    /// # Errors
    /// [`EngineError::InBatch`] with what is wrong with one of them: no room, or no such model that is ready.
    fn foresee(&self, tenant: &str, models: Vec<ModelName>, key: Option<RequestKey>) -> EngineFuture<'_, ()>;
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
    /// Deletes a job that is over, with all that belongs to it; its artifacts lose its references. The answer to its request id stays for its own time.
    fn delete_job(&self, tenant: &str, id: &str) -> EngineFuture<'_, Deletion>;
    /// Events of a subject with numbers from `from` on, in order.
    fn events(&self, subject: &Subject, from: i64, limit: u32) -> EngineFuture<'_, Vec<StoredEvent>>;
}

/// What became of a job that was to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deletion {
    /// It was there and is gone.
    Deleted,
    /// There is none.
    Absent,
    /// It is not over: it stays.
    NotFinal(v1::job::State),
    /// A webhook is still to hear of its end: it stays.
    Untold,
}

/// What became of a model that was to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ModelDeletion {
    /// It was there and is gone.
    Deleted,
    /// There is none.
    Absent,
    /// Its registration is not over: it stays.
    NotFinal,
    /// So many of its jobs are not over: it stays.
    HasJobs(u64),
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
    /// Ids of a tenant's uploads that are not complete.
    fn unfinished_uploads(&self, tenant: &str) -> EngineFuture<'_, Vec<String>>;
    /// Records how many bytes of an upload are on disk.
    fn set_committed(&self, tenant: &str, id: &str, bytes: u64) -> EngineFuture<'_, ()>;
    /// Completes an upload: its bytes are the artifact `facts`.
    fn complete_upload(&self, id: &str, facts: ArtifactFacts) -> EngineFuture<'_, ()>;
    /// Forgets request ids and uploads of that age, by the engine's clock: in one transaction, at most `limit` of each.
    fn forget_older(&self, age: std::time::Duration, limit: u32) -> EngineFuture<'_, Forgotten>;
}

/// What was forgotten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forgotten {
    /// Ids of uploads.
    pub uploads: Vec<String>,
    /// There was no more.
    pub is_all: bool,
}

/// The queue, as workers and the scheduler see it.
pub trait TaskEngine: Send + Sync {
    /// Opens a session.
    fn open_session(&self, new: NewSession) -> EngineFuture<'_, SessionId>;
    /// Ends a session. Its tasks are taken away: a crash counts against them, otherwise no attempt is counted.
    fn close_session(&self, session: &str, end: SessionEnd) -> EngineFuture<'_, Reaped>;
    /// Gives ready tasks to a session, until its next renewals or the lease's end.
    ///
    /// # Errors
    /// [`EngineError::NoSession`] if the session was closed.
    fn lease(&self, session: &str, offer: Offer) -> EngineFuture<'_, Vec<Leased>>;
    /// In how long it pays for a session to ask again that was given nothing: then it may take what waits for another place now. `None`: time alone gives it
    /// nothing.
    fn look_again(&self, session: &str) -> Option<std::time::Duration>;
    /// A sign of life: renews the leases that a session holds.
    ///
    /// # Errors
    /// [`EngineError::NoSession`] if the session was closed.
    fn renew(&self, session: &str, held: Vec<Lease>) -> EngineFuture<'_, Renewal>;
    /// What the proof of a job must be of whose task a session holds. Reads, and writes nothing.
    ///
    /// # Errors
    /// [`EngineError::Fenced`] if the session does not hold it, or it is no job's.
    fn asked_proof(&self, session: &str, lease: &Lease) -> EngineFuture<'_, AskedProof>;
    /// Records progress. Answers whether the task should go on.
    fn progress(&self, lease: &Lease, progress: v1::Progress) -> EngineFuture<'_, TaskFlow>;
    /// Ends a task well: its successors become ready, or its subject ends. A job that was told to stop ends that way instead. Answers the subject, if it
    /// has ended.
    fn complete(&self, lease: &Lease, outcome: Outcome, usage: Usage) -> EngineFuture<'_, Option<Ended>>;
    /// Ends an attempt badly: the task is queued again or its subject fails, as the cause and the attempts so far decide.
    fn fail(&self, lease: &Lease, failed: FailedAttempt, usage: Usage) -> EngineFuture<'_, ()>;
    /// Gives a task back unharmed: it is queued again and the attempt does not count against it, but what it took is part of the job's cost.
    fn release(&self, lease: &Lease, usage: Usage) -> EngineFuture<'_, ()>;
    /// Takes away the tasks of sessions that gave no sign of life for the length of a lease.
    fn reap(&self) -> EngineFuture<'_, Reaped>;
    /// After a start: takes away the tasks of sessions that were part of the earlier process.
    fn recover(&self) -> EngineFuture<'_, Reaped>;
    /// Ends jobs whose deadline has passed; answers those that are running and must be told to stop, and those that
    /// have ended.
    fn expire(&self) -> EngineFuture<'_, Expired>;
    /// Deletes jobs that ended longer ago than `age`, as [`Resources::delete_job`] does, a page in a transaction, and stops after the page with which it
    /// has deleted `limit`; answers how many. Those that a webhook is still to hear of stay.
    fn delete_ended(&self, age: std::time::Duration, limit: u32) -> EngineFuture<'_, u64>;
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
    /// When the oldest job that waits as a whole for a worker was created, in milliseconds since 1970.
    pub oldest_queued_ms: Option<i64>,
    /// The engine's time when it was looked, in milliseconds since 1970.
    pub now_ms: i64,
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
    /// `DONE`, `RELEASED`, `LOST`, a cause of failure, or `DAMAGED` if what it gave was found to be so; empty while it runs.
    pub outcome: String,
    /// The last that its worker's process wrote before it died of it; empty if it did not, or that is not known. For operators only.
    pub last_words: String,
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
    /// Keeps a webhook; answers it.
    ///
    /// # Errors
    /// [`EngineError::QuotaExceeded`] if the tenant has `limit` of them.
    fn create_webhook(&self, new: NewWebhook, limit: u32) -> EngineFuture<'_, v1::Webhook>;
    /// A tenant's webhooks, oldest first.
    fn list_webhooks(&self, tenant: &str, page: PageRequest) -> EngineFuture<'_, Page<v1::Webhook>>;
    /// Forgets a webhook and what was to be sent to it. Answers whether there was one.
    fn delete_webhook(&self, tenant: &str, id: &str) -> EngineFuture<'_, bool>;
    /// Takes what is due: one delivery, its oldest, of each webhook that has none on its way and was not to be left alone, those first that waited longest.
    /// For so long as `hold` nobody sends to those webhooks, unless the delivery is settled before.
    fn take_deliveries(&self, limit: u32, hold: std::time::Duration) -> EngineFuture<'_, Vec<Delivery>>;
    /// A delivery was received; its webhook has its next turn at once.
    fn delivered(&self, delivery: &DeliveryKey) -> EngineFuture<'_, ()>;
    /// A delivery was not received. That counts for all else that was due to its webhook too: it would not have been received either. Answers how many of
    /// them, with this one, have had all their tries and are given up.
    fn postpone(&self, delivery: &DeliveryKey, after: Postponed) -> EngineFuture<'_, u64>;
}

/// When a webhook that did not hear is told again.
#[derive(Debug, Clone, Copy)]
pub struct Postponed {
    /// What it did not hear is not tried for so long.
    pub delivery: std::time::Duration,
    /// Nothing is sent to it for so long.
    pub webhook: std::time::Duration,
    /// What was tried so often is given up.
    pub max_tries: u32,
}

/// A webhook to keep.
pub struct NewWebhook {
    /// Owner.
    pub tenant: String,
    /// UUID.
    pub id: String,
    /// Where to send.
    pub url: String,
    /// Key of the signatures, as it is stored: see [`RecordSeal`](crate::record_seal::RecordSeal).
    pub secret: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for NewWebhook {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NewWebhook").field("tenant", &self.tenant).field("id", &self.id).finish_non_exhaustive()
    }
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
pub struct Delivery {
    /// Its name.
    pub key: DeliveryKey,
    /// Where to.
    pub url: String,
    /// Key of the signature, as it is stored.
    pub secret: Zeroizing<Vec<u8>>,
    /// The job as it is.
    pub job: v1::Job,
    /// Tries before this one.
    pub tries: u32,
    /// Deliveries to this webhook that failed since it last heard.
    pub failures: u32,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Delivery").field("key", &self.key).field("tries", &self.tries).finish_non_exhaustive()
    }
}

/// What operators see and set.
pub trait Operations: Send + Sync {
    /// The engine's time, in milliseconds since 1970.
    fn now(&self) -> EngineFuture<'_, i64>;
    /// Tasks by state. Takes time that grows with the queue.
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

/// Milliseconds since 1970, by the clock of this machine: for what is only told. What is stored or compared has the engine's time.
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
