//! Every number of a running service. A value that is passed to whoever has something to count; clones of the families inside share their cells.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::prometheus_text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

use super::catalogue::{Kind, described};
use super::collectors::collectors;
use super::ends::{Ends, reasons};
use crate::engine::now_ms;
use crate::prover::Prover;
use crate::supervisor::Children;

/// A set of one label.
macro_rules! label {
    ($name:ident, $field:ident) => {
        #[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
        pub(super) struct $name {
            pub(super) $field: &'static str,
        }
    };
}

label!(StateLabel, state);
label!(KindLabel, kind);
label!(StageLabel, stage);
label!(ReasonLabel, reason);
label!(OutcomeLabel, outcome);
label!(ClassLabel, class);
label!(OperationLabel, operation);
label!(VersionLabel, version);

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct RpcLabels {
    pub(super) method: &'static str,
    pub(super) code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct EndLabels {
    pub(super) state: &'static str,
    pub(super) reason: &'static str,
}

type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;
/// A gauge of seconds.
type Seconds = Gauge<f64, AtomicU64>;

/// All numbers.
pub struct Metrics {
    registry: Registry,
    pub(super) rpc_seconds: Histograms<RpcLabels>,
    pub(super) rpcs: Gauge,
    pub(super) connections: Gauge,
    pub(super) watchers: Gauge,
    pub(super) jobs: Family<EndLabels, Counter>,
    pub(super) deleted_jobs: Family<ReasonLabel, Counter>,
    pub(super) job_seconds: Histograms<StateLabel>,
    pub(super) registrations: Family<EndLabels, Counter>,
    pub(super) queue_wait_seconds: Histograms<KindLabel>,
    pub(super) stage_seconds: Histograms<StageLabel>,
    pub(super) attempts: Family<OutcomeLabel, Counter>,
    pub(super) proof_bytes: Histogram,
    pub(super) artifact_bytes: Family<ClassLabel, Counter>,
    pub(super) tasks: Family<StateLabel, Gauge>,
    pub(super) tasks_age_seconds: Seconds,
    pub(super) oldest_queued_seconds: Seconds,
    pub(super) database_seconds: Histograms<OperationLabel>,
    pub(super) database_errors: Family<KindLabel, Counter>,
    pub(super) database_up: Gauge,
    pub(super) draining: Gauge,
    pub(super) token_keys_age_seconds: Seconds,
    pub(super) ends: Ends,
    /// The engine's time less that of this machine, in milliseconds, as last seen.
    ahead_ms: AtomicI64,
}

impl Metrics {
    /// The numbers of a service that proves with `prover`, or by children of its process.
    pub fn of_service(prover: Arc<dyn Prover>, children: Option<Arc<Children>>) -> Self {
        Self::new(collectors(prover, children))
    }

    /// All at zero; `collectors` are asked whenever the metrics are read.
    pub fn new(collectors: Vec<Box<dyn Collector>>) -> Self {
        let mut registry = Registry::default();
        collectors.into_iter().for_each(|collector| registry.register_collector(collector));
        let add = &mut registry;
        let info: Family<VersionLabel, Gauge> = added(add, "zkinfer_build_info", Family::default());
        info.get_or_create(&VersionLabel { version: env!("CARGO_PKG_VERSION") }).set(1);
        let metrics = Self {
            rpc_seconds: added(add, "zkinfer_rpc_seconds", Family::new_with_constructor(call_buckets)),
            rpcs: added(add, "zkinfer_rpcs", Gauge::default()),
            connections: added(add, "zkinfer_connections", Gauge::default()),
            watchers: added(add, "zkinfer_watchers", Gauge::default()),
            jobs: added(add, "zkinfer_jobs_total", Family::default()),
            deleted_jobs: added(add, "zkinfer_deleted_jobs_total", Family::default()),
            job_seconds: added(add, "zkinfer_job_seconds", Family::new_with_constructor(work_buckets)),
            registrations: added(add, "zkinfer_registrations_total", Family::default()),
            queue_wait_seconds: added(add, "zkinfer_queue_wait_seconds", Family::new_with_constructor(work_buckets)),
            stage_seconds: added(add, "zkinfer_stage_seconds", Family::new_with_constructor(stage_buckets)),
            attempts: added(add, "zkinfer_attempts_total", Family::default()),
            proof_bytes: added(add, "zkinfer_proof_bytes", byte_buckets()),
            artifact_bytes: added(add, "zkinfer_artifact_bytes_total", Family::default()),
            tasks: added(add, "zkinfer_tasks", Family::default()),
            tasks_age_seconds: added(add, "zkinfer_tasks_age_seconds", Seconds::default()),
            oldest_queued_seconds: added(add, "zkinfer_oldest_queued_seconds", Seconds::default()),
            database_seconds: added(add, "zkinfer_database_seconds", Family::new_with_constructor(database_buckets)),
            database_errors: added(add, "zkinfer_database_errors_total", Family::default()),
            database_up: added(add, "zkinfer_database_up", Gauge::default()),
            draining: added(add, "zkinfer_draining", Gauge::default()),
            token_keys_age_seconds: added(add, "zkinfer_token_keys_age_seconds", Seconds::default()),
            ends: Ends::default(),
            ahead_ms: AtomicI64::default(),
            registry,
        };
        metrics.begin_at_zero();
        metrics
    }

    /// A series that begins with its first event hides that event from `rate`: what is known beforehand begins at zero.
    fn begin_at_zero(&self) {
        for state in ["succeeded", "failed", "cancelled", "expired"] {
            for reason in reasons(state) {
                self.jobs.get_or_create(&EndLabels { state, reason }).inc_by(0);
            }
        }
        for state in ["ready", "failed"] {
            for reason in reasons(state) {
                self.registrations.get_or_create(&EndLabels { state, reason }).inc_by(0);
            }
        }
        for outcome in ["completed", "failed", "retried", "released", "fenced"] {
            self.attempts.get_or_create(&OutcomeLabel { outcome }).inc_by(0);
        }
        for reason in ["age", "request"] {
            self.deleted_jobs.get_or_create(&ReasonLabel { reason }).inc_by(0);
        }
        for class in ["public", "internal"] {
            self.artifact_bytes.get_or_create(&ClassLabel { class }).inc_by(0);
        }
        for kind in ["busy", "full", "damaged", "other"] {
            self.database_errors.get_or_create(&KindLabel { kind }).inc_by(0);
        }
    }

    /// It was `ms` by the engine's clock so long ago.
    pub(super) fn set_engine_time(&self, ms: i64, ago: Duration) {
        let engine_ms = ms.saturating_add(i64::try_from(ago.as_millis()).unwrap_or(i64::MAX));
        self.ahead_ms.store(engine_ms.saturating_sub(now_ms()), Ordering::Relaxed);
    }

    /// The engine's time, as far as it is known: this machine's clock may be wrong.
    pub(super) fn engine_ms(&self) -> i64 {
        now_ms().saturating_add(self.ahead_ms.load(Ordering::Relaxed))
    }

    /// The exposition, in the text format of Prometheus, version 0.0.4.
    pub fn exposition(&self) -> String {
        let mut text = String::new();
        // A string takes everything; a collector that fails leaves the rest readable.
        if encode(&mut text, &self.registry).is_err() {
            tracing::error!("the metrics cannot be written");
        }
        text
    }

    /// A stage of a successful attempt took this long.
    pub fn stage_ended(&self, stage: &str, time: Duration) {
        self.stage_seconds.get_or_create(&StageLabel { stage: known_stage(stage) }).observe(time.as_secs_f64());
    }
}

/// The stages that there are. Names come from provers, and a label must not grow with what they invent.
fn known_stage(name: &str) -> &'static str {
    const STAGES: [&str; 9] = ["weights", "witness", "commit", "bind", "layer", "leaf", "join", "outer", "verify"];
    STAGES.into_iter().find(|stage| *stage == name).unwrap_or("other")
}

/// Registers a metric under a name of the catalogue, with the help text there.
fn added<M: Metric + Clone>(registry: &mut Registry, name: &str, metric: M) -> M {
    let described = described(name);
    // The exposition adds the suffix of a counter again.
    let stem = match described.kind {
        Kind::Counter => name.trim_end_matches("_total"),
        Kind::Gauge | Kind::Histogram => name,
    };
    registry.register(stem, described.help, metric.clone());
    metric
}

fn call_buckets() -> Histogram {
    Histogram::new([0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0])
}

fn work_buckets() -> Histogram {
    Histogram::new([0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 14_400.0])
}

fn stage_buckets() -> Histogram {
    Histogram::new([0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0])
}

fn database_buckets() -> Histogram {
    Histogram::new([0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0])
}

fn byte_buckets() -> Histogram {
    Histogram::new((10..=26).step_by(2).map(|bits| f64::from(1u32 << bits)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_shown_under_its_name_with_its_help() {
        let metrics = Metrics::new(Vec::new());
        metrics.stage_ended("layer", Duration::from_millis(20));
        metrics.stage_ended("something new", Duration::from_millis(20));
        let text = metrics.exposition();
        assert!(text.contains("# HELP zkinfer_jobs_total Jobs that ended here"), "{text}");
        assert!(text.contains("zkinfer_jobs_total{state=\"succeeded\",reason=\"NONE\"} 0\n"), "{text}");
        for name in ["jobs", "registrations"] {
            assert!(text.contains(&format!("zkinfer_{name}_total{{state=\"failed\",reason=\"POISONED\"}} 0\n")), "{text}");
        }
        assert!(text.contains("zkinfer_stage_seconds_count{stage=\"layer\"} 1\n"), "{text}");
        assert!(text.contains("zkinfer_stage_seconds_count{stage=\"other\"} 1\n") && !text.contains("something"), "{text}");
    }
}
