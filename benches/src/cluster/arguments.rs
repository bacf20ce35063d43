//! What commands that start a cluster are told alike.

use std::path::PathBuf;

use clap::Args;

use super::Store;
use super::postgres::Postgres;
use crate::record::Record;

/// Where the cluster is from, and where the result goes.
#[derive(Clone, Debug, Args)]
pub struct ClusterArguments {
    /// What remembers.
    #[arg(long, value_enum, default_value_t = Store::Sqlite)]
    pub store: Store,
    /// Without PostgreSQL on this machine: says so and ends well, having done nothing.
    #[arg(long)]
    pub skip_without_postgres: bool,
    /// Name of the result; default: what the command does, and on what.
    #[arg(long)]
    pub name: Option<String>,
    /// The program.
    #[arg(long, default_value = "target/release/zkinferd")]
    pub program: PathBuf,
    /// Circuits and oracles; default: built anew.
    #[arg(long)]
    pub cache_dir: Option<PathBuf>,
    /// Folder of the bundled networks.
    #[arg(long, default_value = "models")]
    pub models: PathBuf,
    /// Folder of the result.
    #[arg(long, default_value = "benches/results")]
    pub results: PathBuf,
}

impl ClusterArguments {
    /// Why nothing is to be done; `None`: go on.
    pub fn skipped(&self) -> Option<String> {
        let is_asked = self.store == Store::Postgres && self.skip_without_postgres;
        if is_asked { Postgres::installed().err() } else { None }
    }

    /// An empty result of the binary `zkinfer-KIND`, named `KIND-STORE` unless a name was given.
    pub fn record(&self, kind: &str) -> Record {
        let name = self.name.clone().unwrap_or_else(|| format!("{kind}-{}", self.store.name()));
        let mut record = Record::new(&name, &format!("zkinfer-{kind}"));
        record.set("store", self.store.name());
        record
    }
}
