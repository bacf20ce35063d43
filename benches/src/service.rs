//! A service inside this process, reached as any other: over TCP.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use clap::ValueEnum;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use zkinfer_circuits::backend::reference::Reference;
use zkinfer_client::Client;
use zkinfer_kernels::{CpuBackend, Level};
use zkinfer_server::prover::Prover;
use zkinfer_server::prover::local::LocalProver;
use zkinfer_server::{Config, Ended, ServeError};

/// What a service computes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Computing {
    /// On what a service selects by itself.
    Auto,
    /// On one element at a time, as on a processor whose vectors are not known.
    Portable,
    /// On plonky2's own transforms, trees and circuit prover.
    Stock,
}

impl Computing {
    /// A prover over this; what can be rebuilt is in `cache_dir`.
    ///
    /// # Errors
    /// A folder that cannot be used, or no such backend.
    pub fn prover(self, cache_dir: &Path) -> anyhow::Result<Arc<dyn Prover>> {
        let reason = || "as the benchmark asks".to_owned();
        Ok(match self {
            Self::Auto => {
                let (backend, reason) = zkinfer_kernels::select_backend();
                Arc::new(LocalProver::new(backend, reason, cache_dir)?)
            }
            Self::Portable => Arc::new(LocalProver::new(CpuBackend::with_level(Level::Portable)?, reason(), cache_dir)?),
            Self::Stock => Arc::new(LocalProver::new(Reference, reason(), cache_dir)?),
        })
    }
}

/// A running service.
#[derive(Debug)]
pub struct Service {
    address: String,
    backend: String,
    shutdown: oneshot::Sender<()>,
    ended: JoinHandle<Result<Ended, ServeError>>,
}

impl Service {
    /// Starts a service on a free loopback port: jobs and artifacts below `data_dir`, rebuildable circuits and oracles in `cache_dir`.
    ///
    /// # Errors
    /// Folders that cannot be used, or no free port.
    pub async fn start(computing: Computing, data_dir: &Path, cache_dir: &Path) -> anyhow::Result<Self> {
        Self::start_with(computing.prover(cache_dir)?, data_dir).await
    }

    /// As [`Self::start`], with this prover.
    ///
    /// # Errors
    /// As there.
    pub async fn start_with(prover: Arc<dyn Prover>, data_dir: &Path) -> anyhow::Result<Self> {
        let backend = prover.backend().name;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("no free port")?;
        let address = format!("http://{}", listener.local_addr()?);
        let (shutdown, asked) = oneshot::channel();
        let ended = spawn(Config::new(data_dir), prover, listener, asked);
        Ok(Self { address, backend, shutdown, ended })
    }

    /// Name of the backend that computes.
    pub fn backend(&self) -> &str {
        &self.backend
    }

    /// A connection.
    ///
    /// # Errors
    /// The service ended.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        Ok(Client::connect(&self.address).await?)
    }

    /// Drains and stops the service.
    ///
    /// # Errors
    /// It failed.
    pub async fn stop(self) -> anyhow::Result<()> {
        // A service that ended already is told by its result.
        let _ = self.shutdown.send(());
        self.ended.await??;
        Ok(())
    }
}

/// Runs a service until a word comes, or its sender is dropped.
pub(crate) fn spawn(
    config: Config,
    prover: Arc<dyn Prover>,
    listener: TcpListener,
    asked: oneshot::Receiver<()>,
) -> JoinHandle<Result<Ended, ServeError>> {
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        runtime.block_on(zkinfer_server::run(config, prover, listener, async move {
            let _ = asked.await;
        }))
    })
}
