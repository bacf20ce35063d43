//! `zkinferd serve`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal as signal_of};
use zkinfer_kernels::FallbackBackend;
use zkinfer_kernels::select::{DeviceChoice, Selected, select, select_cpu};
use zkinfer_server::artifacts::{ArtifactKeys, ArtifactPlace};
use zkinfer_server::limits::Limits;
use zkinfer_server::prover::local::LocalProver;
use zkinfer_server::supervisor::{Children, Supervised, Supervisor};
use zkinfer_server::tls::Transport;
use zkinfer_server::webhooks::Reach;
use zkinfer_server::worker::{RemoteOptions, RemoteSource};
use zkinfer_server::worker_listener::{WorkerListener, WorkerToken};
use zkinfer_server::{Config, Ended, Role};

use super::arguments::{HttpArguments, ServeArguments};
use super::found::{Found, Looker};
use super::worker::{self, WorkerArguments};

pub(super) const FORCED: u8 = 3;

pub(super) fn serve(arguments: ServeArguments) -> anyhow::Result<ExitCode> {
    let runtime = zkinfer_server::runtime().context("cannot start the runtime")?;
    let logging = {
        let _entered = runtime.enter();
        arguments.logging.start()?
    };
    let ended = runtime.block_on(run(arguments));
    logging.end();
    let ended = ended?;
    // Threads that did not stop must not hold the process.
    runtime.shutdown_background();
    Ok(match ended {
        Ended::Drained => ExitCode::SUCCESS,
        Ended::Forced => ExitCode::from(FORCED),
    })
}

async fn run(arguments: ServeArguments) -> anyhow::Result<Ended> {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "zkinferd");
    let (mut signal, hangup) = (Box::pin(shutdown_signal()?), hangup_signal()?);
    let mut config = config(&arguments)?;
    let cache_dir = arguments.cache_dir.clone().unwrap_or_else(|| arguments.data_dir.join("cache"));
    let found = tokio::select! {
        found = devices_of_children(&arguments) => found?,
        () = &mut signal => return Ok(Ended::Drained),
    };
    let Selected { backends, reason } = match &found {
        // Devices are their children's: this process verifies, which the CPU does.
        Some(found) => select_cpu(&found.why_cpu()),
        None => select(&arguments.selection())?,
    };
    let has_children = found.as_ref().is_some_and(|found| !found.usable.is_empty());
    config.workers = if has_children { 0 } else { proofs_at_a_time(arguments.workers, backends.len()) };
    let prover =
        LocalProver::over(backends, reason, &cache_dir)?.with_cache_limit(arguments.cache.bytes()).with_fallbacks(FallbackBackend::reasons);
    if let Some(found) = found {
        start_children(&arguments, &found, cache_dir, &mut config)?;
    }
    let listener = TcpListener::bind(arguments.listen).await.with_context(|| format!("cannot listen on {}", arguments.listen))?;
    if let Some(file) = &arguments.address_file {
        write_address(file, listener.local_addr()?)?;
    }
    if let (Some(file), Some(workers)) = (&arguments.worker_address_file, config.worker_listeners.first()) {
        write_address(file, workers.socket.local_addr()?)?;
    }
    let reloaded = config.clone();
    tokio::spawn(reload_at_hangup(hangup, move || reloaded.reload_changed()));
    Ok(zkinfer_server::run(config, Arc::new(prover), listener, signal).await?)
}

/// The devices that are given to processes of their own; `None` if that was not asked for.
async fn devices_of_children(arguments: &ServeArguments) -> anyhow::Result<Option<Found>> {
    let is_asked = arguments.role == Role::All
        && !arguments.workers_in_process
        && arguments.workers != Some(0)
        && arguments.device != DeviceChoice::Cpu;
    if !is_asked {
        return Ok(None);
    }
    Ok(Some(Looker::of_this_program(arguments.device_memory_mib)?.find(&arguments.device).await?))
}

/// Of all backends together.
fn proofs_at_a_time(of_each: Option<u16>, n_backends: usize) -> usize {
    usize::from(of_each.unwrap_or(1)) * n_backends
}

/// Starts a worker for each device, in a process of its own; where there is none, that is told.
fn start_children(arguments: &ServeArguments, found: &Found, cache_dir: PathBuf, config: &mut Config) -> anyhow::Result<()> {
    let told = Arc::new(Children::default());
    found.tell(&told);
    if found.usable.is_empty() {
        config.children = found.has_failed().then(|| Supervised::nobody(told));
        return Ok(());
    }
    let socket = Arc::new(std::net::TcpListener::bind("127.0.0.1:0").context("cannot listen for workers")?);
    let server = format!("http://{}", socket.local_addr()?);
    let token = WorkerToken::random().context("no random bytes")?;
    let of_worker = WorkerArguments {
        server: server.clone(),
        tls_ca: None,
        tls_cert: None,
        tls_key: None,
        name: arguments.worker_name.clone(),
        cache_dir,
        cache: arguments.cache,
        device: arguments.device.clone(),
        device_memory_mib: arguments.device_memory_mib,
        workers: arguments.workers.unwrap_or(1).max(1),
        drain_seconds: arguments.drain_seconds,
        http: HttpArguments::default(),
        logging: arguments.logging.clone(),
        child: false,
    };
    let children = worker::children(&of_worker, &found.usable, Some(token.secret()))?;
    let options = RemoteOptions { token: Some(token.secret().clone()), ..RemoteOptions::new(server) };
    let supervisor = Supervisor {
        source: Arc::new(RemoteSource::new(&options)?),
        health: worker::health(&found.usable),
        patience: of_worker.patience(),
        children: told,
    };
    config.worker_listeners.push(WorkerListener { socket, transport: Transport::Plaintext, token: Some(token), is_own: true });
    config.children = Some(supervisor.start(children));
    Ok(())
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
    config.job_retention = arguments.job_retention;
    config.role = arguments.role;
    config.database = arguments.database.database();
    config.reach = if arguments.webhooks_anywhere { Reach::Anywhere } else { Reach::Public };
    config.webhook_ports.clone_from(&arguments.webhook_ports);
    if let Some(address) = arguments.worker_listen {
        let socket = std::net::TcpListener::bind(address).with_context(|| format!("cannot listen for workers on {address}"))?;
        let transport = arguments.access.worker_transport(&arguments.worker_tls)?;
        let token = std::env::var(worker::TOKEN).ok().filter(|token| !token.is_empty()).map(|token| WorkerToken::new(token.into()));
        config.worker_listeners.push(WorkerListener { socket: Arc::new(socket), transport, token, is_own: false });
    }
    config.http = arguments.http.port()?;
    config.drain_pause = arguments.drain_pause();
    config.drain = Duration::from_secs(arguments.drain_seconds.into());
    config.worker_name.clone_from(&arguments.worker_name);
    Ok(config)
}

fn read_limits(file: &Path) -> anyhow::Result<Limits> {
    let limits: Limits = serde_json::from_slice(&std::fs::read(file)?)?;
    limits.check()?;
    Ok(limits)
}

/// In one step, so that a reader never sees half of it.
fn write_address(file: &Path, address: SocketAddr) -> anyhow::Result<()> {
    let partial = file.with_extension("partial");
    std::fs::write(&partial, address.to_string())
        .and_then(|()| std::fs::rename(&partial, file))
        .with_context(|| format!("cannot write {}", file.display()))
}

/// From now on SIGHUP does not end the process: one that comes before anybody listens is kept.
pub(super) fn hangup_signal() -> std::io::Result<Signal> {
    signal_of(SignalKind::hangup())
}

/// Looks at once whether certificates and keys have changed, whenever SIGHUP asks for it.
pub(super) async fn reload_at_hangup(mut hangup: Signal, reload_changed: impl Fn() + Clone + Send + 'static) {
    while hangup.recv().await.is_some() {
        if let Err(error) = tokio::task::spawn_blocking(reload_changed.clone()).await {
            tracing::error!(%error, "changed files were not read");
        }
    }
}

/// Ready at the first signal. The second ends the process: what was admitted is on disk.
pub(super) fn shutdown_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let (mut terminate, mut interrupt) = (signal_of(SignalKind::terminate())?, signal_of(SignalKind::interrupt())?);
    Ok(async move {
        next(&mut terminate, &mut interrupt).await;
        tokio::spawn(async move {
            next(&mut terminate, &mut interrupt).await;
            tracing::warn!("ended by a second signal");
            std::process::exit(FORCED.into());
        });
    })
}

async fn next(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::proofs_at_a_time;

    #[test]
    fn proofs_are_counted_for_each_device() {
        assert_eq!(
            [(None, 1), (None, 2), (Some(1), 2), (Some(3), 2), (Some(0), 2)].map(|(of_each, n)| proofs_at_a_time(of_each, n)),
            [1, 2, 2, 6, 0]
        );
    }
}
