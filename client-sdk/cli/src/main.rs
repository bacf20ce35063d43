//! `zkinfer`: the command of zkinfer. `zkinfer --help` lists the commands and the exit codes.

mod arguments;
mod commands;
mod deadline;
mod demo;
mod exit;
mod output;
mod progress;
mod table;

use std::process::ExitCode;

use clap::Parser as _;

use arguments::Arguments;
use output::Output;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let output = Output::new(arguments.json);
    start_logging();
    let result = tokio::runtime::Runtime::new().map_err(anyhow::Error::from).and_then(|runtime| {
        let result = runtime.block_on(commands::run(arguments.command, &output));
        // A proof that is still being made must not hold the process.
        runtime.shutdown_background();
        result
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output.failure(&error);
            ExitCode::from(exit::code(&error))
        }
    }
}

/// Log lines on standard error, if `ZKINFER_LOG` asks for them.
fn start_logging() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("ZKINFER_LOG").unwrap_or_else(|_| "off".into());
    // Started once; there is nothing to do if it cannot be.
    let _ = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).try_init();
}
