//! The service inside: on a free loopback port, with its data in a temporary directory.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use zkinfer_server::prover::local::LocalProver;
use zkinfer_server::prover::select_backend;
use zkinfer_server::{Config, Ended, ServeError};

/// A running service.
pub(super) struct Service {
    /// `http://127.0.0.1:PORT`.
    pub(super) address: String,
    shutdown: oneshot::Sender<()>,
    ended: JoinHandle<Result<Ended, ServeError>>,
    _data: tempfile::TempDir,
}

impl Service {
    /// Starts it; circuits come from `cache_dir`, or from the user's cache.
    pub(super) async fn start(cache_dir: Option<&Path>) -> anyhow::Result<Self> {
        let data = tempfile::tempdir().context("cannot make a temporary directory")?;
        let cache_dir = cache_dir.map(Path::to_owned).or_else(user_cache).unwrap_or_else(|| data.path().join("cache"));
        let (backend, reason) = select_backend();
        let prover = LocalProver::new(backend, reason, &cache_dir)?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on loopback")?;
        let address = format!("http://{}", listener.local_addr()?);
        let (shutdown, signal) = oneshot::channel::<()>();
        let until = async {
            // A dropped sender ends the service as well.
            let _ = signal.await;
        };
        let ended = tokio::spawn(zkinfer_server::run(Config::new(data.path()), Arc::new(prover), listener, until));
        Ok(Self { address, shutdown, ended, _data: data })
    }

    /// Drains and ends it.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        // If it has ended by itself, the next line says why.
        let _ = self.shutdown.send(());
        self.ended.await.context("the service panicked")??;
        Ok(())
    }
}

/// `zkinfer` in the user's cache directory.
fn user_cache() -> Option<PathBuf> {
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = absolute("XDG_CACHE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".cache")))?;
    Some(cache.join("zkinfer"))
}
