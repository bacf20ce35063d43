//! Measures the service without proofs: jobs a second, with a long queue and many watchers.
#![allow(clippy::print_stdout, reason = "a command prints")]

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use zkinfer_benches::cluster::Store;
use zkinfer_benches::load::{Load, run};
use zkinfer_benches::record::Record;

/// Runs a service whose prover takes no time, keeps its queue full, watches, asks, and writes `load-STORE.json`.
#[derive(Debug, Parser)]
struct Arguments {
    /// What remembers.
    #[arg(long, value_enum, default_value_t = Store::Sqlite)]
    store: Store,
    /// Jobs that wait; with --rate, at the start.
    #[arg(long, default_value_t = 10_000)]
    queued: usize,
    /// New jobs a second; default: as many as end.
    #[arg(long)]
    rate: Option<u32>,
    /// Seconds for which jobs are kept after their end; default: for good.
    #[arg(long)]
    job_retention_seconds: Option<u64>,
    /// Clients that watch a job each, and rest a second when it has ended: at the default, more than 500 streams are open.
    #[arg(long, default_value_t = 640)]
    watchers: usize,
    /// Threads that take tasks.
    #[arg(long, default_value_t = 32)]
    workers: usize,
    /// Clients that create jobs.
    #[arg(long, default_value_t = 32)]
    creators: usize,
    /// Connections to PostgreSQL.
    #[arg(long, default_value_t = 32)]
    connections: u32,
    /// Seconds of the measurement.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Folder of the data; default: a temporary one.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Name of the result; default: `load-STORE`.
    #[arg(long)]
    name: Option<String>,
    /// Folder of the result.
    #[arg(long, default_value = "benches/results")]
    results: PathBuf,
}

fn main() -> anyhow::Result<()> {
    // As the service's own.
    zkinfer_server::runtime()?.block_on(measure(Arguments::parse()))
}

async fn measure(arguments: Arguments) -> anyhow::Result<()> {
    let load = Load {
        store: arguments.store,
        n_queued: arguments.queued,
        rate: arguments.rate,
        job_retention: arguments.job_retention_seconds.map(Duration::from_secs),
        n_watchers: arguments.watchers,
        n_workers: arguments.workers,
        n_creators: arguments.creators,
        n_connections: arguments.connections,
        time: Duration::from_secs(arguments.seconds),
    };
    let name = arguments.name.clone().unwrap_or_else(|| format!("load-{}", arguments.store.name()));
    let mut record = Record::new(&name, "zkinfer-load");
    record.set("store", arguments.store.name());
    record.set("watchers", load.n_watchers);
    record.set("workers", load.n_workers);
    record.set("queued", load.n_queued);
    load.rate.iter().for_each(|rate| record.set("jobs_per_second", rate));
    load.job_retention.iter().for_each(|time| record.set("job_retention_seconds", time.as_secs()));
    let scratch = tempfile::tempdir()?;
    run(&load, arguments.data_dir.as_deref().unwrap_or(scratch.path()), &mut record).await?;
    for (name, summary) in &record.measures {
        println!("{name:<40} {:>16.3}", summary.median);
    }
    println!("written to {}", record.write(&arguments.results)?.display());
    Ok(())
}
