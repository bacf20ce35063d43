//! The service without its transport: opens the stores, starts what keeps time and the workers of this process, and ends them again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::artifacts::{ArtifactBytes, Collector, PublicArtifacts, UploadRoom, Uploads};
use crate::auth::Authentication;
use crate::dashboard::{self, Dashboard};
use crate::database::forward_notices;
use crate::directory::make_private_directory;
use crate::engine::sql::SqlEngine;
use crate::engine::{Engine, NewSession, TaskEngine};
use crate::grpc::{App, ByteBudget, CreateRate, Places};
use crate::observe::{Health, HttpPort, Metrics, Observed, Side};
use crate::prover::{BackendInfo, Prover};
use crate::record_seal::RecordSeal;
use crate::role::Role;
use crate::scheduler::{CpuPool, Hub, Scheduler};
use crate::serve::{Config, ServeError};
use crate::supervisor::Supervised;
use crate::webhooks::Sender;
use crate::worker::{AfterDeviceLoss, LocalSource, Running, WorkerParts, WorkerPool};

/// The database is waited for so long at the end.
const CLOSE: Duration = Duration::from_secs(1);

/// The service without its transport.
pub(crate) struct Service {
    pub(crate) app: Arc<App>,
    pub(crate) source: LocalSource,
    workers: Option<WorkerPool>,
    database: SqlEngine,
    watched: Weak<dyn Engine>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) health: Health,
    /// What keeps time, until the service drains.
    keepers: tokio::task::JoinSet<()>,
    /// It is not ready any more.
    leaving: CancellationToken,
}

/// A task that ends when this is dropped.
pub(crate) struct Ending(tokio::task::JoinHandle<()>);

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
    pub(crate) async fn start(config: &Config, prover: Arc<dyn Prover>) -> Result<Self, ServeError> {
        let folder = |name: &str| make_directory(&config.data_dir.join(name));
        make_directory(&config.data_dir)?;
        let uploads_dir = folder("uploads")?;
        let limits = &config.limits;
        if config.database.is_own() && config.role != Role::All {
            return Err(ServeError::RoleNeedsPostgres);
        }
        let children = config.children.as_ref().map(|supervised| supervised.children().clone());
        let metrics = Arc::new(Metrics::of_service(prover.clone(), children.clone()));
        let seal = RecordSeal::new(config.artifact_keys.clone());
        let database = config.database.open(&config.data_dir, limits).await?.sealing(seal.clone());
        let engine = Arc::new(Observed::new(database.clone(), metrics.clone()));
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
        let mut keepers = tokio::task::JoinSet::new();
        keepers.spawn(uploads.clone().keep_swept(limits.upload_file, draining.clone()));
        if config.role.keeps_time() {
            keepers.spawn(keeper.run(draining.clone()));
            let sender = Sender::new(engine.clone(), config.reach).map_err(ServeError::Webhooks)?;
            let sender = sender.to_ports(config.webhook_ports.clone()).opening(seal.clone());
            keepers.spawn(sender.run(draining.clone()));
        }
        let watched: Weak<dyn Engine> = Arc::downgrade(&(engine.clone() as Arc<dyn Engine>));
        let health = Health::new(watched.clone(), config.authentication.clone(), leaving.clone());
        let app = Arc::new(App {
            artifacts: PublicArtifacts::new(engine.clone(), bytes, limits.artifact_grace),
            webhooks: engine.clone(),
            operations: engine.clone(),
            reach: config.reach,
            webhook_ports: config.webhook_ports.clone(),
            seal,
            engine,
            uploads,
            prover,
            children,
            cpu: CpuPool::start(1, limits.cpu_queue)?,
            checks: CpuPool::start(1, limits.cpu_queue)?,
            computations: Places::of_computations(limits),
            computing: ByteBudget::new(limits.computation_bytes, limits.cpu_queue),
            // One is computed.
            check_places: Arc::new(Semaphore::new(limits.cpu_queue + 1)),
            checking: ByteBudget::new(limits.checking_bytes, limits.cpu_queue),
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
        Ok(Self { app, source, workers, database, watched, metrics, health, keepers, leaving })
    }

    /// Shows metrics, health and the dashboard over HTTP, if a port is given, until the answer is dropped.
    pub(crate) fn show(&self, port: Option<HttpPort>, authentication: &Authentication) -> Option<Ending> {
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

    pub(crate) fn has_workers(&self) -> bool {
        self.workers.is_some()
    }

    /// Is not ready any more, and does what it is asked to for `pause`: whoever sends calls here does not know yet.
    pub(crate) async fn leave(&self, pause: Duration) {
        self.leaving.cancel();
        tokio::time::sleep(pause).await;
    }

    /// Admits nothing more, ends the workers, then the listeners and what watches. Answers whether all workers of this process have ended.
    pub(crate) async fn drain(&mut self, patience: Duration, grace: Duration, children: Option<&Supervised>) -> bool {
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

    /// Ends what keeps time, which was told to.
    pub(crate) async fn end_keepers(&mut self, patience: Duration) {
        let ended = async { while self.keepers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(patience, ended).await;
    }

    /// Gives the database back, whoever still asks it: calls that were cut off, and streams, end by themselves, beside this. Answers whether its folder is
    /// free for another service.
    pub(crate) async fn close(self) -> bool {
        tokio::time::timeout(CLOSE, self.database.close()).await.is_ok()
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
