//! Measures what the service adds to the prover's own time.
#![allow(clippy::print_stdout, reason = "a command prints")]

use clap::Parser;
use zkinfer_benches::overhead;
use zkinfer_benches::record::Record;
use zkinfer_benches::workload::WorkloadArguments;

/// Proves by turns in this process and through a service, and writes `overhead.json`.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    measured: WorkloadArguments,
    /// Measured pairs, after one that is not counted.
    #[arg(long, default_value_t = 40)]
    pairs: usize,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    anyhow::ensure!(arguments.pairs > 0, "--pairs must be at least 1");
    let workload = arguments.measured.workload()?;
    let mut record = Record::new("overhead", "zkinfer-overhead");
    overhead::run(&workload, arguments.pairs, &mut record).await?;
    for (name, summary) in &record.measures {
        println!("{name:<40} {:>12.4} ({:.4} to {:.4}, {} times)", summary.median, summary.min, summary.max, summary.n);
    }
    println!("written to {}", record.write(&arguments.measured.results)?.display());
    Ok(())
}
