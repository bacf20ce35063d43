//! Runs the service: opens the stores, starts the workers, serves, drains.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic_health::ServingStatus;

use crate::artifacts::{ArtifactBytes, ArtifactKeys, ArtifactPlace, ArtifactPlaceError, PublicArtifacts, Uploads};
use crate::auth::Authentication;
use crate::directory::make_private_directory;
use crate::engine::sqlite::{OpenError, SqliteEngine};
use crate::engine::{Engine, EngineError};
use crate::grpc::{self, App, CreateRate, GuardLayer};
use crate::limits::{Limits, LimitsError};
use crate::prover::Prover;
use crate::scheduler::{CpuPool, Hub, Running, Scheduler, SchedulerParts};
use crate::tls::Transport;

/// Health service names: alive at all, and ready for work.
const LIVE: &str = "live";
const READY: &str = "ready";

/// How to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Everything is kept here. Made if it is not there.
    pub data_dir: PathBuf,
    /// Where artifacts are kept.
    pub artifacts: ArtifactPlace,
    /// What artifacts are encrypted with there; `None`: they are not.
    pub artifact_keys: Option<ArtifactKeys>,
    /// Who may call.
    pub authentication: Authentication,
    /// How bytes travel.
    pub transport: Transport,
    /// How often the files of authentication and TLS are looked at, whether they have changed.
    pub reload: Duration,
    /// Limits.
    pub limits: Limits,
    /// Proofs at a time. Each proof uses all cores by itself.
    pub workers: usize,
    /// At shutdown, running work may finish within this.
    pub drain: Duration,
    /// Then it is stopped, and may take this long to notice.
    pub drain_grace: Duration,
}

impl Config {
    /// Defaults, with all data below `data_dir`, for loopback.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            artifacts: ArtifactPlace::default(),
            artifact_keys: None,
            authentication: Authentication::none(),
            transport: Transport::Plaintext,
            reload: Duration::from_secs(5),
            limits: Limits::default(),
            workers: 1,
            drain: Duration::from_secs(30),
            drain_grace: Duration::from_secs(10),
        }
    }
}

/// What a service lacks to listen beyond loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lacks {
    /// It would not be known who calls.
    Authentication,
    /// Others on the way could read and change everything.
    Tls,
    /// Both.
    Both,
}

/// With the options of the daemon that mend it.
impl fmt::Display for Lacks {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let authentication = "authentication (--keys, --jwt-keys, or --tls-client-ca with --tls-client-map)";
        let tls = "TLS (--tls-cert with --tls-key, or --insecure-plaintext behind a proxy that ends TLS)";
        match self {
            Self::Authentication => formatter.write_str(authentication),
            Self::Tls => formatter.write_str(tls),
            Self::Both => write!(formatter, "{authentication} and without {tls}"),
        }
    }
}

/// Why the service does not run.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Anybody could call, or read along.
    #[error("refusing to listen on {address}, which is not a loopback address, without {lacks}; or listen on 127.0.0.1")]
    Unprotected {
        /// Where it would have listened.
        address: SocketAddr,
        /// What is not configured.
        lacks: Lacks,
    },
    /// Certificates would tell who calls, and nobody asks for them.
    #[error(
        "client certificates are to tell who calls, but the listener asks for none; give TLS the authority that signs them (--tls-client-ca)"
    )]
    NoClientCertificates,
    /// The limits do not work.
    #[error(transparent)]
    Limits(#[from] LimitsError),
    /// The data directory cannot be made.
    #[error("cannot make the directory {path}")]
    Directory {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The queue could not be recovered.
    #[error("cannot recover the queue")]
    Recover(#[source] EngineError),
    /// The artifacts.
    #[error(transparent)]
    Artifacts(#[from] ArtifactPlaceError),
    /// Threads or sockets.
    #[error("the system refused a thread or a socket")]
    System(#[from] std::io::Error),
    /// Reflection.
    #[error("cannot set up reflection")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The listener failed.
    #[error("the server failed")]
    Transport(#[from] tonic::transport::Error),
}

/// How the service ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// Everything finished or was given back.
    Drained,
    /// Something did not end in time; a process should exit now.
    Forced,
}

/// Serves on `listener` until `shutdown` is ready, then drains.
///
/// # Errors
/// See [`ServeError`].
pub async fn run(
    config: Config,
    prover: Arc<dyn Prover>,
    listener: TcpListener,
    shutdown: impl Future<Output = ()>,
) -> Result<Ended, ServeError> {
    let address = listener.local_addr()?;
    config.limits.check()?;
    check_exposure(address, &config)?;
    let service = Service::start(&config, prover).await?;
    let (health, health_service) = tonic_health::server::health_reporter();
    for name in ["", LIVE, READY] {
        health.set_service_status(name, ServingStatus::Serving).await;
    }
    let routes = Routes::new(health_service).add_service(reflection()?);
    let routes = grpc::add_services(routes, &service.app);
    let closing = service.app.closing.clone();
    let server = builder(&config.limits)
        .layer(GuardLayer::new(config.authentication.clone(), &config.limits))
        .add_routes(routes)
        .serve_with_incoming_shutdown(grpc::incoming(listener, &config.transport, &config.limits), closing.clone().cancelled_owned());
    let mut server = tokio::spawn(server);
    tokio::spawn(reload(config.authentication.clone(), config.transport.clone(), config.reload, closing));
    tracing::info!(%address, "serving");
    tokio::select! {
        () = shutdown => {}
        ended = &mut server => {
            service.stop(Duration::ZERO, config.drain_grace).await;
            return flatten(ended).map(|()| Ended::Drained);
        }
    }
    tracing::info!("draining");
    health.set_service_status(READY, ServingStatus::NotServing).await;
    health.set_service_status("", ServingStatus::NotServing).await;
    let is_idle = service.stop(config.drain, config.drain_grace).await;
    // Streams were told to end; connections that do not are cut.
    let is_closed = tokio::time::timeout(config.drain_grace, &mut server).await;
    server.abort();
    let ended = match (is_idle, is_closed) {
        (true, Ok(ended)) => flatten(ended).map(|()| Ended::Drained)?,
        _ => Ended::Forced,
    };
    tracing::info!(?ended, "stopped");
    Ok(ended)
}

type Joined = Result<Result<(), tonic::transport::Error>, tokio::task::JoinError>;

fn flatten(ended: Joined) -> Result<(), ServeError> {
    match ended {
        Ok(result) => Ok(result?),
        Err(error) => Err(ServeError::System(std::io::Error::other(error))),
    }
}

fn check_exposure(address: SocketAddr, config: &Config) -> Result<(), ServeError> {
    if config.authentication.has_certificates() && !config.transport.asks_clients() {
        return Err(ServeError::NoClientCertificates);
    }
    if address.ip().is_loopback() {
        return Ok(());
    }
    let lacks = match (config.authentication.is_none(), matches!(config.transport, Transport::Plaintext)) {
        (true, true) => Lacks::Both,
        (true, false) => Lacks::Authentication,
        (false, true) => Lacks::Tls,
        (false, false) => {
            warn_of_plaintext(address, &config.transport);
            return Ok(());
        }
    };
    Err(ServeError::Unprotected { address, lacks })
}

fn warn_of_plaintext(address: SocketAddr, transport: &Transport) {
    if matches!(transport, Transport::PlaintextBehindProxy) {
        tracing::warn!(%address, "keys and data are not encrypted on the way to this port: let nothing but the TLS proxy reach it");
    }
}

/// Looks at the files until the service closes.
async fn reload(authentication: Authentication, transport: Transport, interval: Duration, closing: CancellationToken) {
    let mut ticks = tokio::time::interval(interval.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while closing.run_until_cancelled(ticks.tick()).await.is_some() {
        let (authentication, transport) = (authentication.clone(), transport.clone());
        let look = move || {
            authentication.reload_changed();
            transport.reload_changed();
        };
        if let Err(error) = tokio::task::spawn_blocking(look).await {
            tracing::error!(%error, "changed files were not read");
        }
    }
}

fn reflection() -> Result<
    tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection>,
    tonic_reflection::server::Error,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(zkinfer_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
}

fn builder(limits: &Limits) -> Server {
    Server::builder()
        .max_concurrent_streams(limits.streams_per_connection)
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        .http2_max_pending_accept_reset_streams(Some(20))
        .http2_max_local_error_reset_streams(Some(1024))
        .http2_max_header_list_size(limits.header_list_bytes)
        .max_connection_age(limits.connection_age)
        .max_connection_age_grace(limits.connection_age_grace)
}

/// The service without its transport.
struct Service {
    app: Arc<App>,
    scheduler: Scheduler,
}

impl Service {
    async fn start(config: &Config, prover: Arc<dyn Prover>) -> Result<Self, ServeError> {
        let folder = |name: &str| make_directory(&config.data_dir.join(name));
        make_directory(&config.data_dir)?;
        let uploads_dir = folder("uploads")?;
        let limits = &config.limits;
        let engine = Arc::new(SqliteEngine::open(&config.data_dir, limits).await?);
        let artifacts_dir = config.data_dir.join("artifacts");
        let bytes = ArtifactBytes::open(&config.artifacts, config.artifact_keys.as_ref(), &artifacts_dir).await?;
        let backend = prover.backend();
        tracing::info!(backend = backend.name, reason = backend.reason, "compute backend");
        let (requeued, failed) = crate::engine::Tasks::recover(&*engine, limits.attempts).await.map_err(ServeError::Recover)?;
        if requeued + failed > 0 {
            tracing::warn!(requeued, failed, "took up what an earlier run left unfinished");
        }
        let uploads = Uploads::new(engine.clone(), bytes.clone(), &uploads_dir);
        let (hub, running) = (Arc::new(Hub::default()), Arc::new(Running::default()));
        let parts = SchedulerParts {
            engine: engine.clone() as Arc<dyn Engine>,
            bytes: bytes.clone(),
            uploads: uploads.clone(),
            prover: prover.clone(),
            hub: hub.clone(),
            running: running.clone(),
            limits: limits.clone(),
        };
        let scheduler = Scheduler::start(parts, config.workers)?;
        let app = Arc::new(App {
            artifacts: PublicArtifacts::new(engine.clone(), bytes),
            engine,
            uploads,
            prover,
            cpu: CpuPool::start(1, limits.cpu_queue)?,
            hub,
            running,
            limits: limits.clone(),
            watchers: Arc::new(Semaphore::new(limits.watchers)),
            downloads: Arc::new(Semaphore::new(limits.downloads)),
            creates: CreateRate::new(limits),
            draining: CancellationToken::new(),
            closing: CancellationToken::new(),
        });
        Ok(Self { app, scheduler })
    }

    /// Admits nothing more, ends the workers, then the streams. Answers whether all workers have ended.
    async fn stop(self, patience: Duration, grace: Duration) -> bool {
        self.app.draining.cancel();
        let is_idle = self.scheduler.drain(patience, grace).await;
        self.app.closing.cancel();
        is_idle
    }
}

fn make_directory(path: &Path) -> Result<PathBuf, ServeError> {
    make_private_directory(path).map_err(|source| ServeError::Directory { path: path.into(), source })?;
    Ok(path.to_path_buf())
}
