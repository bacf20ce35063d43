//! Commits matrices by this crate's CPU backend, at every level, and by plonky2's `PolynomialBatch::from_values`, in turns in one run.
//!
//! `cargo bench -p zkinfer-kernels --bench commit [-- REPETITIONS] > benches/results/NAME.json`. Times are wall milliseconds; a ratio is
//! plonky2's time over ours of the same turn. `memory` is what one commitment has resident at its peak, its input not counted, beside what it must
//! hold.

#[path = "../steps/memory.rs"]
mod memory;
#[allow(dead_code, reason = "only the description of the machine is used")]
#[path = "../steps/meter.rs"]
mod meter;

use std::error::Error;
use std::time::Instant;

use plonky2::field::polynomial::PolynomialValues;
use plonky2::field::types::Sample;
use plonky2::fri::oracle::PolynomialBatch;
use plonky2::util::timing::TimingTree;
use serde_json::{Map, Value, json};
use zkinfer_circuits::backend::{Backend, CommitShape};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{C, D, F};
use zkinfer_kernels::{CpuBackend, Level};

const CAP_HEIGHT: usize = 4;
const REPETITIONS: usize = 5;

/// A matrix to commit.
struct Shape {
    n_columns: usize,
    log_rows: usize,
    rate_bits: usize,
}

const SHAPES: [Shape; 3] = [
    Shape { n_columns: 135, log_rows: 12, rate_bits: 3 },
    Shape { n_columns: 256, log_rows: 14, rate_bits: 1 },
    Shape { n_columns: 135, log_rows: 16, rate_bits: 3 },
];

fn main() -> Result<(), Box<dyn Error>> {
    let repetitions = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(REPETITIONS);
    let mut report = Map::new();
    report.insert("command".to_owned(), json!("cargo bench -p zkinfer-kernels --bench commit"));
    report.insert("machine".to_owned(), meter::machine());
    for shape in SHAPES {
        let name = format!("{}x2^{}_rate_1/{}", shape.n_columns, shape.log_rows, 1 << shape.rate_bits);
        report.insert(name, measure(&shape, repetitions)?);
    }
    emit(&Value::Object(report))
}

fn measure(shape: &Shape, repetitions: usize) -> Result<Value, Box<dyn Error>> {
    let backends: Vec<CpuBackend> = Level::available().into_iter().map(CpuBackend::with_level).collect::<Result<_, _>>()?;
    let values: Vec<Vec<F>> = (0..shape.n_columns).map(|_| F::rand_vec(1 << shape.log_rows)).collect();
    let columns = Columns::from_columns(1 << shape.log_rows, &values);
    let commit = CommitShape { rate_bits: shape.rate_bits, cap_height: CAP_HEIGHT };
    // By a backend without tables: these count.
    let (peak, oracle) = memory::peak_bytes(|| CpuBackend::new().commit(&columns, commit));
    drop(oracle?);
    let mut ours = vec![Vec::new(); backends.len()];
    let mut stock = Vec::new();
    for _ in 0..repetitions {
        let mut caps = Vec::new();
        for (backend, times) in backends.iter().zip(&mut ours) {
            let start = Instant::now();
            let oracle = backend.commit(&columns, commit)?;
            times.push(milliseconds(start));
            caps.push(backend.cap(&oracle));
        }
        let values: Vec<PolynomialValues<F>> = values.iter().cloned().map(PolynomialValues::new).collect();
        let start = Instant::now();
        let batch = PolynomialBatch::<F, C, D>::from_values(values, shape.rate_bits, false, CAP_HEIGHT, &mut TimingTree::default(), None);
        stock.push(milliseconds(start));
        if caps.iter().any(|cap| *cap != batch.merkle_tree.cap) {
            return Err("the commitments differ".into());
        }
    }
    let mut report = Map::new();
    report.insert("memory".to_owned(), memory::report(peak, memory::held_bytes(shape.n_columns, shape.log_rows, commit)));
    report.insert("plonky2".to_owned(), summary(&stock));
    for (backend, times) in backends.iter().zip(&ours) {
        let ratios: Vec<f64> = stock.iter().zip(times).map(|(stock, ours)| stock / ours).collect();
        report.insert(backend.level().name().to_owned(), json!({ "wall_ms": summary(times), "ratio": summary(&ratios) }));
    }
    Ok(Value::Object(report))
}

fn milliseconds(start: Instant) -> f64 {
    start.elapsed().as_secs_f64() * 1e3
}

fn summary(figures: &[f64]) -> Value {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rounded = |figure: f64| (figure * 100.0).round() / 100.0;
    json!({ "median": rounded(sorted[sorted.len() / 2]), "least": rounded(sorted[0]), "largest": rounded(sorted[sorted.len() - 1]) })
}

#[allow(clippy::print_stdout)]
fn emit(report: &Value) -> Result<(), Box<dyn Error>> {
    println!("{}", serde_json::to_string_pretty(report)?);
    Ok(())
}
