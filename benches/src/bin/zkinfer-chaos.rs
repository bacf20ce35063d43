//! Kills real processes at random while proofs are made, and looks whether anything was lost or done twice.
#![allow(clippy::print_stdout, reason = "a command prints")]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use zkinfer_benches::chaos::{Run, limits, plan, run};
use zkinfer_benches::cluster::arguments::ClusterArguments;
use zkinfer_benches::cluster::{Clocks, Disks, Layout, Network, Servers};

/// Starts a service and workers, asks for proofs while processes are killed (kill -9) and started again, then checks every job: at its end, one result
/// that verifies, events without a gap, no task done twice. Exit codes: 0 all holds, 1 something does not.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    /// Jobs.
    #[arg(long, default_value_t = 200)]
    jobs: usize,
    /// Kills.
    #[arg(long, default_value_t = 100)]
    kills: usize,
    /// Of the kills and of the inputs.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Servers that only answer calls (`--role api`); 0: one server does everything. With --schedulers and PostgreSQL.
    #[arg(long, default_value_t = 0, requires = "schedulers")]
    apis: usize,
    /// Servers that only keep time (`--role scheduler`).
    #[arg(long, default_value_t = 0, requires = "apis")]
    schedulers: usize,
    /// Worker processes.
    #[arg(long, default_value_t = 1)]
    workers: usize,
    /// Proofs at a time in the process of a server that does everything.
    #[arg(long, default_value_t = 1)]
    workers_in_server: u16,
    /// Jobs that are under way at a time.
    #[arg(long, default_value_t = 32)]
    at_once: usize,
    /// Seconds without a sign of life after which a task is given to another worker.
    #[arg(long, default_value_t = 3.0)]
    lease_seconds: f64,
    /// Splits every job into its steps, which different workers do.
    #[arg(long)]
    split: bool,
    /// Server and workers believe in other clocks than the machine's, by libfaketime.
    #[arg(long)]
    skewed_clocks: bool,
    /// Each worker is in a network namespace of its own, whose cable is unplugged now and then; needs root.
    #[arg(long)]
    namespaces: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(reason) = arguments.cluster.skipped() {
        println!("skipped: {reason}");
        return Ok(ExitCode::SUCCESS);
    }
    let mut limits = limits(Duration::try_from_secs_f64(arguments.lease_seconds)?);
    if arguments.split {
        limits.fuse_below = Duration::ZERO;
    }
    let layout = Layout {
        program: arguments.cluster.program.clone(),
        store: arguments.cluster.store,
        servers: match arguments.apis {
            0 => Servers::One,
            n_apis => Servers::Roles { n_apis, n_schedulers: arguments.schedulers },
        },
        limits,
        workers_in_server: arguments.workers_in_server,
        n_workers: arguments.workers,
        cache_dir: arguments.cluster.cache_dir.clone(),
        clocks: if arguments.skewed_clocks { Clocks::Skewed } else { Clocks::Right },
        network: if arguments.namespaces { Network::Namespaces } else { Network::Loopback },
        disks: Disks::default(),
    };
    let strikes = plan::strikes(arguments.seed, arguments.jobs, arguments.kills, &layout);
    let mut record = arguments.cluster.record("chaos");
    record.set("seed", arguments.seed);
    let parts = Run { n_jobs: arguments.jobs, n_at_once: arguments.at_once, seed: arguments.seed };
    let findings = run(&layout, &parts, &strikes, &arguments.cluster.models, &mut record).await?;
    for (name, summary) in &record.measures {
        println!("{name:<32} {:>12.1}", summary.median);
    }
    findings.violations.iter().for_each(|violation| println!("VIOLATED: {violation}"));
    println!("written to {}", record.write(&arguments.cluster.results)?.display());
    Ok(if findings.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
