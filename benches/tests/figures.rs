//! The committed figures of the service keep to what it aims at: whoever commits others that do not, sees it here.

use std::path::Path;

use serde_json::Value;

/// What was measured, of one run.
struct Figures(Value);

impl Figures {
    fn of(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("results").join(name).with_extension("json");
        let text = std::fs::read_to_string(path).expect("the result is committed");
        Self(serde_json::from_str(&text).expect("a result is JSON"))
    }

    fn median(&self, measure: &str) -> f64 {
        self.0["measures"][measure]["median"].as_f64().unwrap_or_else(|| panic!("{measure} was measured"))
    }

    fn setting(&self, name: &str) -> &str {
        self.0["settings"][name].as_str().unwrap_or_else(|| panic!("{name} was set"))
    }
}

#[test]
fn the_service_keeps_up_with_its_load() {
    for (name, queued, jobs_per_s) in
        [("load-sqlite", "10000", 200.0), ("load-postgres", "10000", 500.0), ("load-million", "1000000", 500.0)]
    {
        let load = Figures::of(name);
        assert_eq!(load.setting("queued"), queued, "{name}");
        assert!(load.median("open_streams") >= 500.0, "{name}");
        assert!(load.median("jobs_per_s") >= jobs_per_s, "{name}");
        assert!(load.median("get_job_p99_ms") < 20.0, "{name}");
    }
}

/// Flat is what grows by less than one part in fifty within the last fifth of an hour, in which 43,000 jobs came and as many were deleted.
#[test]
fn memory_is_flat_while_jobs_come_and_go() {
    for name in ["soak-sqlite", "soak-postgres"] {
        let soak = Figures::of(name);
        assert!(soak.median("measured_s") >= 3600.0 && soak.median("jobs_deleted") >= 150_000.0, "{name}");
        let grown = ["resident_bytes", "open_files", "threads", "tokio_tasks"];
        for measure in grown {
            let grew = soak.median(&format!("{measure}_last_fifth_minus_fourth"));
            assert!(grew < soak.median(measure) / 50.0, "{name}, {measure}: {grew}");
        }
    }
}

#[test]
fn the_service_adds_little_to_a_proof() {
    assert!(Figures::of("overhead").median("service_percent_of_prove") < 3.0);
}

#[test]
fn nothing_is_lost_whoever_is_killed() {
    for name in ["chaos-sqlite", "chaos-postgres"] {
        let chaos = Figures::of(name);
        assert!(chaos.median("jobs") >= 200.0, "{name}");
        let victims = ["kills_database", "kills_server", "kills_worker_prover", "kills_worker_supervisor"];
        assert!(victims.iter().map(|victim| chaos.median(victim)).sum::<f64>() >= 100.0, "{name}");
    }
    let others = ["chaos-split", "chaos-roles", "chaos-network", "chaos-clocks", "horizontal", "faults-sqlite", "faults-postgres"];
    for name in ["chaos-sqlite", "chaos-postgres"].into_iter().chain(others) {
        assert_eq!(Figures::of(name).median("violations"), 0.0, "{name}");
    }
}
