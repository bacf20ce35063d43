//! Micro-benchmarks: one layer of 2^14 × 256 weights, and one recursion circuit beside plonky2's own prover.
#![allow(clippy::print_stdout, reason = "a command prints")]

use std::path::PathBuf;

use clap::Parser;
use zkinfer_benches::record::Record;
use zkinfer_benches::{circuit_proofs, layer_proofs};
use zkinfer_circuits::backend::Backend;
use zkinfer_circuits::security::{Profile, ProfileName};
use zkinfer_kernels::CpuBackend;

/// Measures a layer proof and a recursion circuit's proof, and writes `micro.json`.
#[derive(Debug, Parser)]
struct Arguments {
    /// Measured proofs of each kind, after one that is not counted.
    #[arg(long, default_value_t = 9)]
    repetitions: usize,
    /// log₂ of the layer's inputs.
    #[arg(long, default_value_t = 14)]
    log_rows: usize,
    /// The layer's outputs.
    #[arg(long, default_value_t = 256)]
    columns: usize,
    /// Folder of the result.
    #[arg(long, default_value = "benches/results")]
    results: PathBuf,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    anyhow::ensure!(arguments.repetitions > 0, "--repetitions must be at least 1");
    let profile = Profile::new(ProfileName::Default);
    let backend = CpuBackend::new();
    let mut record = Record::new("micro", "zkinfer-micro");
    record.set("backend", backend.name());
    record.set("profile", "default");
    let size = layer_proofs::Size { log_rows: arguments.log_rows, n_columns: arguments.columns };
    layer_proofs::run(&backend, &profile, size, arguments.repetitions, &mut record)?;
    circuit_proofs::run(&backend, &profile, arguments.repetitions, &mut record)?;
    for (name, summary) in &record.measures {
        println!("{name:<44} {:>9.4} ({:.4} to {:.4}, {} times)", summary.median, summary.min, summary.max, summary.n);
    }
    println!("written to {}", record.write(&arguments.results)?.display());
    Ok(())
}
