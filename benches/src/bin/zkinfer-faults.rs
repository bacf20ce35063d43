//! Does to real processes what disks, networks and clients do to them, fault by fault, and looks whether what must hold held.
#![allow(clippy::print_stdout, reason = "a command prints")]

use std::process::ExitCode;

use clap::{Parser, ValueEnum as _};
use zkinfer_benches::cluster::arguments::ClusterArguments;
use zkinfer_benches::faults::{Fault, Outcome, Stage, run};

/// Starts a service and workers for each fault, does it, and looks at its condition and at every job. Some faults need root; without it they are not run,
/// which is told. Exit codes: 0 all that was run holds, 1 something does not.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(flatten)]
    cluster: ClusterArguments,
    /// Which faults; default: all.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FAULT,...")]
    only: Vec<Fault>,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if let Some(reason) = arguments.cluster.skipped() {
        println!("skipped: {reason}");
        return Ok(ExitCode::SUCCESS);
    }
    let cluster = &arguments.cluster;
    let faults = if arguments.only.is_empty() { Fault::value_variants() } else { &arguments.only };
    let own_cache = tempfile::tempdir()?;
    let stage = Stage {
        program: cluster.program.clone(),
        store: cluster.store,
        cache_dir: cluster.cache_dir.clone().unwrap_or_else(|| own_cache.path().to_owned()),
        models: cluster.models.clone(),
    };
    let mut record = cluster.record("faults");
    let mut n_violated = 0;
    for fault in faults.iter().filter(|fault| fault.concerns(cluster.store)) {
        println!("{}: {}", fault.name(), fault.condition());
        let outcome = run(*fault, &stage, &mut record).await;
        n_violated += u32::from(matches!(outcome, Outcome::Violated(_)));
        println!("    {outcome}, {:.0} s", record.median(&format!("{}_s", fault.name())).unwrap_or(0.0));
    }
    record.add_single("violations", n_violated.into());
    println!("written to {}", record.write(&cluster.results)?.display());
    Ok(if n_violated == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
