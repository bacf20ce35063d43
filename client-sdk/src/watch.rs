//! Following a model or a job: every event once, in order, through broken connections.

use std::time::Duration;

use futures::StreamExt as _;
use tonic::Streaming;
use zkinfer_proto::v1::{self, Job, JobEvent, Model, ModelEvent, Progress};

use crate::client::Client;
use crate::retry::Repetition;
use crate::status::ClientError;

/// Before a stream that the service ended is opened again.
pub(crate) const PAUSE_AFTER_END: Duration = Duration::from_millis(100);

/// What can be watched. Implemented for models and jobs.
#[allow(async_fn_in_trait, reason = "implemented here only; nobody needs bounds on the futures")]
pub trait Subject: Sized {
    /// Its events.
    type Event;

    /// Opens a stream.
    ///
    /// # Errors
    /// See [`ClientError`].
    async fn open(client: &Client, name: &str, from_sequence: i64) -> Result<Streaming<Self::Event>, ClientError>;
    /// The event's sequence.
    fn sequence(event: &Self::Event) -> i64;
    /// Snapshot or sign of life: repeats a sequence.
    fn is_repetition(event: &Self::Event) -> bool;
    /// Nothing follows.
    fn is_final(event: &Self::Event) -> bool;
    /// Progress in it.
    fn progress(event: &Self::Event) -> Option<&Progress>;
}

impl Subject for Model {
    type Event = ModelEvent;

    async fn open(client: &Client, name: &str, from_sequence: i64) -> Result<Streaming<ModelEvent>, ClientError> {
        let message = v1::WatchModelRequest { name: name.to_owned(), from_sequence };
        Ok(client.model_service().watch_model(message).await?.into_inner())
    }

    fn sequence(event: &ModelEvent) -> i64 {
        event.sequence
    }

    fn is_repetition(event: &ModelEvent) -> bool {
        use v1::model_event::Detail;
        matches!(event.detail, Some(Detail::Snapshot(_) | Detail::Heartbeat(_)))
    }

    fn is_final(event: &ModelEvent) -> bool {
        is_final_model(event.state())
    }

    fn progress(event: &ModelEvent) -> Option<&Progress> {
        event.progress.as_ref()
    }
}

impl Subject for Job {
    type Event = JobEvent;

    async fn open(client: &Client, name: &str, from_sequence: i64) -> Result<Streaming<JobEvent>, ClientError> {
        let message = v1::WatchJobRequest { name: name.to_owned(), from_sequence };
        Ok(client.proof_service().watch_job(message).await?.into_inner())
    }

    fn sequence(event: &JobEvent) -> i64 {
        event.sequence
    }

    fn is_repetition(event: &JobEvent) -> bool {
        use v1::job_event::Detail;
        matches!(event.detail, Some(Detail::Snapshot(_) | Detail::Heartbeat(_)))
    }

    fn is_final(event: &JobEvent) -> bool {
        is_final_job(event.state())
    }

    fn progress(event: &JobEvent) -> Option<&Progress> {
        event.progress.as_ref()
    }
}

/// Whether a registration is over, well or not.
pub fn is_final_model(state: v1::model::State) -> bool {
    use v1::model::State;
    match state {
        State::Ready | State::Failed | State::Retired => true,
        State::Unspecified | State::Compiling => false,
    }
}

/// Whether a job has ended, well or not.
pub fn is_final_job(state: v1::job::State) -> bool {
    use v1::job::State;
    match state {
        State::Succeeded | State::Failed | State::Cancelled | State::Expired => true,
        State::Unspecified | State::Queued | State::Running | State::Cancelling => false,
    }
}

/// Follows one model.
pub type ModelWatch = Watch<Model>;
/// Follows one job.
pub type JobWatch = Watch<Job>;

/// Follows one subject. The first event is a snapshot; then each event comes once, in order, without gaps, until the final one.
#[derive(Debug)]
pub struct Watch<S: Subject> {
    client: Client,
    name: String,
    stream: Option<Streaming<S::Event>>,
    /// Sequence seen last; `None` before the first event.
    last: Option<i64>,
    is_over: bool,
    repetition: Repetition,
}

impl Client {
    /// Follows a model from now on.
    pub fn watch_model(&self, name: &str) -> ModelWatch {
        Watch::new(self.clone(), name)
    }

    /// Follows a job from now on.
    pub fn watch_job(&self, name: &str) -> JobWatch {
        Watch::new(self.clone(), name)
    }
}

/// What came of waiting for one message.
enum Outcome<E> {
    Event(E),
    /// The stream ended, broke or fell silent: open it again.
    Again(Option<ClientError>),
}

impl<S: Subject> Watch<S> {
    fn new(client: Client, name: &str) -> Self {
        let repetition = Repetition::new(client.options.retry);
        Self { client, name: name.to_owned(), stream: None, last: None, is_over: false, repetition }
    }

    /// The next event; `None` after the final one. Opens the stream again when it breaks.
    ///
    /// # Errors
    /// An error that repeating does not heal, or too many in a row; a gap in the sequence.
    pub async fn next(&mut self) -> Result<Option<S::Event>, ClientError> {
        while !self.is_over {
            match self.step().await? {
                Outcome::Event(event) => {
                    self.repetition.reset();
                    let is_first = self.last.is_none();
                    let is_repetition = S::is_repetition(&event);
                    self.check_sequence(S::sequence(&event), is_repetition)?;
                    self.is_over = S::is_final(&event) && (is_first || !is_repetition);
                    if is_first || !is_repetition {
                        return Ok(Some(event));
                    }
                }
                Outcome::Again(cause) => self.pause(cause).await?,
            }
        }
        Ok(None)
    }

    fn check_sequence(&mut self, sequence: i64, is_repetition: bool) -> Result<(), ClientError> {
        let expected = self.last.map(|last| if is_repetition { last } else { last.saturating_add(1) });
        match expected {
            Some(expected) if sequence != expected => {
                Err(ClientError::Answer(format!("event {sequence} of {} came instead of {expected}", self.name)))
            }
            Some(_) | None => {
                self.last = Some(sequence);
                Ok(())
            }
        }
    }

    async fn step(&mut self) -> Result<Outcome<S::Event>, ClientError> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let from_sequence = self.last.map_or(0, |last| last.saturating_add(1));
                match tokio::time::timeout(self.client.options.silence, S::open(&self.client, &self.name, from_sequence)).await {
                    Ok(Ok(stream)) => self.stream.insert(stream),
                    Ok(Err(error)) => return again(error),
                    Err(_) => return Ok(Outcome::Again(None)),
                }
            }
        };
        match tokio::time::timeout(self.client.options.silence, stream.next()).await {
            Ok(Some(Ok(event))) => Ok(Outcome::Event(event)),
            Ok(Some(Err(status))) => again(status.into()),
            // The service ends streams now and then; silence means that the connection is dead.
            Ok(None) | Err(_) => Ok(Outcome::Again(None)),
        }
    }

    async fn pause(&mut self, cause: Option<ClientError>) -> Result<(), ClientError> {
        self.stream = None;
        if let Some(error) = cause {
            self.repetition.pause(error).await?;
            return Ok(());
        }
        if !self.repetition.fail() {
            return Err(ClientError::Answer(format!("the stream of {} ends again and again before its subject does", self.name)));
        }
        tokio::time::sleep(PAUSE_AFTER_END).await;
        Ok(())
    }
}

fn again<E>(error: ClientError) -> Result<Outcome<E>, ClientError> {
    if error.transient().is_some() { Ok(Outcome::Again(Some(error))) } else { Err(error) }
}
