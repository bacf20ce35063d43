//! Does to real processes what disks, networks and clients do to them, fault by fault, and looks whether what must hold held.
#![allow(clippy::print_stdout, reason = "a command prints")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum as _};
use zkinfer_benches::cluster::Store;
use zkinfer_benches::cluster::postgres::Postgres;
use zkinfer_benches::faults::{Fault, Outcome, Stage, run};
use zkinfer_benches::record::Record;

/// Starts a service and workers for each fault, does it, and looks at its condition and at every job. Some faults need root; without it they are not run,
/// which is told. Exit codes: 0 all that was run holds, 1 something does not.
#[derive(Debug, Parser)]
struct Arguments {
    /// What remembers.
    #[arg(long, value_enum, default_value_t = Store::Sqlite)]
    store: Store,
    /// Which faults; default: all.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "FAULT,...")]
    only: Vec<Fault>,
    /// Without PostgreSQL on this machine: says so and ends well, having done nothing.
    #[arg(long)]
    skip_without_postgres: bool,
    /// Name of the result; default: `faults-STORE`.
    #[arg(long)]
    name: Option<String>,
    /// The program.
    #[arg(long, default_value = "target/release/zkinferd")]
    program: PathBuf,
    /// Circuits and oracles; default: built anew, once for all faults.
    #[arg(long)]
    cache_dir: Option<PathBuf>,
    /// Folder of the bundled networks.
    #[arg(long, default_value = "models")]
    models: PathBuf,
    /// Folder of the result.
    #[arg(long, default_value = "benches/results")]
    results: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    if arguments.store == Store::Postgres
        && arguments.skip_without_postgres
        && let Err(reason) = Postgres::installed()
    {
        println!("skipped: {reason}");
        return Ok(ExitCode::SUCCESS);
    }
    let faults = if arguments.only.is_empty() { Fault::value_variants() } else { &arguments.only };
    let own_cache = tempfile::tempdir()?;
    let stage = Stage {
        program: arguments.program.clone(),
        store: arguments.store,
        cache_dir: arguments.cache_dir.clone().unwrap_or_else(|| own_cache.path().to_owned()),
        models: arguments.models.clone(),
    };
    let name = arguments.name.clone().unwrap_or_else(|| format!("faults-{}", arguments.store.name()));
    let mut record = Record::new(&name, "zkinfer-faults");
    record.set("store", arguments.store.name());
    let mut n_violated = 0;
    for fault in faults.iter().filter(|fault| fault.concerns(arguments.store)) {
        println!("{}: {}", fault.name(), fault.condition());
        let outcome = run(*fault, &stage, &mut record).await;
        n_violated += u32::from(matches!(outcome, Outcome::Violated(_)));
        println!("    {outcome}, {:.0} s", record.median(&format!("{}_s", fault.name())).unwrap_or(0.0));
    }
    record.add_single("violations", n_violated.into());
    println!("written to {}", record.write(&arguments.results)?.display());
    Ok(if n_violated == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
