//! `zkinferd serve`.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use zkinfer_kernels::select::{Selected, select};
use zkinfer_server::artifacts::{ArtifactKeys, ArtifactPlace};
use zkinfer_server::limits::Limits;
use zkinfer_server::prover::local::LocalProver;
use zkinfer_server::{Config, Ended};

use super::arguments::ServeArguments;
use super::logging;

const FORCED: u8 = 3;

pub(super) fn serve(arguments: ServeArguments) -> anyhow::Result<ExitCode> {
    logging::start(&arguments.log, arguments.log_json)?;
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    let ended = runtime.block_on(run(arguments))?;
    // Threads that did not stop must not hold the process.
    runtime.shutdown_background();
    Ok(match ended {
        Ended::Drained => ExitCode::SUCCESS,
        Ended::Forced => ExitCode::from(FORCED),
    })
}

async fn run(arguments: ServeArguments) -> anyhow::Result<Ended> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "zkinferd");
    let mut config = config(&arguments)?;
    let Selected { backends, reason } = select(&arguments.selection())?;
    config.workers = arguments.workers.map_or(backends.len(), usize::from);
    let cache_dir = arguments.cache_dir.unwrap_or_else(|| arguments.data_dir.join("cache"));
    let prover = LocalProver::over(backends, reason, &cache_dir)?;
    let listener = TcpListener::bind(arguments.listen).await.with_context(|| format!("cannot listen on {}", arguments.listen))?;
    if let Some(file) = &arguments.address_file {
        write_address(file, &listener)?;
    }
    tokio::spawn(reload_at_hangup(signal(SignalKind::hangup())?, config.clone()));
    let shutdown = shutdown(signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(zkinfer_server::run(config, Arc::new(prover), listener, shutdown).await?)
}

fn config(arguments: &ServeArguments) -> anyhow::Result<Config> {
    let mut config = Config::new(&arguments.data_dir);
    if let Some(url) = &arguments.artifacts {
        config.artifacts = ArtifactPlace::Url(url.clone());
    }
    config.artifact_keys = arguments.artifact_key.as_deref().map(ArtifactKeys::read).transpose()?;
    config.authentication = arguments.access.authentication()?;
    config.transport = arguments.access.transport()?;
    if let Some(file) = &arguments.limits {
        config.limits = read_limits(file).with_context(|| format!("the limits file {}", file.display()))?;
    }
    config.drain = Duration::from_secs(arguments.drain_seconds.into());
    Ok(config)
}

fn read_limits(file: &Path) -> anyhow::Result<Limits> {
    let limits: Limits = serde_json::from_slice(&std::fs::read(file)?)?;
    limits.check()?;
    Ok(limits)
}

/// In one step, so that a reader never sees half of it.
fn write_address(file: &Path, listener: &TcpListener) -> anyhow::Result<()> {
    let partial = file.with_extension("partial");
    std::fs::write(&partial, listener.local_addr()?.to_string())
        .and_then(|()| std::fs::rename(&partial, file))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// Looks at once whether certificates and keys have changed, whenever SIGHUP asks for it.
async fn reload_at_hangup(mut hangup: Signal, config: Config) {
    while hangup.recv().await.is_some() {
        let config = config.clone();
        let look = move || {
            config.authentication.reload_changed();
            config.transport.reload_changed();
        };
        if let Err(error) = tokio::task::spawn_blocking(look).await {
            tracing::error!(%error, "changed files were not read");
        }
    }
}

/// Ready at the first signal. The second ends the process: what was admitted is on disk.
async fn shutdown(mut terminate: Signal, mut interrupt: Signal) {
    next(&mut terminate, &mut interrupt).await;
    tokio::spawn(async move {
        next(&mut terminate, &mut interrupt).await;
        tracing::warn!("ended by a second signal");
        std::process::exit(FORCED.into());
    });
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
