//! `zkinferd serve`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal as signal_of};
use tokio_util::sync::CancellationToken;
use zkinfer_kernels::FallbackBackend;
use zkinfer_kernels::select::{DeviceChoice, Selected, select};
use zkinfer_server::artifacts::{ArtifactKeys, ArtifactPlace};
use zkinfer_server::limits::Limits;
use zkinfer_server::prover::local::LocalProver;
use zkinfer_server::supervisor::{Children, Supervisor};
use zkinfer_server::tls::Transport;
use zkinfer_server::webhooks::Reach;
use zkinfer_server::worker::{RemoteOptions, RemoteSource};
use zkinfer_server::worker_listener::{WorkerListener, WorkerToken};
use zkinfer_server::{Config, Ended, Role};

use super::arguments::{HttpArguments, ServeArguments};
use super::worker::{self, WorkerArguments};

pub(super) const FORCED: u8 = 3;

pub(super) fn serve(arguments: ServeArguments) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
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
    let signal = shutdown_signal()?;
    let mut config = config(&arguments)?;
    let cache_dir = arguments.cache_dir.clone().unwrap_or_else(|| arguments.data_dir.join("cache"));
    let ordinals = if has_children(&arguments) { worker::ordinals(&arguments.device).await? } else { Vec::new() };
    let mut selection = arguments.selection();
    if !ordinals.is_empty() {
        // Devices are their children's: this process verifies, which the CPU does.
        selection.device = DeviceChoice::Cpu;
    }
    let Selected { backends, reason } = select(&selection)?;
    config.workers = if ordinals.is_empty() { arguments.workers.map_or(backends.len(), usize::from) } else { 0 };
    let prover = LocalProver::over(backends, reason, &cache_dir)?.with_fallbacks(FallbackBackend::reasons);
    let devices = match ordinals.as_slice() {
        [] => None,
        ordinals => Some(DeviceWorkers::start(&arguments, ordinals, cache_dir, &mut config)?),
    };
    let listener = TcpListener::bind(arguments.listen).await.with_context(|| format!("cannot listen on {}", arguments.listen))?;
    if let Some(file) = &arguments.address_file {
        write_address(file, listener.local_addr()?)?;
    }
    if let (Some(file), Some(workers)) = (&arguments.worker_address_file, config.worker_listeners.first()) {
        write_address(file, workers.socket.local_addr()?)?;
    }
    let reloaded = config.clone();
    tokio::spawn(reload_at_hangup(signal_of(SignalKind::hangup())?, move || reloaded.reload_changed()));
    let shutdown = async move {
        signal.await;
        if let Some(devices) = devices {
            // They settle what they do with this service, which therefore ends after them.
            devices.drain().await;
        }
    };
    Ok(zkinfer_server::run(config, Arc::new(prover), listener, shutdown).await?)
}

/// Whether devices are given to processes of their own.
fn has_children(arguments: &ServeArguments) -> bool {
    arguments.role == Role::All && !arguments.workers_in_process && arguments.workers != Some(0) && arguments.device != DeviceChoice::Cpu
}

/// One worker for each device, in a process of its own.
struct DeviceWorkers {
    draining: CancellationToken,
    kept: tokio::task::JoinHandle<bool>,
}

impl DeviceWorkers {
    fn start(arguments: &ServeArguments, ordinals: &[usize], cache_dir: PathBuf, config: &mut Config) -> anyhow::Result<Self> {
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
            device: arguments.device.clone(),
            device_memory_mib: arguments.device_memory_mib,
            workers: arguments.workers.unwrap_or(1).max(1),
            drain_seconds: arguments.drain_seconds,
            http: HttpArguments::default(),
            logging: arguments.logging.clone(),
            child: false,
        };
        let children = worker::children(&of_worker, ordinals, Some(token.secret()))?;
        let options = RemoteOptions { token: Some(token.secret().clone()), ..RemoteOptions::new(server) };
        let told = Arc::new(Children::default());
        config.children = Some(told.clone());
        let supervisor = Supervisor {
            source: Arc::new(RemoteSource::new(&options)?),
            health: worker::health(ordinals),
            patience: of_worker.patience(),
            children: told,
        };
        config.worker_listeners.push(WorkerListener { socket, transport: Transport::Plaintext, token: Some(token), is_own: true });
        let draining = CancellationToken::new();
        let kept = tokio::spawn(supervisor.run(children, draining.clone()));
        Ok(Self { draining, kept })
    }

    async fn drain(self) {
        self.draining.cancel();
        if !matches!(self.kept.await, Ok(true)) {
            tracing::warn!("a worker of a device had to be killed");
        }
    }
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
