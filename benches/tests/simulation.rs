//! The simulation of the placement: repeated bit for bit, and what its costs are fitted to.

use std::path::{Path, PathBuf};

use serde_json::Value;
use zkinfer_benches::dense_network;
use zkinfer_benches::simulation::{Report, Settings, run};
use zkinfer_server::placement::cost::{self, LayerSize};

fn results() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("results")
}

fn json(name: &str) -> Value {
    let text = std::fs::read_to_string(results().join(name)).expect("the result is committed");
    serde_json::from_str(&text).expect("a result is JSON")
}

fn committed(name: &str) -> Report {
    serde_json::from_value(json(name)).expect("the result is a report")
}

#[test]
fn the_small_simulation_gives_the_committed_figures() {
    let report = run(&Settings::small()).expect("the networks have plans");
    let expected = committed("simulation-small.json");
    assert_eq!(
        report, expected,
        "if placement or simulation was meant to change: cargo run --release -p zkinfer-benches --bin zkinfer-simulate, also with --small"
    );
}

#[test]
fn devices_work_and_nobody_starves() {
    for (name, settings) in [("simulation.json", Settings::large()), ("simulation-small.json", Settings::small())] {
        let report = committed(name);
        assert_eq!(report.settings, settings, "{name} is of other settings: run zkinfer-simulate again");
        assert_eq!(report.jobs.values().sum::<u64>(), settings.jobs as u64, "{name}: every job ends");
        assert!(report.figures["busy_of_demand_percent"] > 90.0, "{name}");
        for tenant in &report.tenants {
            let bound_s = report.figures["overtaking_bound_s"];
            assert!(tenant.overtaken_ms as f64 <= bound_s * 1e3, "{name}: {} is overtaken by {} ms", tenant.tenant, tenant.overtaken_ms);
        }
    }
    assert!(committed("simulation.json").figures["useful_of_demand_percent"] > 90.0);
}

fn median_us(record: &Value, stage: &str) -> f64 {
    record["measures"][format!("stage_{stage}_wall_s")]["median"].as_f64().expect("the stage was measured") * 1e6
}

fn layer(log_rows: u32, columns: u64, multiplications: u64) -> LayerSize {
    LayerSize { rows: 1 << log_rows, columns, multiplications }
}

/// The files of the two networks, and what their registrations took.
#[test]
fn a_registration_takes_what_its_file_says() {
    let file = std::fs::metadata(results().join("../../models/mlp-mnist/model.onnx")).expect("the network is bundled").len();
    for (name, file_bytes) in [("end-to-end.json", file), ("end-to-end-dense.json", dense_network::onnx().len() as u64)] {
        let measures = &json(name)["measures"];
        let median = |measure: &str| measures[measure]["median"].as_f64().expect("it was measured");
        let estimate = cost::register(file_bytes);
        let of_memory = estimate.device_bytes as f64 / median("registration_peak_bytes");
        let of_time = estimate.micros as f64 / 1e6 / median("registration_first_wall_s");
        assert!((0.95..1.05).contains(&of_memory), "{name}: {of_memory} of the memory");
        assert!((0.5..2.0).contains(&of_time), "{name}: {of_time} of the time");
    }
}

/// Costs were fitted to the committed figures; when those are taken again on a machine of another speed, the coefficients are to be fitted again.
#[test]
fn costs_are_within_a_factor_of_two_of_the_committed_measurements() {
    let mnist = [layer(10, 128, 784 * 128), layer(8, 64, 128 * 64), layer(8, 16, 64 * 10)];
    let wide = layer(12, 256, 1 << 20);
    let dense = [layer(10, 16, 4 * 1024), wide, wide, wide, wide];
    for (name, layers, n_leaves, n_joins) in [("end-to-end.json", &mnist[..], 1.0, 0.0), ("end-to-end-dense.json", &dense[..], 3.0, 2.0)] {
        let record = json(name);
        let sum = |of: &dyn Fn(&LayerSize) -> u64| layers.iter().map(of).sum::<u64>() as f64;
        let expected = [
            ("witness", cost::witness(layers).micros as f64),
            ("commit", sum(&|size| cost::commit(size).micros)),
            ("bind", cost::bind(layers.len() as u64).micros as f64),
            ("layer", sum(&|size| cost::layer(size).micros)),
            ("leaf", cost::leaf().micros as f64 * n_leaves),
            ("join", cost::join().micros as f64 * n_joins),
            ("outer", cost::outer().micros as f64),
        ];
        for (stage, estimate) in expected.into_iter().filter(|(_, estimate)| *estimate > 0.0) {
            let measured = median_us(&record, stage);
            assert!(estimate < 2.0 * measured && measured < 2.0 * estimate, "{name}: {stage} takes {measured} µs, estimated {estimate} µs");
        }
    }
}
