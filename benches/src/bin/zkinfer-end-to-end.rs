//! The whole line, measured: service, registration of a network, proofs, verification.
#![allow(clippy::print_stdout, reason = "a command prints")]

use clap::{Parser, ValueEnum as _};
use zkinfer_benches::end_to_end;
use zkinfer_benches::record::Record;
use zkinfer_benches::service::Computing;
use zkinfer_benches::workload::WorkloadArguments;

/// Registers a network twice, proves inferences, and writes `end-to-end.json` or `end-to-end-dense.json`; on another backend than the one that a
/// service selects, `end-to-end-BACKEND.json`.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    measured: WorkloadArguments,
    /// What the service computes on.
    #[arg(long, value_enum, default_value_t = Computing::Auto)]
    backend: Computing,
    /// Measured proofs, after one that is reported apart.
    #[arg(long, default_value_t = 7)]
    proofs: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    anyhow::ensure!(arguments.proofs > 0, "--proofs must be at least 1");
    let workload = arguments.measured.workload()?;
    let benchmark = match arguments.backend.to_possible_value() {
        Some(value) if arguments.backend != Computing::Auto => format!("{}-{}", workload.benchmark, value.get_name()),
        _ => workload.benchmark.to_owned(),
    };
    let mut record = Record::new(&benchmark, "zkinfer-end-to-end");
    record.set("profile", "default");
    end_to_end::run(&workload, arguments.backend, arguments.proofs, &mut record).await?;
    for (name, summary) in &record.measures {
        println!("{name:<32} {:>16.4} ({:.4} to {:.4}, {} times)", summary.median, summary.min, summary.max, summary.n);
    }
    println!("written to {}", record.write(&arguments.measured.results)?.display());
    Ok(())
}
