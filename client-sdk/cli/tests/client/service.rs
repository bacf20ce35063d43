//! A service in this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use zkinfer_server::prover::local::LocalProver;
use zkinfer_server::prover::{Prover, select_backend};
use zkinfer_server::tls::Transport;
use zkinfer_server::{Config, Ended, ServeError};

pub(crate) struct Service {
    pub(crate) address: String,
    shutdown: oneshot::Sender<()>,
    ended: JoinHandle<Result<Ended, ServeError>>,
    data: tempfile::TempDir,
}

impl Service {
    pub(crate) async fn start() -> Self {
        Self::start_with(Config::new).await
    }

    /// With the configuration that is made for a data directory.
    pub(crate) async fn start_with(config: impl FnOnce(PathBuf) -> Config) -> Self {
        let data = tempfile::tempdir().unwrap();
        let (backend, reason) = select_backend();
        let prover = LocalProver::new(backend, reason, &data.path().join("cache")).unwrap();
        Self::begin(data, Arc::new(prover), config).await
    }

    /// The same with another prover.
    pub(crate) async fn start_of(prover: Arc<dyn Prover>, config: impl FnOnce(PathBuf) -> Config) -> Self {
        Self::begin(tempfile::tempdir().unwrap(), prover, config).await
    }

    async fn begin(data: tempfile::TempDir, prover: Arc<dyn Prover>, config: impl FnOnce(PathBuf) -> Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = config(data.path().join("data"));
        let scheme = if matches!(config.transport, Transport::Tls(_)) { "https" } else { "http" };
        let address = format!("{scheme}://{}", listener.local_addr().unwrap());
        let (shutdown, signal) = oneshot::channel::<()>();
        let until = async {
            let _ = signal.await;
        };
        let ended = tokio::spawn(zkinfer_server::run(config, prover, listener, until));
        Self { address, shutdown, ended, data }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.data.path()
    }

    pub(crate) async fn stop(self) {
        let _ = self.shutdown.send(());
        assert!(matches!(self.ended.await.unwrap(), Ok(Ended::Drained | Ended::Forced)));
    }
}
