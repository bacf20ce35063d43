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
    /// Jobs that wait.
    #[arg(long, default_value_t = 10_000)]
    queued: usize,
    /// Streams that watch.
    #[arg(long, default_value_t = 500)]
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
    /// Folder of the result.
    #[arg(long, default_value = "benches/results")]
    results: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let load = Load {
        store: arguments.store,
        n_queued: arguments.queued,
        n_watchers: arguments.watchers,
        n_workers: arguments.workers,
        n_creators: arguments.creators,
        n_connections: arguments.connections,
        time: Duration::from_secs(arguments.seconds),
    };
    let mut record = Record::new(&format!("load-{}", arguments.store.name()), "zkinfer-load");
    record.set("store", arguments.store.name());
    record.set("watchers", load.n_watchers);
    record.set("workers", load.n_workers);
    record.set("queued", load.n_queued);
    let scratch = tempfile::tempdir()?;
    run(&load, arguments.data_dir.as_deref().unwrap_or(scratch.path()), &mut record).await?;
    for (name, summary) in &record.measures {
        println!("{name:<40} {:>16.3}", summary.median);
    }
    println!("written to {}", record.write(&arguments.results)?.display());
    Ok(())
}
