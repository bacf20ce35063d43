//! Workers in processes of their own that die, or sleep past their lease: what they did is done again by another, and they change nothing.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use zkinfer_proto::v1;

use crate::harness::Service;
use crate::scripted_prover::ScriptedProver;
use crate::workers::{any_socket, config_for_workers, end, worker};

const ADDRESS: &str = "ZKINFER_TEST_WORKER_ADDRESS";
const LEASE: Duration = Duration::from_millis(900);

/// Not a test of its own: the body of the processes that the tests below start.
#[test]
fn worker_process() {
    let Ok(address) = std::env::var(ADDRESS) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let _worker = worker(address.parse().unwrap(), Arc::default());
        std::future::pending::<()>().await;
    });
}

/// Killed when dropped.
/// A process that is killed when it is dropped.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    fn start(address: std::net::SocketAddr) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["worker_processes::worker_process", "--exact", "--nocapture"])
            .env(ADDRESS, address.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    pub(crate) fn signal(&self, name: &str) {
        assert!(Command::new("kill").args([name, &self.0.id().to_string()]).status().unwrap().success());
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_killed_worker_did_is_done_by_another_once() {
    let folder = tempfile::tempdir().unwrap();
    let (config, address) = config_for_workers(folder.path(), any_socket(), LEASE);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let doomed = Process::start(address);
    let model = client.ready_model("mlp").await.name;
    let job = client.create_job(&model, "steps=150 ms=20").await.name;
    client.job_runs(&job).await;
    doomed.signal("-KILL");
    let prover = Arc::<ScriptedProver>::default();
    let second = worker(address, prover.clone());
    let done = client.job_end(&job).await;
    assert_eq!(done.state(), v1::job::State::Succeeded, "{:?}", done.failure);
    assert_eq!((done.progress.unwrap().attempt, prover.n_begun.load(Ordering::Relaxed)), (2, 1));
    end(second).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_sleeps_past_its_lease_changes_nothing_and_works_on() {
    let folder = tempfile::tempdir().unwrap();
    let (config, address) = config_for_workers(folder.path(), any_socket(), LEASE);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let sleeper = Process::start(address);
    let model = client.ready_model("mlp").await.name;
    let job = client.create_job(&model, "steps=150 ms=20").await.name;
    client.job_runs(&job).await;
    sleeper.signal("-STOP");
    let second = worker(address, Arc::default());
    let done = client.job_end(&job).await;
    assert_eq!(done.state(), v1::job::State::Succeeded, "{:?}", done.failure);
    end(second).await;
    sleeper.signal("-CONT");
    // The sleeper, and nobody else is there, takes the next job; by then it has settled, or tried to, what it slept over.
    let next = client.create_job(&model, "steps=2 ms=20").await.name;
    assert_eq!(client.job_end(&next).await.state(), v1::job::State::Succeeded);
    let after = client.get_job(&job).await;
    assert_eq!((after.result, after.last_sequence), (done.result, done.last_sequence));
    drop(sleeper);
    service.stop().await;
}
