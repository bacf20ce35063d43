//! kill -9 in the middle of work: every accepted job reaches one end, and its events have no gap.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use zkinfer_proto::v1;

use crate::harness::{Client, ENDLESS, Service, config, job_request};
use crate::scripted_prover::ScriptedProver;

const DATA_DIR: &str = "ZKINFER_TEST_DATA_DIR";
const ATTEMPTS: &str = "ZKINFER_TEST_ATTEMPTS";

/// Not a test of its own: the body of the child process that the tests below kill.
#[test]
fn child_process() {
    let Some(data_dir) = std::env::var_os(DATA_DIR) else { return };
    let mut config = config(Path::new(&data_dir));
    config.limits.attempts = std::env::var(ATTEMPTS).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let file = Path::new(&data_dir).join("port");
        std::fs::write(file.with_extension("new"), port.to_string()).unwrap();
        std::fs::rename(file.with_extension("new"), file).unwrap();
        let prover = Arc::new(ScriptedProver::default());
        zkinfer_server::run(config, prover, listener, std::future::pending()).await.unwrap();
    });
}

/// A service in a process of its own. Killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) client: Client,
}

impl Process {
    pub(crate) async fn start(data_dir: &Path, attempts: u32) -> Self {
        let port_file = data_dir.join("port");
        let _ = std::fs::remove_file(&port_file);
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["crash::child_process", "--exact", "--nocapture"])
            .env(DATA_DIR, data_dir)
            .env(ATTEMPTS, attempts.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let port: u16 = loop {
            match std::fs::read_to_string(&port_file) {
                Ok(port) => break port.parse().unwrap(),
                Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        };
        let address = ([127, 0, 0, 1], port).into();
        let client = Client::connect(address).await;
        Self { child, address, client }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_accepted_job_is_lost_or_done_twice_through_many_kills() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path();
    let mut process = Process::start(data_dir, 1000).await;
    let model = process.client.create_model("mlp", "steps=2 ms=10").await.name;
    process.client.model_end(&model).await;
    let mut names = Vec::new();
    // One less than a job is given up after.
    for round in 0..7u64 {
        for _ in 0..2 {
            // The answer may be lost with the process; what was answered may not.
            let request = job_request(&model, "steps=6 ms=12");
            if let Ok(job) = process.client.proofs.create_job(request).await {
                names.push(job.into_inner().name);
            }
        }
        // Spread over a job's length (about 75 ms) and its edges.
        tokio::time::sleep(Duration::from_millis(13 + round * 29 % 101)).await;
        process.kill();
        process = Process::start(data_dir, 1000).await;
    }
    let registered = process.client.model_end(&model).await;
    assert_eq!(registered.state(), v1::model::State::Ready);
    assert!(!names.is_empty());
    for name in &names {
        let job = process.client.job_end(name).await;
        assert_eq!(job.state(), v1::job::State::Succeeded, "{:?}", job.failure);
        check_events(&mut process.client, &job).await;
        let proof = process.client.read(&job.result.unwrap().proof_artifact).await.unwrap();
        assert_eq!(proof.len(), 32);
    }
    let request = v1::ListJobsRequest { page_size: 1000, ..Default::default() };
    let all = process.client.proofs.list_jobs(request).await.unwrap().into_inner().jobs;
    assert_eq!(all.len(), names.len());
}

/// The stored events are 1, 2, 3 …, the last and only the last is final.
async fn check_events(client: &mut Client, job: &v1::Job) {
    let request = v1::WatchJobRequest { name: job.name.clone(), from_sequence: 1 };
    let stream = client.proofs.watch_job(request).await.unwrap().into_inner();
    let events = crate::watch::collect(stream).await;
    let sequences: Vec<i64> = events[1..].iter().map(|e| e.sequence).collect();
    assert_eq!(sequences, (1..=job.last_sequence).collect::<Vec<_>>());
    let results = events[1..].iter().filter(|e| e.state() == v1::job::State::Succeeded).count();
    assert_eq!(results, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_its_service_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), 2).await;
    let model = process.client.ready_model("mlp").await.name;
    let name = process.client.create_job(&model, ENDLESS).await.name;
    // Whose fault it is that a service dies is not known: more deaths are forgiven than to a worker.
    for death in 0.. {
        let job = process.client.get_job(&name).await;
        if job.state() == v1::job::State::Failed {
            let failure = job.failure.unwrap();
            assert_eq!((failure.reason.as_str(), failure.attempts, death), ("DEVICE_LOST", 8, 8));
            break;
        }
        process.client.job_runs(&name).await;
        process.kill();
        process = Process::start(folder.path(), 2).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_services_cannot_share_a_directory() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    // It serves: the directory is its own.
    service.client().await.upload(b"here").await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let prover = Arc::new(ScriptedProver::default());
    let second = zkinfer_server::run(config(folder.path()), prover, listener, std::future::pending()).await;
    assert!(second.unwrap_err().to_string().contains("used by another process"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_database_is_refused_with_a_clear_message() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("zkinfer.db"), vec![7; 8192]).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let prover = Arc::new(ScriptedProver::default());
    let ended = zkinfer_server::run(config(folder.path()), prover, listener, std::future::pending()).await;
    assert!(ended.unwrap_err().to_string().contains("damaged"));
}
