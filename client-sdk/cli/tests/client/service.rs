//! A service in this process.

use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use zkinfer_server::prover::local::LocalProver;
use zkinfer_server::prover::select_backend;
use zkinfer_server::{Config, Ended, ServeError};

pub(crate) struct Service {
    pub(crate) address: String,
    shutdown: oneshot::Sender<()>,
    ended: JoinHandle<Result<Ended, ServeError>>,
    data: tempfile::TempDir,
}

impl Service {
    pub(crate) async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let (backend, reason) = select_backend();
        let prover = LocalProver::new(backend, reason, &data.path().join("cache")).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (shutdown, signal) = oneshot::channel::<()>();
        let until = async {
            let _ = signal.await;
        };
        let ended = tokio::spawn(zkinfer_server::run(Config::new(data.path().join("data")), Arc::new(prover), listener, until));
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
