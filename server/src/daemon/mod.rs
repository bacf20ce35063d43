//! The commands of `zkinferd`.

mod access;
mod arguments;
mod cache;
mod certs;
mod devices;
mod found;
mod health;
mod keys;
mod logging;
mod retention;
mod serve;
mod worker;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
pub(crate) use arguments::Arguments;
use arguments::{Command, MigrateArguments};
use secrecy::ExposeSecret as _;
use zkinfer_server::engine::sql::SqlEngine;
use zkinfer_server::limits::Limits;

/// Does what the arguments say.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Command::Serve(arguments) => serve::serve(*arguments),
        Command::Worker(arguments) => worker::worker(&arguments),
        Command::Keys(command) => keys::keys(command),
        Command::Certs(arguments) => certs::certs(&arguments),
        Command::Devices(arguments) => devices::devices_command(&arguments),
        Command::Migrate(arguments) => migrate(&arguments),
        Command::Health(arguments) => health::health(&arguments),
        Command::Limits => limits(),
        Command::Cache(command) => cache::cache(&command),
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

fn migrate(arguments: &MigrateArguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let schema = runtime.block_on(SqlEngine::migrate_postgres(arguments.database.expose_secret()))?;
    print(&schema.to_string())
}

fn limits() -> anyhow::Result<ExitCode> {
    print(&serde_json::to_string_pretty(&Limits::default())?)
}
