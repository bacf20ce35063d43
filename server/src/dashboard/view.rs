//! What is told of jobs, models and workers. Each field is named here one by one, so that nothing is shown by accident: no inputs, outputs, weights,
//! salts, nonces, statements or artifacts. Times are milliseconds since 1970, durations milliseconds.

use std::collections::{BTreeMap, HashMap};

use serde::Serialize;
use zkinfer_proto::name::{JobName, ModelName};
use zkinfer_proto::v1;

use crate::engine::{AttemptFacts, Census, QueueFacts, RunningTask, SessionFacts, SubjectKind, TaskFacts, timestamp_ms};

/// The front page.
#[derive(Serialize)]
pub(super) struct OverviewPage {
    now_ms: i64,
    queue: QueueView,
    jobs: BTreeMap<&'static str, u64>,
    models: BTreeMap<&'static str, u64>,
    workers: Vec<WorkerView>,
}

#[derive(Serialize)]
struct QueueView {
    waiting: u64,
    ready: u64,
    running: u64,
}

#[derive(Serialize)]
struct WorkerView {
    id: String,
    worker: String,
    devices: Vec<String>,
    opened_ms: i64,
    seen_ms: i64,
    is_cordoned: bool,
    n_running: u64,
    tasks: Vec<RunningView>,
}

#[derive(Serialize)]
struct RunningView {
    kind: &'static str,
    tenant: String,
    id: String,
    name: String,
    step: String,
    started_ms: i64,
}

impl OverviewPage {
    pub(super) fn new(now_ms: i64, queue: QueueFacts, census: &Census, sessions: Vec<SessionFacts>, running: Vec<RunningTask>) -> Self {
        let mut of_session: HashMap<String, Vec<RunningView>> = HashMap::new();
        for task in running {
            of_session.entry(task.session.clone()).or_default().push(RunningView::new(task));
        }
        let worker = |session: SessionFacts| WorkerView {
            tasks: of_session.remove(&session.id).unwrap_or_default(),
            id: session.id,
            worker: session.worker,
            devices: session.devices,
            opened_ms: session.opened_ms,
            seen_ms: session.seen_ms,
            is_cordoned: session.is_cordoned,
            n_running: session.running,
        };
        Self {
            now_ms,
            queue: QueueView { waiting: queue.waiting, ready: queue.ready, running: queue.running },
            jobs: census.jobs.iter().map(|(state, count)| (job_state(*state), *count)).collect(),
            models: census.models.iter().map(|(state, count)| (model_state(*state), *count)).collect(),
            workers: sessions.into_iter().map(worker).collect(),
        }
    }
}

impl RunningView {
    fn new(task: RunningTask) -> Self {
        let kind = match task.subject.kind {
            SubjectKind::Job => "job",
            SubjectKind::Model => "model",
        };
        let (tenant, id) = (task.subject.tenant, task.subject.id);
        Self { kind, tenant, id, name: task.name, step: task.step, started_ms: task.started_ms }
    }
}

/// A line of a list of jobs.
#[derive(Serialize)]
pub(super) struct JobView {
    tenant: String,
    id: String,
    model: String,
    state: &'static str,
    priority: i32,
    labels: BTreeMap<String, String>,
    batch: String,
    created_ms: Option<i64>,
    started_ms: Option<i64>,
    ended_ms: Option<i64>,
    deadline_ms: Option<i64>,
    progress: ProgressView,
    failure: Option<FailureView>,
    n_notes: usize,
}

impl JobView {
    pub(super) fn new(job: &v1::Job) -> Self {
        let name = JobName::parse(&job.name).ok();
        Self {
            tenant: name.as_ref().map_or_else(String::new, |name| name.tenant.clone()),
            id: name.map_or_else(|| job.name.clone(), |name| name.job_id),
            model: ModelName::parse(&job.model).map_or_else(|_| job.model.clone(), |name| name.model_id),
            state: job_state(job.state()),
            priority: job.priority,
            labels: job.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            batch: job.batch.rsplit('/').next().unwrap_or_default().to_owned(),
            created_ms: job.create_time.as_ref().map(timestamp_ms),
            started_ms: job.start_time.as_ref().map(timestamp_ms),
            ended_ms: job.end_time.as_ref().map(timestamp_ms),
            deadline_ms: job.deadline.as_ref().map(timestamp_ms),
            progress: ProgressView::new(job.progress.as_ref()),
            failure: job.failure.as_ref().map(FailureView::new),
            n_notes: job.notes.len(),
        }
    }
}

/// All of a job.
#[derive(Serialize)]
pub(super) struct JobPage {
    job: JobView,
    notes: Vec<NoteView>,
    proof_bytes: Option<i64>,
    peak_host_bytes: Option<i64>,
    tasks: Vec<TaskView>,
}

impl JobPage {
    pub(super) fn new(job: &v1::Job, tasks: Vec<TaskFacts>) -> Self {
        let known = |bytes: i64| (bytes > 0).then_some(bytes);
        Self {
            job: JobView::new(job),
            notes: job.notes.iter().map(NoteView::new).collect(),
            proof_bytes: job.result.as_ref().and_then(|result| known(result.proof_bytes)),
            peak_host_bytes: job.result.as_ref().and_then(|result| known(result.peak_host_bytes)),
            tasks: tasks.into_iter().map(TaskView::new).collect(),
        }
    }

    pub(super) fn is_final(&self) -> bool {
        matches!(self.job.state, "SUCCEEDED" | "FAILED" | "CANCELLED" | "EXPIRED")
    }
}

#[derive(Serialize)]
struct NoteView {
    task: String,
    attempt: u32,
    outcome: String,
    message: String,
}

impl NoteView {
    fn new(note: &v1::TaskNote) -> Self {
        Self { task: note.task.clone(), attempt: note.attempt, outcome: note.outcome.clone(), message: note.message.clone() }
    }
}

#[derive(Serialize)]
struct TaskView {
    name: String,
    step: String,
    state: String,
    needs: Vec<String>,
    attempts: Vec<AttemptView>,
}

impl TaskView {
    fn new(task: TaskFacts) -> Self {
        let attempts = task.attempts.into_iter().map(AttemptView::new).collect();
        Self { name: task.name, step: task.step, state: task.state, needs: task.needs, attempts }
    }
}

#[derive(Serialize)]
struct AttemptView {
    worker: String,
    device: String,
    started_ms: i64,
    ended_ms: Option<i64>,
    outcome: String,
    last_words: String,
}

impl AttemptView {
    fn new(attempt: AttemptFacts) -> Self {
        let AttemptFacts { worker, device, started_ms, ended_ms, outcome, last_words } = attempt;
        Self { worker, device, started_ms, ended_ms, outcome, last_words }
    }
}

#[derive(Serialize)]
struct ProgressView {
    fraction: f64,
    phase: String,
    attempt: u32,
    queue_position: Option<i32>,
    eta_ms: Option<i64>,
    stages: Vec<StageView>,
}

#[derive(Serialize)]
struct StageView {
    name: String,
    total: u32,
    done: u32,
    elapsed_ms: Option<i64>,
}

impl ProgressView {
    fn new(progress: Option<&v1::Progress>) -> Self {
        let progress = progress.cloned().unwrap_or_default();
        let stage = |stage: v1::Stage| StageView {
            name: stage.name,
            total: stage.total,
            done: stage.done,
            elapsed_ms: stage.elapsed.as_ref().map(duration_ms),
        };
        Self {
            // What is no number is none in JSON either.
            fraction: if progress.fraction.is_finite() { progress.fraction.clamp(0.0, 1.0) } else { 0.0 },
            phase: progress.phase,
            attempt: progress.attempt,
            queue_position: (progress.queue_position >= 0).then_some(progress.queue_position),
            eta_ms: progress.eta.as_ref().map(duration_ms),
            stages: progress.stages.into_iter().map(stage).collect(),
        }
    }
}

#[derive(Serialize)]
struct FailureView {
    reason: String,
    message: String,
    stage: String,
    attempts: u32,
}

impl FailureView {
    fn new(failure: &v1::Failure) -> Self {
        let v1::Failure { reason, message, stage, attempts, .. } = failure.clone();
        Self { reason, message, stage, attempts }
    }
}

/// A line of the list of models.
#[derive(Serialize)]
pub(super) struct ModelView {
    tenant: String,
    id: String,
    display_name: String,
    state: &'static str,
    is_public: bool,
    labels: BTreeMap<String, String>,
    parameter_set: String,
    created_ms: Option<i64>,
    ready_ms: Option<i64>,
    n_layers: Option<u32>,
    n_parameters: Option<i64>,
    proof_ms: Option<i64>,
    progress: ProgressView,
    failure: Option<FailureView>,
}

impl ModelView {
    pub(super) fn new(model: &v1::Model) -> Self {
        let name = ModelName::parse(&model.name).ok();
        let registered = model.registered.as_ref();
        let unit_cost = registered.and_then(|registered| registered.unit_cost.as_ref());
        Self {
            tenant: name.as_ref().map_or_else(String::new, |name| name.tenant.clone()),
            id: name.map_or_else(|| model.name.clone(), |name| name.model_id),
            display_name: model.display_name.clone(),
            state: model_state(model.state()),
            is_public: model.weights_visibility() == v1::model::Visibility::Public,
            labels: model.labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),
            parameter_set: model.parameter_set.clone(),
            created_ms: model.create_time.as_ref().map(timestamp_ms),
            ready_ms: model.ready_time.as_ref().map(timestamp_ms),
            n_layers: registered.map(|registered| registered.layer_count),
            n_parameters: registered.map(|registered| registered.parameter_count),
            proof_ms: unit_cost.and_then(|cost| cost.wall_time.as_ref()).map(duration_ms),
            progress: ProgressView::new(model.progress.as_ref()),
            failure: model.failure.as_ref().map(FailureView::new),
        }
    }
}

fn duration_ms(duration: &prost_types::Duration) -> i64 {
    duration.seconds.saturating_mul(1000).saturating_add(i64::from(duration.nanos) / 1_000_000)
}

fn job_state(state: v1::job::State) -> &'static str {
    state.as_str_name().trim_start_matches("STATE_")
}

fn model_state(state: v1::model::State) -> &'static str {
    state.as_str_name().trim_start_matches("STATE_")
}
