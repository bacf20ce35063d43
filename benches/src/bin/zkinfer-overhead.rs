//! Measures what the service adds to the prover's own time.
#![allow(clippy::print_stdout, reason = "a command prints")]

use std::path::PathBuf;

use clap::Parser;
use zkinfer_benches::overhead;
use zkinfer_benches::record::Record;
use zkinfer_benches::workload::{Network, Workload};

/// Proves by turns in this process and through a service, and writes `overhead.json`.
#[derive(Debug, Parser)]
struct Arguments {
    /// The network.
    #[arg(long, value_enum, default_value_t = Network::Mnist)]
    network: Network,
    /// Measured pairs, after one that is not counted.
    #[arg(long, default_value_t = 40)]
    pairs: usize,
    /// Folder of the bundled networks.
    #[arg(long, default_value = "models")]
    models: PathBuf,
    /// Folder of the result.
    #[arg(long, default_value = "benches/results")]
    results: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    anyhow::ensure!(arguments.pairs > 0, "--pairs must be at least 1");
    let workload = Workload::new(arguments.network, &arguments.models)?;
    let mut record = Record::new("overhead", "zkinfer-overhead");
    overhead::run(&workload, arguments.pairs, &mut record).await?;
    for (name, summary) in &record.measures {
        println!("{name:<40} {:>12.4} ({:.4} to {:.4}, {} times)", summary.median, summary.min, summary.max, summary.n);
    }
    println!("written to {}", record.write(&arguments.results)?.display());
    Ok(())
}
