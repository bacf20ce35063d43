//! `zkinferd devices`, and `zkinferd serve` on devices, in the real process; on emulated devices if they were built (kernels/cuda/emulator/build.sh) and this
//! build has CUDA.
#![allow(clippy::print_stdout, reason = "says what was not run, and why")]

mod collector;
#[path = "service/harness.rs"]
#[allow(dead_code, reason = "the tests of the service use the rest")]
mod harness;
#[path = "service/scripted_prover.rs"]
#[allow(dead_code, reason = "the tests of the service use the rest")]
mod scripted_prover;

use std::path::Path;
use std::process::{Child, Command, Output};
use std::time::{Duration, Instant};

use serde_json::Value;
use tonic::Request;
use zkinfer_proto::v1;
use zkinfer_proto::v1::admin_service_client::AdminServiceClient;
use zkinfer_proto::v1::system_service_client::SystemServiceClient;

use collector::{Collector, Span, attribute};
use harness::{Client, job_request};

/// The client's trace, and its span.
const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";
/// For proofs on emulated devices, which take their time.
const PATIENCE: Duration = Duration::from_secs(900);

/// Runs `zkinferd` with these arguments, on an emulated machine if one is described.
fn zkinferd(arguments: &[&str], machine: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zkinferd"));
    command.args(arguments).envs(machine.iter().copied()).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn report(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", text(&output.stdout)))
}

/// The folder of the emulated driver, if it was built and can be used.
fn emulator() -> Option<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/cuda-emulator");
    let is_there = cfg!(feature = "cuda") && folder.join("libcuda.so.1").exists();
    if !is_there {
        println!("not run: this build has no CUDA, or there is no emulated driver");
    }
    is_there.then(|| folder.to_str().unwrap().to_owned())
}

#[test]
fn without_an_accelerator_the_cpu_is_listed_and_the_reason_told() {
    let output = zkinferd(&["devices"], &[("LD_LIBRARY_PATH", "/nonexistent")]);
    assert!(output.status.success());
    let listed = text(&output.stdout);
    assert!(listed.contains("cpu: portable, "), "{listed}");
    if !cfg!(feature = "cuda") {
        assert!(
            listed.starts_with("no accelerator: this build has no support for accelerators: build with the feature `cuda`"),
            "{listed}"
        );
        assert!(listed.lines().last().unwrap().starts_with("this build's kernels run on the CPU ("), "{listed}");
    }
}

#[test]
fn every_vector_level_passes_its_self_test() {
    let output = zkinferd(&["devices", "--self-test", "--json"], &[("LD_LIBRARY_PATH", "/nonexistent")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let report = report(&output);
    let levels = report["cpu"]["levels"].as_array().unwrap();
    assert_eq!(levels[0]["level"], "portable");
    assert!(levels.iter().all(|level| level["self_test"]["passed"] == true), "{report}");
    assert!(report["selected"]["reason"].as_str().unwrap().starts_with("this build's kernels run on "));
}

#[test]
fn a_device_that_is_not_there_ends_the_start_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let output = zkinferd(&["serve", "--listen", "127.0.0.1:0", "--device", "999", "--data-dir", data_dir.to_str().unwrap()], &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("device 999 was asked for"), "{}", text(&output.stderr));
}

#[test]
fn emulated_devices_are_listed_and_pass_their_self_test() {
    let Some(folder) = emulator() else { return };
    let machine = [("LD_LIBRARY_PATH", folder.as_str()), ("EMUCUDA_DEVICES", "2")];
    let output = zkinferd(&["devices", "--self-test", "--json"], &machine);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stdout));
    let report = report(&output);
    let devices = report["devices"].as_array().unwrap();
    assert_eq!(devices.len(), 2);
    for (ordinal, device) in devices.iter().enumerate() {
        assert_eq!(device["ordinal"], ordinal);
        assert_eq!(device["self_test"]["passed"], true, "{report}");
    }
    let selected = report["selected"]["backends"].as_array().unwrap();
    assert!(selected[0].as_str().unwrap().starts_with("cuda:0 ("), "{report}");
    assert!(selected[1].as_str().unwrap().starts_with("cuda:1 ("), "{report}");
    assert!(report["selected"]["reason"].as_str().unwrap().contains(" and cuda:1 ("), "{report}");
}

#[test]
fn a_failing_device_is_told_by_the_exit_code_and_not_selected() {
    let Some(folder) = emulator() else { return };
    let machine = [("LD_LIBRARY_PATH", folder.as_str()), ("EMUCUDA_MEM", "65536")];
    let output = zkinferd(&["devices", "--self-test", "--json"], &machine);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
    let report = report(&output);
    let error = &report["devices"][0]["self_test"]["error"];
    assert!(error.as_str().unwrap().starts_with("out of memory"), "{report}");
    assert!(report["selected"]["backends"][0].as_str().unwrap().starts_with("cpu "), "{report}");
    assert!(report["selected"]["reason"].as_str().unwrap().contains("cannot be used: out of memory"), "{report}");
}

/// `zkinferd serve` on all devices of an emulated machine. Killed when dropped.
struct Daemon {
    child: Child,
    client: Client,
}

impl Daemon {
    async fn start(folder: &Path, emulator: &str, collector: &Collector) -> Self {
        let address_file = folder.join("address");
        let mut child = Command::new(env!("CARGO_BIN_EXE_zkinferd"))
            .args(["serve", "--listen", "127.0.0.1:0", "--device", "auto", "--log", "warn"])
            .args(["--otlp-endpoint", &collector.endpoint, "--trace-detail", "launches"])
            .arg("--data-dir")
            .arg(folder.join("data"))
            // Circuits are built once for all runs of this test.
            .arg("--cache-dir")
            .arg(Path::new(env!("CARGO_TARGET_TMPDIR")).join("circuits"))
            .arg("--address-file")
            .arg(&address_file)
            .envs([("LD_LIBRARY_PATH", emulator), ("EMUCUDA_DEVICES", "2")])
            // A proof has more launches than wait in the queue otherwise.
            .env("OTEL_BSP_MAX_QUEUE_SIZE", "1000000")
            .spawn()
            .unwrap();
        let started = Instant::now();
        let address = loop {
            match std::fs::read_to_string(&address_file) {
                Ok(address) => break address,
                Err(_) => assert!(child.try_wait().unwrap().is_none() && started.elapsed() < PATIENCE, "it starts"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        Self { child, client: Client::connect(address.parse().unwrap()).await }
    }

    /// Ends in order, with its children.
    async fn stop(mut self) {
        assert!(Command::new("kill").arg(self.child.id().to_string()).status().unwrap().success());
        let started = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(started.elapsed() < PATIENCE, "it ends");
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(status.code(), Some(0));
    }

    /// The job once it is final.
    async fn job_end(&mut self, name: &str) -> v1::Job {
        let started = Instant::now();
        loop {
            let job = self.client.job_end(name).await;
            if job.end_time.is_some() {
                return job;
            }
            assert!(started.elapsed() < PATIENCE, "{job:?}");
        }
    }

    /// The devices of the sessions that are open, once there are so many.
    async fn devices(&self, n: usize) -> Vec<String> {
        let mut admin = AdminServiceClient::new(self.client.channel.clone());
        let started = Instant::now();
        loop {
            let workers = admin.list_workers(v1::ListWorkersRequest {}).await.unwrap().into_inner().workers;
            let mut devices: Vec<String> = workers.into_iter().flat_map(|worker| worker.devices).collect();
            devices.sort_unstable();
            if devices.len() >= n {
                return devices;
            }
            assert!(started.elapsed() < PATIENCE, "{devices:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The spans above one, the nearest first, up to the caller's.
async fn above(collector: &Collector, span: &Span) -> Vec<Span> {
    let mut spans = vec![span.clone()];
    while hex::encode(&spans[spans.len() - 1].parent_span_id) != CALLER {
        let parent = spans[spans.len() - 1].parent_span_id.clone();
        spans.push(collector.find("above a launch", |span| span.span_id == parent).await);
    }
    spans.split_off(1)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_on_emulated_devices_proves_there_and_a_trace_reaches_from_the_call_to_the_launches() {
    let Some(emulator) = emulator() else { return };
    let folder = tempfile::tempdir().unwrap();
    let collector = Collector::start().await;
    let mut daemon = Daemon::start(folder.path(), &emulator, &collector).await;
    let info =
        SystemServiceClient::new(daemon.client.channel.clone()).get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
    assert!(info.backend.starts_with("cuda:0 (") && info.backend.contains(" and cuda:1 ("), "{}", info.backend);
    assert_eq!(daemon.devices(2).await, ["cuda:0", "cuda:1"], "a process for each device");

    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/mlp-breast-cancer/model_uint8_per_channel_qdq.onnx");
    let source = daemon.client.upload(&std::fs::read(file).unwrap()).await;
    let model = daemon.client.create_model_of(&source, "tabular").await;
    assert_eq!(model.state(), v1::model::State::Ready, "{:?}", model.failure);
    let mut request = Request::new(job_request(&model.name, &"\u{7}".repeat(30)));
    request.metadata_mut().insert("traceparent", format!("00-{TRACE_ID}-{CALLER}-01").parse().unwrap());
    let name = daemon.client.proofs.create_job(request).await.unwrap().into_inner().name;
    let job = daemon.job_end(&name).await;
    assert_eq!(job.state(), v1::job::State::Succeeded, "{:?}", job.failure);
    assert!(job.notes.is_empty(), "nothing was done elsewhere: {:?}", job.notes);
    let tasks = daemon.client.proofs.list_job_tasks(v1::ListJobTasksRequest { name: name.clone() }).await.unwrap().into_inner().tasks;
    assert!(tasks.iter().flat_map(|task| &task.attempts).all(|attempt| attempt.device.starts_with("cuda:")), "{tasks:?}");
    verify(&mut daemon.client, &model, &job).await;

    let is_launch = |span: &Span| hex::encode(&span.trace_id) == TRACE_ID && attribute(span, "kernel").is_some();
    let launch = collector.find("a launch", is_launch).await;
    let spans = above(&collector, &launch).await;
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    let [step, .., stage, task, call] = &spans[..] else { panic!("too few spans are above a launch: {names:?}") };
    assert!(attribute(step, "step").is_some() && attribute(stage, "stage").is_some(), "{names:?}");
    assert_eq!((attribute(task, "task"), call.name.as_str()), (Some("prove"), "zkinfer.v1.ProofService/CreateJob"), "{names:?}");
    daemon.stop().await;
}

async fn verify(client: &mut Client, model: &v1::Model, job: &v1::Job) {
    use v1::verify_proof_request::{Proof, Statement, VerifierKey};
    let result = job.result.clone().unwrap();
    let request = v1::VerifyProofRequest {
        proof: Some(Proof::ProofArtifact(result.proof_artifact)),
        statement: Some(Statement::StatementArtifact(result.statement_artifact)),
        verifier_key: Some(VerifierKey::Model(model.name.clone())),
    };
    let answer = client.proofs.verify_proof(request).await.unwrap().into_inner();
    assert!(answer.valid, "{}: {}", answer.reason, answer.message);
}
