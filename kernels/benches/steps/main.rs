//! Measures the steps of a layer proof, the interpreter of constraints against hand-written code, and the circuit prover against plonky2's.
//!
//! `cargo bench -p zkinfer-kernels --bench steps [-- SECTION…] > benches/results/NAME.json`; sections: `memory`, `layer`, `interpreter`, `circuit`.
//! Every figure is the least of several repetitions: wall time, and CPU time of all threads, in milliseconds.

mod handwritten;
mod layer;
mod memory;
mod meter;

use std::error::Error;

use serde_json::{Map, Value, json};

fn main() -> Result<(), Box<dyn Error>> {
    let sections: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |section: &str| sections.is_empty() || sections.iter().any(|known| known == section);
    let mut report = Map::new();
    report.insert("command".to_owned(), json!("cargo bench -p zkinfer-kernels --bench steps"));
    report.insert("machine".to_owned(), meter::machine());
    if wanted("memory") {
        report.insert("memory_of_dense_2^14x256_rate_1/8".to_owned(), layer::measure_memory(14, 14, 256)?);
    }
    if wanted("layer") {
        report.insert("dense_2^14x256_rate_1/8".to_owned(), layer::measure(14, 14, 256)?);
        report.insert("dense_2^10x128_rate_1/8".to_owned(), layer::measure(10, 10, 128)?);
        report.insert("dense_2^12x16_folded_rate_1/8".to_owned(), layer::measure(12, 8, 16)?);
    }
    if wanted("interpreter") {
        report.insert("interpreter_dense_2^14".to_owned(), handwritten::measure(14)?);
    }
    if wanted("circuit") {
        report.insert("circuit_2^13".to_owned(), layer::measure_circuit()?);
    }
    emit(&Value::Object(report))
}

#[allow(clippy::print_stdout)]
fn emit(report: &Value) -> Result<(), Box<dyn Error>> {
    println!("{}", serde_json::to_string_pretty(report)?);
    Ok(())
}
