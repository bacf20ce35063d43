//! Workers elsewhere: the same loop as that of the service's own, over gRPC on a listener of its own.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tonic::Code;
use tonic::transport::Channel;
use zkinfer_proto::v1;
use zkinfer_proto::v1::worker_service_client::WorkerServiceClient;
use zkinfer_server::Config;
use zkinfer_server::engine::NewSession;
use zkinfer_server::tls::Transport;
use zkinfer_server::worker::{AfterDeviceLoss, RemoteOptions, RemoteSource, Running, TaskSource, WorkerParts, WorkerPool};
use zkinfer_server::worker_listener::{WorkerListener, WorkerToken};

use crate::harness::{Client, ENDLESS, Service, config, expect_error};
use crate::scripted_prover::ScriptedProver;

/// A service without workers of its own that listens for others there. Whoever starts it again keeps the socket: nobody else can take its port meanwhile.
pub(crate) fn config_for_workers(data_dir: &Path, socket: Arc<TcpListener>, lease: Duration) -> (Config, SocketAddr) {
    let mut config = config(data_dir);
    config.workers = 0;
    config.limits.lease = lease;
    let address = socket.local_addr().unwrap();
    config.worker_listeners = vec![WorkerListener { socket, transport: Transport::Plaintext, token: None, is_own: false }];
    (config, address)
}

pub(crate) fn any_socket() -> Arc<TcpListener> {
    Arc::new(TcpListener::bind(any_port()).unwrap())
}

pub(crate) fn any_port() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// Tasks of the service there.
pub(crate) fn remote(address: SocketAddr) -> RemoteSource {
    let options = RemoteOptions::new(format!("http://{address}"));
    RemoteSource::new(&options).unwrap()
}

/// A worker of the service there, in this process.
pub(crate) fn worker(address: SocketAddr, prover: Arc<ScriptedProver>) -> WorkerPool {
    worker_over(Arc::new(remote(address)), prover)
}

/// A worker with tasks of a source, in this process.
pub(crate) fn worker_over(source: Arc<dyn TaskSource>, prover: Arc<ScriptedProver>) -> WorkerPool {
    let parts = WorkerParts {
        source,
        prover,
        running: Arc::new(Running::default()),
        session: NewSession { worker: "a test".into(), is_local: false, devices: vec!["scripted".into()] },
        device_bytes: None,
        after_device_loss: AfterDeviceLoss::GoOn,
        on_session: None,
        on_beat: None,
    };
    WorkerPool::start(parts, 1).unwrap()
}

pub(crate) async fn end(worker: WorkerPool) {
    assert!(worker.drain(Duration::from_secs(10), Duration::from_secs(5)).await, "the worker ends");
}

const LEASE: Duration = Duration::from_millis(900);

async fn failure(client: &mut Client, model: &str, script: &str) -> String {
    let name = client.create_job(model, script).await.name;
    let job = client.job_end(&name).await;
    job.failure.unwrap_or_else(|| panic!("{script} fails, and is {:?}", job.state)).reason
}

/// What every source of tasks has to give.
async fn conforms(client: &mut Client) {
    let model = client.ready_model("whole").await.name;
    let whole = client.create_job(&model, "steps=3 ms=5").await.name;
    let done = client.job_end(&whole).await;
    assert_eq!(done.state(), v1::job::State::Succeeded, "{:?}", done.failure);
    let proof = client.read(&done.result.unwrap().proof_artifact).await.unwrap();
    assert_eq!(proof.len(), 32);
    for (script, reason) in [("reject", "UNSUPPORTED_OP"), ("panic", "INTERNAL"), ("wrong", "PROOF_INVALID")] {
        assert_eq!(failure(client, &model, script).await, reason);
    }
    let again = client.create_job(&model, "device-once").await.name;
    assert_eq!(client.job_end(&again).await.state(), v1::job::State::Succeeded);
    let name = client.create_model("split", "steps=1 layers=3").await.name;
    let model = client.model_end(&name).await.name;
    let split = client.create_job(&model, "steps=1 ms=5").await.name;
    let done = client.job_end(&split).await;
    assert_eq!(done.state(), v1::job::State::Succeeded, "{:?}", done.failure);
    assert_eq!(failure(client, &model, "reject").await, "UNSUPPORTED_OP");
    let refused = client.create_model("refused", "reject").await.name;
    let refused = client.model_end(&refused).await;
    assert_eq!(refused.failure.unwrap().reason, "UNSUPPORTED_OP");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loop_gives_the_same_in_the_services_process() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    conforms(&mut service.client().await).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loop_gives_the_same_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let (config, address) = config_for_workers(folder.path(), any_socket(), LEASE);
    let service = Service::start(config).await;
    let prover: Arc<ScriptedProver> = Arc::default();
    let worker = worker(address, prover.clone());
    conforms(&mut service.client().await).await;
    end(worker).await;
    assert_eq!(prover.n_doubted.load(Ordering::Relaxed), 3, "after each proof that does not verify, and nothing else");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_steps_of_a_job_are_shared_and_none_is_done_twice() {
    let folder = tempfile::tempdir().unwrap();
    let (config, address) = config_for_workers(folder.path(), any_socket(), LEASE);
    let service = Service::start(config).await;
    let provers: [Arc<ScriptedProver>; 2] = Default::default();
    let workers = provers.clone().map(|prover| worker(address, prover));
    let mut client = service.client().await;
    let name = client.create_model("split", "steps=1 layers=6").await.name;
    client.model_end(&name).await;
    let job = client.create_job(&name, "steps=1 ms=60").await.name;
    assert_eq!(client.job_end(&job).await.state(), v1::job::State::Succeeded);
    let begun = provers.map(|prover| prover.n_begun.load(Ordering::Relaxed));
    assert!(begun[0] + begun[1] == 2 * 6 + 3 && begun.iter().all(|&n| n >= 2), "{begun:?}");
    for worker in workers {
        end(worker).await;
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_is_stopped_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let (config, address) = config_for_workers(folder.path(), any_socket(), LEASE);
    let service = Service::start(config).await;
    let worker = worker(address, Arc::default());
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let job = client.create_job(&model, ENDLESS).await.name;
    client.job_runs(&job).await;
    client.cancel(&job).await;
    assert_eq!(client.job_end(&job).await.state(), v1::job::State::Cancelled);
    end(worker).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_worker_gives_back_what_takes_too_long_and_no_attempt_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let (config, address) = config_for_workers(folder.path(), any_socket(), LEASE);
    let service = Service::start(config).await;
    let first = worker(address, Arc::default());
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let job = client.create_job(&model, "steps=150 ms=20 device-memory=900").await.name;
    client.job_runs(&job).await;
    assert!(first.drain(Duration::from_millis(50), Duration::from_secs(5)).await);
    let given_back = client.get_job(&job).await.cost.unwrap();
    assert_eq!((given_back.peak_device_bytes, given_back.runs), (900, 1), "what it took is told");
    assert!(given_back.device_time.is_some() && given_back.device_time == given_back.compute_time, "{given_back:?}");
    let second = worker(address, Arc::default());
    let done = client.job_end(&job).await;
    assert_eq!((done.state(), done.progress.unwrap().attempt), (v1::job::State::Succeeded, 1));
    end(second).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_outlives_its_service_and_completes_its_task_with_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let lease = Duration::from_secs(20);
    let socket = any_socket();
    let (config, address) = config_for_workers(folder.path(), socket.clone(), lease);
    let service = Service::start(config).await;
    let prover = Arc::<ScriptedProver>::default();
    let worker = worker(address, prover.clone());
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let job = client.create_job(&model, "steps=150 ms=20").await.name;
    client.job_runs(&job).await;
    drop(client);
    service.stop().await;

    let (config, _) = config_for_workers(folder.path(), socket, lease);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let done = client.job_end(&job).await;
    assert_eq!(done.state(), v1::job::State::Succeeded, "{:?}", done.failure);
    assert_eq!(prover.n_begun.load(Ordering::Relaxed), 1, "it was proved once");
    end(worker).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_holds_no_task_reads_and_writes_nothing_and_a_wrong_token_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, address) = config_for_workers(folder.path(), any_socket(), LEASE);
    let token = WorkerToken::new("a secret of workers".to_owned().into());
    config.worker_listeners[0].token = Some(token);
    let service = Service::start(config).await;
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut workers = WorkerServiceClient::new(channel);
    let status = workers.open_session(v1::OpenSessionRequest::default()).await.unwrap_err();
    expect_error(&status, Code::Unauthenticated, "UNAUTHENTICATED");
    let with = crate::harness::with_bearer::<v1::OpenSessionRequest>;
    let status = workers.open_session(with(v1::OpenSessionRequest::default(), "another secret")).await.unwrap_err();
    expect_error(&status, Code::Unauthenticated, "UNAUTHENTICATED");
    let opened = workers.open_session(with(v1::OpenSessionRequest::default(), "a secret of workers")).await.unwrap().into_inner();

    let mut client = service.client().await;
    let input = client.upload(b"the input of a tenant").await;
    let digest = hex::decode(input.rsplit('/').next().unwrap()).unwrap();
    let lease = v1::TaskLease { subject: format!("tenants/default/jobs/{}", uuid::Uuid::now_v7()), task: "prove".into(), epoch: 1 };
    let read = v1::ReadTaskArtifactRequest {
        session: opened.session.clone(),
        lease: Some(lease.clone()),
        class: v1::ArtifactClass::Public as i32,
        blake3: digest,
    };
    let status = workers.read_task_artifact(crate::harness::with_bearer(read, "a secret of workers")).await.unwrap_err();
    expect_error(&status, Code::FailedPrecondition, "TASK_LOST");
    let write = v1::WriteTaskArtifactRequest {
        session: opened.session.clone(),
        lease: Some(lease.clone()),
        class: v1::ArtifactClass::Internal as i32,
        size_bytes: 3,
        data: b"abc".to_vec().into(),
        ..Default::default()
    };
    let stream = crate::harness::with_bearer(tokio_stream::iter([write]), "a secret of workers");
    let status = workers.write_task_artifact(stream).await.unwrap_err();
    expect_error(&status, Code::FailedPrecondition, "TASK_LOST");
    let release = v1::ReleaseTaskRequest { session: opened.session, lease: Some(lease), usage: None };
    let settled = workers.release_task(crate::harness::with_bearer(release, "a secret of workers")).await.unwrap().into_inner();
    assert!(!settled.accepted);

    // The public listener knows nothing of workers.
    let mut public = WorkerServiceClient::new(client.channel.clone());
    let status = public.open_session(v1::OpenSessionRequest::default()).await.unwrap_err();
    expect_error(&status, Code::Unimplemented, "UNIMPLEMENTED");
    drop((client, public, workers));
    service.stop().await;
}
