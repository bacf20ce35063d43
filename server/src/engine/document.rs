//! Models and jobs as documents, and what may happen to them: pure functions, no I/O.

use prost::Message as _;
use zkinfer_proto::v1;

use super::{Ended, EngineError, SubjectKind, timestamp};

/// Notes that a job keeps.
const MAX_NOTES: usize = 32;

/// A stored model or job.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Document {
    Model(Box<v1::Model>),
    Job(Box<v1::Job>),
}

/// Something that happens to a document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    /// It was admitted.
    Admitted,
    /// Attempt number `.0` starts.
    Started(u32),
    Progressed(v1::Progress),
    /// An attempt at a step ended that changes nothing but what the job has taken.
    Spent,
    /// Something happened to a task of it.
    Noted(v1::TaskNote),
    /// Back in the queue, after so many attempts.
    Requeued(u32),
    Registered(Box<v1::RegisteredModel>),
    Proved(Box<v1::JobResult>),
    Failed(v1::Failure),
    /// Told to stop while running.
    Cancelling,
    Cancelled(v1::Failure),
    Expired(v1::Failure),
}

impl Document {
    pub(super) fn decode(kind: SubjectKind, bytes: &[u8]) -> Result<Self, EngineError> {
        match kind {
            SubjectKind::Model => v1::Model::decode(bytes).map(|m| Self::Model(Box::new(m))),
            SubjectKind::Job => v1::Job::decode(bytes).map(|j| Self::Job(Box::new(j))),
        }
        .map_err(EngineError::Damaged)
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Model(model) => model.encode_to_vec(),
            Self::Job(job) => job.encode_to_vec(),
        }
    }

    /// When it was admitted.
    pub(super) fn created(&self) -> Option<&prost_types::Timestamp> {
        match self {
            Self::Model(model) => model.create_time.as_ref(),
            Self::Job(job) => job.create_time.as_ref(),
        }
    }

    /// The state as the proto numbers it.
    pub(super) fn state(&self) -> i32 {
        match self {
            Self::Model(model) => model.state,
            Self::Job(job) => job.state,
        }
    }

    /// A job that no worker has begun, or that waits again as a whole.
    pub(super) fn is_queued(&self) -> bool {
        matches!(self, Self::Job(job) if job.state() == v1::job::State::Queued)
    }

    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Model(model) => is_final_model(model.state()),
            Self::Job(job) => is_final_job(job.state()),
        }
    }

    /// What has ended, if it has.
    pub(super) fn into_ended(self) -> Option<Ended> {
        self.is_final().then_some(match self {
            Self::Model(model) => Ended::Model(model),
            Self::Job(job) => Ended::Job(job),
        })
    }

    pub(super) fn last_sequence(&self) -> i64 {
        match self {
            Self::Model(model) => model.last_sequence,
            Self::Job(job) => job.last_sequence,
        }
    }

    /// Applies a change and answers the event that tells of it, encoded. The caller has made sure that the document is
    /// not final.
    pub(super) fn apply(&mut self, change: Change, now_ms: i64) -> Vec<u8> {
        match self {
            Self::Model(model) => apply_to_model(model, change, now_ms).encode_to_vec(),
            Self::Job(job) => apply_to_job(job, change, now_ms).encode_to_vec(),
        }
    }
}

/// As [`Document::apply`] of [`Change::Admitted`].
pub(super) fn admit_job(job: &mut v1::Job, now_ms: i64) -> Vec<u8> {
    apply_to_job(job, Change::Admitted, now_ms).encode_to_vec()
}

pub(super) fn is_final_model(state: v1::model::State) -> bool {
    use v1::model::State;
    match state {
        State::Unspecified | State::Compiling => false,
        State::Ready | State::Failed | State::Retired => true,
    }
}

pub(super) fn is_final_job(state: v1::job::State) -> bool {
    use v1::job::State;
    match state {
        State::Unspecified | State::Queued | State::Running | State::Cancelling => false,
        State::Succeeded | State::Failed | State::Cancelled | State::Expired => true,
    }
}

fn queued_progress(attempts: u32) -> v1::Progress {
    v1::Progress { attempt: attempts, ..Default::default() }
}

fn started_progress(attempt: u32) -> v1::Progress {
    v1::Progress { attempt, queue_position: -1, ..Default::default() }
}

fn finished(progress: Option<v1::Progress>) -> v1::Progress {
    let mut progress = progress.unwrap_or_default();
    for stage in &mut progress.stages {
        stage.done = stage.total;
    }
    progress.fraction = 1.0;
    progress.eta = None;
    progress.queue_position = -1;
    progress.phase.clear();
    progress
}

fn ended(progress: Option<v1::Progress>) -> v1::Progress {
    v1::Progress { eta: None, queue_position: -1, ..progress.unwrap_or_default() }
}

fn apply_to_model(model: &mut v1::Model, change: Change, now_ms: i64) -> v1::ModelEvent {
    use v1::model::State;
    use v1::model_event::Detail;
    let mut detail = None;
    match change {
        Change::Admitted => {}
        Change::Started(attempt) => model.progress = Some(started_progress(attempt)),
        Change::Progressed(progress) => model.progress = Some(progress),
        Change::Requeued(attempts) => model.progress = Some(queued_progress(attempts)),
        Change::Registered(registered) => {
            model.set_state(State::Ready);
            model.ready_time = Some(timestamp(now_ms));
            model.progress = Some(finished(model.progress.take()));
            model.registered = Some((*registered).clone());
            detail = Some(Detail::Registered(*registered));
        }
        Change::Failed(failure) | Change::Cancelled(failure) | Change::Expired(failure) => {
            model.set_state(State::Failed);
            model.progress = Some(ended(model.progress.take()));
            model.failure = Some(failure.clone());
            detail = Some(Detail::Failure(failure));
        }
        // A registration is neither proved nor cancelled, and of one task; an event without a change is harmless.
        Change::Proved(_) | Change::Cancelling | Change::Noted(_) | Change::Spent => {}
    }
    model.last_sequence += 1;
    model.etag = model.last_sequence.to_string();
    v1::ModelEvent {
        sequence: model.last_sequence,
        time: Some(timestamp(now_ms)),
        state: model.state,
        progress: model.progress.clone(),
        detail,
    }
}

fn apply_to_job(job: &mut v1::Job, change: Change, now_ms: i64) -> v1::JobEvent {
    use v1::job::State;
    use v1::job_event::Detail;
    let mut detail = None;
    match change {
        Change::Admitted | Change::Spent => {}
        Change::Started(attempt) => {
            job.set_state(State::Running);
            job.start_time.get_or_insert(timestamp(now_ms));
            job.progress = Some(started_progress(attempt));
            job.cost.get_or_insert_default().runs += 1;
        }
        Change::Progressed(progress) => job.progress = Some(progress),
        Change::Noted(note) => {
            job.notes.push(note.clone());
            // The oldest go first: a job stays a small document whatever happens to it.
            let surplus = job.notes.len().saturating_sub(MAX_NOTES);
            job.notes.drain(..surplus);
            detail = Some(Detail::Note(note));
        }
        Change::Requeued(attempts) => {
            job.set_state(State::Queued);
            job.progress = Some(queued_progress(attempts));
        }
        Change::Proved(result) => {
            job.set_state(State::Succeeded);
            job.progress = Some(finished(job.progress.take()));
            job.result = Some((*result).clone());
            detail = Some(Detail::Result(*result));
        }
        Change::Cancelling => job.set_state(State::Cancelling),
        Change::Failed(failure) => detail = Some(end_job(job, State::Failed, failure)),
        Change::Cancelled(failure) => detail = Some(end_job(job, State::Cancelled, failure)),
        Change::Expired(failure) => detail = Some(end_job(job, State::Expired, failure)),
        // A job registers nothing; an event without a change is harmless.
        Change::Registered(_) => {}
    }
    if is_final_job(job.state()) {
        job.end_time = Some(timestamp(now_ms));
    }
    job.last_sequence += 1;
    job.etag = job.last_sequence.to_string();
    v1::JobEvent { sequence: job.last_sequence, time: Some(timestamp(now_ms)), state: job.state, progress: job.progress.clone(), detail }
}

fn end_job(job: &mut v1::Job, state: v1::job::State, failure: v1::Failure) -> v1::job_event::Detail {
    job.set_state(state);
    job.progress = Some(ended(job.progress.take()));
    job.failure = Some(failure.clone());
    v1::job_event::Detail::Failure(failure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_runs_to_its_result_with_counted_events() {
        let mut job = v1::Job { state: v1::job::State::Queued as i32, ..Default::default() };
        let changes = [Change::Admitted, Change::Started(1), Change::Requeued(1), Change::Started(2), Change::Proved(Box::default())];
        for (i, change) in changes.into_iter().enumerate() {
            let event = apply_to_job(&mut job, change, 7);
            assert_eq!(event.sequence, i as i64 + 1);
            assert_eq!(event.state, job.state);
        }
        assert_eq!(job.state(), v1::job::State::Succeeded);
        assert_eq!(job.end_time, Some(timestamp(7)));
        assert_eq!(job.cost.map(|cost| cost.runs), Some(2));
        assert_eq!(job.progress.unwrap().fraction, 1.0);
    }

    #[test]
    fn documents_round_trip() {
        let model = v1::Model { name: "tenants/a/models/b".into(), ..Default::default() };
        let document = Document::Model(Box::new(model));
        let again = Document::decode(SubjectKind::Model, &document.encode()).unwrap();
        assert_eq!(document, again);
        assert!(matches!(Document::decode(SubjectKind::Job, &[0xff]), Err(EngineError::Damaged(_))));
    }
}
