//! Tasks from the engine of this process.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use zkinfer_proto::v1;

use super::source::{Holding, SourceError, SourceFuture, TaskSource, Terms};
use crate::artifacts::{ArtifactBytes, ArtifactError, ArtifactReader, BytesError, Class, HeldBytes};
use crate::engine::{
    ArtifactFacts, AskedProof, Digest, Engine, EngineError, FailedAttempt, FailureCause, Lease, Leased, NewSession, Offer, Outcome,
    Renewal, SessionEnd, Subject, TaskFlow, Usage, now_ms,
};
use crate::limits::Limits;
use crate::scheduler::Hub;

/// Longest wait for a task. Of a call, no more than half of its time: the tasks of one that is ended meanwhile would be nobody's until their lease ends.
const WAIT: Duration = Duration::from_secs(20);
/// How often tasks are looked for unasked: the word of another process may be lost.
const POLL: Duration = Duration::from_millis(500);
/// Progress is written at most this often, and not for a task that takes less.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// The engine and the artifacts of this process. Cheap to clone.
#[derive(Clone)]
pub struct LocalSource {
    engine: Arc<dyn Engine>,
    bytes: ArtifactBytes,
    held: HeldBytes,
    hub: Arc<Hub>,
    limits: Limits,
    runtime: tokio::runtime::Handle,
}

impl LocalSource {
    /// On the runtime that it is called on.
    pub fn new(engine: Arc<dyn Engine>, bytes: ArtifactBytes, hub: Arc<Hub>, limits: Limits) -> Self {
        let held = HeldBytes::new(engine.clone(), bytes.clone(), limits.artifact_grace);
        Self { engine, bytes, held, hub, limits, runtime: tokio::runtime::Handle::current() }
    }

    /// Reads an artifact of the task's tenant part by part.
    ///
    /// # Errors
    /// Missing or damaged bytes, or a failing store.
    pub async fn reader(&self, holding: Holding<'_>, class: Class, digest: Digest) -> Result<ArtifactReader, SourceError> {
        Ok(self.bytes.reader(class, &holding.lease.task.subject.tenant, digest).await?)
    }

    /// How large an artifact of the task's tenant is.
    ///
    /// # Errors
    /// A missing artifact; a failing store.
    pub async fn size(&self, holding: Holding<'_>, class: Class, digest: Digest) -> Result<u64, SourceError> {
        Ok(self.bytes.size(class, &holding.lease.task.subject.tenant, digest).await?)
    }

    /// What the proof must be of that a task is to give.
    ///
    /// # Errors
    /// [`SourceError::Fenced`] if the session does not hold the task, or it is no job's; a failing database.
    pub async fn asked_proof(&self, holding: Holding<'_>) -> Result<AskedProof, SourceError> {
        Ok(self.engine.asked_proof(holding.session, holding.lease).await?)
    }

    /// Runs on the runtime of the database's connections, whichever runtime asks.
    fn there<'a, T, F>(&self, work: impl FnOnce(Self) -> F) -> SourceFuture<'a, T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, SourceError>> + Send + 'static,
    {
        let running = self.runtime.spawn(work(self.clone()));
        Box::pin(async move { running.await.unwrap_or_else(|error| Err(SourceError::Unavailable(error.to_string()))) })
    }

    /// Who watches the subject is told, and who waits for tasks: others may have become ready.
    fn changed(&self, subject: &Subject) {
        self.hub.changed(subject);
        self.hub.task_ready();
    }

    async fn wait_for_tasks(&self, session: &str, offer: Offer) -> Result<Vec<Leased>, SourceError> {
        let end = Instant::now() + WAIT.min(self.limits.unary / 2);
        // Until when is left to others what the word was passed on for.
        let (mut is_woken, mut passed_on) = (false, None);
        loop {
            let leased = self.engine.lease(session, offer.clone()).await?;
            if !leased.is_empty() {
                // More may be ready: let another worker look.
                self.hub.task_ready();
                leased.iter().for_each(|leased| self.hub.changed(&leased.lease.task.subject));
                return Ok(leased);
            }
            let (now, look_again) = (Instant::now(), self.engine.look_again(session));
            let left_until = look_again.map(|left_for| now + left_for).filter(|_| is_woken);
            if let Some(until) = left_until.filter(|until| passed_on.is_none_or(|passed_on| is_other(*until, passed_on))) {
                // The word was for whoever it is left to, who may sleep. Once for the same: those who all leave it would wake each other without end.
                self.hub.task_ready();
                passed_on = Some(until);
            }
            if now >= end {
                return Ok(leased);
            }
            // Nobody is woken for a wait after a failed attempt, nor, if that is lost, by the word of another process.
            let pause = look_again.map_or(POLL, |soon| soon.min(POLL));
            is_woken = tokio::time::timeout(pause, self.hub.wait_for_task()).await.is_ok();
        }
    }
}

/// Whether something else is left until then, as far as clocks tell.
fn is_other(one: Instant, other: Instant) -> bool {
    const SAME: Duration = Duration::from_millis(20);
    one.max(other).duration_since(one.min(other)) > SAME
}

impl From<EngineError> for SourceError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::Fenced => Self::Fenced,
            EngineError::NoSession => Self::NoSession,
            // Of an artifact: until it is deleted; then its bytes can be stored again.
            EngineError::Busy(_) | EngineError::Full(_) | EngineError::Database(_) | EngineError::ArtifactGone => {
                Self::Unavailable(describe(&error))
            }
            other => Self::Refused(describe(&other)),
        }
    }
}

impl From<BytesError> for SourceError {
    fn from(error: BytesError) -> Self {
        match error {
            BytesError::Missing | BytesError::Damaged => Self::Damaged(error.to_string()),
            BytesError::Full(_) | BytesError::Unavailable(_) | BytesError::Store(_) | BytesError::File(_) => {
                Self::Unavailable(describe(&error))
            }
        }
    }
}

impl From<ArtifactError> for SourceError {
    fn from(error: ArtifactError) -> Self {
        match error {
            ArtifactError::Engine(error) => error.into(),
            ArtifactError::Bytes(error) => error.into(),
        }
    }
}

/// A failed attempt as its tenant may read it. What failed in the store of artifacts may name its address, bucket or folder: that goes to the log.
fn for_tenants(lease: &Lease, failed: FailedAttempt) -> FailedAttempt {
    if failed.cause != FailureCause::Storage {
        return failed;
    }
    let error_id = uuid::Uuid::now_v7();
    let Subject { tenant, id, .. } = &lease.task.subject;
    tracing::error!(%error_id, tenant, id, task = lease.task.name, error = failed.message, "stored bytes cannot be read or written");
    let message = format!("the service could not read or write stored bytes; its log has the cause under the error id {error_id}");
    FailedAttempt { message, ..failed }
}

fn describe(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

impl TaskSource for LocalSource {
    fn open(&self, new: NewSession) -> SourceFuture<'_, Terms> {
        self.there(|here| async move {
            let session = here.engine.open_session(new).await?;
            let Limits { lease, fuse_below, task, .. } = here.limits;
            Ok(Terms { session, lease, fuse_below, task_limit: task })
        })
    }

    fn lease<'a>(&'a self, session: &'a str, offer: Offer) -> SourceFuture<'a, Vec<Leased>> {
        // Not spawned: who no longer waits must not be given tasks.
        Box::pin(self.wait_for_tasks(session, offer))
    }

    fn renew<'a>(&'a self, session: &'a str, held: Vec<Lease>) -> SourceFuture<'a, Renewal> {
        let session = session.to_owned();
        self.there(|here| async move { Ok(here.engine.renew(&session, held).await?) })
    }

    fn progress<'a>(&'a self, holding: Holding<'a>, progress: v1::Progress) -> SourceFuture<'a, TaskFlow> {
        Box::pin(async move {
            let flow = self.engine.progress(holding.lease, progress).await?;
            self.hub.changed(&holding.lease.task.subject);
            Ok(flow)
        })
    }

    fn progress_interval(&self) -> Duration {
        PROGRESS_EVERY
    }

    fn complete<'a>(&'a self, holding: Holding<'a>, outcome: Outcome, usage: Usage) -> SourceFuture<'a, ()> {
        let lease = holding.lease.clone();
        self.there(|here| async move {
            here.engine.complete(&lease, outcome, usage).await?;
            here.changed(&lease.task.subject);
            Ok(())
        })
    }

    fn fail<'a>(&'a self, holding: Holding<'a>, failed: FailedAttempt, usage: Usage) -> SourceFuture<'a, ()> {
        let lease = holding.lease.clone();
        let failed = for_tenants(&lease, failed);
        self.there(|here| async move {
            here.engine.fail(&lease, failed, usage).await?;
            here.changed(&lease.task.subject);
            Ok(())
        })
    }

    fn release<'a>(&'a self, holding: Holding<'a>, usage: Usage) -> SourceFuture<'a, ()> {
        let lease = holding.lease.clone();
        self.there(|here| async move {
            here.engine.release(&lease, usage).await?;
            here.changed(&lease.task.subject);
            Ok(())
        })
    }

    fn close<'a>(&'a self, session: &'a str, end: SessionEnd) -> SourceFuture<'a, ()> {
        let session = session.to_owned();
        self.there(|here| async move {
            let reaped = here.engine.close_session(&session, end).await?;
            reaped.requeued.iter().chain(&reaped.ended).for_each(|subject| here.changed(subject));
            Ok(())
        })
    }

    fn read<'a>(&'a self, holding: Holding<'a>, class: Class, digest: Digest) -> SourceFuture<'a, Bytes> {
        Box::pin(async move { Ok(self.bytes.get(class, &holding.lease.task.subject.tenant, digest).await?) })
    }

    fn write<'a>(&'a self, holding: Holding<'a>, class: Class, media_type: &'a str, bytes: Bytes) -> SourceFuture<'a, ArtifactFacts> {
        Box::pin(async move {
            let tenant = holding.lease.task.subject.tenant.clone();
            let size_bytes = bytes.len() as u64;
            let digest = self.held.put(class, &tenant, bytes).await?;
            Ok(ArtifactFacts { class, tenant, digest, size_bytes, media_type: media_type.to_owned(), created_ms: now_ms() })
        })
    }

    fn beside(&self) -> Arc<dyn TaskSource> {
        Arc::new(self.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::artifacts::ArtifactPlace;
    use crate::engine::sql::SqlEngine;
    use crate::engine::{NewModel, Resources as _, TaskEngine as _};

    fn model(id: usize) -> NewModel {
        let model =
            v1::Model { name: format!("tenants/acme/models/net-{id}"), state: v1::model::State::Compiling.into(), ..Default::default() };
        NewModel { model, source_bytes: 0, salt: [1; 32].into(), seed: [2; 32].into(), key: None }
    }

    /// One has a task and asks for another, which is left to one that is idle, and sleeps: here, this test.
    #[tokio::test]
    async fn who_leaves_a_task_to_another_passes_the_word_on() {
        let folder = tempfile::tempdir().unwrap();
        let limits = Limits::default();
        let engine = Arc::new(SqlEngine::open_sqlite(folder.path(), &limits).await.unwrap());
        let bytes = ArtifactBytes::open(&ArtifactPlace::default(), None, &folder.path().join("artifacts")).await.unwrap();
        let hub = Arc::new(Hub::default());
        let source = LocalSource::new(engine.clone(), bytes, hub.clone(), limits);
        let offer = Offer { max_tasks: 1, n_slots: 200, device_bytes: u64::MAX, host_bytes: u64::MAX, cached_models: Vec::new() };
        let [busy, idle] =
            [engine.open_session(NewSession::default()).await.unwrap(), engine.open_session(NewSession::default()).await.unwrap()];
        engine.create_model(model(0)).await.unwrap();
        assert_eq!(source.wait_for_tasks(&busy, offer.clone()).await.unwrap().len(), 1);
        hub.wait_for_task().await;
        assert!(engine.lease(&idle, offer.clone()).await.unwrap().is_empty(), "it has told what it has");
        let mut n_told = 0;
        for id in 1..200 {
            let (asking, session, offer) = (source.clone(), busy.clone(), offer.clone());
            let asked = tokio::spawn(async move { asking.wait_for_tasks(&session, offer).await });
            // Until it sleeps, having used up all words before.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let began = Instant::now();
            engine.create_model(model(id)).await.unwrap();
            hub.task_ready();
            hub.wait_for_task().await;
            let has_it = asked.is_finished();
            // Later it may have taken it after all: then the word tells nothing.
            if began.elapsed() < Duration::from_millis(80) {
                assert!(!has_it);
                n_told += 1;
            }
            asked.await.unwrap().unwrap();
            // Its own word, if it was not the one that was heard.
            let _ = tokio::time::timeout(Duration::ZERO, hub.wait_for_task()).await;
            // Of one alone it might be that who asked had not slept yet.
            if n_told == 5 {
                return;
            }
        }
        panic!("nobody was told in time");
    }
}
