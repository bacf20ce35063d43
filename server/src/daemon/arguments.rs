//! Command-line arguments. Each option of `serve` can also be given by the environment.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

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
    /// Makes an API key: prints it once, with the line for the key file.
    Keygen(KeygenArguments),
    /// Lists accelerators, and says which backend would compute and why.
    Devices,
    /// Prints all limits with their defaults, as a file for `serve --limits`.
    Limits,
}

#[derive(Debug, Args)]
pub(super) struct ServeArguments {
    /// Where to listen. Addresses that are not loopback need --keys.
    #[arg(long, env = "ZKINFER_LISTEN", default_value = "127.0.0.1:50061")]
    pub(super) listen: SocketAddr,
    /// Where everything is kept. Made if it is not there.
    #[arg(long, env = "ZKINFER_DATA_DIR", default_value = "zkinfer-data")]
    pub(super) data_dir: PathBuf,
    /// Circuits and committed weights that can be rebuilt; default: `cache` in the data directory.
    #[arg(long, env = "ZKINFER_CACHE_DIR")]
    pub(super) cache_dir: Option<PathBuf>,
    /// Key file: one `TENANT NAME SHA256-IN-HEX` per line, see `keygen`.
    #[arg(long, env = "ZKINFER_KEYS")]
    pub(super) keys: Option<PathBuf>,
    /// JSON file with limits that differ from the defaults, see `limits`.
    #[arg(long, env = "ZKINFER_LIMITS")]
    pub(super) limits: Option<PathBuf>,
    /// Proofs at a time; each uses all cores by itself.
    #[arg(long, env = "ZKINFER_WORKERS", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) workers: u16,
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

#[derive(Debug, Args)]
pub(super) struct KeygenArguments {
    /// Who owns what is made with the key.
    #[arg(long, default_value = zkinfer_server::auth::DEFAULT_TENANT)]
    pub(super) tenant: String,
    /// One word to tell the key by, for example the machine that uses it.
    #[arg(long)]
    pub(super) name: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        super::Arguments::command().debug_assert();
    }
}
