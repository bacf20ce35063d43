//! Runs the service: starts it, serves, drains.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use crate::artifacts::{ArtifactKeys, ArtifactPlace, ArtifactPlaceError};
use crate::auth::Authentication;
use crate::database::{Database, DatabaseError};
use crate::engine::EngineError;
use crate::exposure::{Lacks, check_exposure};
use crate::grpc::{self, CallsLayer, GuardLayer};
use crate::limits::{Limits, LimitsError};
use crate::listeners::{Joined, Listeners, builder, reflection};
use crate::observe::{self, HttpPort, RpcLayer};
use crate::prover::Prover;
use crate::role::Role;
use crate::service::Service;
use crate::supervisor::Supervised;
use crate::tls::Transport;
use crate::webhooks::Reach;
use crate::worker_listener::{WorkerListener, WorkerListenerError};

/// How to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Everything is kept here. Made if it is not there.
    pub data_dir: PathBuf,
    /// Where artifacts are kept.
    pub artifacts: ArtifactPlace,
    /// What artifacts are encrypted with there, and in the database the salts and seeds of models and jobs and the secrets of webhooks; `None`: they are not.
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
    /// To which ports; if there are none, to any.
    pub webhook_ports: Vec<u16>,
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
            webhook_ports: Vec::new(),
            worker_listeners: Vec::new(),
            drain_pause: Duration::ZERO,
            drain: Duration::from_secs(30),
            drain_grace: Duration::from_secs(10),
            worker_name: "serve".to_owned(),
            http: None,
            children: None,
        }
    }

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

/// Serves on `listener` until `shutdown` is ready, then drains. When this answers, the data directory is free for another run, unless it was forced.
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
    let service = Service::start(&config, prover).await?;
    let authentication = config.authentication.clone().with_token_bytes(config.limits.token_bytes);
    let _side = service.show(config.http.clone(), &authentication);
    let mut listeners = match listen(&config, &service, listener, authentication).await {
        Ok(listeners) => listeners,
        Err(error) => {
            abandon(&config, service).await;
            return Err(error);
        }
    };
    let (authentication, closing) = (config.authentication.clone(), service.app.closing.clone());
    tokio::spawn(reload(config.clone(), closing.clone()));
    tokio::spawn(async move { authentication.keep_fresh(closing).await });
    tracing::info!(%address, "serving");
    tokio::select! {
        () = shutdown => {}
        ended = &mut listeners.server => {
            abandon(&config, service).await;
            return flatten(ended).map(|()| Ended::Drained);
        }
    }
    tracing::info!("draining");
    let ended = end(&config, service, listeners).await?;
    tracing::info!(?ended, "stopped");
    Ok(ended)
}

/// Listens for calls, and for workers elsewhere.
async fn listen(
    config: &Config,
    service: &Service,
    listener: TcpListener,
    authentication: Authentication,
) -> Result<Listeners, ServeError> {
    let (health, health_service) = tonic_health::server::health_reporter();
    service.health.announce(&health).await;
    tokio::spawn(service.health.clone().keep_announced(health));
    let routes = Routes::new(health_service).add_service(reflection()?);
    let routes = if config.role == Role::Scheduler { routes } else { grpc::add_services(routes, &service.app) };
    let server = builder(&config.limits)
        .layer(RpcLayer::new(service.metrics.clone()))
        .layer(GuardLayer::new(authentication, &config.limits))
        .layer(CallsLayer::new(&config.limits))
        .add_routes(routes)
        .serve_with_incoming_shutdown(
            observe::counted(grpc::incoming(listener, &config.transport, &config.limits), service.metrics.clone()),
            service.app.closing.clone().cancelled_owned(),
        );
    let workers = serve_workers(config, service)?;
    Ok(Listeners { server: tokio::spawn(server), workers })
}

/// Ends a service that listens no more.
async fn abandon(config: &Config, mut service: Service) {
    // Its children end with the process.
    service.drain(Duration::ZERO, config.drain_grace, None).await;
    service.app.cutting.cancel();
    service.end_keepers(config.drain_grace).await;
    service.close().await;
}

/// Takes at most the pause, the patience, twice the grace and a second; or the pause, the patience of the children's supervisor, the grace and a second.
async fn end(config: &Config, mut service: Service, listeners: Listeners) -> Result<Ended, ServeError> {
    service.leave(config.drain_pause).await;
    // Where there are workers, transfers run on while these end.
    let has_workers = service.has_workers() || config.children.is_some();
    let for_transfers = if has_workers { Duration::ZERO } else { config.drain };
    let is_idle = service.drain(config.drain, config.drain_grace, config.children.as_ref()).await;
    let cutting = service.app.cutting.clone();
    let patience = for_transfers + config.drain_grace;
    let ((), closed) = tokio::join!(service.end_keepers(patience), listeners.close(for_transfers, config.drain_grace, cutting));
    let is_free = service.close().await;
    match (is_idle && is_free, closed) {
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
