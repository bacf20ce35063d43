//! What is refused for good: the outcome of a worker, texts that no database can store. And workers that end with their server.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use tonic::Code;
use tonic::transport::Channel;
use zkinfer_proto::v1;
use zkinfer_proto::v1::worker_service_client::WorkerServiceClient;
use zkinfer_server::artifacts::Class;
use zkinfer_server::engine::{
    ArtifactFacts, Digest, FailedAttempt, Lease, Leased, NewSession, Offer, Outcome, Renewal, SessionEnd, TaskFlow, Usage,
};
use zkinfer_server::worker::{Holding, RemoteSource, SourceError, SourceFuture, TaskSource, Terms};

use crate::harness::{Client, ENDLESS, Service, config, expect_error, fields, job_request};
use crate::workers::{any_socket, config_for_workers, end, remote, worker, worker_over};

/// A service that refuses the first outcomes of proofs, as one whose database is damaged, and lets workers rest between writes of progress. It is away
/// when tasks are given back and sessions closed, the first times.
struct Refusing {
    inner: RemoteSource,
    n_refusals: AtomicUsize,
    n_away_at_release: AtomicUsize,
    n_away_at_close: AtomicUsize,
    /// Between two writes of progress.
    rest: Duration,
    /// The last that was written.
    fraction: Mutex<f64>,
}

impl Refusing {
    fn new(address: SocketAddr, n_refusals: usize, rest: Duration) -> Arc<Self> {
        Arc::new(Self { n_refusals: AtomicUsize::new(n_refusals), rest, ..Self::of(address) })
    }

    fn away(address: SocketAddr, n_at_release: usize, n_at_close: usize) -> Arc<Self> {
        let (n_away_at_release, n_away_at_close) = (AtomicUsize::new(n_at_release), AtomicUsize::new(n_at_close));
        Arc::new(Self { n_away_at_release, n_away_at_close, ..Self::of(address) })
    }

    fn of(address: SocketAddr) -> Self {
        let [n_refusals, n_away_at_release, n_away_at_close] = Default::default();
        Self { inner: remote(address), n_refusals, n_away_at_release, n_away_at_close, rest: Duration::ZERO, fraction: Mutex::default() }
    }
}

/// Whether one was left; then there is one less.
fn is_taken(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1)).is_ok()
}

fn away<'a>() -> SourceFuture<'a, ()> {
    async { Err(SourceError::Unavailable("it starts again".into())) }.boxed()
}

impl TaskSource for Refusing {
    fn open(&self, new: NewSession) -> SourceFuture<'_, Terms> {
        self.inner.open(new)
    }
    fn lease<'a>(&'a self, session: &'a str, offer: Offer) -> SourceFuture<'a, Vec<Leased>> {
        self.inner.lease(session, offer)
    }
    fn renew<'a>(&'a self, session: &'a str, held: Vec<Lease>) -> SourceFuture<'a, Renewal> {
        self.inner.renew(session, held)
    }
    fn progress<'a>(&'a self, holding: Holding<'a>, progress: v1::Progress) -> SourceFuture<'a, TaskFlow> {
        *self.fraction.lock().unwrap() = progress.fraction;
        self.inner.progress(holding, progress)
    }
    fn progress_interval(&self) -> Duration {
        self.rest
    }
    fn complete<'a>(&'a self, holding: Holding<'a>, outcome: Outcome, usage: Usage) -> SourceFuture<'a, ()> {
        let is_proof = matches!(outcome, Outcome::Proved { .. });
        if is_proof && is_taken(&self.n_refusals) {
            return async { Err(SourceError::Refused("a stored document is damaged".into())) }.boxed();
        }
        self.inner.complete(holding, outcome, usage)
    }
    fn fail<'a>(&'a self, holding: Holding<'a>, failed: FailedAttempt, usage: Usage) -> SourceFuture<'a, ()> {
        self.inner.fail(holding, failed, usage)
    }
    fn release<'a>(&'a self, holding: Holding<'a>, usage: Usage) -> SourceFuture<'a, ()> {
        if is_taken(&self.n_away_at_release) { away() } else { self.inner.release(holding, usage) }
    }
    fn close<'a>(&'a self, session: &'a str, end: SessionEnd) -> SourceFuture<'a, ()> {
        if is_taken(&self.n_away_at_close) { away() } else { self.inner.close(session, end) }
    }
    fn read<'a>(&'a self, holding: Holding<'a>, class: Class, digest: Digest) -> SourceFuture<'a, Bytes> {
        self.inner.read(holding, class, digest)
    }
    fn write<'a>(&'a self, holding: Holding<'a>, class: Class, media_type: &'a str, bytes: Bytes) -> SourceFuture<'a, ArtifactFacts> {
        self.inner.write(holding, class, media_type, bytes)
    }
    fn beside(&self) -> Arc<dyn TaskSource> {
        self.inner.beside()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_whose_outcome_is_refused_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let (config, address) = config_for_workers(folder.path(), any_socket(), Duration::from_secs(20));
    let service = Service::start(config).await;
    let worker = worker_over(Refusing::new(address, 1, Duration::ZERO), Arc::default());
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let job = client.create_job(&model, "steps=1 ms=1").await.name;
    let done = client.job_end(&job).await;
    assert_eq!(done.state(), v1::job::State::Succeeded, "{:?}", done.failure);
    assert_eq!(done.notes.iter().map(|note| note.outcome.as_str()).collect::<Vec<_>>(), ["STORAGE"]);
    end(worker).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_drains_while_its_service_is_away_for_a_moment_gives_its_task_back_and_no_attempt_is_counted() {
    // Until the task is given back; or never for that, but until the session is closed.
    for (n_at_release, n_at_close, is_settled) in [(2, 0, true), (usize::MAX, 1, false)] {
        let folder = tempfile::tempdir().unwrap();
        let (mut config, address) = config_for_workers(folder.path(), any_socket(), Duration::from_secs(60));
        config.limits.worker_deaths = 1;
        let service = Service::start(config).await;
        let first = worker_over(Refusing::away(address, n_at_release, n_at_close), Arc::default());
        let mut client = service.client().await;
        let model = client.ready_model("mlp").await.name;
        let job = client.create_job(&model, "steps=150 ms=20").await.name;
        client.job_runs(&job).await;
        assert_eq!(first.drain(Duration::from_millis(50), Duration::from_secs(2)).await, is_settled);
        let second = worker(address, Arc::default());
        let done = client.job_end(&job).await;
        assert_eq!((done.state(), done.progress.unwrap().attempt), (v1::job::State::Succeeded, 1), "{:?}", done.failure);
        end(second).await;
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_cannot_be_closed_is_told_so() {
    let folder = tempfile::tempdir().unwrap();
    let (config, address) = config_for_workers(folder.path(), any_socket(), Duration::from_secs(60));
    let service = Service::start(config).await;
    let worker = worker_over(Refusing::away(address, 0, usize::MAX), Arc::default());
    service.client().await.ready_model("mlp").await;
    assert!(!worker.drain(Duration::from_secs(10), Duration::from_millis(200)).await, "somebody else is to close it");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outcome_waits_for_no_rest_and_progress_rests_before_it_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let (config, address) = config_for_workers(folder.path(), any_socket(), Duration::from_secs(20));
    let service = Service::start(config).await;
    let mut client = service.client().await;
    for (id, rest, is_written) in [("still", Duration::from_secs(3600), false), ("mlp", Duration::from_millis(1), true)] {
        let source = Refusing::new(address, 0, rest);
        let worker = worker_over(source.clone(), Arc::default());
        let model = client.ready_model(id).await.name;
        let job = client.create_job(&model, "steps=20 ms=50").await.name;
        let done = client.job_end(&job).await;
        assert_eq!((done.state(), done.progress.unwrap().fraction), (v1::job::State::Succeeded, 1.0));
        assert_eq!(*source.fraction.lock().unwrap() > 0.0, is_written);
        end(worker).await;
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_servers_own_workers_held_is_taken_up_at_its_next_start() {
    let folder = tempfile::tempdir().unwrap();
    let socket = any_socket();
    let start = async || {
        let (mut config, address) = config_for_workers(folder.path(), socket.clone(), Duration::from_secs(60));
        config.worker_listeners[0].is_own = true;
        (Service::start(config).await, address)
    };
    let (service, address) = start().await;
    let own = worker(address, Arc::default());
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let job = client.create_job(&model, "steps=30 ms=100").await.name;
    client.job_runs(&job).await;
    drop(client);
    service.stop().await;
    let (service, _) = start().await;
    let mut client = service.client().await;
    let done = client.job_end(&job).await;
    assert_eq!((done.state(), done.progress.unwrap().attempt), (v1::job::State::Succeeded, 2), "long before its lease has ended");
    end(own).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn texts_that_no_database_can_store_are_refused_by_the_names_of_their_fields() {
    let folder = tempfile::tempdir().unwrap();
    let (config, address) = config_for_workers(folder.path(), any_socket(), Duration::from_secs(20));
    let service = Service::start(config).await;
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut workers = WorkerServiceClient::new(channel);
    let refused = |status: tonic::Status, field: &str| {
        let details = expect_error(&status, Code::InvalidArgument, "INVALID_FIELDS");
        assert_eq!(fields(&details), [field]);
    };
    let open = v1::OpenSessionRequest { worker: "a\0b".into(), ..Default::default() };
    refused(workers.open_session(open).await.unwrap_err(), "worker");
    let renew = v1::RenewLeasesRequest { session: "a\0b".into(), ..Default::default() };
    refused(workers.renew_leases(renew).await.unwrap_err(), "session");
    let mut client = service.client().await;
    let page_token = hex::encode("7:a\0b");
    let list = v1::ListJobsRequest { parent: "tenants/default".into(), page_token, ..Default::default() };
    refused(client.proofs.list_jobs(list).await.unwrap_err(), "page_token");
    drop((client, workers));
    service.stop().await;
}

/// Whether the store has these bytes.
fn is_stored(folder: &std::path::Path, bytes: &[u8]) -> bool {
    let digest = blake3::hash(bytes).to_hex();
    folder.join("artifacts/public/default").join(&digest[..2]).join(digest.as_str()).exists()
}

#[tokio::test(flavor = "multi_thread")]
async fn inputs_of_jobs_that_are_refused_are_not_stored() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.queued_per_tenant = 1;
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let absent = "tenants/default/models/absent";
    let unready = client.create_model("rejected", "reject").await.name;
    client.model_end(&unready).await;
    let batch = |models: &[&str], input: &str| v1::BatchCreateJobsRequest {
        parent: "tenants/default".into(),
        requests: models.iter().map(|model| job_request(model, input)).collect(),
        ..Default::default()
    };
    let running = client.create_job(&model, ENDLESS).await.name;
    client.job_runs(&running).await;
    let refused = async |client: &mut Client, (name, code, reason): (&str, Code, &str), input: &str| {
        let status = client.proofs.create_job(job_request(name, input)).await.unwrap_err();
        expect_error(&status, code, reason);
        let status = client.proofs.batch_create_jobs(batch(&[name], input)).await.unwrap_err();
        expect_error(&status, code, reason);
        assert!(!is_stored(folder.path(), input.as_bytes()), "{reason}");
    };
    // While there is room the model decides.
    refused(&mut client, (absent, Code::NotFound, "NOT_FOUND"), "steps=3").await;
    refused(&mut client, (&unready, Code::FailedPrecondition, "MODEL_NOT_READY"), "steps=4").await;
    let admitted = v1::CreateJobRequest { request_id: uuid::Uuid::now_v7().to_string(), ..job_request(&model, "steps=2") };
    let queued = client.proofs.create_job(admitted.clone()).await.unwrap().into_inner().name;
    assert!(is_stored(folder.path(), b"steps=2"), "the path is that of the store");
    refused(&mut client, (&model, Code::ResourceExhausted, "QUOTA_EXCEEDED"), "steps=5").await;
    let again = client.proofs.create_job(admitted).await.unwrap().into_inner();
    assert_eq!(again.name, queued, "what was admitted is told again, whether there is room or not");
    client.cancel(&running).await;
    drop(client);
    service.stop().await;
}
