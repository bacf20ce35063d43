//! The whole line with the real prover, in the real process: `zkinferd` is killed in the middle of a proof, started
//! again, and gives a proof that verifies. What it stored and logged on the way tells nothing private, and a collector
//! has the proof's trace from the call to the backend's steps.

mod collector;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use collector::{Collector, Span, attribute};
use tonic::Request;
use tonic::transport::Channel;
use zkinfer_proto::v1;
use zkinfer_proto::v1::artifact_service_client::ArtifactServiceClient;
use zkinfer_proto::v1::model_service_client::ModelServiceClient;
use zkinfer_proto::v1::proof_service_client::ProofServiceClient;

/// Everything that our own crates could say.
const LOG: &str = "info,zkinfer_server=trace,zkinfer_circuits=trace,zkinfer_kernels=trace,zkinferd=trace";
const N_INPUTS: usize = 30;
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

struct Daemon {
    child: Child,
    channel: Channel,
}

impl Daemon {
    async fn start(data_dir: &Path, log: &Path, collector: &Collector) -> Self {
        let address_file = data_dir.with_extension("address");
        let _ = fs::remove_file(&address_file);
        let log = fs::File::options().create(true).append(true).open(log).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_zkinferd"))
            .args(["serve", "--listen", "127.0.0.1:0", "--log", LOG, "--log-json"])
            .args(["--otlp-endpoint", &collector.endpoint, "--trace-detail", "launches"])
            // Milliseconds: what was traced is there before the process is killed.
            .env("OTEL_BSP_SCHEDULE_DELAY", "50")
            .arg("--data-dir")
            .arg(data_dir)
            // Circuits are built once for all runs of this test.
            .arg("--cache-dir")
            .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("circuits"))
            .arg("--address-file")
            .arg(&address_file)
            .stderr(log)
            .spawn()
            .unwrap();
        let started = Instant::now();
        let address = loop {
            match fs::read_to_string(&address_file) {
                Ok(address) => break address,
                Err(_) => assert!(child.try_wait().unwrap().is_none(), "zkinferd does not start; its log is in {}", data_dir.display()),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let endpoint = Channel::from_shared(format!("http://{address}")).unwrap();
        let channel = loop {
            match endpoint.connect().await {
                Ok(channel) => break channel,
                Err(error) => assert!(started.elapsed() < Duration::from_secs(60), "{error}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        Self { child, channel }
    }

    /// SIGKILL.
    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn models(&self) -> ModelServiceClient<Channel> {
        ModelServiceClient::new(self.channel.clone())
    }

    fn proofs(&self) -> ProofServiceClient<Channel> {
        ProofServiceClient::new(self.channel.clone())
    }

    async fn upload(&self, bytes: &[u8]) -> String {
        let mut artifacts = ArtifactServiceClient::new(self.channel.clone());
        let request = v1::BeginUploadRequest {
            size_bytes: bytes.len() as i64,
            blake3: blake3::hash(bytes).as_bytes().to_vec(),
            ..Default::default()
        };
        let upload = artifacts.begin_upload(request).await.unwrap().into_inner().upload;
        let data = bytes.to_vec().into();
        let chunk = v1::WriteChunksRequest { upload, write_offset: 0, crc32c: crc32c::crc32c(bytes), data };
        let session = artifacts.write_chunks(tokio_stream::iter([chunk])).await.unwrap();
        session.into_inner().artifact.unwrap().name
    }

    async fn register(&self, source: &[u8]) -> v1::Model {
        let source_artifact = self.upload(source).await;
        let model = v1::Model { source_artifact, ..Default::default() };
        let request = v1::CreateModelRequest { model_id: "tabular".into(), model: Some(model), ..Default::default() };
        let name = self.models().create_model(request).await.unwrap().into_inner().name;
        let request = v1::WatchModelRequest { name: name.clone(), from_sequence: 0 };
        let mut events = self.models().watch_model(request).await.unwrap().into_inner();
        while events.message().await.unwrap().is_some() {}
        let model = self.models().get_model(v1::GetModelRequest { name }).await.unwrap().into_inner();
        assert_eq!(model.state(), v1::model::State::Ready, "{:?}", model.failure);
        model
    }

    async fn create_job(&self, model: &str, input: &[u8]) -> String {
        let input = v1::Input { source: Some(v1::input::Source::Inline(input.to_vec())), encoding: v1::input::Encoding::Npy as i32 };
        let job = v1::Job {
            model: model.into(),
            input: Some(input),
            privacy: v1::Privacy::InputCommitted as i32,
            context_nonce: [[7; 7].as_slice(), &[0]].concat().repeat(4),
            ..Default::default()
        };
        let mut request = Request::new(v1::CreateJobRequest { job: Some(job), ..Default::default() });
        request.metadata_mut().insert("traceparent", format!("00-{TRACE_ID}-00f067aa0ba902b7-01").parse().unwrap());
        self.proofs().create_job(request).await.unwrap().into_inner().name
    }

    /// Waits until a step of `stage` has begun.
    async fn reaches(&self, job: &str, stage: &str) {
        let request = v1::WatchJobRequest { name: job.into(), from_sequence: 0 };
        let mut events = self.proofs().watch_job(request).await.unwrap().into_inner();
        while let Some(event) = events.message().await.unwrap() {
            if event.progress.is_some_and(|progress| progress.phase == stage) {
                return;
            }
        }
        panic!("{job} ended without {stage}");
    }

    async fn all_events(&self, job: &str) -> Vec<v1::JobEvent> {
        let request = v1::WatchJobRequest { name: job.into(), from_sequence: 1 };
        let mut stream = self.proofs().watch_job(request).await.unwrap().into_inner();
        let mut events = Vec::new();
        while let Some(event) = stream.message().await.unwrap() {
            if !matches!(event.detail, Some(v1::job_event::Detail::Heartbeat(_))) {
                events.push(event);
            }
        }
        events
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn model_file(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mlp-breast-cancer").join(name)).unwrap()
}

/// The first sample of the bundled inputs, as a file of its own.
fn first_input() -> Vec<u8> {
    let all = model_file("inputs.npy");
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': (1, {N_INPUTS}), }}");
    let mut file = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
    file.extend(format!("{header:<117}\n").bytes());
    file.extend_from_slice(&all[128..128 + 4 * N_INPUTS]);
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_survives_the_death_of_its_service_and_nothing_private_is_left_open() {
    let folder = tempfile::tempdir().unwrap();
    let (data_dir, log) = (folder.path().join("data"), folder.path().join("log"));
    let collector = Collector::start().await;
    let daemon = Daemon::start(&data_dir, &log, &collector).await;
    let model = daemon.register(&model_file("model_uint8_per_channel_qdq.onnx")).await;
    let job = daemon.create_job(&model.name, &first_input()).await;
    daemon.reaches(&job, "outer").await;
    daemon.kill();

    let daemon = Daemon::start(&data_dir, &log, &collector).await;
    let events = daemon.all_events(&job).await;
    let sequences: Vec<i64> = events[1..].iter().map(|event| event.sequence).collect();
    assert_eq!(sequences, (1..=sequences.len() as i64).collect::<Vec<_>>());
    let last = events.last().unwrap();
    assert_eq!(last.progress.as_ref().map(|progress| progress.attempt), Some(2));
    let Some(v1::job_event::Detail::Result(result)) = last.detail.clone() else {
        panic!("{last:?}\n{}", fs::read_to_string(&log).unwrap());
    };
    check_proof(&daemon, &model, &result).await;
    check_cost(&daemon, &job, &result).await;
    check_trace(&collector).await;
    drop(daemon);

    check_stored(&data_dir, &model, &result);
    check_log(&data_dir, &log);
}

async fn check_proof(daemon: &Daemon, model: &v1::Model, result: &v1::JobResult) {
    use v1::verify_proof_request::{Proof, Statement, VerifierKey};
    let statement = result.statement.as_ref().unwrap();
    assert_eq!(statement.model_commitment, model.registered.as_ref().unwrap().model_commitment);
    let request = v1::VerifyProofRequest {
        proof: Some(Proof::ProofArtifact(result.proof_artifact.clone())),
        statement: Some(Statement::StatementArtifact(result.statement_artifact.clone())),
        verifier_key: Some(VerifierKey::Model(model.name.clone())),
    };
    let answer = daemon.proofs().verify_proof(request).await.unwrap().into_inner();
    assert!(answer.valid, "{}: {}", answer.reason, answer.message);
    assert_eq!(answer.statement.as_ref(), Some(statement));
}

/// Both attempts are told, also the one that died with its process.
async fn check_cost(daemon: &Daemon, job: &str, result: &v1::JobResult) {
    let cost = daemon.proofs().get_job(v1::GetJobRequest { name: job.into() }).await.unwrap().into_inner().cost.unwrap();
    assert_eq!(cost.runs, 2);
    let time = |stages: &[v1::StageTime], name: &str| {
        let elapsed = stages.iter().find(|stage| stage.name == name).unwrap().elapsed;
        Duration::try_from(elapsed.unwrap()).unwrap()
    };
    assert!(time(&cost.stage_times, "layer") > time(&result.stage_times, "layer"), "{cost:?}");
}

/// The second process did the work of the call that the first one took.
async fn check_trace(collector: &Collector) {
    let in_trace = |span: &Span| hex::encode(&span.trace_id) == TRACE_ID;
    let child = async |parent: &Span, name: &str| {
        collector.find(name, |span| in_trace(span) && span.name == name && span.parent_span_id == parent.span_id).await
    };
    let call = collector.find("the call", |span| in_trace(span) && span.name == "zkinfer.v1.ProofService/CreateJob").await;
    let work = child(&call, "prove").await;
    assert_eq!((attribute(&work, "task"), attribute(&work, "tenant")), (Some("prove"), Some("default")));
    for stage in ["witness", "commit", "bind", "layer", "leaf", "outer", "verify"] {
        child(&work, stage).await;
    }
    // The finest that there is without devices: processors launch nothing.
    collector.find("a backend's step", |span| in_trace(span) && span.name == "prove_blinded_circuit").await;
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { found.push(path) }
        }
    }
    found
}

/// What the API can read is what the client sent and what it was promised: no layer proof, no witness, no weights.
fn check_stored(data_dir: &Path, model: &v1::Model, result: &v1::JobResult) {
    let registered = model.registered.as_ref().unwrap();
    let input = format!("tenants/default/artifacts/{}", blake3::hash(&first_input()));
    let promised = [
        &model.source_artifact,
        &registered.verifier_key_artifact,
        &registered.quantization_report_artifact,
        &input,
        &result.proof_artifact,
        &result.statement_artifact,
    ];
    let promised: BTreeSet<&str> = promised.iter().map(|name| name.rsplit('/').next().unwrap()).collect();
    let stored = files(&data_dir.join("artifacts/public"));
    let stored: BTreeSet<&str> = stored.iter().map(|path| path.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(stored, promised);
}

/// No log line holds the input, or a part of the private material, in hex or as a list of numbers.
fn check_log(data_dir: &Path, log: &Path) {
    let log = fs::read_to_string(log).unwrap();
    assert!(log.contains("proved") && log.contains("compute backend"), "this is the log");
    for line in log.lines() {
        assert!(serde_json::from_str::<serde_json::Value>(line).is_ok(), "{line}");
    }
    let private = files(&data_dir.join("artifacts/internal"));
    let [private] = &private[..] else { panic!("one model, not {private:?}") };
    for secret in [first_input()[128..].to_vec(), fs::read(private).unwrap()] {
        // Any run of 12 secret bytes contains such a window.
        for window in secret.windows(8).step_by(5) {
            // Runs of equal bytes, such as zeros, are in every log.
            if window.iter().collect::<BTreeSet<_>>().len() < 5 {
                continue;
            }
            assert!(!log.contains(&hex::encode(window)), "secret bytes in hex");
            let list = window.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
            assert!(!log.contains(&list), "secret bytes as a list");
        }
    }
    for value in first_input()[128..].chunks_exact(4) {
        let value = f32::from_le_bytes(value.try_into().unwrap());
        assert!(!log.contains(&format!("{value}")), "an input value");
    }
}
