//! Certificates and keys that are exchanged while workers and services run.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use zkinfer_proto::v1;
use zkinfer_proto::v1::worker_service_client::WorkerServiceClient;
use zkinfer_server::Config;
use zkinfer_server::auth::{Authentication, KeyFile, Scopes};
use zkinfer_server::observe::{Exposure, HttpPort};
use zkinfer_server::tls::{ClientCertificates, Transport};
use zkinfer_server::worker::{RemoteOptions, RemoteSource};

use crate::harness::{Service, config};
use crate::scripted_prover::ScriptedProver;
use crate::tls::{Authority, Files, connect};
use crate::worker_processes::Process;
use crate::workers::{any_port, any_socket, config_for_workers, end, worker_over};

const PATIENCE: Duration = Duration::from_secs(60);
/// Longer than a test takes to start a service again.
const LEASE: Duration = Duration::from_secs(30);

/// Waits until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

/// A service whose listener of workers has a certificate of `authority`, and believes no worker but those that it signed.
fn config_of(files: &Files, authority: &Authority, socket: Arc<TcpListener>) -> (Config, SocketAddr) {
    files.put_pair(&authority.server());
    let ca = files.put("workers-ca.pem", &authority.pem());
    let (mut config, address) = config_for_workers(&files.path("data"), socket, LEASE);
    config.worker_listeners[0].transport = Transport::Tls(Arc::new(files.tls(ClientCertificates::Required(ca)).unwrap()));
    (config, address)
}

/// Whether the listener lets in a worker with a certificate of the authority, and shows it one of the same.
async fn lets_in(address: SocketAddr, authority: &Authority) -> bool {
    let Ok(client) = connect(address, authority, Some(authority.client("worker"))).await else { return false };
    WorkerServiceClient::new(client.channel).open_session(v1::OpenSessionRequest::default()).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_goes_on_when_the_authority_of_both_sides_is_another() {
    let (files, old, new) = (Files::new(), Authority::new(), Authority::new());
    let socket = any_socket();
    let (config, address) = config_of(&files, &old, socket.clone());
    let service = Service::start(config).await;
    let server = format!("https://localhost:{}", address.port());
    let options = RemoteOptions { files: files.of_worker(&old), reload: Duration::from_millis(20), ..RemoteOptions::new(server) };
    let prover = Arc::<ScriptedProver>::default();
    let worker = worker_over(Arc::new(RemoteSource::new(&options).unwrap()), prover.clone());
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let job = client.create_job(&model, "steps=150 ms=20").await.name;
    client.job_runs(&job).await;
    files.of_worker(&new);
    drop(client);
    service.stop().await;

    // Nothing of the authority before is left: whoever still shows or believes it is not let in.
    let (config, address) = config_of(&files, &new, socket);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let done = client.job_end(&job).await;
    assert_eq!(done.state(), v1::job::State::Succeeded, "{:?}", done.failure);
    assert_eq!(prover.n_begun.load(Ordering::Relaxed), 1, "the worker that began it has ended it");
    let next = client.create_job(&model, "steps=1").await.name;
    assert_eq!(client.job_end(&next).await.state(), v1::job::State::Succeeded);
    assert!(!lets_in(address, &old).await && lets_in(address, &new).await);
    end(worker).await;
    drop(client);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_listener_of_workers_takes_up_another_certificate_and_authority() {
    let (files, old, new) = (Files::new(), Authority::new(), Authority::new());
    let (config, address) = config_of(&files, &old, any_socket());
    let transport = config.worker_listeners[0].transport.clone();
    let service = Service::start(config).await;
    assert!(lets_in(address, &old).await && !lets_in(address, &new).await);
    // Half of a pair, and no authority: looked at, and not taken.
    for (name, broken) in [("server.pem", new.server().0.as_str()), ("workers-ca.pem", "no certificate")] {
        files.put(name, broken);
        transport.reload_changed();
        assert!(lets_in(address, &old).await && !lets_in(address, &new).await, "{name}");
    }
    files.put("workers-ca.pem", &new.pem());
    files.put_pair(&new.server());
    until("the new authority is taken up", async || lets_in(address, &new).await).await;
    assert!(!lets_in(address, &old).await);
    service.stop().await;
}

/// Killed when dropped.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_runs_as_a_process_looks_at_its_files_and_names_one_that_is_broken() {
    let (files, old, new) = (Files::new(), Authority::new(), Authority::new());
    let of_worker = files.of_worker(&old);
    let (certificate, key) = of_worker.identity.unwrap();
    let log = files.path("log");
    let written = std::fs::File::create(&log).unwrap();
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let mut worker = Process(
        Command::new(env!("CARGO_BIN_EXE_zkinferd"))
            .args(["worker", "--server", "https://localhost:1", "--device", "cpu", "--log", "info"])
            .args(["--tls-ca", &path(&of_worker.authorities.unwrap()), "--tls-cert", &path(&certificate), "--tls-key", &path(&key)])
            .args(["--cache-dir", &path(&files.path("cache"))])
            .stderr(written)
            .spawn()
            .unwrap(),
    );
    let logged = async |text: &str| std::fs::read_to_string(&log).unwrap().contains(text);
    until("it has begun", async || logged("zkinferd worker").await).await;
    files.put("worker.pem", "no certificate");
    until("the broken file is named", async || logged("worker.pem holds no certificate").await).await;
    files.of_worker(&new);
    worker.signal("-HUP");
    until("the new files are read", async || logged("read again").await).await;
    assert!(worker.0.try_wait().unwrap().is_none(), "it goes on");
    worker.signal("-TERM");
    assert!(worker.0.wait().unwrap().success());
}

/// The status of an answer of the dashboard.
async fn dashboard(address: SocketAddr, key: &str) -> u16 {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request =
        format!("GET /dashboard/api/overview HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let answer = String::from_utf8(answer).unwrap();
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_else(|| panic!("no answer: {answer}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_dashboard_takes_up_keys_that_are_made_and_revoked() {
    use secrecy::ExposeSecret as _;
    let folder = tempfile::tempdir().unwrap();
    let file = KeyFile::at(&folder.path().join("keys"));
    let first = file.create("operators", "first", Scopes::every(), None).unwrap();
    let port = HttpPort::bind(any_port(), Exposure::Loopback).unwrap();
    let address = port.address();
    let authentication = Authentication::none().with_keys(&folder.path().join("keys")).unwrap();
    let service = Service::start(Config { http: Some(port), authentication, ..config(&folder.path().join("data")) }).await;
    assert_eq!(dashboard(address, first.secret.expose_secret()).await, 200);
    let second = file.create("operators", "second", Scopes::every(), None).unwrap();
    until("the key that was made is taken up", async || dashboard(address, second.secret.expose_secret()).await == 200).await;
    file.revoke("operators/first").unwrap();
    until("the key that was revoked is refused", async || dashboard(address, first.secret.expose_secret()).await == 401).await;
    assert_eq!(dashboard(address, second.secret.expose_secret()).await, 200);
    service.stop().await;
}
