//! Chaos: real processes are killed at random while clients ask for proofs; in the end every job that was acknowledged has one result.

pub mod clients;
pub mod invariants;
pub mod network;
pub mod plan;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clients::{Accepted, Clients, Seen};
use invariants::{End, Findings};
use network::{NETWORK, Registered};
use plan::Strike;
use zkinfer_client::{Client, ClientOptions, RetryPolicy};
use zkinfer_server::limits::Limits;

use crate::cluster::{Clocks, Cluster, Layout, Servers, Victim};
use crate::record::Record;

/// If no job ends for so long, the next kill comes nevertheless.
const STALLED: Duration = Duration::from_secs(20);
/// Between two looks at how many jobs are done.
const LOOK: Duration = Duration::from_millis(20);

/// Limits for runs in which workers die for no fault of their tasks.
pub fn limits(lease: Duration) -> Limits {
    Limits { lease, attempts: 1_000_000, queued_per_tenant: 100_000, retry_backoff: Duration::from_millis(50), ..Limits::default() }
}

/// How many kills of each kind were made.
#[derive(Clone, Copy, Debug, Default)]
struct Kills {
    server: usize,
    supervisor: usize,
    prover: usize,
    database: usize,
    cable: usize,
    /// Of the cables, those that stayed unplugged for longer than a lease.
    long_cut: usize,
    /// Strikes that found no prover to hit, or no job under way.
    missed: usize,
}

impl Kills {
    fn count(&mut self, strike: &Strike, lease: Duration) {
        match strike.victim {
            Victim::Server(_) => self.server += 1,
            Victim::Supervisor(_) => self.supervisor += 1,
            Victim::Prover(_) => self.prover += 1,
            Victim::Database => self.database += 1,
            Victim::Cable(_) => {
                self.cable += 1;
                self.long_cut += usize::from(strike.downtime > lease);
            }
        }
    }
}

/// What a run is made of.
#[derive(Clone, Debug)]
pub struct Run {
    /// Jobs.
    pub n_jobs: usize,
    /// Jobs that are under way at a time.
    pub n_at_once: usize,
    /// Of inputs.
    pub seed: u64,
}

/// Starts a cluster, registers the network, lets clients ask for proofs while `strikes` come down, looks at every job, and ends the cluster.
/// Notes figures in `record`.
///
/// # Errors
/// The cluster does not start, or answers no more; what does not hold is among the findings.
pub async fn run(layout: &Layout, run: &Run, strikes: &[Strike], models: &Path, record: &mut Record) -> anyhow::Result<Findings> {
    let mut cluster = tokio::task::block_in_place(|| Cluster::start(layout))?;
    let (first_wait, longest_wait) = (Duration::from_millis(100), Duration::from_secs(1));
    let retry = RetryPolicy { attempts: 1000, first_wait, longest_wait, budget: Duration::MAX };
    let client = Client::connect_with(&cluster.addresses()[0], ClientOptions { retry, ..ClientOptions::default() }).await?;
    let registered = Registered::register(&client, models).await?;
    let seen = Arc::new(Seen::default());
    let (channels, end) = (cluster.channels()?, End::ProvenOrPoisoned);
    let model = registered.model.clone();
    let clients = Clients { channels, model, seed: run.seed, n_at_once: run.n_at_once, end, seen: seen.clone() };
    let began = Instant::now();
    let asking = tokio::spawn({
        let (clients, n_jobs) = (clients.clone(), run.n_jobs);
        async move { clients.run(n_jobs).await }
    });
    if layout.clocks == Clocks::Skewed {
        layout.clocks.check()?;
        ensure!(cluster.has_other_clocks(), "a process has the clock of the machine");
    }
    let kills = strike_all(&mut cluster, strikes, run.n_jobs, layout.limits.lease, &seen).await?;
    let accepted: Vec<Accepted> = asking.await.context("the clients panicked")??;
    let wall_s = began.elapsed().as_secs_f64();
    let mut findings = invariants::check(&clients.channels[0], &client, &registered, &accepted).await?;
    // Only the death of a prover, or of a worker that is silent behind a cut cable for longer than a lease, is a death of what it did; it takes two.
    let n_deaths = kills.prover + kills.long_cut;
    if findings.poisoned * 2 > n_deaths {
        findings.violations.push(format!("{} jobs are POISONED by {n_deaths} deaths of workers", findings.poisoned));
    }
    // The last ones may come after the last job.
    if (strikes.len() - kills.missed) * 4 < strikes.len() {
        findings.violations.push(format!("{} of {} strikes hit nobody who had a job", kills.missed, strikes.len()));
    }
    findings.violations.extend(seen.wrong.lock().map(|wrong| wrong.clone()).unwrap_or_default());
    note(layout, &accepted, wall_s, &kills, &seen, &findings, record);
    Ok(findings)
}

async fn strike_all(cluster: &mut Cluster, strikes: &[Strike], n_jobs: usize, lease: Duration, seen: &Seen) -> anyhow::Result<Kills> {
    let mut kills = Kills::default();
    for strike in strikes {
        let began = Instant::now();
        while seen.n_done.load(Ordering::Relaxed) < strike.after_jobs && began.elapsed() < STALLED {
            tokio::time::sleep(LOOK).await;
        }
        tokio::time::sleep(strike.delay).await;
        let is_under_way = seen.n_done.load(Ordering::Relaxed) < n_jobs;
        if tokio::task::block_in_place(|| cluster.strike(strike.victim, strike.downtime))? && is_under_way {
            kills.count(strike, lease);
        } else {
            kills.missed += 1;
        }
    }
    Ok(kills)
}

fn note(layout: &Layout, accepted: &[Accepted], wall_s: f64, kills: &Kills, seen: &Seen, findings: &Findings, record: &mut Record) {
    record.set("network", NETWORK);
    record.set("workers_in_server", layout.workers_in_server);
    record.set("worker_processes", layout.n_workers);
    if let Servers::Roles { n_apis, n_schedulers } = layout.servers {
        record.set("api_processes", n_apis);
        record.set("scheduler_processes", n_schedulers);
    }
    record.set("lease_seconds", layout.limits.lease.as_secs_f64());
    record.add_single("jobs", accepted.len() as f64);
    record.add_single("wall_s", wall_s);
    let Kills { server, supervisor, prover, database, cable, long_cut, missed } = *kills;
    for (name, count) in [("server", server), ("worker_supervisor", supervisor), ("worker_prover", prover), ("database", database)] {
        record.add_single(&format!("kills_{name}"), count as f64);
    }
    record.add_single("network_cuts", cable as f64);
    record.add_single("network_cuts_beyond_a_lease", long_cut as f64);
    record.add_single("strikes_that_hit_nobody", missed as f64);
    record.add_single("calls_repeated", seen.n_repeats.load(Ordering::Relaxed) as f64);
    record.add_single("creations_replayed", seen.n_replays.load(Ordering::Relaxed) as f64);
    for (state, count) in &findings.states {
        record.add_single(&format!("jobs_{}", state.trim_start_matches("STATE_").to_lowercase()), *count as f64);
    }
    for (outcome, count) in &findings.attempts {
        record.add_single(&format!("attempts_{}", outcome.to_lowercase()), *count as f64);
    }
    for (worker, count) in &findings.done_by {
        record.add_single(&format!("tasks_done_by_{worker}"), *count as f64);
    }
    record.add_single("violations", findings.violations.len() as f64);
}
