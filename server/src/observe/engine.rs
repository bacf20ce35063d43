//! An engine that is observed: how long each operation takes, what fails, how work ends.
//!
//! Stands before any engine and changes nothing of what it answers. What ended is looked up after the operation that may have ended it, so that the
//! numbers tell what is on disk.

use std::sync::Arc;
use std::time::{Duration, Instant};

use zkinfer_proto::name::ModelName;
use zkinfer_proto::v1;

use super::metrics::{ClassLabel, KindLabel, Metrics, OperationLabel, OutcomeLabel, ReasonLabel};
use crate::artifacts::{ArtifactId, Class, Doomed, GarbageRecords};
use crate::engine::{
    ArtifactFacts, ArtifactRecords, AskedProof, Census, Deletion, Delivery, DeliveryKey, Digest, Ended, Engine, EngineError, EngineFuture,
    Expired, FailedAttempt, Forgotten, JobFilter, Lease, Leased, ModelDeletion, NewBatch, NewJob, NewModel, NewSession, NewWebhook, Notice,
    Offer, Operations, Outcome, Overview, Page, PageRequest, Postponed, QueueFacts, Reaped, Renewal, RequestKey, Resources, RunningTask,
    SessionEnd, SessionFacts, SessionId, StoredEvent, Subject, SubjectKind, TaskEngine, TaskFacts, TaskFlow, UploadFacts, Usage, Webhooks,
    Work,
};

/// `inner`, observed.
pub struct Observed<E> {
    inner: E,
    metrics: Arc<Metrics>,
}

impl<E: Engine> Observed<E> {
    /// Observes an engine.
    pub fn new(inner: E, metrics: Arc<Metrics>) -> Self {
        Self { inner, metrics }
    }

    /// Runs an operation and counts it.
    fn timed<'a, T: 'a>(&'a self, operation: &'static str, work: EngineFuture<'a, T>) -> EngineFuture<'a, T> {
        let began = Instant::now();
        Box::pin(async move {
            let result = work.await;
            self.metrics.operation_ended(operation, began.elapsed(), result.as_ref().err());
            result
        })
    }

    /// As [`Self::timed`], for an operation that ends an attempt.
    fn settled<'a, T: Send + 'a>(
        &'a self,
        operation: &'static str,
        outcome: &'static str,
        work: EngineFuture<'a, T>,
    ) -> EngineFuture<'a, T> {
        let work = self.timed(operation, work);
        Box::pin(async move {
            let result = work.await;
            match &result {
                Ok(_) => self.metrics.attempt_ended(outcome),
                Err(EngineError::Fenced) => self.metrics.attempt_ended("fenced"),
                Err(_) => {}
            }
            result
        })
    }

    /// As [`Self::settled`], for an attempt that gave nothing and counts for nothing.
    fn in_vain<'a>(
        &'a self,
        operation: &'static str,
        outcome: &'static str,
        lease: &Lease,
        work: EngineFuture<'a, ()>,
    ) -> EngineFuture<'a, ()> {
        let subject = lease.task.subject.clone();
        let work = self.settled(operation, outcome, work);
        Box::pin(async move {
            work.await?;
            self.look(&subject).await;
            Ok(())
        })
    }

    /// As [`Self::timed`], for an operation that takes tasks away.
    fn reaped<'a>(&'a self, operation: &'static str, work: EngineFuture<'a, Reaped>) -> EngineFuture<'a, Reaped> {
        let work = self.timed(operation, work);
        Box::pin(async move {
            let reaped = work.await?;
            for subject in reaped.ended.iter().chain(&reaped.too_large) {
                self.look(subject).await;
            }
            Ok(reaped)
        })
    }

    /// Counts the wait of a job or a registration whose first task was given to a worker.
    fn left_queue(&self, leased: &Leased) {
        match &leased.work {
            Work::Register { model, .. } => self.metrics.left_queue("registration", model.create_time.as_ref()),
            Work::Prove(proof) => self.metrics.left_queue("job", proof.job.create_time.as_ref()),
            // The other steps wait for this one.
            Work::Step { proof, .. } if leased.lease.task.name == "witness" => {
                self.metrics.left_queue("job", proof.job.create_time.as_ref());
            }
            Work::Step { .. } => {}
        }
    }

    /// Counts the end of a subject, if it has ended. What cannot be read now is not counted: nothing waits for a number. Answers whether it goes on.
    async fn look(&self, subject: &Subject) -> bool {
        let Subject { kind, tenant, id } = subject;
        match kind {
            SubjectKind::Job => match self.inner.job(tenant, id).await {
                Ok(Some(job)) => {
                    self.metrics.job_seen(&job);
                    matches!(job.state(), v1::job::State::Queued | v1::job::State::Running)
                }
                Ok(None) | Err(_) => false,
            },
            SubjectKind::Model => match self.inner.model(tenant, id).await {
                Ok(Some(model)) => {
                    self.metrics.model_seen(&model);
                    model.state() == v1::model::State::Compiling
                }
                Ok(None) | Err(_) => false,
            },
        }
    }
}

/// Bytes of artifacts, by class.
#[derive(Default)]
struct Bytes {
    public: u64,
    internal: u64,
}

impl Bytes {
    fn of(artifacts: &[ArtifactFacts]) -> Self {
        let of_class = |class| artifacts.iter().filter(|facts| facts.class == class).map(|facts| facts.size_bytes).sum();
        Self { public: of_class(Class::Public), internal: of_class(Class::Internal) }
    }
}

impl Metrics {
    /// An operation of the engine ended.
    pub fn operation_ended(&self, operation: &'static str, time: Duration, error: Option<&EngineError>) {
        self.database_seconds.get_or_create(&OperationLabel { operation }).observe(time.as_secs_f64());
        if let Some(kind) = error.and_then(database_fault) {
            self.database_errors.get_or_create(&KindLabel { kind }).inc();
        }
    }

    /// An attempt at a task ended: `completed`, `failed`, `retried`, `released` or `fenced`.
    pub fn attempt_ended(&self, outcome: &'static str) {
        self.attempts.get_or_create(&OutcomeLabel { outcome }).inc();
    }

    /// Jobs were deleted: by `request`, or for their `age`.
    fn jobs_deleted(&self, reason: &'static str, n: u64) {
        self.deleted_jobs.get_or_create(&ReasonLabel { reason }).inc_by(n);
    }

    fn recorded(&self, bytes: &Bytes) {
        for (class, count) in [("public", bytes.public), ("internal", bytes.internal)] {
            self.artifact_bytes.get_or_create(&ClassLabel { class }).inc_by(count);
        }
    }
}

/// What is wrong with the database; none if the caller's request was refused.
fn database_fault(error: &EngineError) -> Option<&'static str> {
    match error {
        EngineError::Busy(_) => Some("busy"),
        EngineError::Full(_) => Some("full"),
        EngineError::Damaged(_) | EngineError::Sealed(_) => Some("damaged"),
        EngineError::Database(_) => Some("other"),
        EngineError::InBatch { source, .. } => database_fault(source),
        EngineError::RequestIdReused
        | EngineError::AlreadyExists
        | EngineError::ModelNotFound
        | EngineError::ModelNotReady(_)
        | EngineError::QuotaExceeded { .. }
        | EngineError::ArtifactGone
        | EngineError::Fenced
        | EngineError::OtherOutcome { .. }
        | EngineError::Text(_)
        | EngineError::NoRandom(_)
        | EngineError::NoSession => None,
    }
}

impl<E: Engine> Resources for Observed<E> {
    fn create_model(&self, new: NewModel) -> EngineFuture<'_, v1::Model> {
        self.timed("create_model", self.inner.create_model(new))
    }

    fn model(&self, tenant: &str, id: &str) -> EngineFuture<'_, Option<v1::Model>> {
        self.timed("model", self.inner.model(tenant, id))
    }

    fn list_models(&self, tenant: &str, page: PageRequest) -> EngineFuture<'_, Page<v1::Model>> {
        self.timed("list_models", self.inner.list_models(tenant, page))
    }

    fn delete_model(&self, tenant: &str, id: &str) -> EngineFuture<'_, ModelDeletion> {
        self.timed("delete_model", self.inner.delete_model(tenant, id))
    }

    fn foresee(&self, tenant: &str, models: Vec<ModelName>, key: Option<RequestKey>) -> EngineFuture<'_, ()> {
        self.timed("foresee", self.inner.foresee(tenant, models, key))
    }

    fn create_job(&self, new: NewJob) -> EngineFuture<'_, v1::Job> {
        self.timed("create_job", self.inner.create_job(new))
    }

    fn create_jobs(&self, new: NewBatch) -> EngineFuture<'_, v1::BatchCreateJobsResponse> {
        self.timed("create_jobs", self.inner.create_jobs(new))
    }

    fn batch(&self, tenant: &str, id: &str) -> EngineFuture<'_, Option<v1::Batch>> {
        self.timed("batch", self.inner.batch(tenant, id))
    }

    fn ended_of_batch(&self, tenant: &str, id: &str) -> EngineFuture<'_, Vec<String>> {
        self.timed("ended_of_batch", self.inner.ended_of_batch(tenant, id))
    }

    fn tasks(&self, subject: &Subject) -> EngineFuture<'_, Vec<TaskFacts>> {
        self.timed("tasks", self.inner.tasks(subject))
    }

    fn job(&self, tenant: &str, id: &str) -> EngineFuture<'_, Option<v1::Job>> {
        self.timed("job", self.inner.job(tenant, id))
    }

    fn list_jobs(&self, tenant: &str, filter: JobFilter, page: PageRequest) -> EngineFuture<'_, Page<v1::Job>> {
        self.timed("list_jobs", self.inner.list_jobs(tenant, filter, page))
    }

    fn cancel_job(&self, tenant: &str, id: &str, note: &str) -> EngineFuture<'_, Option<v1::Job>> {
        let work = self.timed("cancel_job", self.inner.cancel_job(tenant, id, note));
        Box::pin(async move {
            let job = work.await?;
            job.iter().for_each(|job| self.metrics.job_seen(job));
            Ok(job)
        })
    }

    fn delete_job(&self, tenant: &str, id: &str) -> EngineFuture<'_, Deletion> {
        let work = self.timed("delete_job", self.inner.delete_job(tenant, id));
        Box::pin(
            async move { work.await.inspect(|deletion| self.metrics.jobs_deleted("request", u64::from(*deletion == Deletion::Deleted))) },
        )
    }

    fn events(&self, subject: &Subject, from: i64, limit: u32) -> EngineFuture<'_, Vec<StoredEvent>> {
        self.timed("events", self.inner.events(subject, from, limit))
    }
}

impl<E: Engine> ArtifactRecords for Observed<E> {
    fn add_artifact(&self, facts: ArtifactFacts) -> EngineFuture<'_, ()> {
        let bytes = Bytes::of(std::slice::from_ref(&facts));
        let work = self.timed("add_artifact", self.inner.add_artifact(facts));
        Box::pin(async move { work.await.inspect(|()| self.metrics.recorded(&bytes)) })
    }

    fn artifact(&self, class: Class, tenant: &str, digest: Digest) -> EngineFuture<'_, Option<ArtifactFacts>> {
        self.timed("artifact", self.inner.artifact(class, tenant, digest))
    }

    fn create_upload(&self, upload: UploadFacts, key: Option<RequestKey>) -> EngineFuture<'_, UploadFacts> {
        self.timed("create_upload", self.inner.create_upload(upload, key))
    }

    fn upload(&self, tenant: &str, id: &str) -> EngineFuture<'_, Option<UploadFacts>> {
        self.timed("upload", self.inner.upload(tenant, id))
    }

    fn unfinished_uploads(&self, tenant: &str) -> EngineFuture<'_, Vec<String>> {
        self.timed("unfinished_uploads", self.inner.unfinished_uploads(tenant))
    }

    fn set_committed(&self, tenant: &str, id: &str, bytes: u64) -> EngineFuture<'_, ()> {
        self.timed("set_committed", self.inner.set_committed(tenant, id, bytes))
    }

    fn complete_upload(&self, id: &str, facts: ArtifactFacts) -> EngineFuture<'_, ()> {
        let bytes = Bytes::of(std::slice::from_ref(&facts));
        let work = self.timed("complete_upload", self.inner.complete_upload(id, facts));
        Box::pin(async move { work.await.inspect(|()| self.metrics.recorded(&bytes)) })
    }

    fn forget_older(&self, age: Duration, limit: u32) -> EngineFuture<'_, Forgotten> {
        self.timed("forget_older", self.inner.forget_older(age, limit))
    }
}

impl<E: Engine> GarbageRecords for Observed<E> {
    fn hold(&self, artifacts: Vec<ArtifactId>, time: Duration) -> EngineFuture<'_, bool> {
        self.timed("hold", self.inner.hold(artifacts, time))
    }

    fn doom(&self, grace: Duration, quarantine: Duration, limit: u32) -> EngineFuture<'_, Doomed> {
        self.timed("doom", self.inner.doom(grace, quarantine, limit))
    }

    fn forget(&self, doomed: Doomed) -> EngineFuture<'_, ()> {
        self.timed("forget", self.inner.forget(doomed))
    }
}

impl<E: Engine> TaskEngine for Observed<E> {
    fn open_session(&self, new: NewSession) -> EngineFuture<'_, SessionId> {
        self.timed("open_session", self.inner.open_session(new))
    }

    fn close_session(&self, session: &str, end: SessionEnd) -> EngineFuture<'_, Reaped> {
        self.reaped("close_session", self.inner.close_session(session, end))
    }

    fn lease(&self, session: &str, offer: Offer) -> EngineFuture<'_, Vec<Leased>> {
        let work = self.timed("lease", self.inner.lease(session, offer));
        Box::pin(async move {
            let leased = work.await?;
            leased.iter().filter(|leased| leased.attempt == 1).for_each(|leased| self.left_queue(leased));
            Ok(leased)
        })
    }

    fn look_again(&self, session: &str) -> Option<Duration> {
        self.inner.look_again(session)
    }

    fn renew(&self, session: &str, held: Vec<Lease>) -> EngineFuture<'_, Renewal> {
        self.timed("renew", self.inner.renew(session, held))
    }

    fn asked_proof(&self, session: &str, lease: &Lease) -> EngineFuture<'_, AskedProof> {
        self.timed("asked_proof", self.inner.asked_proof(session, lease))
    }

    fn progress(&self, lease: &Lease, progress: v1::Progress) -> EngineFuture<'_, TaskFlow> {
        self.timed("progress", self.inner.progress(lease, progress))
    }

    fn complete(&self, lease: &Lease, outcome: Outcome, usage: Usage) -> EngineFuture<'_, Option<Ended>> {
        let bytes = Bytes::of(match &outcome {
            Outcome::Registered { artifacts, .. } | Outcome::Proved { artifacts, .. } => artifacts,
            Outcome::Result(facts) => std::slice::from_ref(facts),
        });
        let work = self.settled("complete", "completed", self.inner.complete(lease, outcome, usage));
        Box::pin(async move {
            let ended = work.await?;
            self.metrics.recorded(&bytes);
            match &ended {
                Some(Ended::Job(job)) => self.metrics.job_seen(job),
                Some(Ended::Model(model)) => self.metrics.model_seen(model),
                None => {}
            }
            Ok(ended)
        })
    }

    fn fail(&self, lease: &Lease, failed: FailedAttempt, usage: Usage) -> EngineFuture<'_, ()> {
        let subject = lease.task.subject.clone();
        let work = self.timed("fail", self.inner.fail(lease, failed, usage));
        Box::pin(async move {
            let result = work.await;
            match &result {
                Ok(()) => self.metrics.attempt_ended(if self.look(&subject).await { "retried" } else { "failed" }),
                Err(EngineError::Fenced) => self.metrics.attempt_ended("fenced"),
                Err(_) => {}
            }
            result
        })
    }

    fn release(&self, lease: &Lease, usage: Usage) -> EngineFuture<'_, ()> {
        self.in_vain("release", "released", lease, self.inner.release(lease, usage))
    }

    fn reap(&self) -> EngineFuture<'_, Reaped> {
        self.reaped("reap", self.inner.reap())
    }

    fn recover(&self) -> EngineFuture<'_, Reaped> {
        self.reaped("recover", self.inner.recover())
    }

    fn expire(&self) -> EngineFuture<'_, Expired> {
        let work = self.timed("expire", self.inner.expire());
        Box::pin(async move {
            let expired = work.await?;
            for subject in &expired.ended {
                self.look(subject).await;
            }
            Ok(expired)
        })
    }

    fn delete_ended(&self, age: Duration, limit: u32) -> EngineFuture<'_, u64> {
        let work = self.timed("delete_ended", self.inner.delete_ended(age, limit));
        Box::pin(async move { work.await.inspect(|n| self.metrics.jobs_deleted("age", *n)) })
    }

    fn notices(&self) -> Option<tokio::sync::broadcast::Receiver<Notice>> {
        self.inner.notices()
    }
}

impl<E: Engine> Webhooks for Observed<E> {
    fn create_webhook(&self, new: NewWebhook, limit: u32) -> EngineFuture<'_, v1::Webhook> {
        self.timed("create_webhook", self.inner.create_webhook(new, limit))
    }

    fn list_webhooks(&self, tenant: &str, page: PageRequest) -> EngineFuture<'_, Page<v1::Webhook>> {
        self.timed("list_webhooks", self.inner.list_webhooks(tenant, page))
    }

    fn delete_webhook(&self, tenant: &str, id: &str) -> EngineFuture<'_, bool> {
        self.timed("delete_webhook", self.inner.delete_webhook(tenant, id))
    }

    fn take_deliveries(&self, limit: u32, hold: Duration) -> EngineFuture<'_, Vec<Delivery>> {
        self.timed("take_deliveries", self.inner.take_deliveries(limit, hold))
    }

    fn delivered(&self, delivery: &DeliveryKey) -> EngineFuture<'_, ()> {
        self.timed("delivered", self.inner.delivered(delivery))
    }

    fn postpone(&self, delivery: &DeliveryKey, after: Postponed) -> EngineFuture<'_, u64> {
        self.timed("postpone", self.inner.postpone(delivery, after))
    }
}

impl<E: Engine> Operations for Observed<E> {
    fn now(&self) -> EngineFuture<'_, i64> {
        self.timed("now", self.inner.now())
    }

    fn queue(&self) -> EngineFuture<'_, QueueFacts> {
        self.timed("queue", self.inner.queue())
    }

    fn sessions(&self) -> EngineFuture<'_, Vec<SessionFacts>> {
        self.timed("sessions", self.inner.sessions())
    }

    fn cordon(&self, session: &str, cordoned: bool) -> EngineFuture<'_, bool> {
        self.timed("cordon", self.inner.cordon(session, cordoned))
    }

    fn quota(&self, tenant: &str) -> EngineFuture<'_, v1::Quota> {
        self.timed("quota", self.inner.quota(tenant))
    }

    fn set_quota(&self, tenant: &str, quota: v1::Quota) -> EngineFuture<'_, ()> {
        self.timed("set_quota", self.inner.set_quota(tenant, quota))
    }
}

impl<E: Engine> Overview for Observed<E> {
    fn census(&self) -> EngineFuture<'_, Census> {
        self.timed("census", self.inner.census())
    }

    fn running_tasks(&self, limit: u32) -> EngineFuture<'_, Vec<RunningTask>> {
        self.timed("running_tasks", self.inner.running_tasks(limit))
    }

    fn recent_jobs(&self, filter: JobFilter, page: PageRequest) -> EngineFuture<'_, Page<v1::Job>> {
        self.timed("recent_jobs", self.inner.recent_jobs(filter, page))
    }

    fn recent_models(&self, page: PageRequest) -> EngineFuture<'_, Page<v1::Model>> {
        self.timed("recent_models", self.inner.recent_models(page))
    }
}
