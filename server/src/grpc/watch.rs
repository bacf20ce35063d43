//! Watching a model or a job: a snapshot, then every event.
//!
//! A watcher is a cursor over the stored events, woken by the hub. It holds no queue that could overflow: a slow
//! client makes only its own cursor wait, and still sees every sequence number once.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use zkinfer_proto::v1;

use super::caller::App;
use super::error::ApiError;
use crate::engine::{EngineFuture, Resources, Subject, SubjectKind, now_ms, timestamp};
use crate::scheduler::Subscription;

/// What a watching call answers.
pub(crate) type WatchStream<E> = ReceiverStream<Result<E, Status>>;

/// Events read at a time, and messages on their way to the client.
const BATCH: u32 = 64;
const IN_FLIGHT: usize = 16;

/// What differs between models and jobs.
pub(crate) trait Watch: Send + 'static {
    type Snapshot: Send;
    type Event: Message + Default + 'static;
    const KIND: SubjectKind;
    const NAME: &'static str;

    fn find<'a>(engine: &'a dyn Resources, tenant: &str, id: &str) -> EngineFuture<'a, Option<Self::Snapshot>>;
    fn last_sequence(snapshot: &Self::Snapshot) -> i64;
    fn snapshot(snapshot: Self::Snapshot, sequence: i64) -> Self::Event;
    fn heartbeat(last: &Self::Event) -> Self::Event;
    fn sequence(event: &Self::Event) -> i64;
    fn is_final(event: &Self::Event) -> bool;
}

pub(crate) struct ModelWatch;

impl Watch for ModelWatch {
    type Snapshot = v1::Model;
    type Event = v1::ModelEvent;
    const KIND: SubjectKind = SubjectKind::Model;
    const NAME: &'static str = "model";

    fn find<'a>(engine: &'a dyn Resources, tenant: &str, id: &str) -> EngineFuture<'a, Option<v1::Model>> {
        engine.model(tenant, id)
    }

    fn last_sequence(snapshot: &v1::Model) -> i64 {
        snapshot.last_sequence
    }

    fn snapshot(model: v1::Model, sequence: i64) -> v1::ModelEvent {
        v1::ModelEvent {
            sequence,
            time: Some(timestamp(now_ms())),
            state: model.state,
            progress: model.progress.clone(),
            detail: Some(v1::model_event::Detail::Snapshot(model)),
        }
    }

    fn heartbeat(last: &v1::ModelEvent) -> v1::ModelEvent {
        v1::ModelEvent {
            sequence: last.sequence,
            time: Some(timestamp(now_ms())),
            state: last.state,
            progress: last.progress.clone(),
            detail: Some(v1::model_event::Detail::Heartbeat(v1::Heartbeat {})),
        }
    }

    fn sequence(event: &v1::ModelEvent) -> i64 {
        event.sequence
    }

    fn is_final(event: &v1::ModelEvent) -> bool {
        use v1::model::State;
        match event.state() {
            State::Ready | State::Failed | State::Retired => true,
            State::Unspecified | State::Compiling => false,
        }
    }
}

pub(crate) struct JobWatch;

impl Watch for JobWatch {
    type Snapshot = v1::Job;
    type Event = v1::JobEvent;
    const KIND: SubjectKind = SubjectKind::Job;
    const NAME: &'static str = "job";

    fn find<'a>(engine: &'a dyn Resources, tenant: &str, id: &str) -> EngineFuture<'a, Option<v1::Job>> {
        engine.job(tenant, id)
    }

    fn last_sequence(snapshot: &v1::Job) -> i64 {
        snapshot.last_sequence
    }

    fn snapshot(job: v1::Job, sequence: i64) -> v1::JobEvent {
        v1::JobEvent {
            sequence,
            time: Some(timestamp(now_ms())),
            state: job.state,
            progress: job.progress.clone(),
            detail: Some(v1::job_event::Detail::Snapshot(job)),
        }
    }

    fn heartbeat(last: &v1::JobEvent) -> v1::JobEvent {
        v1::JobEvent {
            sequence: last.sequence,
            time: Some(timestamp(now_ms())),
            state: last.state,
            progress: last.progress.clone(),
            detail: Some(v1::job_event::Detail::Heartbeat(v1::Heartbeat {})),
        }
    }

    fn sequence(event: &v1::JobEvent) -> i64 {
        event.sequence
    }

    fn is_final(event: &v1::JobEvent) -> bool {
        is_final_state(event.state())
    }
}

fn is_final_state(state: v1::job::State) -> bool {
    use v1::job::State;
    match state {
        State::Succeeded | State::Failed | State::Cancelled | State::Expired => true,
        State::Unspecified | State::Queued | State::Running | State::Cancelling => false,
    }
}

pub(crate) fn is_final_job(job: &v1::Job) -> bool {
    is_final_state(job.state())
}

/// Starts a watcher.
pub(crate) async fn watch<W: Watch>(
    app: &Arc<App>,
    tenant: String,
    id: String,
    from_sequence: i64,
) -> Result<WatchStream<W::Event>, ApiError> {
    let place = app.watchers.take(&tenant)?;
    let subject = Subject { kind: W::KIND, tenant, id };
    // Before the snapshot is read, so that no change falls between.
    let subscription = app.hub.subscribe(subject.clone());
    let snapshot = W::find(&*app.engine, &subject.tenant, &subject.id).await?;
    let snapshot = snapshot.ok_or_else(|| not_found::<W>(&subject))?;
    let last = W::last_sequence(&snapshot);
    if !(0..=last + 1).contains(&from_sequence) {
        return Err(ApiError::OutOfRange {
            reason: "SEQUENCE_OUT_OF_RANGE",
            message: format!("from_sequence must be from 0 to {}", last + 1),
        });
    }
    let cursor = if from_sequence == 0 { last + 1 } else { from_sequence };
    let (sender, receiver) = mpsc::channel(IN_FLIGHT);
    let follower = Follower::<W> {
        app: app.clone(),
        subject,
        sender,
        cursor,
        last: W::snapshot(snapshot, cursor - 1),
        end: Instant::now() + app.limits.watch,
    };
    tokio::spawn(async move {
        follower.run(subscription, last).await;
        drop(place);
    });
    Ok(ReceiverStream::new(receiver))
}

fn not_found<W: Watch>(subject: &Subject) -> ApiError {
    ApiError::NotFound { kind: W::NAME, name: format!("tenants/{}/{}s/{}", subject.tenant, W::NAME, subject.id) }
}

/// The client is gone, or the stream is at its end.
pub(super) struct Over;

/// Waits for a slow client, but not beyond the stream's `end`, nor that of the service.
pub(super) async fn send<E>(
    app: &App,
    sender: &mpsc::Sender<Result<E, Status>>,
    end: Instant,
    message: Result<E, Status>,
) -> Result<(), Over> {
    tokio::select! {
        biased;
        sent = sender.send(message) => sent.map_err(|_| Over),
        () = tokio::time::sleep_until(end) => Err(Over),
        () = app.closing.cancelled() => Err(Over),
    }
}

struct Follower<W: Watch> {
    app: Arc<App>,
    subject: Subject,
    sender: mpsc::Sender<Result<W::Event, Status>>,
    /// Next sequence to send.
    cursor: i64,
    /// Sent last.
    last: W::Event,
    end: Instant,
}

impl<W: Watch> Follower<W> {
    async fn run(mut self, mut subscription: Subscription, last_sequence: i64) {
        let first = W::Event::decode(self.last.encode_to_vec().as_slice()).unwrap_or_default();
        let is_over = W::is_final(&self.last) && self.cursor > last_sequence;
        if self.send(Ok(first)).await.is_err() || is_over {
            return;
        }
        while self.step(&mut subscription).await.is_ok() {}
    }

    /// Sends what is there, then waits for more.
    async fn step(&mut self, subscription: &mut Subscription) -> Result<(), Over> {
        let events = match self.app.engine.events(&self.subject, self.cursor, BATCH).await {
            Ok(events) => events,
            Err(error) => return self.fail(error.into()).await,
        };
        let is_full = events.len() == BATCH as usize;
        for stored in events {
            let event = match W::Event::decode(stored.body.as_slice()) {
                Ok(event) => event,
                Err(error) => {
                    let context = "a stored event is damaged";
                    return self.fail(ApiError::Internal { context, source: error.into() }).await;
                }
            };
            self.cursor = stored.sequence + 1;
            // Decoded twice rather than cloned: events are small and `Message` has no clone.
            self.last = W::Event::decode(stored.body.as_slice()).unwrap_or_default();
            self.send(Ok(event)).await?;
            if W::is_final(&self.last) {
                return Err(Over);
            }
        }
        if is_full { Ok(()) } else { self.wait(subscription).await }
    }

    async fn wait(&mut self, subscription: &mut Subscription) -> Result<(), Over> {
        let closing = self.app.closing.clone();
        tokio::select! {
            () = subscription.changed() => Ok(()),
            () = tokio::time::sleep(self.app.limits.heartbeat) => self.beat().await,
            () = self.sender.closed() => Err(Over),
            () = tokio::time::sleep_until(self.end) => Err(Over),
            () = closing.cancelled() => self.fail(self.resume_hint()).await,
        }
    }

    /// A sign of life, if there is still something to watch.
    async fn beat(&self) -> Result<(), Over> {
        // The first event is there as long as its subject.
        match self.app.engine.events(&self.subject, 1, 1).await {
            Ok(first) if first.is_empty() => self.fail(not_found::<W>(&self.subject)).await,
            Ok(_) => self.send(Ok(W::heartbeat(&self.last))).await,
            Err(error) => self.fail(error.into()).await,
        }
    }

    fn resume_hint(&self) -> ApiError {
        let next = W::sequence(&self.last) + 1;
        ApiError::Unavailable {
            reason: "DRAINING",
            message: format!("the service is shutting down; resume with from_sequence {next}"),
            retry: Duration::from_secs(2),
        }
    }

    async fn fail(&self, error: ApiError) -> Result<(), Over> {
        let _ = self.send(Err(error.into())).await;
        Err(Over)
    }

    async fn send(&self, message: Result<W::Event, Status>) -> Result<(), Over> {
        send(&self.app, &self.sender, self.end, message).await
    }
}
