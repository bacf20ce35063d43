//! The whole line with the real prover in real processes: `zkinferd serve` without workers of its own, and `zkinferd worker` whose child is killed in the
//! middle of a job that is split into its steps.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tonic::transport::Channel;
use zkinfer_proto::v1;
use zkinfer_proto::v1::artifact_service_client::ArtifactServiceClient;
use zkinfer_proto::v1::model_service_client::ModelServiceClient;
use zkinfer_proto::v1::proof_service_client::ProofServiceClient;

const PATIENCE: Duration = Duration::from_secs(300);

/// A process of `zkinferd` with its log. Killed when dropped.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(log: PathBuf, arguments: &[&str]) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_zkinferd"))
            .args(arguments)
            .stdin(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// Process ids of the children that a supervisor has started so far.
    fn children(&self) -> Vec<String> {
        let log = fs::read_to_string(&self.log).unwrap();
        let pid = |line: &str| line.split_once("pid=").map(|(_, pid)| pid.trim().to_owned());
        log.lines().filter(|line| line.contains("started")).filter_map(pid).collect()
    }

    /// SIGTERM; answers whether the process ends well.
    fn drains(&mut self) -> bool {
        signal("-TERM", &self.child.id().to_string());
        self.child.wait().unwrap().success()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signal(name: &str, pid: &str) {
    assert!(Command::new("kill").args([name, pid]).status().unwrap().success());
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let looking = async {
        loop {
            match look() {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    };
    tokio::time::timeout(PATIENCE, looking).await.unwrap_or_else(|_| panic!("{what}"))
}

async fn upload(channel: &Channel, bytes: &[u8]) -> String {
    let mut artifacts = ArtifactServiceClient::new(channel.clone());
    let (size_bytes, blake3) = (bytes.len() as i64, blake3::hash(bytes).as_bytes().to_vec());
    let request = v1::BeginUploadRequest { size_bytes, blake3, ..Default::default() };
    let upload = artifacts.begin_upload(request).await.unwrap().into_inner().upload;
    let chunk = v1::WriteChunksRequest { upload, write_offset: 0, crc32c: crc32c::crc32c(bytes), data: bytes.to_vec().into() };
    artifacts.write_chunks(tokio_stream::iter([chunk])).await.unwrap().into_inner().artifact.unwrap().name
}

async fn register(channel: &Channel) -> v1::Model {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mlp-breast-cancer/model_uint8_per_channel_qdq.onnx");
    let source_artifact = upload(channel, &fs::read(file).unwrap()).await;
    let mut models = ModelServiceClient::new(channel.clone());
    let model = v1::Model { source_artifact, ..Default::default() };
    let request = v1::CreateModelRequest { model_id: "tabular".into(), model: Some(model), ..Default::default() };
    let name = models.create_model(request).await.unwrap().into_inner().name;
    let request = v1::WatchModelRequest { name: name.clone(), from_sequence: 0 };
    let mut events = models.watch_model(request).await.unwrap().into_inner();
    while events.message().await.unwrap().is_some() {}
    models.get_model(v1::GetModelRequest { name }).await.unwrap().into_inner()
}

async fn create_job(channel: &Channel, model: &str) -> String {
    let input = v1::Input { source: Some(v1::input::Source::Inline(vec![7; 30])), encoding: v1::input::Encoding::Uint8 as i32 };
    let job = v1::Job { model: model.into(), input: Some(input), privacy: v1::Privacy::InputCommitted as i32, ..Default::default() };
    let request = v1::CreateJobRequest { job: Some(job), ..Default::default() };
    ProofServiceClient::new(channel.clone()).create_job(request).await.unwrap().into_inner().name
}

/// Waits until a job is in the hands of a worker.
async fn runs(channel: &Channel, job: &str) {
    let request = v1::WatchJobRequest { name: job.into(), from_sequence: 0 };
    let mut events = ProofServiceClient::new(channel.clone()).watch_job(request).await.unwrap().into_inner();
    while let Some(event) = events.message().await.unwrap() {
        if event.state() == v1::job::State::Running {
            return;
        }
    }
    panic!("{job} ended before it ran");
}

async fn verified(channel: &Channel, model: &v1::Model, job: &str) {
    use v1::verify_proof_request::{Proof, Statement, VerifierKey};
    let mut proofs = ProofServiceClient::new(channel.clone());
    let request = v1::WatchJobRequest { name: job.into(), from_sequence: 0 };
    let mut events = proofs.watch_job(request).await.unwrap().into_inner();
    let mut results = Vec::new();
    while let Some(event) = events.message().await.unwrap() {
        if let Some(v1::job_event::Detail::Result(result)) = event.detail {
            results.push(result);
        }
    }
    assert!(results.len() <= 1, "one result, not {results:?}");
    // A job that ended before it was watched tells it in the snapshot.
    let job = proofs.get_job(v1::GetJobRequest { name: job.into() }).await.unwrap().into_inner();
    let result = job.result.unwrap_or_else(|| panic!("no result: {:?}", job.failure));
    let request = v1::VerifyProofRequest {
        proof: Some(Proof::ProofArtifact(result.proof_artifact.clone())),
        statement: Some(Statement::StatementArtifact(result.statement_artifact.clone())),
        verifier_key: Some(VerifierKey::Model(model.name.clone())),
    };
    let answer = proofs.verify_proof(request).await.unwrap().into_inner();
    assert!(answer.valid, "{}: {}", answer.reason, answer.message);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_job_survives_the_death_of_a_workers_child_and_workers_drain() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let text = |name: &str| file(name).to_str().unwrap().to_owned();
    let circuits = Path::new(env!("CARGO_TARGET_TMPDIR")).join("circuits").to_str().unwrap().to_owned();
    fs::write(file("limits.json"), r#"{"fuse_below_seconds": 0}"#).unwrap();
    let (data, address, workers) = (text("data"), text("address"), text("worker-address"));
    let (limits, listen) = (text("limits.json"), "127.0.0.1:0");
    let line = ["serve", "--listen", listen, "--worker-listen", listen, "--workers", "0", "--device", "cpu", "--data-dir", &data];
    let files = ["--cache-dir", &circuits, "--address-file", &address, "--worker-address-file", &workers, "--limits", &limits];
    let _service = Process::start(file("service.log"), &[&line[..], &files[..]].concat());
    let address = until("the service listens", || fs::read_to_string(&address).ok()).await;
    let server = format!("http://{}", until("it listens for workers", || fs::read_to_string(&workers).ok()).await);
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let worker = ["worker", "--server", &server, "--device", "cpu", "--cache-dir", &circuits];
    let mut first = Process::start(file("first.log"), &worker);

    let model = register(&channel).await;
    assert_eq!(model.state(), v1::model::State::Ready, "{:?}", model.failure);
    let job = create_job(&channel, &model.name).await;
    runs(&channel, &job).await;
    let child = until("the worker has a child", || first.children().first().cloned()).await;
    signal("-KILL", &child);
    verified(&channel, &model, &job).await;
    until("another child is started", || first.children().get(1).cloned()).await;

    let mut second = Process::start(file("second.log"), &worker);
    for job in [create_job(&channel, &model.name).await, create_job(&channel, &model.name).await] {
        verified(&channel, &model, &job).await;
    }
    for worker in [&mut first, &mut second] {
        until("the worker has a child", || worker.children().first().cloned()).await;
        assert!(worker.drains(), "{}", fs::read_to_string(&worker.log).unwrap());
    }
}
