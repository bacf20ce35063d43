//! `zkinferd`: the proving service as a process.
//!
//! Exit codes: 0 ended as asked, 1 an error (told on standard error; for `devices --self-test`: a device or vector level failed, told in
//! the list), 2 wrong arguments, 3 ended as asked, but some work did not stop in time (it is taken up again at the next start).

mod daemon;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    match daemon::run(daemon::Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            daemon::report(&error);
            ExitCode::FAILURE
        }
    }
}
