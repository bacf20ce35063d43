//! Turns a prover's events into progress that is written down, without ever making the prover wait: only the newest
//! state is handed over, and a task of the runtime writes it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;
use zkinfer_proto::v1;

use super::running::{StopFlag, StopReason};
use super::source::{Holding, SourceError, TaskSource};
use crate::engine::{Lease, TaskFlow};
use crate::prover::{ProgressSink, StageEdge, StageEvent, StagePlan, Stopped};

/// A progress that is being written when the attempt ends is waited for at most so long.
const LAST_WRITE: Duration = Duration::from_secs(1);

/// Where an attempt was computed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Place {
    /// Such as `cpu`.
    pub(super) device: String,
    /// Why not elsewhere.
    pub(super) fallback: String,
    /// Most memory of the device that its process had taken meanwhile; 0 if it has none of its own.
    pub(super) peak_device_bytes: u64,
}

/// The sink of one attempt.
pub(super) struct Reporter {
    stages: Mutex<Stages>,
    place: Mutex<Place>,
    newest: watch::Sender<v1::Progress>,
    /// Ends the writer's rests.
    ending: CancellationToken,
    /// What is not written yet is told by the outcome.
    told: Arc<AtomicBool>,
    flag: Arc<StopFlag>,
    writer: JoinHandle<()>,
}

/// What is reported about.
pub(super) struct Reported {
    pub(super) source: Arc<dyn TaskSource>,
    pub(super) session: String,
    pub(super) lease: Lease,
    pub(super) attempt: u32,
    /// Added behind the planned stages, or to the planned stage of its name.
    pub(super) last_stage: Option<StagePlan>,
}

impl Reporter {
    /// Starts the writer on `runtime`.
    pub(super) fn start(runtime: &tokio::runtime::Handle, reported: Reported, flag: Arc<StopFlag>) -> Self {
        let (newest, receiver) = watch::channel(v1::Progress::default());
        let stages = Mutex::new(Stages::new(reported.attempt, reported.last_stage.clone()));
        let ending = CancellationToken::new();
        let told = Arc::<AtomicBool>::default();
        let writer = runtime.spawn(write(receiver, reported, (ending.clone(), told.clone()), flag.clone()).in_current_span());
        Self { stages, place: Mutex::default(), newest, ending, told, flag, writer }
    }

    /// Ends the writing. A success tells by itself what is not written yet; else the newest is written, since it tells what the attempt has taken. Answers
    /// how long each stage took, and where.
    pub(super) fn finish(self, runtime: &tokio::runtime::Handle, has_succeeded: bool) -> (Vec<v1::StageTime>, Place) {
        if has_succeeded {
            self.told.store(true, Ordering::Release);
        }
        drop(self.newest);
        self.ending.cancel();
        // The outcome does not wait for a service that is away.
        let written = async { tokio::time::timeout(LAST_WRITE, self.writer).await };
        if !matches!(runtime.block_on(written), Ok(Ok(()))) {
            tracing::warn!("a progress was not written");
        }
        let times = self.stages.into_inner().unwrap_or_else(PoisonError::into_inner).times();
        (times, self.place.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Why the attempt was stopped, if it was.
    pub(super) fn stop_reason(&self) -> Option<StopReason> {
        self.flag.reason()
    }

    fn lock(&self) -> MutexGuard<'_, Stages> {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ProgressSink for Reporter {
    fn plan(&self, stages: &[StagePlan]) {
        let mut state = self.lock();
        state.plan(stages);
        self.newest.send_replace(state.progress());
    }

    fn report(&self, event: StageEvent) -> Result<(), Stopped> {
        let mut state = self.lock();
        state.take(event, Instant::now());
        self.newest.send_replace(state.progress());
        drop(state);
        self.check()
    }

    fn check(&self) -> Result<(), Stopped> {
        if self.flag.reason().is_some() { Err(Stopped) } else { Ok(()) }
    }

    fn ran_on(&self, device: &str, fallback: &str, peak_device_bytes: u64) {
        let place = Place { device: device.to_owned(), fallback: fallback.to_owned(), peak_device_bytes };
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }
}

/// Writes what is newest, with a rest before each, until the attempt ends. So a task that succeeds within a rest writes no progress.
async fn write(
    mut newest: watch::Receiver<v1::Progress>,
    reported: Reported,
    (ending, told): (CancellationToken, Arc<AtomicBool>),
    flag: Arc<StopFlag>,
) {
    let Reported { source, session, lease, .. } = &reported;
    let holding = Holding { session, lease };
    while newest.changed().await.is_ok() {
        let rest = tokio::time::sleep(source.progress_interval());
        ending.run_until_cancelled(rest).await;
        if told.load(Ordering::Acquire) {
            return;
        }
        let progress = newest.borrow_and_update().clone();
        match source.progress(holding, progress).await {
            Ok(TaskFlow::Continue) => {}
            Ok(TaskFlow::Stop) => flag.raise(StopReason::Ended),
            Err(SourceError::Fenced) => flag.raise(StopReason::Fenced),
            // Progress may be lost; the outcome is not, it is written again and again.
            Err(error) => tracing::warn!(%error, "cannot write progress"),
        }
    }
}

/// The stages of an attempt.
struct Stages {
    attempt: u32,
    stages: Vec<Stage>,
    last_stage: Option<StagePlan>,
    phase: &'static str,
    started: Instant,
    fraction: f64,
}

struct Stage {
    plan: StagePlan,
    done: u32,
    active: u32,
    began: Option<Instant>,
    ended: Option<Instant>,
}

impl Stage {
    fn new(plan: StagePlan) -> Self {
        Self { plan, done: 0, active: 0, began: None, ended: None }
    }

    fn elapsed(&self) -> Duration {
        let Some(began) = self.began else { return Duration::ZERO };
        let until = if self.active > 0 { None } else { self.ended };
        until.unwrap_or_else(Instant::now).saturating_duration_since(began)
    }
}

impl Stages {
    fn new(attempt: u32, last_stage: Option<StagePlan>) -> Self {
        let started = Instant::now();
        Self { attempt, stages: Vec::new(), last_stage, phase: "", started, fraction: 0.0 }
    }

    fn plan(&mut self, stages: &[StagePlan]) {
        let mut plan = stages.to_vec();
        if let Some(last) = self.last_stage.take() {
            // The prover may have such a stage of its own: then it is one stage, with the steps of both.
            match plan.iter_mut().find(|stage| stage.name == last.name) {
                Some(own) => (own.total, own.cost_ms) = (own.total + last.total, own.cost_ms + last.cost_ms),
                None => plan.push(last),
            }
        }
        self.stages = plan.into_iter().map(Stage::new).collect();
    }

    fn take(&mut self, event: StageEvent, now: Instant) {
        let known = self.stages.iter().position(|stage| stage.plan.name == event.name);
        let position = known.unwrap_or_else(|| {
            let plan = StagePlan { name: event.name, total: event.total, cost_ms: 0 };
            self.stages.push(Stage::new(plan));
            self.stages.len() - 1
        });
        let Some(stage) = self.stages.get_mut(position) else { return };
        // An event knows the steps of its own source only.
        stage.plan.total = stage.plan.total.max(event.total).max(1);
        match event.edge {
            StageEdge::Begin => {
                stage.began.get_or_insert(now);
                stage.active += 1;
                self.phase = event.name;
            }
            StageEdge::End => {
                stage.active = stage.active.saturating_sub(1);
                stage.done = (stage.done + 1).min(stage.plan.total);
                stage.ended = Some(now);
            }
        }
    }

    fn progress(&mut self) -> v1::Progress {
        let cost = |stage: &Stage| stage.plan.cost_ms as f64;
        let total: f64 = self.stages.iter().map(cost).sum();
        let done: f64 = self.stages.iter().map(|stage| cost(stage) * f64::from(stage.done) / f64::from(stage.plan.total.max(1))).sum();
        if total > 0.0 {
            self.fraction = self.fraction.max((done / total).clamp(0.0, 1.0));
        }
        let spent = self.started.elapsed();
        let eta = (self.fraction > 0.0).then(|| spent.mul_f64(((1.0 - self.fraction) / self.fraction).min(1e6)));
        v1::Progress {
            stages: self.stages.iter().map(stage_message).collect(),
            fraction: self.fraction,
            eta: eta.map(duration),
            queue_position: -1,
            phase: self.phase.to_owned(),
            attempt: self.attempt,
        }
    }

    fn times(&self) -> Vec<v1::StageTime> {
        self.stages
            .iter()
            .map(|stage| v1::StageTime { name: stage.plan.name.to_owned(), elapsed: Some(duration(stage.elapsed())) })
            .collect()
    }
}

fn stage_message(stage: &Stage) -> v1::Stage {
    v1::Stage { name: stage.plan.name.to_owned(), total: stage.plan.total, done: stage.done, elapsed: Some(duration(stage.elapsed())) }
}

fn duration(time: Duration) -> prost_types::Duration {
    time.try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &'static str, index: u32, total: u32, edge: StageEdge) -> StageEvent {
        StageEvent { name, index, total, edge }
    }

    #[test]
    fn the_fraction_follows_the_costs_and_never_falls() {
        let mut stages = Stages::new(1, Some(StagePlan { name: "verify", total: 1, cost_ms: 10 }));
        stages.plan(&[StagePlan { name: "layer", total: 3, cost_ms: 60 }, StagePlan { name: "outer", total: 1, cost_ms: 30 }]);
        let mut last = 0.0;
        for (name, index, total) in [("layer", 0, 3), ("layer", 1, 3), ("layer", 2, 3), ("outer", 0, 1), ("verify", 0, 1)] {
            stages.take(event(name, index, total, StageEdge::Begin), Instant::now());
            assert_eq!(stages.progress().phase, name);
            stages.take(event(name, index, total, StageEdge::End), Instant::now());
            let fraction = stages.progress().fraction;
            assert!(fraction > last);
            last = fraction;
        }
        assert!((last - 1.0).abs() < 1e-9);
        assert_eq!(stages.times().len(), 3);
        assert_eq!(stages.progress().eta, Some(prost_types::Duration::default()));
    }

    /// The prover verifies what it made, then the worker as a client would: one stage of two steps, shown once and complete only at its end.
    #[test]
    fn a_last_stage_that_the_prover_has_too_is_one_stage() {
        let mut stages = Stages::new(1, Some(StagePlan { name: "verify", total: 1, cost_ms: 10 }));
        stages.plan(&[StagePlan { name: "outer", total: 1, cost_ms: 70 }, StagePlan { name: "verify", total: 1, cost_ms: 20 }]);
        let mut seen = Vec::new();
        for name in ["outer", "verify", "verify"] {
            for edge in [StageEdge::Begin, StageEdge::End] {
                stages.take(event(name, 0, 1, edge), Instant::now());
                let progress = stages.progress();
                let verify = &progress.stages[1];
                assert_eq!(progress.stages.iter().map(|stage| stage.name.as_str()).collect::<Vec<_>>(), ["outer", "verify"]);
                seen.push((verify.done, verify.total, (progress.fraction * 100.0).round() as u32));
            }
        }
        assert_eq!(seen, [(0, 2, 0), (0, 2, 70), (0, 2, 70), (1, 2, 85), (1, 2, 85), (2, 2, 100)]);
        assert_eq!(stages.times().len(), 2);
    }

    #[test]
    fn an_unplanned_stage_is_shown_and_repeated_ends_do_not_overflow() {
        let mut stages = Stages::new(2, None);
        stages.plan(&[]);
        for _ in 0..3 {
            stages.take(event("join", 0, 1, StageEdge::End), Instant::now());
        }
        let progress = stages.progress();
        assert_eq!(progress.stages[0].done, 1);
        assert_eq!(progress.attempt, 2);
    }
}
