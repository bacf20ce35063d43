//! A service whose devices are given to processes of their own, with scripts for these.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tonic::Code;
use zkinfer_proto::v1;
use zkinfer_proto::v1::system_service_client::SystemServiceClient;
use zkinfer_server::engine::NewSession;
use zkinfer_server::supervisor::health::{DeviceHealth, Unwatched};
use zkinfer_server::supervisor::{ChildSpec, Patience, Supervised, Supervisor};
use zkinfer_server::worker::TaskSource as _;
use zkinfer_server::{Config, Ended};

use crate::harness::{Service, expect_error, job_request};
use crate::observe::{get, loopback};
use crate::workers::{any_socket, config_for_workers, remote};

const PATIENCE: Duration = Duration::from_secs(60);

/// A child on a device. Told to drain, it has work to do until there is a file `go`.
fn supervised(folder: &Path, health: Arc<dyn DeviceHealth>, workers: SocketAddr) -> Supervised {
    let folder = folder.to_owned();
    let command = move || {
        let mut command = tokio::process::Command::new("sh");
        command.args(["-c", "cat > /dev/null; while [ ! -e go ]; do sleep 0.02; done; exit 0"]).current_dir(&folder);
        command
    };
    let spec = ChildSpec { name: "cuda:0".into(), title: "cuda:0 (A)".into(), ordinal: Some(0), command: Arc::new(command) };
    let patience = Patience { drain: PATIENCE, health: Duration::from_millis(10), ..Patience::default() };
    Supervisor { source: Arc::new(remote(workers)), health, patience, children: Arc::default() }.start(vec![spec])
}

/// A service with such a child; where it listens for workers, and for HTTP.
fn config_with_device(folder: &Path, health: Arc<dyn DeviceHealth>) -> (Config, SocketAddr, SocketAddr) {
    let (mut config, workers) = config_for_workers(&folder.join("data"), any_socket(), PATIENCE);
    let port = loopback();
    let http = port.address();
    config.http = Some(port);
    config.children = Some(supervised(folder, health, workers));
    (config, workers, http)
}

/// Waits until `/readyz` answers so.
async fn until_readiness(http: SocketAddr, code: u16, text: &str) {
    let waiting = async {
        loop {
            let (is_code, _, is_text) = get(http, "/readyz").await;
            if (is_code, is_text.as_str()) == (code, text) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("readiness is never {code}: {text}"));
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_goes_off_before_devices_drain_and_their_listener_closes_after_them() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, workers, http) = config_with_device(folder.path(), Arc::new(Unwatched));
    // For the model.
    config.workers = 1;
    config.drain = Duration::from_millis(10);
    let children = config.children.as_ref().unwrap().children().clone();
    let mut service = Service::start(config).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let started = async {
        while children.states()["cuda:0"].n_starts == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, started).await.expect("the child is started");
    service.begin_stop();
    until_readiness(http, 503, "draining: the service is shutting down\n").await;
    let status = loop {
        match client.proofs.create_job(job_request(&model, "steps=1")).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(status) => break status,
        }
    };
    expect_error(&status, Code::Unavailable, "DRAINING");
    // The child still settles what it does.
    let new = NewSession { worker: "a test".into(), is_local: false, devices: Vec::new() };
    remote(workers).open(new).await.expect("workers are listened to");
    drop(client);
    let mut ended = Box::pin(service.ended());
    assert!(tokio::time::timeout(Duration::from_secs(1), &mut ended).await.is_err(), "the child has not ended");
    std::fs::write(folder.path().join("go"), b"").unwrap();
    assert_eq!(ended.await, Ended::Drained);
}

/// Its device is broken.
struct Sick;

impl DeviceHealth for Sick {
    fn sickness(&self, _: usize) -> Option<String> {
        Some("Xid 79".into())
    }

    fn is_watched(&self, _: usize) -> bool {
        true
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_tells_who_computes_and_that_nobody_does_any_more() {
    let folder = tempfile::tempdir().unwrap();
    let (config, _, _) = config_with_device(folder.path(), Arc::new(Unwatched));
    let service = Service::start(config).await;
    let mut system = SystemServiceClient::new(service.client().await.channel);
    let info = system.get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.backend, "cuda:0 (A)");
    assert_eq!(info.backend_reason, "a process of its own computes on each device");
    std::fs::write(folder.path().join("go"), b"").unwrap();
    drop(system);
    service.stop().await;

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("go"), b"").unwrap();
    let (config, _, http) = config_with_device(folder.path(), Arc::new(Sick));
    let service = Service::start(config).await;
    let mut system = SystemServiceClient::new(service.client().await.channel);
    let text = "ready; but nothing is computed here, since every device is cordoned: cuda:0 (A): Xid 79\n";
    until_readiness(http, 200, text).await;
    let info = system.get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(info.backend, "no device");
    assert!(info.backend_reason.ends_with("; cuda:0 (A) is not used: Xid 79"), "{}", info.backend_reason);
    let (_, _, metrics) = get(http, "/metrics").await;
    for sample in ["zkinfer_device_cordoned{device=\"cuda:0\"} 1", "zkinfer_worker_up{device=\"cuda:0\"} 0"] {
        assert!(metrics.contains(&format!("\n{sample}\n")), "{sample} in\n{metrics}");
    }
    drop(system);
    service.stop().await;
}
