//! The service under load, without proofs: how many jobs a second go through queue, workers and stores, while many wait and many watch.
//!
//! Over gRPC on loopback, in one process: first the queue is filled, its tenant paused; then, for the time of the measurement, each job that ends is
//! replaced by a new one, streams watch jobs, and one client asks for jobs as fast as it is answered. In the end the queue is emptied and every job is
//! looked at.
//! With a rate, jobs come at that rate instead, however many wait: for hours, to see whether anything grows.

pub mod instant_prover;
mod resources;
mod traffic;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use instant_prover::InstantProver;
use resources::Resources;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use traffic::{Pace, REMEMBERED, Traffic};
use zkinfer_client::proto::job::State;
use zkinfer_client::{Client, MediaType, ModelRequest};
use zkinfer_server::Config;
use zkinfer_server::database::Database;
use zkinfer_server::engine::sql::SqlEngine;

use crate::cluster::Store;
use crate::cluster::postgres::Postgres;
use crate::record::Record;
use crate::service::spawn;
use crate::usage::Meter;

/// Watching streams share connections; each carries at most 100.
const STREAMS_PER_CONNECTION: usize = 90;
/// Jobs a second that the queue runs dry with, at least.
const DRAIN_JOBS_PER_S: u64 = 100;

/// How much load.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// What remembers.
    pub store: Store,
    /// Jobs that wait, all the time; with a rate, at the start.
    pub n_queued: usize,
    /// New jobs a second; `None`: as many as end.
    pub rate: Option<u32>,
    /// How long jobs are kept after their end; `None`: for good.
    pub job_retention: Option<Duration>,
    /// Clients that watch a job each, one after another.
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

impl Load {
    /// How long the queue may take to run dry.
    fn drain_time(&self) -> Duration {
        Duration::from_secs(600 + self.n_queued as u64 / DRAIN_JOBS_PER_S)
    }
}

/// Measures, and notes the figures.
///
/// # Errors
/// The service does not start, a job does not succeed, or PostgreSQL is not installed.
pub async fn run(load: &Load, folder: &Path, record: &mut Record) -> anyhow::Result<()> {
    if let Some(retention) = load.job_retention {
        let n_kept = f64::from(load.rate.unwrap_or(0)) * retention.as_secs_f64();
        ensure!(n_kept > REMEMBERED as f64, "with that rate jobs are kept for more than {REMEMBERED} of them, which clients ask for");
    }
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
    config.job_retention = load.job_retention;
    config.limits.queued_per_tenant = u32::MAX;
    (config.limits.creates_per_second, config.limits.creates_burst) = (1_000_000, 1_000_000);
    (config.limits.watchers, config.limits.watchers_per_tenant) = (load.n_watchers * 2, load.n_watchers * 2);
    // Its clients do not connect again. Filling takes no longer than running dry.
    config.limits.connection_age = load.time + load.drain_time() * 2;
    config
}

async fn measure(load: &Load, address: &str, prover: &Arc<InstantProver>, record: &mut Record) -> anyhow::Result<()> {
    let client = Client::connect(address).await?;
    let source = client.upload(&b"nothing to compute".to_vec().into(), MediaType::Onnx).await?;
    let model = client.create_model(&ModelRequest::new("load", source.name)).await?;
    client.finish_model(&model.name, |_| {}).await?;
    let traffic = Arc::new(Traffic::connect(address, model.name).await?);
    traffic.pause(true).await?;
    let filling = Instant::now();
    traffic.fill(load.n_queued).await?;
    record.add_single("fill_jobs_per_s", load.n_queued as f64 / filling.elapsed().as_secs_f64());
    traffic.pause(false).await?;
    let over = CancellationToken::new();
    let pace = match load.rate {
        Some(jobs_per_second) => Pace::Rate { began: Instant::now(), n_before: load.n_queued, jobs_per_second },
        None => Pace::Queue { prover: prover.clone(), n_queued: load.n_queued },
    };
    let mut running = tokio::task::JoinSet::new();
    for _ in 0..load.n_creators {
        running.spawn(traffic.clone().create(pace.clone(), over.clone()));
    }
    for first in (0..load.n_watchers).step_by(STREAMS_PER_CONNECTION) {
        let channel = traffic.another(address).await?;
        for _ in first..load.n_watchers.min(first + STREAMS_PER_CONNECTION) {
            running.spawn(traffic.clone().watch(channel.clone(), over.clone()));
        }
    }
    let asking = tokio::spawn(traffic.clone().ask(traffic.another(address).await?, over.clone()));
    let (proved, meter, began) = (prover.n_proved.load(Ordering::Relaxed), Meter::start(), Instant::now());
    let resources = Resources::watch(load.time, &traffic.n_streams).await;
    let wall_s = began.elapsed().as_secs_f64();
    let n_proved = prover.n_proved.load(Ordering::Relaxed) - proved;
    let cpu_s = meter.stop().cpu_s;
    record.add_single("queued_at_the_end", traffic.n_waiting(prover) as f64);
    over.cancel();
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    let latencies = asking.await??;
    note(n_proved, wall_s, cpu_s, &latencies, record)?;
    resources.note(record)?;
    record.add_single("events_watched", traffic.n_events.load(Ordering::Relaxed) as f64);
    let n_jobs = traffic.n_created.load(Ordering::Relaxed);
    let (n_left, draining) = (traffic.n_waiting(prover), Instant::now());
    drain(prover, n_jobs, load.drain_time()).await?;
    if load.rate.is_none() {
        record.add_single("drain_jobs_per_s", n_left as f64 / draining.elapsed().as_secs_f64());
    }
    // The last ones are still being written.
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Some may be deleted between two looks.
    let others = [State::Queued, State::Running, State::Cancelling, State::Failed, State::Cancelled, State::Expired];
    let (n_others, n_listed) = (traffic.count(&others).await?, traffic.count(&[]).await?);
    ensure!(n_others == 0, "{n_others} jobs did not succeed");
    // Those that are not there any more are past their retention, and were proved.
    ensure!(n_listed == n_jobs || (n_listed < n_jobs && load.job_retention.is_some()), "{n_listed} of {n_jobs} jobs are listed");
    record.add_single("jobs_deleted", (n_jobs - n_listed) as f64);
    record.add_single("jobs", n_jobs as f64);
    Ok(())
}

/// Waits until every job is proved.
async fn drain(prover: &InstantProver, n_jobs: usize, patience: Duration) -> anyhow::Result<()> {
    let began = Instant::now();
    while prover.n_proved.load(Ordering::Relaxed) < n_jobs {
        ensure!(began.elapsed() < patience, "the queue does not run dry");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

fn note(n_proved: usize, wall_s: f64, cpu_s: f64, latencies: &Histogram<u64>, record: &mut Record) -> anyhow::Result<()> {
    ensure!(!latencies.is_empty(), "the measurement was too short");
    let at_ms = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    record.add_single("jobs_per_s", n_proved as f64 / wall_s);
    record.add_single("cpu_ms_per_job", cpu_s * 1e3 / n_proved.max(1) as f64);
    record.add_single("measured_s", wall_s);
    record.add_single("get_job_calls", latencies.len() as f64);
    record.add_single("get_job_p50_ms", at_ms(0.5));
    record.add_single("get_job_p99_ms", at_ms(0.99));
    Ok(())
}
