//! Measures real proofs from a queue, for several numbers of proofs at a time.
#![allow(clippy::print_stdout, reason = "a command prints")]

use std::path::PathBuf;

use clap::Parser;
use zkinfer_benches::record::Record;
use zkinfer_benches::throughput::{self, Plan};
use zkinfer_benches::workload::WorkloadArguments;

/// Queues proofs at a service in processes of its own, and writes `throughput-DEVICE.json`.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    measured: WorkloadArguments,
    /// What the service proves on: `auto`, `cpu` or numbers of devices.
    #[arg(long, default_value = "auto")]
    device: String,
    /// Proofs at a time on each device, or on the CPU.
    #[arg(long, value_delimiter = ',', default_value = "1,2,4", value_parser = clap::value_parser!(u16).range(1..))]
    workers: Vec<u16>,
    /// Proofs that are queued at once.
    #[arg(long, default_value_t = 40)]
    jobs: usize,
    /// The program `zkinferd`; for devices it is built with `--features cuda`.
    #[arg(long, default_value = "target/release/zkinferd")]
    program: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Arguments { measured, device, workers, jobs, program } = Arguments::parse();
    anyhow::ensure!(jobs > 0, "--jobs must be at least 1");
    let workload = measured.workload()?;
    let mut record = Record::new(&format!("throughput-{device}"), "zkinfer-throughput");
    throughput::run(&workload, &Plan { program, device, workers, n_jobs: jobs }, &mut record).await?;
    for (name, summary) in &record.measures {
        println!("{name:<40} {:>12.4}", summary.median);
    }
    println!("written to {}", record.write(&measured.results)?.display());
    Ok(())
}
