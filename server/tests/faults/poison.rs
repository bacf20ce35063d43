//! An input that ends every process that proves it.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use zkinfer_proto::v1;

use crate::harness::Service;
use crate::workers::{config_for_workers, worker};

const ADDRESS: &str = "ZKINFER_TEST_FAULTS_WORKER";

/// Not a test of its own: the body of the processes that the test below starts.
#[test]
fn worker_process() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let _worker = worker(address.parse().unwrap(), "mortal");
        std::future::pending::<()>().await;
    });
}

fn start(address: SocketAddr) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["poison::worker_process", "--exact", "--nocapture"])
        .env(ADDRESS, address.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Starts another process whenever one has died, as a supervisor does.
fn supervise(address: SocketAddr, deaths: Arc<AtomicUsize>, over: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut child = start(address);
        while !over.load(Ordering::Relaxed) {
            if child.try_wait().unwrap().is_some() {
                deaths.fetch_add(1, Ordering::Relaxed);
                child = start(address);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        child.kill().unwrap();
        child.wait().unwrap();
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_its_workers_is_given_up_after_two_and_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let (config, address) = config_for_workers(folder.path());
    assert_eq!(config.limits.worker_deaths, 2);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let (deaths, over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let supervisor = supervise(address, deaths.clone(), over.clone());
    let model = client.ready_model("mlp").await.name;
    let poisoned = client.create_job(&model, "steps=1 ms=5 abort").await.name;
    let mut others = Vec::new();
    for i in 0..4 {
        others.push(client.create_job(&model, &format!("steps=1 ms={i}")).await.name);
    }
    let ended = client.job_end(&poisoned).await;
    assert_eq!(ended.state(), v1::job::State::Failed);
    let failure = ended.failure.unwrap();
    assert_eq!((failure.reason.as_str(), failure.retryable), ("POISONED", false));
    assert!(ended.result.is_none());
    for other in &others {
        let other = client.job_end(other).await;
        assert_eq!(other.state(), v1::job::State::Succeeded, "{:?}", other.failure);
    }
    assert_eq!(deaths.load(Ordering::Relaxed), 2);
    over.store(true, Ordering::Relaxed);
    supervisor.join().unwrap();
    service.stop().await;
}
