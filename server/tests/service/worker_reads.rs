//! What workers elsewhere read and hand in: in parts, at places of their own, and checked beside what clients ask for.

use std::time::Duration;

use tonic::Code;
use tonic::transport::Channel;
use zkinfer_proto::v1;
use zkinfer_proto::v1::worker_service_client::WorkerServiceClient;
use zkinfer_server::Config;

use crate::harness::{Client, Service, config, expect_error};
use crate::workers::{any_socket, config_for_workers, end, worker};

const LEASE: Duration = Duration::from_secs(30);
/// More than a part, and than what windows on the way hold.
const SIZE: usize = 9_000_000;

/// A task that this test holds as a worker would.
struct Held {
    workers: WorkerServiceClient<Channel>,
    session: String,
    lease: v1::TaskLease,
}

impl Held {
    /// Leases the task of a new job over `input`.
    async fn start(client: &mut Client, address: std::net::SocketAddr, input: &str) -> Self {
        let pool = worker(address, Default::default());
        let model = client.ready_model("mlp").await.name;
        end(pool).await;
        let mut request = crate::harness::job_request(&model, "");
        let source = v1::input::Source::Artifact(input.to_owned());
        request.job.as_mut().unwrap().input.as_mut().unwrap().source = Some(source);
        client.proofs.create_job(request).await.unwrap();
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let mut workers = WorkerServiceClient::new(channel);
        let session = workers.open_session(v1::OpenSessionRequest::default()).await.unwrap().into_inner().session;
        let ask = v1::LeaseTasksRequest { session: session.clone(), max_tasks: 1, ..Default::default() };
        let tasks = workers.lease_tasks(ask).await.unwrap().into_inner().tasks;
        let lease = tasks.into_iter().next().unwrap().lease.unwrap();
        Self { workers, session, lease }
    }

    async fn read(&mut self, name: &str) -> Result<tonic::Streaming<v1::ReadTaskArtifactResponse>, tonic::Status> {
        let request = v1::ReadTaskArtifactRequest {
            session: self.session.clone(),
            lease: Some(self.lease.clone()),
            class: v1::ArtifactClass::Public as i32,
            blake3: hex::decode(name.rsplit('/').next().unwrap()).unwrap(),
        };
        Ok(self.workers.read_task_artifact(request).await?.into_inner())
    }
}

fn content() -> Vec<u8> {
    (0..SIZE).map(|i| (i * i % 251) as u8).collect()
}

async fn all(mut stream: tonic::Streaming<v1::ReadTaskArtifactResponse>) -> Result<Vec<u8>, tonic::Status> {
    let mut bytes = Vec::new();
    while let Some(message) = stream.message().await? {
        assert!((1..=1 << 20).contains(&message.data.len()));
        bytes.extend_from_slice(&message.data);
    }
    Ok(bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn reads_of_workers_are_counted_apart_from_downloads_of_clients() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, address) = config_for_workers(folder.path(), any_socket(), LEASE);
    config.limits.downloads = 1;
    config.limits.unary = Duration::from_secs(8);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let name = client.upload(&content()).await;
    let mut held = Held::start(&mut client, address, &name).await;
    assert!(all(held.read(&name).await.unwrap()).await.unwrap() == content());
    // Answered, and not read further. A window that is full holds the place; the next one waits for it, and not for ever.
    let stalled = held.read(&name).await.unwrap();
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut other = Held { workers: WorkerServiceClient::new(channel), session: held.session.clone(), lease: held.lease.clone() };
    let status = other.read(&name).await.unwrap_err();
    expect_error(&status, Code::ResourceExhausted, "TOO_MANY_DOWNLOADS");
    assert!(client.read(&name).await.unwrap() == content(), "a client has a place of its own");
    drop(stalled);
    let served = async {
        loop {
            match other.read(&name).await {
                Ok(stream) => break all(stream).await.unwrap(),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(60), served).await.expect("the place is free again") == content());
    drop((client, held, other));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_damaged_are_never_read_to_a_good_end() {
    let folder = tempfile::tempdir().unwrap();
    let (config, address) = config_for_workers(folder.path(), any_socket(), LEASE);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let name = client.upload(&content()).await;
    let mut held = Held::start(&mut client, address, &name).await;
    let digest = name.rsplit('/').next().unwrap();
    let file = folder.path().join("artifacts/public/default").join(&digest[..2]).join(digest);
    let mut damaged = content();
    damaged[SIZE - 5] ^= 1;
    std::fs::write(file, damaged).unwrap();
    let read = match held.read(&name).await {
        Ok(stream) => all(stream).await,
        Err(status) => Err(status),
    };
    expect_error(&read.unwrap_err(), Code::DataLoss, "STORED_BYTES_DAMAGED");
    drop((client, held));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_verify_hold_up_no_workers_proof() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, address) = config_for_workers(folder.path(), any_socket(), LEASE);
    config.limits.cpu_queue = 1;
    let service = Service::start(config).await;
    let pool = worker(address, Default::default());
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let slow = v1::VerifyProofRequest {
        proof: Some(v1::verify_proof_request::Proof::ProofBytes(b"ms=40000".to_vec())),
        statement: Some(v1::verify_proof_request::Statement::StatementBytes(vec![0; 96])),
        verifier_key: Some(v1::verify_proof_request::VerifierKey::VerifierKeyBytes(vec![0; 32])),
    };
    // One runs and one waits, or more are refused: the clients' threads are taken for longer than the job below may take.
    let mut verifying = Vec::new();
    loop {
        let mut other = client.clone();
        let asked = slow.clone();
        let mut call = tokio::spawn(async move { other.proofs.verify_proof(asked).await });
        match tokio::time::timeout(Duration::from_millis(300), &mut call).await {
            Ok(answer) => break drop(expect_error(&answer.unwrap().unwrap_err(), Code::ResourceExhausted, "TOO_MANY_COMPUTATIONS")),
            Err(_) => verifying.push(call),
        }
    }
    assert!(verifying.len() >= 2);
    let job = client.create_job(&model, "steps=1").await.name;
    let done = client.job_end(&job).await;
    assert_eq!(done.state(), v1::job::State::Succeeded, "{:?}", done.failure);
    verifying.iter().for_each(tokio::task::JoinHandle::abort);
    end(pool).await;
    drop(client);
    service.stop().await;
}

fn parts_of(held: &Held, size_bytes: u64, data: &[u8]) -> v1::WriteTaskArtifactRequest {
    v1::WriteTaskArtifactRequest {
        session: held.session.clone(),
        lease: Some(held.lease.clone()),
        class: v1::ArtifactClass::Internal as i32,
        media_type: "application/octet-stream".into(),
        size_bytes,
        data: data.to_vec().into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_on_their_way_take_no_more_memory_than_one_may() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, address) = config_for_workers(folder.path(), any_socket(), LEASE);
    config.limits.task_artifact_bytes = 1 << 20;
    config.limits.unary = Duration::from_secs(2);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let name = client.upload(b"steps=1").await;
    let mut held = Held::start(&mut client, address, &name).await;
    // Announced, and not sent to its end.
    let (sender, rest) = tokio::sync::mpsc::channel(1);
    sender.send(parts_of(&held, 1 << 20, b"abc")).await.unwrap();
    let mut other = held.workers.clone();
    let writing = tokio::spawn(async move { other.write_task_artifact(tokio_stream::wrappers::ReceiverStream::new(rest)).await });
    let refused = async {
        // Until the first has begun, the second may come first.
        loop {
            let second = tokio_stream::iter([parts_of(&held, 3, b"abc")]);
            match held.workers.write_task_artifact(second).await {
                Ok(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(status) => break status,
            }
        }
    };
    let status = tokio::time::timeout(Duration::from_secs(20), refused).await.expect("is refused");
    expect_error(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    drop(sender);
    expect_error(&writing.await.unwrap().unwrap_err(), Code::InvalidArgument, "INVALID_FIELDS");
    let second = tokio_stream::iter([parts_of(&held, 3, b"abc")]);
    assert_eq!(held.workers.write_task_artifact(second).await.unwrap().into_inner().blake3, blake3::hash(b"abc").as_bytes());
    drop((client, held));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn verifications_that_wait_hold_no_proof_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut config: Config = config(folder.path());
    // Room for one proof, or for the largest that there may be.
    config.limits.proof_bytes = 2 << 20;
    config.limits.computation_bytes = 6 << 20;
    config.limits.cpu_queue = 3;
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let proof = [b"ms=20000 ".as_slice(), &vec![b'x'; 2_000_000]].concat();
    let name = client.upload(&proof).await;
    let ask = v1::VerifyProofRequest {
        proof: Some(v1::verify_proof_request::Proof::ProofArtifact(name.clone())),
        statement: Some(v1::verify_proof_request::Statement::StatementArtifact(client.upload(&[vec![0; 96], vec![]].concat()).await)),
        verifier_key: Some(v1::verify_proof_request::VerifierKey::VerifierKeyArtifact(name)),
    };
    // One runs, and holds more than half of the memory; three wait for theirs, and have the places of all who may wait.
    let mut waiting = Vec::new();
    loop {
        let (mut other, asked) = (client.clone(), ask.clone());
        let mut call = tokio::spawn(async move { other.proofs.verify_proof(asked).await });
        match tokio::time::timeout(Duration::from_millis(300), &mut call).await {
            Ok(answer) => {
                let details = expect_error(&answer.unwrap().unwrap_err(), Code::ResourceExhausted, "TOO_MANY_COMPUTATIONS");
                break assert_eq!(details.quota_failure().unwrap().violations[0].subject, "computations");
            }
            Err(_) => waiting.push(call),
        }
    }
    assert_eq!(waiting.len(), 4);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    drop(client);
    service.stop().await;
}

#[tokio::test]
async fn a_source_that_is_too_large_is_not_read_to_be_estimated() {
    let folder = tempfile::tempdir().unwrap();
    let mut config: Config = config(folder.path());
    config.limits.proof_bytes = 6;
    config.limits.computation_bytes = 20;
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let [small, large] = [client.upload(b"steps=1").await, client.upload(b"steps=1 steps=1 steps=1").await];
    let ask = |name: String| v1::EstimateJobRequest {
        target: Some(v1::estimate_job_request::Target::SourceArtifact(name)),
        ..Default::default()
    };
    assert_eq!(client.proofs.estimate_job(ask(small)).await.unwrap().into_inner().layer_count, 2);
    let status = client.proofs.estimate_job(ask(large)).await.unwrap_err();
    let details = expect_error(&status, Code::InvalidArgument, "INVALID_FIELDS");
    assert_eq!(crate::harness::fields(&details), ["source_artifact"]);
    service.stop().await;
}
