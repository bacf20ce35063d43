//! Runs the service: opens the stores, starts the workers, serves, drains.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::artifacts::{ArtifactBytes, ArtifactKeys, ArtifactPlace, ArtifactPlaceError, Collector, PublicArtifacts, UploadRoom, Uploads};
use crate::auth::Authentication;
use crate::dashboard::{self, Dashboard};
use crate::database::{Database, DatabaseError, forward_notices};
use crate::directory::make_private_directory;
use crate::engine::{Engine, EngineError, NewSession, TaskEngine};
use crate::exposure::{Lacks, check_exposure};
use crate::grpc::{self, App, ByteBudget, CallsLayer, CreateRate, GuardLayer, Places};
use crate::limits::{Limits, LimitsError};
use crate::listeners::{Joined, Listeners, builder, reflection};
use crate::observe::{self, Health, HttpPort, Metrics, Observed, RpcLayer, Side};
use crate::prover::{BackendInfo, Prover};
use crate::role::Role;
use crate::scheduler::{CpuPool, Hub, Scheduler};
use crate::supervisor::Supervised;
use crate::tls::Transport;
use crate::webhooks::{Reach, Sender, WebhookSeal};
use crate::worker::{AfterDeviceLoss, LocalSource, Running, WorkerParts, WorkerPool};
use crate::worker_listener::{WorkerListener, WorkerListenerError};

/// How to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Everything is kept here. Made if it is not there.
    pub data_dir: PathBuf,
    /// Where artifacts are kept.
    pub artifacts: ArtifactPlace,
    /// What artifacts are encrypted with there, and secrets of webhooks in the database; `None`: they are not.
    pub artifact_keys: Option<ArtifactKeys>,
    /// Who may call.
    pub authentication: Authentication,
    /// How bytes travel.
    pub transport: Transport,
    /// How often the files of authentication and TLS are looked at, whether they have changed.
    pub reload: Duration,
    /// Limits.
    pub limits: Limits,
    /// How long jobs are kept after their end; `None`: for good.
    pub job_retention: Option<Duration>,
    /// Proofs at a time in this process; 0: all are made by workers elsewhere. Each proof uses all cores by itself.
    pub workers: usize,
    /// What it does.
    pub role: Role,
    /// What remembers.
    pub database: Database,
    /// Where webhooks may be sent.
    pub reach: Reach,
    /// Where workers elsewhere connect.
    pub worker_listeners: Vec<WorkerListener>,
    /// At shutdown, calls are still taken for so long after readiness went off: until whoever sends them here has noticed.
    pub drain_pause: Duration,
    /// Then running work may finish within this: tasks of this process, or, where it has no workers, uploads and downloads.
    pub drain: Duration,
    /// Then it is stopped, and may take this long to notice.
    pub drain_grace: Duration,
    /// What a worker in this process is called, for people.
    pub worker_name: String,
    /// Metrics and health over HTTP, if wanted.
    pub http: Option<HttpPort>,
    /// Children of this process that compute in its stead: the metrics of devices are theirs. They drain when the service does.
    pub children: Option<Supervised>,
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
            job_retention: None,
            workers: 1,
            role: Role::All,
            database: Database::default(),
            reach: Reach::default(),
            worker_listeners: Vec::new(),
            drain_pause: Duration::ZERO,
            drain: Duration::from_secs(30),
            drain_grace: Duration::from_secs(10),
            worker_name: "serve".to_owned(),
            http: None,
            children: None,
        }
    }
}

impl Config {
    /// Reads the files of authentication and TLS again that have changed.
    pub fn reload_changed(&self) {
        self.authentication.reload_changed();
        self.transport.reload_changed();
        self.worker_listeners.iter().for_each(|listener| listener.transport.reload_changed());
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
    /// Others than workers could act as such.
    #[error(transparent)]
    WorkerListener(#[from] WorkerListenerError),
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
    Database(#[from] DatabaseError),
    /// Roles in different processes need a database that they share.
    #[error("--role api and --role scheduler are for several processes, which share a PostgreSQL database; give --database postgres://...")]
    RoleNeedsPostgres,
    /// The sender of webhooks.
    #[error("cannot set up the sender of webhooks")]
    Webhooks(#[source] reqwest::Error),
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
    for listener in &config.worker_listeners {
        listener.check(config.authentication.is_none())?;
    }
    let mut service = Service::start(&config, prover).await?;
    let (health, health_service) = tonic_health::server::health_reporter();
    service.health.announce(&health).await;
    tokio::spawn(service.health.clone().keep_announced(health));
    let authentication = config.authentication.clone().with_token_bytes(config.limits.token_bytes);
    let _side = service.show(config.http.clone(), &authentication);
    let routes = Routes::new(health_service).add_service(reflection()?);
    let routes = if config.role == Role::Scheduler { routes } else { grpc::add_services(routes, &service.app) };
    let closing = service.app.closing.clone();
    let server = builder(&config.limits)
        .layer(RpcLayer::new(service.metrics.clone()))
        .layer(GuardLayer::new(authentication, &config.limits))
        .layer(CallsLayer::new(&config.limits))
        .add_routes(routes)
        .serve_with_incoming_shutdown(
            observe::counted(grpc::incoming(listener, &config.transport, &config.limits), service.metrics.clone()),
            closing.clone().cancelled_owned(),
        );
    let mut server = tokio::spawn(server);
    let workers = serve_workers(&config, &service)?;
    tokio::spawn(reload(config.clone(), closing.clone()));
    let authentication = config.authentication.clone();
    tokio::spawn(async move { authentication.keep_fresh(closing).await });
    tracing::info!(%address, "serving");
    tokio::select! {
        () = shutdown => {}
        ended = &mut server => {
            // Its children end with the process.
            service.drain(Duration::ZERO, config.drain_grace, None).await;
            service.app.cutting.cancel();
            service.end(config.drain_grace).await;
            return flatten(ended).map(|()| Ended::Drained);
        }
    }
    tracing::info!("draining");
    let ended = end(&config, service, Listeners { server, workers }).await?;
    tracing::info!(?ended, "stopped");
    Ok(ended)
}

/// Takes at most the pause, the patience and twice the grace; or the pause, the patience of the children's supervisor and the grace.
async fn end(config: &Config, mut service: Service, listeners: Listeners) -> Result<Ended, ServeError> {
    service.leave(config.drain_pause).await;
    // Where there are workers, transfers run on while these end.
    let has_workers = service.workers.is_some() || config.children.is_some();
    let for_transfers = if has_workers { Duration::ZERO } else { config.drain };
    let is_idle = service.drain(config.drain, config.drain_grace, config.children.as_ref()).await;
    let cutting = service.app.cutting.clone();
    let patience = for_transfers + config.drain_grace;
    let ((), closed) = tokio::join!(service.end(patience), listeners.close(for_transfers, config.drain_grace, cutting));
    match (is_idle, closed) {
        (true, Some(ended)) => flatten(ended).map(|()| Ended::Drained),
        _ => Ok(Ended::Forced),
    }
}

/// Serves workers elsewhere, until the service closes.
fn serve_workers(config: &Config, service: &Service) -> Result<Vec<tokio::task::JoinHandle<()>>, ServeError> {
    let serve = |listener: &WorkerListener| {
        let address = listener.socket.local_addr()?;
        let incoming = grpc::incoming(listener.listen()?, &listener.transport, &config.limits);
        let routes = grpc::worker_routes(&service.app, service.source.clone(), listener);
        let closing = service.app.closing.clone().cancelled_owned();
        let server = builder(&config.limits).add_routes(routes).serve_with_incoming_shutdown(incoming, closing);
        tracing::info!(%address, "serving workers");
        Ok(tokio::spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "workers are not served any more");
            }
        }))
    };
    let listeners = if config.role == Role::Scheduler { &[] } else { config.worker_listeners.as_slice() };
    listeners.iter().map(serve).collect()
}

fn flatten(ended: Joined) -> Result<(), ServeError> {
    match ended {
        Ok(result) => Ok(result?),
        Err(error) => Err(ServeError::System(std::io::Error::other(error))),
    }
}

/// Looks at the files until the service closes.
async fn reload(config: Config, closing: CancellationToken) {
    let mut ticks = tokio::time::interval(config.reload.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while closing.run_until_cancelled(ticks.tick()).await.is_some() {
        let config = config.clone();
        if let Err(error) = tokio::task::spawn_blocking(move || config.reload_changed()).await {
            tracing::error!(%error, "changed files were not read");
        }
    }
}

/// The service without its transport.
struct Service {
    app: Arc<App>,
    source: LocalSource,
    workers: Option<WorkerPool>,
    watched: Weak<dyn Engine>,
    metrics: Arc<Metrics>,
    health: Health,
    /// What keeps time, until the service drains.
    keepers: tokio::task::JoinSet<()>,
    /// It is not ready any more.
    leaving: CancellationToken,
}

/// A task that ends when this is dropped.
struct Ending(tokio::task::JoinHandle<()>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The workers of this process, if it has any.
fn own_workers(config: &Config, source: LocalSource, prover: &Arc<dyn Prover>, running: &Arc<Running>) -> io::Result<Option<WorkerPool>> {
    let BackendInfo { name, reason } = prover.backend();
    tracing::info!(backend = name, reason, "compute backend");
    if !config.role.has_workers() || config.workers == 0 {
        return Ok(None);
    }
    let parts = WorkerParts {
        source: Arc::new(source),
        prover: prover.clone(),
        running: running.clone(),
        session: NewSession { worker: config.worker_name.clone(), is_local: true, devices: vec![name] },
        device_bytes: None,
        after_device_loss: AfterDeviceLoss::GoOn,
        on_session: None,
        on_beat: None,
    };
    WorkerPool::start(parts, config.workers).map(Some)
}

impl Service {
    async fn start(config: &Config, prover: Arc<dyn Prover>) -> Result<Self, ServeError> {
        let folder = |name: &str| make_directory(&config.data_dir.join(name));
        make_directory(&config.data_dir)?;
        let uploads_dir = folder("uploads")?;
        let limits = &config.limits;
        if config.database.is_own() && config.role != Role::All {
            return Err(ServeError::RoleNeedsPostgres);
        }
        let children = config.children.as_ref().map(|supervised| supervised.children().clone());
        let metrics = Arc::new(Metrics::of_service(prover.clone(), children.clone()));
        let engine = Arc::new(Observed::new(config.database.open(&config.data_dir, limits).await?, metrics.clone()));
        let artifacts_dir = config.data_dir.join("artifacts");
        let bytes = ArtifactBytes::open(&config.artifacts, config.artifact_keys.as_ref(), &artifacts_dir).await?;
        if config.database.is_own() {
            take_up(&*engine).await?;
        }
        let room = UploadRoom { bytes: limits.upload_disk_bytes, per_tenant_bytes: limits.upload_disk_per_tenant_bytes };
        let uploads = Uploads::new(engine.clone(), bytes.clone(), limits.artifact_grace, &uploads_dir, room);
        let (hub, running) = (Arc::new(Hub::default()), Arc::new(Running::default()));
        let source = LocalSource::new(engine.clone(), bytes.clone(), hub.clone(), limits.clone());
        let workers = own_workers(config, source.clone(), &prover, &running)?;
        let keeper = Scheduler {
            engine: engine.clone(),
            uploads: uploads.clone(),
            collector: Collector::new(engine.clone(), bytes.clone(), limits.artifact_grace),
            hub: hub.clone(),
            running: running.clone(),
            limits: limits.clone(),
            job_retention: config.job_retention,
        };
        let (leaving, draining) = (CancellationToken::new(), CancellationToken::new());
        let (closing, cutting) = (CancellationToken::new(), CancellationToken::new());
        forward_notices(&*engine, hub.clone(), closing.clone());
        let webhook_seal = WebhookSeal::new(config.artifact_keys.clone());
        let mut keepers = tokio::task::JoinSet::new();
        keepers.spawn(uploads.clone().keep_swept(limits.upload_file, draining.clone()));
        if config.role.keeps_time() {
            keepers.spawn(keeper.run(draining.clone()));
            let sender = Sender::new(engine.clone(), config.reach).map_err(ServeError::Webhooks)?.opening(webhook_seal.clone());
            keepers.spawn(sender.run(draining.clone()));
        }
        let watched: Weak<dyn Engine> = Arc::downgrade(&(engine.clone() as Arc<dyn Engine>));
        let health = Health::new(watched.clone(), config.authentication.clone(), leaving.clone());
        let app = Arc::new(App {
            artifacts: PublicArtifacts::new(engine.clone(), bytes, limits.artifact_grace),
            webhooks: engine.clone(),
            operations: engine.clone(),
            reach: config.reach,
            webhook_seal,
            engine,
            uploads,
            prover,
            children,
            cpu: CpuPool::start(1, limits.cpu_queue)?,
            checks: CpuPool::start(1, limits.cpu_queue)?,
            computations: Places::of_computations(limits),
            computing: ByteBudget::new(limits.computation_bytes, limits.cpu_queue),
            task_writes: ByteBudget::new(limits.task_artifact_bytes, limits.connections),
            hub,
            running,
            limits: limits.clone(),
            watchers: Places::of_watchers(limits),
            downloads: Places::of_downloads(limits),
            task_downloads: Arc::new(Semaphore::new(limits.downloads)),
            creates: CreateRate::new(limits),
            draining,
            closing,
            cutting,
        });
        Ok(Self { app, source, workers, watched, metrics, health, keepers, leaving })
    }

    /// Shows metrics, health and the dashboard over HTTP, if a port is given, until the answer is dropped.
    fn show(&self, port: Option<HttpPort>, authentication: &Authentication) -> Option<Ending> {
        let port = port?;
        let dashboard = Dashboard {
            engine: self.watched.clone(),
            hub: self.app.hub.clone(),
            authentication: authentication.clone(),
            is_loopback: port.address().ip().is_loopback(),
            limits: self.app.limits.clone(),
            closing: self.app.closing.clone(),
        };
        let side = Side {
            metrics: self.metrics.clone(),
            engine: self.watched.clone(),
            health: self.health.clone(),
            children: self.app.children.clone(),
            watchers: self.app.watchers.all(),
            most_watchers: self.app.limits.watchers,
            dashboard: dashboard::router(dashboard),
        };
        tracing::info!(address = %port.address(), "metrics, health and dashboard");
        Some(Ending(tokio::spawn(side.serve(port, self.app.limits.clone()))))
    }

    /// Is not ready any more, and does what it is asked to for `pause`: whoever sends calls here does not know yet.
    async fn leave(&self, pause: Duration) {
        self.leaving.cancel();
        tokio::time::sleep(pause).await;
    }

    /// Admits nothing more, ends the workers, then the listeners and what watches. Answers whether all workers of this process have ended.
    async fn drain(&mut self, patience: Duration, grace: Duration, children: Option<&Supervised>) -> bool {
        self.leaving.cancel();
        self.app.draining.cancel();
        let own = self.workers.take();
        let own_end = async {
            match own {
                Some(workers) => workers.drain(patience, grace).await,
                None => true,
            }
        };
        // They settle what they do with this service, whose listeners therefore close after their end.
        let children_end = async {
            if let Some(children) = children {
                children.drain().await;
            }
        };
        let (is_idle, ()) = tokio::join!(own_end, children_end);
        self.app.closing.cancel();
        is_idle
    }

    /// Ends what keeps time, which was told to, and holds the database.
    async fn end(mut self, patience: Duration) {
        let ended = async { while self.keepers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(patience, ended).await;
    }
}

/// Takes up what an earlier run of this process left unfinished.
async fn take_up(engine: &dyn TaskEngine) -> Result<(), ServeError> {
    let reaped = engine.recover().await.map_err(ServeError::Recover)?;
    let (requeued, ended) = (reaped.requeued.len(), reaped.ended.len());
    if requeued + ended > 0 {
        tracing::warn!(requeued, ended, "took up what an earlier run left unfinished");
    }
    Ok(())
}

fn make_directory(path: &Path) -> Result<PathBuf, ServeError> {
    make_private_directory(path).map_err(|source| ServeError::Directory { path: path.into(), source })?;
    Ok(path.to_path_buf())
}
