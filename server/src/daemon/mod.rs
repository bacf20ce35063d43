//! The commands of `zkinferd`.

mod arguments;
mod devices;
mod logging;
mod serve;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
pub(crate) use arguments::Arguments;
use arguments::{Command, KeygenArguments};
use zkinfer_proto::name::is_resource_id;
use zkinfer_server::auth::generate_key;
use zkinfer_server::limits::Limits;

/// Does what the arguments say.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Serve(arguments) => serve::serve(*arguments),
        Command::Keygen(arguments) => keygen(&arguments),
        Command::Devices(arguments) => devices::devices_command(&arguments),
        Command::Limits => limits(),
    }
}

/// Tells an error and its causes on standard error.
pub(crate) fn report(error: &anyhow::Error) {
    // If standard error is closed, nobody listens.
    let _ = writeln!(std::io::stderr(), "error: {error:#}");
}

fn print(text: &str) -> anyhow::Result<ExitCode> {
    writeln!(std::io::stdout(), "{text}").context("cannot write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

fn keygen(arguments: &KeygenArguments) -> anyhow::Result<ExitCode> {
    let KeygenArguments { tenant, name } = arguments;
    anyhow::ensure!(is_resource_id(tenant), "the tenant must be of the form [a-z]([a-z0-9-]*[a-z0-9])?");
    anyhow::ensure!(!name.is_empty() && !name.contains(char::is_whitespace), "the name must be one word");
    let (key, line) = generate_key(tenant, name).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    print(&format!("key, for the client (it is not kept anywhere):\n{key}\n\nline for the key file:\n{line}"))
}

fn limits() -> anyhow::Result<ExitCode> {
    print(&serde_json::to_string_pretty(&Limits::default())?)
}
