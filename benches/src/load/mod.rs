//! The service under load, without proofs: how many jobs a second go through queue, workers and stores, while many wait and many watch.
//!
//! Over gRPC on loopback, in one process: first the queue is filled; then, for the time of the measurement, each job that ends is replaced by a new
//! one, streams watch jobs, and one client asks for jobs as fast as it is answered. In the end the queue is emptied and every job is looked at.

pub mod instant_prover;
mod traffic;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use instant_prover::InstantProver;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use traffic::Traffic;
use zkinfer_client::{Client, MediaType, ModelRequest};
use zkinfer_server::Config;
use zkinfer_server::database::Database;
use zkinfer_server::engine::sql::SqlEngine;

use crate::cluster::Store;
use crate::cluster::postgres::Postgres;
use crate::machine::{field, kibibytes, read};
use crate::record::Record;
use crate::service::spawn;
use crate::usage::Meter;

/// Watching streams share connections; each carries at most 100.
const STREAMS_PER_CONNECTION: usize = 90;
/// Between two looks at the memory.
const MEMORY_EVERY: Duration = Duration::from_secs(1);
/// How long the queue may take to run dry.
const DRAIN: Duration = Duration::from_secs(600);

/// How much load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// What remembers.
    pub store: Store,
    /// Jobs that wait, all the time.
    pub n_queued: usize,
    /// Streams that watch.
    pub n_watchers: usize,
    /// Threads that take tasks.
    pub n_workers: usize,
    /// Clients that create jobs.
    pub n_creators: usize,
    /// Connections to PostgreSQL.
    pub n_connections: u32,
    /// Length of the measurement.
    pub time: Duration,
}

/// Measures, and notes the figures.
///
/// # Errors
/// The service does not start, a job does not succeed, or PostgreSQL is not installed.
pub async fn run(load: &Load, folder: &Path, record: &mut Record) -> anyhow::Result<()> {
    let postgres = match load.store {
        Store::Sqlite => None,
        Store::Postgres => Some(tokio::task::block_in_place(Postgres::start).map_err(anyhow::Error::msg)?),
    };
    let database = match &postgres {
        None => Database::Embedded,
        Some(postgres) => {
            let url = postgres.create_database("zkinfer");
            SqlEngine::migrate_postgres(&url).await?;
            Database::Postgres { url: url.into(), connections: load.n_connections }
        }
    };
    let prover = Arc::new(InstantProver::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.context("no free port")?;
    let address = format!("http://{}", listener.local_addr()?);
    let (shutdown, asked) = oneshot::channel::<()>();
    let config = config(load, folder, database);
    let service = spawn(config, prover.clone(), listener, asked);
    measure(load, &address, &prover, record).await?;
    let _ = shutdown.send(());
    service.await??;
    Ok(())
}

fn config(load: &Load, folder: &Path, database: Database) -> Config {
    let mut config = Config::new(folder);
    config.database = database;
    config.workers = load.n_workers;
    config.limits.queued_per_tenant = u32::MAX;
    (config.limits.creates_per_second, config.limits.creates_burst) = (1_000_000, 1_000_000);
    config.limits.watchers = load.n_watchers * 2;
    config
}

async fn measure(load: &Load, address: &str, prover: &Arc<InstantProver>, record: &mut Record) -> anyhow::Result<()> {
    let client = Client::connect(address).await?;
    let source = client.upload(&b"nothing to compute".to_vec().into(), MediaType::Onnx).await?;
    let model = client.create_model(&ModelRequest::new("load", source.name)).await?;
    client.finish_model(&model.name, |_| {}).await?;
    let traffic = Arc::new(Traffic::connect(address, model.name).await?);
    let filling = Instant::now();
    traffic.fill(load.n_queued).await?;
    record.add_single("fill_jobs_per_s", load.n_queued as f64 / filling.elapsed().as_secs_f64());
    let over = CancellationToken::new();
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..load.n_creators {
        running.spawn(traffic.clone().replace(prover.clone(), load.n_queued, over.clone()));
    }
    for first in (0..load.n_watchers).step_by(STREAMS_PER_CONNECTION) {
        let channel = traffic.another(address).await?;
        for _ in first..load.n_watchers.min(first + STREAMS_PER_CONNECTION) {
            running.spawn(traffic.clone().watch(channel.clone(), over.clone()));
        }
    }
    let asking = tokio::spawn(traffic.clone().ask(traffic.another(address).await?, over.clone()));
    let (proved, meter, began) = (prover.n_proved.load(Ordering::Relaxed), Meter::start(), Instant::now());
    let memory = sample_memory(load.time).await;
    let wall_s = began.elapsed().as_secs_f64();
    let n_proved = prover.n_proved.load(Ordering::Relaxed) - proved;
    let cpu_s = meter.stop().cpu_s;
    record.add_single("queued_at_the_end", traffic.n_waiting(prover) as f64);
    over.cancel();
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    let latencies = asking.await??;
    note(n_proved, wall_s, cpu_s, latencies, &memory, record)?;
    record.add_single("events_watched", traffic.n_events.load(Ordering::Relaxed) as f64);
    let n_jobs = traffic.n_created.load(Ordering::Relaxed);
    drain(prover, n_jobs).await?;
    let n_succeeded = traffic.count_succeeded().await?;
    ensure!(n_succeeded == n_jobs, "{n_succeeded} of {n_jobs} jobs succeeded");
    record.add_single("jobs", n_jobs as f64);
    Ok(())
}

/// Resident memory, once a second.
async fn sample_memory(time: Duration) -> Vec<f64> {
    let (began, mut samples) = (Instant::now(), Vec::new());
    while began.elapsed() < time {
        samples.push(kibibytes(&field(&read("/proc/self/status"), "VmRSS")) as f64);
        tokio::time::sleep(MEMORY_EVERY).await;
    }
    samples
}

/// Waits until every job is proved.
async fn drain(prover: &InstantProver, n_jobs: usize) -> anyhow::Result<()> {
    let began = Instant::now();
    while prover.n_proved.load(Ordering::Relaxed) < n_jobs {
        ensure!(began.elapsed() < DRAIN, "the queue does not run dry");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // The last ones are still being written.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(())
}

fn note(n_proved: usize, wall_s: f64, cpu_s: f64, mut latencies: Vec<f64>, memory: &[f64], record: &mut Record) -> anyhow::Result<()> {
    ensure!(!latencies.is_empty() && memory.len() > 1, "the measurement was too short");
    latencies.sort_by(f64::total_cmp);
    let at = |fraction: f64| latencies[((latencies.len() - 1) as f64 * fraction) as usize];
    record.add_single("jobs_per_s", n_proved as f64 / wall_s);
    record.add_single("cpu_ms_per_job", cpu_s * 1e3 / n_proved.max(1) as f64);
    record.add_single("measured_s", wall_s);
    record.add_single("get_job_calls", latencies.len() as f64);
    record.add_single("get_job_p50_ms", at(0.5));
    record.add_single("get_job_p99_ms", at(0.99));
    record.add("resident_bytes", memory);
    let half = memory.len() / 2;
    let last = memory.len() - memory.len() / 5;
    let before_last = last - memory.len() / 5;
    let mean = |samples: &[f64]| samples.iter().sum::<f64>() / samples.len().max(1) as f64;
    record.add_single("resident_bytes_second_half_minus_first", mean(&memory[half..]) - mean(&memory[..half]));
    record.add_single("resident_bytes_last_fifth_minus_fourth", mean(&memory[last..]) - mean(&memory[before_last..last]));
    Ok(())
}
