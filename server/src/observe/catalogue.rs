//! Every metric that the service exports, with its unit in its name. The table of docs/OPERATIONS.md is this list, and a test compares both with
//! what a service shows.
//!
//! Labels have few values: methods, codes, states, stages, reasons, numbers of devices. Never tenants, models or jobs: those are in log lines and
//! traces.

/// How a metric behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, from 0 at the start of the process.
    Counter,
    /// Rises and falls.
    Gauge,
    /// A distribution: counts by bucket, sum and count.
    Histogram,
}

impl Kind {
    /// As the exposition names it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Described {
    /// As Prometheus stores it; a counter ends in `_total`.
    pub name: &'static str,
    /// How it behaves.
    pub kind: Kind,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says, without a final dot.
    pub help: &'static str,
}

const fn counter(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Described {
    Described { name, kind: Kind::Counter, labels, help }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Described {
    Described { name, kind: Kind::Gauge, labels, help }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], help: &'static str) -> Described {
    Described { name, kind: Kind::Histogram, labels, help }
}

/// All metrics.
pub const CATALOGUE: &[Described] = &[
    gauge("zkinfer_build_info", &["version"], "1, with the version of the service"),
    // Calls.
    histogram(
        "zkinfer_rpc_seconds",
        &["method", "code"],
        "Time of a gRPC call from its headers to the end of its answer, streams included",
    ),
    gauge("zkinfer_rpcs", &[], "gRPC calls that are running, streams included"),
    gauge("zkinfer_connections", &[], "Open connections of the gRPC port, after their TLS handshake"),
    gauge("zkinfer_watchers", &[], "Streams that watch a model, a job or a batch"),
    // Jobs and registrations.
    counter(
        "zkinfer_jobs_total",
        &["state", "reason"],
        "Jobs that ended here, by final state and reason of failure (NONE if there is none)",
    ),
    counter(
        "zkinfer_deleted_jobs_total",
        &["reason"],
        "Jobs that were deleted after their end: age (--job-retention), request (DeleteJob)",
    ),
    histogram("zkinfer_job_seconds", &["state"], "Time of a job from its creation to its final state"),
    counter(
        "zkinfer_registrations_total",
        &["state", "reason"],
        "Registrations of models that ended here, by final state and reason of failure",
    ),
    histogram("zkinfer_queue_wait_seconds", &["kind"], "Time from creation to the begin of the first attempt, of a job or a registration"),
    histogram("zkinfer_stage_seconds", &["stage"], "Wall time of a stage in a successful attempt"),
    counter(
        "zkinfer_attempts_total",
        &["outcome"],
        "Attempts at a task that ended here: completed, failed (those that were stopped too), retried, released, fenced",
    ),
    histogram("zkinfer_proof_bytes", &[], "Size of published proofs"),
    counter("zkinfer_artifact_bytes_total", &["class"], "Bytes of artifacts that were recorded, by class"),
    // The queue. Read from the database: every replica shows the same numbers, as they were when it counted; none before its first count.
    gauge("zkinfer_tasks", &["state"], "Tasks that are waiting for others, ready (a wait before another attempt included) or running"),
    gauge("zkinfer_oldest_queued_seconds", &[], "Age of the oldest job that no worker has; 0 if there is none"),
    gauge("zkinfer_tasks_age_seconds", &[], "How long ago the tasks were counted and the oldest job was looked for"),
    // The database.
    histogram("zkinfer_database_seconds", &["operation"], "Time of an operation of the engine, waits for the database included"),
    counter("zkinfer_database_errors_total", &["kind"], "Operations of the engine that failed because of the database"),
    gauge("zkinfer_database_up", &[], "Whether the database answered when the metrics were read"),
    gauge("zkinfer_draining", &[], "Whether the service is shutting down"),
    gauge(
        "zkinfer_token_keys_age_seconds",
        &[],
        "How long ago the keys of tokens were fetched from their issuer, or the process began to need them if they never were; 0 if none are fetched",
    ),
    // Devices.
    gauge("zkinfer_device_memory_bytes", &["device", "kind"], "Memory of a device that the service's buffers take: used, peak, limit"),
    gauge("zkinfer_device_jobs", &["device"], "Jobs and registrations that a backend is working on; the CPU alone is device 0"),
    gauge("zkinfer_device_degraded", &["device"], "Whether a device was given up after a failure, so that the CPU computes in its stead"),
    counter(
        "zkinfer_backend_fallbacks_total",
        &["device", "reason"],
        "Steps done on the CPU in a device's stead, by reason: memory, device",
    ),
    // The process.
    gauge("process_resident_memory_bytes", &[], "Resident memory"),
    gauge("process_peak_resident_memory_bytes", &[], "Largest resident memory so far"),
    counter("process_cpu_seconds_total", &[], "Processor time, user and system"),
    gauge("process_open_fds", &[], "Open file descriptors"),
    gauge("process_start_time_seconds", &[], "When the process started, in seconds since 1970"),
];

/// Metrics of processes for devices, which a worker elsewhere and a service with devices keep, beside those of devices, process and version, which all tell.
/// Devices go by name, such as `cuda:0`.
pub const WORKER_CATALOGUE: &[Described] = &[
    gauge("zkinfer_worker_up", &["device"], "Whether the device's process runs and has a session with the service"),
    counter("zkinfer_worker_starts_total", &["device"], "Processes that were started for the device"),
    counter("zkinfer_worker_tasks_total", &["device"], "Attempts at tasks that ended, however they did"),
    counter("zkinfer_worker_busy_seconds_total", &["device"], "Time of attempts, running ones included; two at a time count twice"),
    gauge(
        "zkinfer_worker_resident_memory_bytes",
        &["device"],
        "Resident memory of the device's process, as it told last; 0 while there is none",
    ),
    gauge(
        "zkinfer_device_cordoned",
        &["device"],
        "Whether nothing is started on a device any more: it failed its self-test, its driver called it broken, or it was suspected again and \
         again",
    ),
    gauge("zkinfer_device_watched", &["device"], "Whether NVML tells at once when a device breaks; else its process finds out"),
];

/// The entry of a metric.
///
/// # Panics
/// There is none: every name in this crate is tested.
pub(super) fn described(name: &str) -> &'static Described {
    CATALOGUE.iter().chain(WORKER_CATALOGUE).find(|described| described.name == name).expect("every metric has an entry in the catalogue")
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_are_unique_and_end_as_their_kind_and_unit_ask() {
        let all = || CATALOGUE.iter().chain(WORKER_CATALOGUE);
        let names: HashSet<&str> = all().map(|described| described.name).collect();
        assert_eq!(names.len(), all().count());
        for Described { name, kind, help, .. } in all() {
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            let has_unit = name.ends_with("_seconds") || name.ends_with("_bytes");
            assert!(*kind != Kind::Histogram || has_unit, "{name} measures something");
            assert!(!help.ends_with('.') && !help.contains('|') && !help.is_empty(), "{name}");
        }
    }

    #[test]
    fn labels_have_few_values() {
        let bounded = ["method", "code", "state", "reason", "kind", "stage", "outcome", "class", "operation", "device", "version"];
        for described in CATALOGUE.iter().chain(WORKER_CATALOGUE) {
            assert!(described.labels.iter().all(|label| bounded.contains(label)), "{}", described.name);
        }
    }

    /// docs/OPERATIONS.md, "Metrics".
    #[test]
    fn the_documentation_lists_all_metrics_in_these_words() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/OPERATIONS.md");
        let text = std::fs::read_to_string(path).unwrap();
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("| `zkinfer_") || line.starts_with("| `process_")).collect();
        let row = |described: &Described| {
            let labels: Vec<String> = described.labels.iter().map(|label| format!("`{label}`")).collect();
            format!("| `{}` | {} | {} | {} |", described.name, described.kind.name(), labels.join(", "), described.help)
        };
        let expected: Vec<String> = CATALOGUE.iter().chain(WORKER_CATALOGUE).map(row).collect();
        assert_eq!(rows, expected, "the tables must be:\n{}", expected.join("\n"));
    }
}
