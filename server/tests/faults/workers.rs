//! A service whose workers are elsewhere, and such workers.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use zkinfer_server::Config;
use zkinfer_server::engine::NewSession;
use zkinfer_server::tls::Transport;
use zkinfer_server::worker::{AfterDeviceLoss, OnSession, RemoteOptions, RemoteSource, Running, WorkerParts, WorkerPool};
use zkinfer_server::worker_listener::WorkerListener;

use crate::harness::config;
use crate::scripted_prover::ScriptedProver;

/// Short, so that tests need not wait for long.
pub(crate) const LEASE: Duration = Duration::from_millis(900);

/// A service without workers of its own, and where others connect.
pub(crate) fn config_for_workers(data_dir: &Path) -> (Config, SocketAddr) {
    let mut config = config(data_dir);
    config.workers = 0;
    config.limits.lease = LEASE;
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    config.worker_listeners =
        vec![WorkerListener { socket: Arc::new(socket), transport: Transport::Plaintext, token: None, is_own: false }];
    (config, address)
}

/// A worker of the service there, in this process.
pub(crate) fn worker(address: SocketAddr, name: &str) -> WorkerPool {
    worker_that_says(address, name, None)
}

/// The same, which tells of its sessions.
pub(crate) fn worker_that_says(address: SocketAddr, name: &str, on_session: Option<OnSession>) -> WorkerPool {
    let options = RemoteOptions::new(format!("http://{address}"));
    let parts = WorkerParts {
        source: Arc::new(RemoteSource::new(&options).unwrap()),
        prover: Arc::new(ScriptedProver::default()),
        running: Arc::new(Running::default()),
        session: NewSession { worker: name.into(), is_local: false, devices: vec!["scripted".into()] },
        device_bytes: None,
        after_device_loss: AfterDeviceLoss::GoOn,
        on_session,
        on_beat: None,
    };
    WorkerPool::start(parts, 1).unwrap()
}
