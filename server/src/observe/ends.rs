//! Counts how jobs and registrations end: each once in a process, however often its last state is seen.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use zkinfer_proto::v1;

use super::metrics::{EndLabels, KindLabel, Metrics, StateLabel};
use crate::engine::timestamp_ms;

/// Names that one generation holds at most. More than can end within [`FRESH`].
const REMEMBERED: usize = 65_536;
/// What ended longer ago was counted when it ended: a late look at it says nothing new.
const FRESH: Duration = Duration::from_secs(60);

/// What was counted lately: hashes of names, since a name is ten times as long. Two of one hash among so many are not to be expected.
#[derive(Debug, Default)]
pub(super) struct Ends {
    hasher: RandomState,
    recent: Mutex<Recent>,
}

/// Names of two generations: each lasts as long as its names are news, and is forgotten after as long again. How much is held is a matter of how many
/// end a minute, not of how many have ended.
#[derive(Debug)]
struct Recent {
    began: Instant,
    names: HashSet<u64>,
    before: HashSet<u64>,
}

impl Default for Recent {
    fn default() -> Self {
        Self { began: Instant::now(), names: HashSet::new(), before: HashSet::new() }
    }
}

impl Ends {
    /// Whether this is the first end of that name.
    fn is_first(&self, name: &str, now: Instant) -> bool {
        let name = self.hasher.hash_one(name);
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        recent.turn(now);
        !recent.before.contains(&name) && recent.names.insert(name)
    }
}

impl Recent {
    /// Begins a generation when it is time to, in the room of the one that is forgotten.
    fn turn(&mut self, now: Instant) {
        if now.saturating_duration_since(self.began) > FRESH || self.names.len() >= REMEMBERED {
            std::mem::swap(&mut self.names, &mut self.before);
            self.names.clear();
            self.began = now;
        }
    }
}

/// Reasons of failure, as the API names them. A label must not grow with what a later version stores.
const REASONS: [&str; 15] = [
    "UNSUPPORTED_OP",
    "MODEL_INVALID",
    "SHAPE_MISMATCH",
    "RANGE_OVERFLOW",
    "INPUT_CORRUPT",
    "HOST_MEMORY",
    "DEVICE_MEMORY",
    "DEVICE_LOST",
    "PROOF_INVALID",
    "TASK_TIMEOUT",
    "POISONED",
    "DEADLINE",
    "CANCELLED",
    "STORAGE",
    "INTERNAL",
];

fn known_reason(failure: Option<&v1::Failure>) -> &'static str {
    match failure {
        None => "NONE",
        Some(failure) => REASONS.into_iter().find(|reason| *reason == failure.reason).unwrap_or("OTHER"),
    }
}

/// The reasons of the series that a state begins with: an alert on the first POISONED job needs a 0 before it.
pub(super) fn reasons(state: &str) -> &'static [&'static str] {
    match state {
        "failed" => &REASONS,
        "cancelled" => &["CANCELLED"],
        "expired" => &["DEADLINE"],
        _ => &["NONE"],
    }
}

fn final_state(job: &v1::Job) -> Option<&'static str> {
    use v1::job::State;
    match job.state() {
        State::Succeeded => Some("succeeded"),
        State::Failed => Some("failed"),
        State::Cancelled => Some("cancelled"),
        State::Expired => Some("expired"),
        State::Unspecified | State::Queued | State::Running | State::Cancelling => None,
    }
}

impl Metrics {
    /// A job as it is now. Counts its end, if it has just ended and was not counted yet: call it wherever a job may have ended, also in vain.
    pub fn job_seen(&self, job: &v1::Job) {
        let (Some(state), Some(ended)) = (final_state(job), job.end_time.as_ref()) else { return };
        let is_fresh = self.engine_ms().saturating_sub(timestamp_ms(ended)) <= FRESH.as_millis() as i64;
        if !is_fresh || !self.ends.is_first(&job.name, Instant::now()) {
            return;
        }
        self.jobs.get_or_create(&EndLabels { state, reason: known_reason(job.failure.as_ref()) }).inc();
        if let Some(time) = between(job.create_time.as_ref(), Some(ended)) {
            self.job_seconds.get_or_create(&StateLabel { state }).observe(time.as_secs_f64());
        }
        if let Some(result) = &job.result {
            self.proof_bytes.observe(result.proof_bytes as f64);
            self.stages_ended(&result.stage_times);
        }
    }

    /// A model as it is now; as [`Self::job_seen`].
    pub fn model_seen(&self, model: &v1::Model) {
        use v1::model::State;
        let state = match model.state() {
            State::Ready => "ready",
            State::Failed => "failed",
            State::Unspecified | State::Compiling | State::Retired => return,
        };
        // A model fails once and becomes ready once; that is seen only where it happens.
        if self.ends.is_first(&model.name, Instant::now()) {
            self.registrations.get_or_create(&EndLabels { state, reason: known_reason(model.failure.as_ref()) }).inc();
            self.stages_ended(model.registered.as_ref().map_or(&[], |registered| &registered.stage_times));
        }
    }

    /// The first attempt at a job or a registration, `kind`, begins.
    pub fn left_queue(&self, kind: &'static str, created: Option<&prost_types::Timestamp>) {
        let waited = created.map(|created| self.engine_ms().saturating_sub(timestamp_ms(created)).max(0) as f64 / 1000.0);
        if let Some(seconds) = waited {
            self.queue_wait_seconds.get_or_create(&KindLabel { kind }).observe(seconds);
        }
    }

    fn stages_ended(&self, times: &[v1::StageTime]) {
        for stage in times {
            let elapsed = stage.elapsed.as_ref().and_then(|elapsed| Duration::try_from(*elapsed).ok());
            self.stage_ended(&stage.name, elapsed.unwrap_or_default());
        }
    }
}

fn between(from: Option<&prost_types::Timestamp>, to: Option<&prost_types::Timestamp>) -> Option<Duration> {
    let ms = timestamp_ms(to?).saturating_sub(timestamp_ms(from?));
    Some(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{now_ms, timestamp};

    fn ended(name: &str, ago_ms: i64) -> v1::Job {
        let end = now_ms() - ago_ms;
        let failure = v1::Failure { reason: "DEVICE_LOST".into(), ..Default::default() };
        v1::Job {
            name: name.into(),
            state: v1::job::State::Failed as i32,
            failure: Some(failure),
            create_time: Some(timestamp(end - 2000)),
            end_time: Some(timestamp(end)),
            ..Default::default()
        }
    }

    #[test]
    fn a_job_is_counted_once_and_only_while_its_end_is_news() {
        let metrics = Metrics::new(Vec::new());
        metrics.job_seen(&v1::Job { name: "queued".into(), state: v1::job::State::Queued as i32, ..Default::default() });
        for _ in 0..3 {
            metrics.job_seen(&ended("a", 5));
        }
        metrics.job_seen(&ended("long ago", 3_600_000));
        let mut other = ended("b", 5);
        other.failure = Some(v1::Failure { reason: "invented by a client".into(), ..Default::default() });
        metrics.job_seen(&other);
        let text = metrics.exposition();
        assert!(text.contains("zkinfer_jobs_total{state=\"failed\",reason=\"DEVICE_LOST\"} 1\n"), "{text}");
        assert!(text.contains("zkinfer_jobs_total{state=\"failed\",reason=\"OTHER\"} 1\n"), "{text}");
        assert!(text.contains("zkinfer_job_seconds_sum{state=\"failed\"} 4.0\n"), "{text}");
    }

    #[test]
    fn an_end_is_news_by_the_engines_clock() {
        let metrics = Metrics::new(Vec::new());
        let ahead_ms = 3_600_000;
        metrics.set_engine_time(now_ms() + ahead_ms, Duration::ZERO);
        metrics.job_seen(&ended("ended an hour ago", 0));
        metrics.job_seen(&ended("ended now", -ahead_ms));
        assert!(metrics.exposition().contains("zkinfer_jobs_total{state=\"failed\",reason=\"DEVICE_LOST\"} 1\n"));
    }

    #[test]
    fn a_name_is_remembered_while_its_end_is_news_and_then_forgotten() {
        let (ends, began) = (Ends::default(), Instant::now());
        let at = |seconds| began + Duration::from_secs(seconds);
        assert!(ends.is_first("early", at(0)) && !ends.is_first("early", at(59)));
        // The next generation begins.
        assert!(ends.is_first("late", at(61)) && !ends.is_first("early", at(61)));
        assert!(!ends.is_first("late", at(121)));
        // And the one after that.
        assert!(ends.is_first("another", at(122)) && !ends.is_first("late", at(123)));
        assert!(ends.is_first("last", at(183)) && ends.is_first("late", at(184)), "it is forgotten");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (ends, now) = (Ends::default(), Instant::now());
        assert!((0..3 * REMEMBERED).all(|index| ends.is_first(&index.to_string(), now)));
        let recent = ends.recent.lock().unwrap();
        assert_eq!((recent.names.len(), recent.before.len()), (REMEMBERED, REMEMBERED));
        drop(recent);
        assert!(!ends.is_first(&(3 * REMEMBERED - 1).to_string(), now));
    }
}
