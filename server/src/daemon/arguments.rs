//! Command-line arguments. Each option of `serve` can also be given by the environment.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use secrecy::SecretString;
use zkinfer_kernels::select::{DeviceChoice, Selection};
use zkinfer_server::Role;
use zkinfer_server::artifacts::ArtifactUrl;
use zkinfer_server::database::Database;
use zkinfer_server::observe::{Exposure, HttpPort, HttpPortError};

use super::access::{AccessArguments, WorkerTlsArguments};
use super::cache::{CacheCommand, CacheLimit};
use super::certs::CertsArguments;
use super::health::HealthArguments;
use super::keys::KeysCommand;
use super::logging::LogArguments;
use super::retention::parse_retention;
use super::worker::WorkerArguments;

/// How long an api takes calls after readiness went off, unless it is told otherwise.
const API_PAUSE_SECONDS: u32 = 5;

/// The zkinfer proving service.
#[derive(Debug, Parser)]
#[command(name = "zkinferd", version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Serves until SIGTERM or SIGINT, then drains; a second signal ends at once.
    Serve(Box<ServeArguments>),
    /// Does tasks of a service elsewhere until SIGTERM or SIGINT, then drains; a second signal ends at once. A process for each device.
    Worker(Box<WorkerArguments>),
    /// Makes, lists and revokes API keys.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Makes an authority and certificates of a server and a client, for tests and first steps.
    Certs(CertsArguments),
    /// Lists accelerators and the CPU's vector levels, and says which backend would compute and why. Exit codes: 0 all right, 1 a device or level
    /// failed its self-test.
    Devices(DevicesArguments),
    /// Brings a PostgreSQL database to this version's schema, and leaves a newer one alone: exit code 1 if that does not work with this version. Once at a
    /// time: a second call waits for the first.
    Migrate(MigrateArguments),
    /// Asks a running process over its side port whether it is ready. Exit codes: 0 it is, 1 it is not, or there is no answer.
    Health(HealthArguments),
    /// Shows or empties the cache of what can be rebuilt: circuits, and what was derived from weights.
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Prints all limits with their defaults, as a file for `serve --limits`.
    Limits,
}

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// Where to listen. Addresses that are not loopback need authentication and TLS.
    #[arg(long, env = "ZKINFER_LISTEN", default_value = "127.0.0.1:50061")]
    pub(super) listen: SocketAddr,
    /// Where everything is kept. Made if it is not there.
    #[arg(long, env = "ZKINFER_DATA_DIR", default_value = "zkinfer-data")]
    pub(super) data_dir: PathBuf,
    /// Where artifacts are kept: `file:///folder`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`, with credentials and endpoint
    /// in the environment; default: `artifacts` in the data directory.
    #[arg(long, env = "ZKINFER_ARTIFACTS", value_name = "URL")]
    pub(super) artifacts: Option<ArtifactUrl>,
    /// Encrypts artifacts, and in the database salts and seeds of jobs and models and secrets of webhooks, with the first key of this file; all of its keys
    /// decrypt. A key is a line of 32 random bytes in hexadecimal or base64.
    #[arg(long, env = "ZKINFER_ARTIFACT_KEY", value_name = "FILE")]
    pub(super) artifact_key: Option<PathBuf>,
    /// Circuits and committed weights that can be rebuilt; default: `cache` in the data directory.
    #[arg(long, env = "ZKINFER_CACHE_DIR")]
    pub(super) cache_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) cache: CacheLimit,
    #[command(flatten)]
    pub(super) access: AccessArguments,
    /// JSON file with limits that differ from the defaults, see `limits`.
    #[arg(long, env = "ZKINFER_LIMITS")]
    pub(super) limits: Option<PathBuf>,
    /// How long jobs are kept after their end: a whole number of `s`, `m`, `h` or `d`, such as `30d`; at least a minute. Then they are deleted, and their
    /// inputs and proofs with them. Without it they are kept for good. The process that keeps time does it.
    #[arg(long, env = "ZKINFER_JOB_RETENTION", value_name = "DURATION", value_parser = parse_retention)]
    pub(super) job_retention: Option<Duration>,
    /// What this process does: `all`; `api`, which answers calls only; or `scheduler`, which keeps time for all processes of one database.
    #[arg(long, env = "ZKINFER_ROLE", default_value = "all", value_parser = parse_role, value_name = "all|api|scheduler")]
    pub(super) role: Role,
    /// Where workers elsewhere connect (`zkinferd worker`). Beyond loopback it needs their certificates.
    #[arg(long, env = "ZKINFER_WORKER_LISTEN", value_name = "ADDRESS")]
    pub(super) worker_listen: Option<SocketAddr>,
    #[command(flatten)]
    pub(super) worker_tls: WorkerTlsArguments,
    /// Computes on devices in this process, and not in one of its own for each: an error of a device's driver can then end the service.
    #[arg(long, env = "ZKINFER_WORKERS_IN_PROCESS")]
    pub(super) workers_in_process: bool,
    /// Proofs at a time on each device, or on the CPU, whose cores each proof uses all; default: 1. 0: none in this process, all by workers elsewhere.
    #[arg(long, env = "ZKINFER_WORKERS", value_parser = clap::value_parser!(u16).range(..=64))]
    pub(super) workers: Option<u16>,
    /// Where proofs are made: `auto` (on all devices that pass their test, or else on the CPU), `cpu`, or the numbers of devices as `devices` lists
    /// them, such as `0,2`, all of which must pass. Each proof takes one device; what that cannot do is done on the CPU.
    #[arg(long, env = "ZKINFER_DEVICE", default_value = "auto", value_name = "auto|cpu|ORDINAL,...")]
    pub(super) device: DeviceChoice,
    /// Memory in MiB that buffers on each device take at most; default: all that it has.
    #[arg(long, env = "ZKINFER_DEVICE_MEMORY_MIB", value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) device_memory_mib: Option<u32>,
    /// At shutdown, calls are still taken for this many seconds after readiness went off, until load balancers have noticed; default: 5 with `--role api`,
    /// else 0.
    #[arg(long, env = "ZKINFER_DRAIN_PAUSE_SECONDS", value_name = "SECONDS")]
    pub(super) drain_pause_seconds: Option<u32>,
    /// At shutdown, running proofs may finish within this many seconds; where there are no workers, uploads and downloads.
    #[arg(long, env = "ZKINFER_DRAIN_SECONDS", default_value_t = 30)]
    pub(super) drain_seconds: u32,
    /// Name of this process where it does tasks itself, for people: of a job's tasks its tenant sees who did them.
    #[arg(long, env = "ZKINFER_WORKER_NAME", default_value = "serve")]
    pub(super) worker_name: String,
    #[command(flatten)]
    pub(super) database: DatabaseArguments,
    /// Lets webhooks reach any address, also over http: for networks that trust all tenants.
    #[arg(long, env = "ZKINFER_WEBHOOKS_ANYWHERE")]
    pub(super) webhooks_anywhere: bool,
    /// Ports that webhooks may be sent to, such as `443,8443`: those that a firewall or a network policy lets out. Default: any.
    #[arg(long, env = "ZKINFER_WEBHOOK_PORTS", value_name = "PORT,...", value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) webhook_ports: Vec<u16>,
    /// Writes the address that it listens on to this file, once it does (useful with port 0).
    #[arg(long, env = "ZKINFER_ADDRESS_FILE")]
    pub(super) address_file: Option<PathBuf>,
    /// The same for the address where workers connect.
    #[arg(long, env = "ZKINFER_WORKER_ADDRESS_FILE", requires = "worker_listen")]
    pub(super) worker_address_file: Option<PathBuf>,
    #[command(flatten)]
    pub(super) http: HttpArguments,
    #[command(flatten)]
    pub(super) logging: LogArguments,
}

fn parse_role(text: &str) -> Result<Role, String> {
    match text {
        "all" => Ok(Role::All),
        "api" => Ok(Role::Api),
        "scheduler" => Ok(Role::Scheduler),
        _ => Err("expected `all`, `api` or `scheduler`".to_owned()),
    }
}

impl ServeArguments {
    /// What backend is asked for.
    pub(super) fn selection(&self) -> Selection {
        let limit = self.device_memory_mib.map(|mebibytes| u64::from(mebibytes) << 20);
        Selection { device: self.device.clone(), memory_limit_bytes: limit.unwrap_or(u64::MAX) }
    }

    /// Time for load balancers to notice. Only an api has any: nobody calls a scheduler, and of a service in one process there is no other.
    pub(super) fn drain_pause(&self) -> Duration {
        let usual = if self.role == Role::Api { API_PAUSE_SECONDS } else { 0 };
        Duration::from_secs(self.drain_pause_seconds.unwrap_or(usual).into())
    }
}

/// The port for metrics and health.
#[derive(Debug, Default, Args)]
pub(super) struct HttpArguments {
    /// Where `/metrics`, `/livez` and `/readyz` are served over HTTP; default: nowhere. The port asks for no credentials.
    #[arg(long, env = "ZKINFER_HTTP_LISTEN", value_name = "ADDRESS")]
    pub(super) http_listen: Option<SocketAddr>,
    /// Lets `--http-listen` be an address beyond loopback: where a firewall or a network policy lets only scrapers and probes reach it.
    #[arg(long, env = "ZKINFER_HTTP_INSECURE", requires = "http_listen")]
    pub(super) http_insecure: bool,
}

impl HttpArguments {
    /// The port, if one is asked for.
    pub(super) fn port(&self) -> Result<Option<HttpPort>, HttpPortError> {
        let exposure = if self.http_insecure { Exposure::Network } else { Exposure::Loopback };
        self.http_listen.map(|address| HttpPort::bind(address, exposure)).transpose()
    }
}

/// Which database.
#[derive(Debug, Args)]
pub(super) struct DatabaseArguments {
    /// PostgreSQL 15 or later, shared by all processes of the service: `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. Without it: SQLite in the data
    /// directory, for one process. Better given by the environment, since arguments are seen by everybody on the machine.
    #[arg(long, env = "ZKINFER_DATABASE", value_name = "URL", hide_env_values = true, value_parser = parse_database)]
    pub(super) database: Option<SecretString>,
    /// Connections to PostgreSQL, at most.
    #[arg(long, env = "ZKINFER_DATABASE_CONNECTIONS", default_value_t = 16, value_parser = clap::value_parser!(u32).range(2..=1000))]
    pub(super) database_connections: u32,
}

impl DatabaseArguments {
    pub(super) fn database(&self) -> Database {
        match &self.database {
            Some(url) => Database::Postgres { url: url.clone(), connections: self.database_connections },
            None => Database::Embedded,
        }
    }
}

fn parse_database(text: &str) -> Result<SecretString, String> {
    match text.starts_with("postgres://") || text.starts_with("postgresql://") {
        true => Ok(text.to_owned().into()),
        false => Err("must begin with postgres:// or postgresql://; without this option SQLite is used".to_owned()),
    }
}

#[derive(Debug, Args)]
pub(super) struct MigrateArguments {
    /// The database, as for `serve`.
    #[arg(long, env = "ZKINFER_DATABASE", value_name = "URL", hide_env_values = true, value_parser = parse_database)]
    pub(super) database: SecretString,
}

#[derive(Debug, Args)]
pub(super) struct DevicesArguments {
    /// Proves a small layer on each device and at each vector level, a small circuit on each device too, and compares with the reference.
    #[arg(long)]
    pub(super) self_test: bool,
    /// Prints a JSON object.
    #[arg(long)]
    pub(super) json: bool,
    /// Prints numbers and names of the devices only, as JSON, and opens none.
    #[arg(long, hide = true)]
    pub(super) list: bool,
    /// Tests one device, with as much memory as is given, and prints as JSON what is wrong.
    #[arg(long, hide = true, value_name = "ORDINAL")]
    pub(super) test: Option<usize>,
    /// As for `serve`.
    #[arg(long, hide = true, requires = "test", value_name = "MIB")]
    pub(super) device_memory_mib: Option<u32>,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};
    use zkinfer_kernels::select::{DeviceChoice, Selection};

    use super::{Arguments, Command, Duration, ServeArguments};

    fn serve(options: &[&str]) -> Box<ServeArguments> {
        let arguments = Arguments::try_parse_from([&["zkinferd", "serve"], options].concat()).unwrap();
        let Command::Serve(arguments) = arguments.command else { panic!("serve is serve") };
        arguments
    }

    fn selection(options: &[&str]) -> Selection {
        serve(options).selection()
    }

    #[test]
    fn an_api_waits_for_load_balancers_and_others_only_if_told_to() {
        for (options, seconds) in [
            (["--role", "api"].as_slice(), 5),
            (&["--role", "all"], 0),
            (&["--role", "scheduler"], 0),
            (&["--role", "api", "--drain-pause-seconds", "0"], 0),
            (&["--drain-pause-seconds", "3"], 3),
        ] {
            assert_eq!(serve(options).drain_pause(), Duration::from_secs(seconds), "{options:?}");
        }
    }

    #[test]
    fn the_arguments_are_consistent() {
        super::Arguments::command().debug_assert();
    }

    #[test]
    fn options_of_access_need_each_other() {
        for (options, is_right) in [
            ("--tls-cert c --tls-key k --keys f", true),
            ("--tls-cert c --tls-key k --tls-client-ca a --tls-client-optional --tls-client-map m", true),
            ("--jwt-keys k --jwt-issuer i --jwt-audience a --insecure-plaintext", true),
            ("--tls-cert c", false),
            ("--tls-key k", false),
            ("--tls-client-ca a", false),
            ("--tls-cert c --tls-key k --tls-client-map m", false),
            ("--tls-cert c --tls-key k --tls-client-optional", false),
            ("--tls-cert c --tls-key k --insecure-plaintext", false),
            ("--jwt-keys k --jwt-issuer i", false),
            ("--jwt-audience a", false),
            ("--jwks-url https://login.example/keys --jwt-issuer i --jwt-audience a", true),
            ("--jwks-url http://127.0.0.1:1/keys --jwt-issuer i --jwt-audience a", true),
            ("--jwks-url http://login.example/keys --jwt-issuer i --jwt-audience a", false),
            ("--jwks-url https://login.example/keys", false),
            ("--jwks-url https://login.example/keys --jwt-keys k --jwt-issuer i --jwt-audience a", false),
        ] {
            let line = ["zkinferd", "serve"].into_iter().chain(options.split(' '));
            assert_eq!(Arguments::try_parse_from(line).is_ok(), is_right, "{options}");
        }
    }

    #[test]
    fn device_and_its_memory_are_read() {
        assert_eq!(selection(&["--device", "cpu"]).device, DeviceChoice::Cpu);
        let limited = Selection { device: DeviceChoice::Ordinals(vec![1]), memory_limit_bytes: 512 << 20 };
        assert_eq!(selection(&["--device", "1", "--device-memory-mib", "512"]), limited);
        for refused in [["--device", "gpu"], ["--device-memory-mib", "0"]] {
            assert!(Arguments::try_parse_from([&["zkinferd", "serve"], refused.as_slice()].concat()).is_err());
        }
    }
}
