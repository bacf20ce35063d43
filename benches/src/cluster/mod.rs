//! The service as operators run it, on one machine: `zkinferd serve`, as one process or several with roles of their own, several `zkinferd worker`, and
//! a database, each in processes of its own.

pub mod arguments;
pub mod network;
mod ports;
#[path = "../../../server/tests/support/postgres.rs"]
pub mod postgres;
pub mod process;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use network::Namespace;
use ports::free_addresses;
use postgres::Postgres;
use process::{Environment, Process, signal};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use zkinfer_server::limits::Limits;

/// How long a start may take: circuits may have to be built.
const PATIENCE: Duration = Duration::from_secs(300);
/// Workers finish what they do within this when they are asked to end.
const DRAIN_SECONDS: &str = "5";

/// What remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Store {
    /// SQLite in the server's folder.
    Sqlite,
    /// A throwaway PostgreSQL.
    Postgres,
}

impl Store {
    /// As results are called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlite => "sqlite",
            Self::Postgres => "postgres",
        }
    }
}

/// What time processes believe it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clocks {
    /// The machine's.
    Right,
    /// The server's is a day behind, those of workers are two hours ahead.
    Skewed,
}

/// Where workers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// On the server's machine.
    Loopback,
    /// Each in a network namespace of its own.
    Namespaces,
}

/// Where libfaketime is looked for.
const FAKETIME: &[&str] =
    &["/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1", "/usr/lib/aarch64-linux-gnu/faketime/libfaketimeMT.so.1"];

impl Clocks {
    /// Whether this machine can have them: a program is started and asked for the time.
    ///
    /// # Errors
    /// libfaketime is not installed, or changes nothing.
    pub fn check(self) -> anyhow::Result<()> {
        let told = Command::new("date").arg("+%s").envs(self.environment("-1d")?).output().context("there is no `date`")?;
        let told: u64 = String::from_utf8_lossy(&told.stdout).trim().parse().context("`date` tells no time")?;
        let behind = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs().saturating_sub(told);
        ensure!(self == Self::Right || behind.abs_diff(24 * 3600) < 3600, "libfaketime sets a clock {behind} s back, not a day");
        Ok(())
    }

    /// What makes a process believe in a clock that is off by `offset`.
    fn environment(self, offset: &str) -> anyhow::Result<Environment> {
        if self == Self::Right {
            return Ok(Environment::new());
        }
        let library = FAKETIME.iter().find(|path| Path::new(path).exists());
        let library = library.context("libfaketime is not installed; apt-get install faketime")?;
        // The clocks that only run forward stay as they are, as when a machine's wall clock is set.
        Ok(vec![("LD_PRELOAD", (*library).to_owned()), ("FAKETIME", offset.to_owned()), ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned())])
    }
}

/// The processes that serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Servers {
    /// One, which does everything.
    One,
    /// Some that answer calls, and some that keep time; with PostgreSQL.
    Roles {
        /// `--role api`. Clients and workers spread over them.
        n_apis: usize,
        /// `--role scheduler`.
        n_schedulers: usize,
    },
}

impl Servers {
    /// Processes.
    pub fn count(self) -> usize {
        self.roles().len()
    }

    fn roles(self) -> Vec<&'static str> {
        match self {
            Self::One => vec!["all"],
            Self::Roles { n_apis, n_schedulers } => [vec!["api"; n_apis], vec!["scheduler"; n_schedulers]].concat(),
        }
    }
}

/// What to start.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The program `zkinferd`.
    pub program: PathBuf,
    /// What remembers.
    pub store: Store,
    /// The processes that serve.
    pub servers: Servers,
    /// Their limits.
    pub limits: Limits,
    /// Proofs at a time in the server's process, if it is one.
    pub workers_in_server: u16,
    /// Worker processes.
    pub n_workers: usize,
    /// Where circuits and oracles are kept; `None`: in the cluster's folder.
    pub cache_dir: Option<PathBuf>,
    /// Whether all have the machine's clock.
    pub clocks: Clocks,
    /// Where workers are.
    pub network: Network,
    /// Where what must last lies.
    pub disks: Disks,
}

/// Folders for what must last; `None`: where the cluster keeps the rest.
#[derive(Clone, Debug, Default)]
pub struct Disks {
    /// Of servers: artifacts, uploads, and SQLite.
    pub data: Option<PathBuf>,
    /// Of PostgreSQL.
    pub database: Option<PathBuf>,
}

/// Whom a kill meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// A `zkinferd serve`.
    Server(usize),
    /// The supervisor of a worker.
    Supervisor(usize),
    /// The process of a worker that proves.
    Prover(usize),
    /// PostgreSQL.
    Database,
    /// The cable between a worker and the server: it is unplugged, and later plugged in.
    Cable(usize),
}

/// Running processes. All end when this is dropped.
pub struct Cluster {
    // Before the folder that they write to, as fields are dropped in order.
    servers: Vec<Server>,
    workers: Vec<Process>,
    namespaces: Vec<Namespace>,
    postgres: Option<Postgres>,
    folder: TempDir,
}

/// A `zkinferd serve`.
struct Server {
    process: Process,
    role: &'static str,
    address: SocketAddr,
    worker_address: SocketAddr,
    /// The file that it writes once it listens.
    listens: PathBuf,
}

impl Cluster {
    /// Starts database, servers and workers, and waits until the servers listen.
    ///
    /// # Errors
    /// A program that is missing or ends, or PostgreSQL is not installed.
    pub fn start(layout: &Layout) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("zkinfer-cluster-").tempdir().context("no temporary folder")?;
        let postgres = match layout.store {
            Store::Sqlite => None,
            Store::Postgres => {
                let disk = layout.disks.database.clone().unwrap_or_else(std::env::temp_dir);
                Some(Postgres::start_on(&disk).map_err(anyhow::Error::msg)?)
            }
        };
        let database = postgres.as_ref().map(|postgres| migrated(&layout.program, postgres)).transpose()?;
        let cache_dir = layout.cache_dir.clone().unwrap_or_else(|| folder.path().join("cache"));
        std::fs::write(folder.path().join("limits.json"), serde_json::to_vec(&layout.limits)?)?;
        let mut cluster = Self { servers: Vec::new(), workers: Vec::new(), namespaces: Vec::new(), postgres, folder };
        for role in layout.servers.roles() {
            cluster.start_server(layout, role, database.as_deref(), &cache_dir)?;
        }
        let addresses: Vec<SocketAddr> = cluster.apis().map(|server| server.worker_address).collect();
        for (i, &address) in (0..layout.n_workers).zip(addresses.iter().cycle()) {
            cluster.start_worker(layout, i, address, &cache_dir)?;
        }
        Ok(cluster)
    }

    fn start_server(&mut self, layout: &Layout, role: &'static str, database: Option<&str>, cache_dir: &Path) -> anyhow::Result<()> {
        let (i, folder) = (self.servers.len(), self.folder.path());
        let data = layout.disks.data.as_deref().unwrap_or(folder);
        let [address, worker_address] = free_addresses()?;
        let mut line = words(&["serve", "--device", "cpu", "--log", "info", "--role", role]);
        option(&mut line, "--listen", address.to_string());
        option(&mut line, "--worker-listen", worker_address.to_string());
        option(&mut line, "--data-dir", data.join(format!("data-{i}")));
        option(&mut line, "--artifacts", format!("file://{}", data.join("artifacts").display()));
        option(&mut line, "--cache-dir", cache_dir);
        option(&mut line, "--limits", folder.join("limits.json"));
        let listens = folder.join(format!("server-{i}.address"));
        option(&mut line, "--address-file", &listens);
        option(&mut line, "--workers", layout.workers_in_server.to_string());
        if let Some(url) = database {
            option(&mut line, "--database", url);
        }
        let process = Process::start(&layout.program, line, layout.clocks.environment("-1d")?, folder.join(format!("server-{i}.log")))?;
        self.servers.push(Server { process, role, address, worker_address, listens });
        self.wait_for_server(i)
    }

    /// The servers that answer calls.
    fn apis(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| server.role != "scheduler")
    }

    fn start_worker(&mut self, layout: &Layout, i: usize, server: SocketAddr, cache_dir: &Path) -> anyhow::Result<()> {
        let mut line = words(&["worker", "--device", "cpu", "--drain-seconds", DRAIN_SECONDS]);
        option(&mut line, "--name", format!("worker-{i}"));
        option(&mut line, "--cache-dir", cache_dir);
        let environment = layout.clocks.environment("+2h")?;
        let log = self.folder.path().join(format!("worker-{i}.log"));
        let process = match layout.network {
            Network::Loopback => {
                option(&mut line, "--server", format!("http://{server}"));
                Process::start(&layout.program, line, environment, log)?
            }
            Network::Namespaces => {
                let namespace = Namespace::create(u8::try_from(i)?, server)?;
                option(&mut line, "--server", format!("http://{}", namespace.address()));
                // `ip` becomes the program: the process id stays.
                let prefix = [words(&["netns", "exec", namespace.name()]), vec![layout.program.clone().into()]].concat();
                self.namespaces.push(namespace);
                Process::start(Path::new("ip"), [prefix, line].concat(), environment, log)?
            }
        };
        self.workers.push(process);
        Ok(())
    }

    /// `http://HOST:PORT` of each server that answers clients.
    pub fn addresses(&self) -> Vec<String> {
        self.apis().map(|server| format!("http://{}", server.address)).collect()
    }

    /// Connections to these servers, made again whenever they break.
    ///
    /// # Errors
    /// Never for an address of this machine.
    pub fn channels(&self) -> anyhow::Result<Vec<Channel>> {
        let channel = |address| Ok(Endpoint::from_shared(address)?.connect_timeout(Duration::from_secs(5)).connect_lazy());
        self.addresses().into_iter().map(channel).collect()
    }

    /// Where logs and data are.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Where each server listens for clients, and where for workers.
    pub fn ports(&self) -> Vec<(SocketAddr, SocketAddr)> {
        self.servers.iter().map(|server| (server.address, server.worker_address)).collect()
    }

    /// The process of a server.
    pub fn server_process(&self, server: usize) -> Option<u32> {
        self.servers.get(server).map(|server| server.process.id())
    }

    /// Whether every process has the library that changes its clock.
    pub fn has_other_clocks(&self) -> bool {
        let servers = self.servers.iter().map(|server| server.process.id());
        let workers = (0..self.workers.len()).flat_map(|worker| self.worker_processes(worker));
        let has_library = |pid| std::fs::read_to_string(format!("/proc/{pid}/maps")).is_ok_and(|maps| maps.contains("libfaketime"));
        servers.chain(workers).all(has_library)
    }

    /// The namespace of a worker, if it has one.
    pub fn namespace(&self, worker: usize) -> Option<&Namespace> {
        self.namespaces.get(worker)
    }

    /// Starts the database again if it has ended by itself, and answers whether it had.
    ///
    /// # Errors
    /// It does not start.
    pub fn mend_database(&mut self) -> anyhow::Result<bool> {
        let Some(postgres) = self.postgres.as_mut() else { return Ok(false) };
        let has_ended = postgres.has_ended();
        if has_ended {
            postgres.launch().map_err(anyhow::Error::msg)?;
        }
        Ok(has_ended)
    }

    /// Processes of a worker: the supervisor, then those that prove.
    pub fn worker_processes(&self, worker: usize) -> Vec<u32> {
        self.workers.get(worker).map(|process| [vec![process.id()], process.children()].concat()).unwrap_or_default()
    }

    /// Kills `victim` with SIGKILL, waits for `downtime`, and starts it again (a supervisor starts its prover by itself). Answers whether anybody was
    /// there to be hit: a worker between two provers has none.
    ///
    /// # Errors
    /// What was killed does not start again.
    pub fn strike(&mut self, victim: Victim, downtime: Duration) -> anyhow::Result<bool> {
        let struck = match victim {
            Victim::Server(i) => {
                let server = self.servers.get_mut(i).context("no such server")?;
                server.process.kill();
                std::fs::remove_file(&server.listens).context("cannot remove what a server wrote")?;
                std::thread::sleep(downtime);
                server.process.start_again()?;
                self.wait_for_server(i)
            }
            Victim::Supervisor(worker) => {
                let process = self.workers.get_mut(worker).context("no such worker")?;
                process.kill();
                std::thread::sleep(downtime);
                process.start_again()
            }
            Victim::Prover(worker) => {
                let process = self.workers.get(worker).context("no such worker")?;
                let provers = process.children();
                provers.iter().for_each(|&pid| signal("-KILL", pid));
                return Ok(!provers.is_empty());
            }
            Victim::Database => {
                let postgres = self.postgres.as_mut().context("SQLite has no process of its own")?;
                postgres.kill();
                std::thread::sleep(downtime);
                postgres.launch().map_err(anyhow::Error::msg)
            }
            Victim::Cable(worker) => {
                let namespace = self.namespaces.get(worker).context("that worker has no cable")?;
                namespace.unplug()?;
                std::thread::sleep(downtime);
                namespace.plug()
            }
        };
        struck.map(|()| true)
    }

    /// Waits until a server listens. It says so itself: a connection could be to another program.
    fn wait_for_server(&mut self, i: usize) -> anyhow::Result<()> {
        let began = Instant::now();
        let log = self.folder.path().join(format!("server-{i}.log"));
        let server = self.servers.get_mut(i).context("no such server")?;
        while !server.listens.exists() {
            ensure!(began.elapsed() < PATIENCE, "zkinferd does not listen; its log:\n{}", last_lines(&log));
            if server.process.has_ended() {
                bail!("zkinferd ended; its log:\n{}", last_lines(&log));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }
}

fn last_lines(log: &Path) -> String {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// A database with today's schema.
fn migrated(program: &Path, postgres: &Postgres) -> anyhow::Result<String> {
    let url = postgres.create_database("zkinfer");
    let output = Command::new(program).args(["migrate", "--database", &url]).output();
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(output.status.success(), "zkinferd migrate failed: {}", String::from_utf8_lossy(&output.stderr));
    Ok(url)
}

fn words(words: &[&str]) -> Vec<OsString> {
    words.iter().map(OsString::from).collect()
}

fn option(line: &mut Vec<OsString>, name: &str, value: impl Into<OsString>) {
    line.extend([name.into(), value.into()]);
}
