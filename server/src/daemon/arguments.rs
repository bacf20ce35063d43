//! Command-line arguments. Each option of `serve` can also be given by the environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use zkinfer_kernels::select::{DeviceChoice, Selection};
use zkinfer_server::artifacts::ArtifactUrl;

use super::access::AccessArguments;
use super::certs::CertsArguments;
use super::keys::KeysCommand;

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
    /// Makes, lists and revokes API keys.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Makes an authority and certificates of a server and a client, for tests and first steps.
    Certs(CertsArguments),
    /// Lists accelerators and the CPU's vector levels, and says which backend would compute and why. Exit codes: 0 all right, 1 a device or level
    /// failed its self-test.
    Devices(DevicesArguments),
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
    /// Encrypts artifacts with the first key of this file; all of its keys decrypt. A key is a line of 32 random bytes in hexadecimal or base64.
    #[arg(long, env = "ZKINFER_ARTIFACT_KEY", value_name = "FILE")]
    pub(super) artifact_key: Option<PathBuf>,
    /// Circuits and committed weights that can be rebuilt; default: `cache` in the data directory.
    #[arg(long, env = "ZKINFER_CACHE_DIR")]
    pub(super) cache_dir: Option<PathBuf>,
    #[command(flatten)]
    pub(super) access: AccessArguments,
    /// JSON file with limits that differ from the defaults, see `limits`.
    #[arg(long, env = "ZKINFER_LIMITS")]
    pub(super) limits: Option<PathBuf>,
    /// Proofs at a time; default: one for each device, or one on the CPU, whose cores each proof uses all.
    #[arg(long, env = "ZKINFER_WORKERS", value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) workers: Option<u16>,
    /// Where proofs are made: `auto` (on all devices that pass their test, or else on the CPU), `cpu`, or the numbers of devices as `devices` lists
    /// them, such as `0,2`. Each proof takes one device; what that cannot do is done on the CPU.
    #[arg(long, env = "ZKINFER_DEVICE", default_value = "auto", value_name = "auto|cpu|ORDINAL,...")]
    pub(super) device: DeviceChoice,
    /// Memory in MiB that buffers on each device take at most; default: all that it has.
    #[arg(long, env = "ZKINFER_DEVICE_MEMORY_MIB", value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) device_memory_mib: Option<u32>,
    /// At shutdown, running proofs may finish within this many seconds.
    #[arg(long, env = "ZKINFER_DRAIN_SECONDS", default_value_t = 30)]
    pub(super) drain_seconds: u32,
    /// Writes the address that it listens on to this file, once it does (useful with port 0).
    #[arg(long, env = "ZKINFER_ADDRESS_FILE")]
    pub(super) address_file: Option<PathBuf>,
    /// Which log lines: a level, or `target=level` pairs.
    #[arg(long, env = "ZKINFER_LOG", default_value = "info")]
    pub(super) log: String,
    /// Log lines as JSON objects.
    #[arg(long, env = "ZKINFER_LOG_JSON")]
    pub(super) log_json: bool,
}

impl ServeArguments {
    /// What backend is asked for.
    pub(super) fn selection(&self) -> Selection {
        let limit = self.device_memory_mib.map(|mebibytes| u64::from(mebibytes) << 20);
        Selection { device: self.device.clone(), memory_limit_bytes: limit.unwrap_or(u64::MAX) }
    }
}

#[derive(Debug, Args)]
pub(super) struct DevicesArguments {
    /// Proves a small layer on each device and at each vector level, a small circuit on each device too, and compares with the reference.
    #[arg(long)]
    pub(super) self_test: bool,
    /// Prints a JSON object.
    #[arg(long)]
    pub(super) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};
    use zkinfer_kernels::select::{DeviceChoice, Selection};

    use super::{Arguments, Command};

    fn selection(options: &[&str]) -> Selection {
        let arguments = Arguments::try_parse_from([&["zkinferd", "serve"], options].concat()).unwrap();
        let Command::Serve(arguments) = arguments.command else { panic!("serve is serve") };
        arguments.selection()
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
