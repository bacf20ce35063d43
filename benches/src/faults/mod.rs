//! Faults, one after the other, each with the processes that operators run: what is done to them, what must hold, and whether it held.
//!
//! Every fault has a cluster of its own. Meanwhile, or where that cannot be, afterwards, clients ask for proofs; in the end every job is looked at as in a
//! run with kills (`chaos/invariants.rs`). What a machine cannot do (mounting without root, say) is not run, and told.

mod clock;
mod damage;
mod disk;
mod floods;
mod lies;
mod network;
mod poison;
mod scene;
mod slow;
mod stalled;

// HTTP/2 by hand.
#[path = "../../../server/tests/service/hostile/frames.rs"]
#[allow(dead_code, reason = "the tests of the service use the rest")]
mod frames;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use tokio::runtime::Handle;
use zkinfer_server::limits::Limits;

use crate::chaos;
use crate::cluster::{Clocks, Disks, Layout, Network, Servers, Store};
use crate::record::Record;

/// Long enough on a busy machine; who needs longer is stuck.
const PATIENCE: Duration = Duration::from_secs(60);
/// A task whose worker gives no sign of life for so long is given to another.
const LEASE: Duration = Duration::from_secs(3);
/// What a server may take more of memory at most, for all that hostile clients send, in bytes.
const ROOM: u64 = 96 << 20;

/// What is done to a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// The disk of artifacts, uploads and SQLite is full.
    FullDisk,
    /// The disk of PostgreSQL is full.
    FullDatabaseDisk,
    /// Bytes of an input, and of a proof, are changed in the store.
    DamagedArtifacts,
    /// Bytes of what steps gave are changed or missing in the store.
    DamagedResults,
    /// A worker is stopped (SIGSTOP) past its lease, and goes on.
    StalledWorker,
    /// Every process that proves a job is killed.
    PoisonedJob,
    /// Connections that send a byte a second.
    SlowLoris,
    /// Streams of HTTP/2 that are opened and reset at once, and headers without end.
    ResetFlood,
    /// Messages and uploads that are not what they say.
    LyingMessages,
    /// Watchers and downloads that are never read.
    SlowWatchers,
    /// The cable of a worker is unplugged past its lease.
    Partition,
    /// Packets are lost one way, between worker and server.
    OneWayLoss,
    /// The cable of a worker carries a megabit a second.
    SlowLink,
    /// Workers two hours ahead, the server a day behind.
    SkewedClocks,
}

impl Fault {
    /// As the command calls it.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What must hold.
    pub fn condition(self) -> &'static str {
        match self {
            Self::FullDisk => {
                "what is new is refused with STORAGE_FULL and reads go on; once there is space what was accepted succeeds, and a kill loses nothing"
            }
            Self::FullDatabaseDisk => {
                "what is new is taken, or refused with STORAGE_FULL, and reads go on while PostgreSQL runs; once there is space what was accepted succeeds"
            }
            Self::DamagedArtifacts => {
                "the job of the changed input fails with STORAGE, others succeed; no byte of the changed proof is sent"
            }
            Self::DamagedResults => "what is lost is made again, the job succeeds, and so do others",
            Self::StalledWorker => {
                "another does the job, and others meanwhile; what the sleeper says later changes nothing, and it works on"
            }
            Self::PoisonedJob => "POISONED after two deaths; jobs beside it succeed",
            Self::SlowLoris => {
                "each is closed, or its call refused, within its limit and 10 s, and its file is closed with it; jobs are done meanwhile"
            }
            Self::ResetFlood => "each flood is ended, memory grows by less than 96 MiB; jobs are done meanwhile",
            Self::LyingMessages => {
                "each is refused with its reason, and takes neither the memory nor the space that it claims; jobs are done meanwhile"
            }
            Self::SlowWatchers => "memory grows by less than 96 MiB; the watched jobs end, and others",
            Self::Partition => "another does the job, and others meanwhile; what the worker says later changes nothing, and it comes back",
            Self::OneWayLoss => "the job is done once, and others meanwhile; the worker comes back",
            Self::SlowLink => "every job is done at the first attempt, some by that worker",
            Self::SkewedClocks => "no job is lost or done twice, also when server and prover are killed",
        }
    }

    /// Whether `store` has it.
    pub fn concerns(self, store: Store) -> bool {
        self != Self::FullDatabaseDisk || store == Store::Postgres
    }

    /// Does it, and looks at what became of all jobs.
    async fn befall(self, stage: &Stage) -> anyhow::Result<Told> {
        match self {
            Self::FullDisk => disk::full_disk(stage).await,
            Self::FullDatabaseDisk => disk::full_database_disk(stage).await,
            Self::DamagedArtifacts => damage::damaged_artifacts(stage).await,
            Self::DamagedResults => damage::damaged_results(stage).await,
            Self::StalledWorker => stalled::stalled_worker(stage).await,
            Self::PoisonedJob => poison::poisoned_job(stage).await,
            Self::SlowLoris => slow::slow_loris(stage).await,
            Self::ResetFlood => floods::reset_flood(stage).await,
            Self::LyingMessages => lies::lying_messages(stage).await,
            Self::SlowWatchers => slow::slow_watchers(stage).await,
            Self::Partition => network::partition(stage).await,
            Self::OneWayLoss => network::one_way_loss(stage).await,
            Self::SlowLink => network::slow_link(stage).await,
            Self::SkewedClocks => clock::skewed_clocks(stage).await,
        }
    }
}

/// What all faults have in common.
#[derive(Clone, Debug)]
pub struct Stage {
    /// The program `zkinferd`.
    pub program: PathBuf,
    /// What remembers.
    pub store: Store,
    /// Circuits and oracles.
    pub cache_dir: PathBuf,
    /// Folder of the bundled networks.
    pub models: PathBuf,
}

impl Stage {
    fn limits(&self) -> Limits {
        Limits { attempts: 20, ..chaos::limits(LEASE) }
    }

    /// A server, and two workers in processes of their own.
    fn layout(&self) -> Layout {
        Layout {
            program: self.program.clone(),
            store: self.store,
            servers: Servers::One,
            limits: self.limits(),
            workers_in_server: 0,
            n_workers: 2,
            cache_dir: Some(self.cache_dir.clone()),
            clocks: Clocks::Right,
            network: Network::Loopback,
            disks: Disks::default(),
        }
    }
}

/// What a fault left.
#[derive(Clone, Debug, Default)]
struct Told {
    n_jobs: usize,
    /// Attempts that were lost with their worker.
    n_lost: usize,
    /// Figures by name; units are in the names.
    figures: BTreeMap<&'static str, f64>,
    violations: Vec<String>,
}

/// Something that this machine does not have.
#[derive(Debug)]
struct Unmet(String);

impl fmt::Display for Unmet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unmet {}

fn need_root() -> Result<(), Unmet> {
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    if is_root { Ok(()) } else { Err(Unmet("needs root".to_owned())) }
}

/// What came of a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The condition holds.
    Holds,
    /// It was not looked at, for this reason.
    NotRun(String),
    /// What does not hold.
    Violated(Vec<String>),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Holds => f.write_str("holds"),
            Self::NotRun(reason) => write!(f, "not run: {reason}"),
            Self::Violated(violations) => write!(f, "VIOLATED: {}", violations.join("; ")),
        }
    }
}

/// Does one fault and notes in `record` its condition, outcome, jobs and seconds.
pub async fn run(fault: Fault, stage: &Stage, record: &mut Record) -> Outcome {
    let (name, began) = (fault.name(), Instant::now());
    // On a thread of its own: a panic of it is a violation, and not the end of the run.
    let befell = tokio::task::spawn_blocking({
        let stage = stage.clone();
        move || Handle::current().block_on(fault.befall(&stage))
    });
    let told = befell.await.unwrap_or_else(|error| Err(error.into()));
    let outcome = match &told {
        Ok(told) if told.violations.is_empty() => Outcome::Holds,
        Ok(told) => Outcome::Violated(told.violations.clone()),
        Err(error) => match error.downcast_ref::<Unmet>() {
            Some(unmet) => Outcome::NotRun(unmet.to_string()),
            None => Outcome::Violated(vec![format!("{error:#}")]),
        },
    };
    record.set(&format!("condition of {name}"), fault.condition());
    record.set(&format!("outcome of {name}"), &outcome);
    record.add_single(&format!("{name}_s"), began.elapsed().as_secs_f64());
    if let Ok(told) = told {
        record.add_single(&format!("{name}_jobs"), told.n_jobs as f64);
        record.add_single(&format!("{name}_attempts_lost"), told.n_lost as f64);
        for (figure, value) in told.figures {
            record.add_single(&format!("{name}_{figure}"), value);
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_name_and_a_condition_of_one_line() {
        let faults = Fault::value_variants();
        let names: std::collections::BTreeSet<String> = faults.iter().map(|fault| fault.name()).collect();
        assert_eq!(names.len(), faults.len());
        assert!(names.contains("slow-loris"), "{names:?}");
        assert!(faults.iter().all(|fault| !fault.condition().is_empty() && !fault.condition().contains('\n')));
        assert!(!Fault::FullDatabaseDisk.concerns(Store::Sqlite) && Fault::FullDisk.concerns(Store::Sqlite));
    }

    #[test]
    fn what_was_not_run_does_not_read_as_if_it_held() {
        assert_eq!(Outcome::NotRun("needs root".to_owned()).to_string(), "not run: needs root");
        assert_eq!(Outcome::Violated(vec!["a".to_owned(), "b".to_owned()]).to_string(), "VIOLATED: a; b");
    }
}
