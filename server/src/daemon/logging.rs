//! Log lines on standard error.

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

/// Starts logging. Panics are logged by their place only: their message may hold values of a witness.
pub(super) fn start(filter: &str, is_json: bool) -> anyhow::Result<()> {
    let filter = EnvFilter::builder().parse(filter).with_context(|| format!("{filter:?} is no log filter"))?;
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if is_json { subscriber.json().try_init() } else { subscriber.try_init() };
    started.map_err(|error| anyhow::anyhow!("cannot start logging: {error}"))?;
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
        let thread = std::thread::current();
        tracing::error!(place, thread = thread.name().unwrap_or("unnamed"), "panicked");
    }));
    Ok(())
}
