//! TLS over real sockets: who can connect, what a certificate says about its holder, slow clients, and certificates that are exchanged.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, HandshakeKind, RootCertStore};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::Code;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Identity};
use zkinfer_proto::v1;
use zkinfer_proto::v1::system_service_client::SystemServiceClient;
use zkinfer_proto::v1::worker_service_client::WorkerServiceClient;
use zkinfer_server::auth::{Authentication, KeyFile, Scopes};
use zkinfer_server::tls::{ClientCertificates, Tls, TlsError, TlsFiles, Transport};
use zkinfer_server::worker::{RemoteFiles, RemoteOptions, RemoteSource};
use zkinfer_server::{Config, Ended, ServeError};

use crate::harness::{Client, Service, config, expect_error, with_bearer};
use crate::workers::{any_socket, config_for_workers, end, worker_over};

/// An authority that signs in memory.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key as PEM.
    fn sign(&self, change: impl FnOnce(&mut CertificateParams)) -> (String, String) {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }

    pub(crate) fn server(&self) -> (String, String) {
        self.sign(|_| {})
    }

    pub(crate) fn client(&self, common_name: &str) -> Identity {
        let (certificate, key) = self.sign(|params| params.distinguished_name.push(DnType::CommonName, common_name));
        Identity::from_pem(certificate, key)
    }

    fn spiffe_client(&self, uri: &str) -> Identity {
        let (certificate, key) = self.sign(|params| params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())]);
        Identity::from_pem(certificate, key)
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }
}

/// The files of a service, and of a worker beside it.
pub(crate) struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts a file in the place of another one.
    pub(crate) fn put(&self, name: &str, text: &str) -> PathBuf {
        let partial = self.path("partial");
        std::fs::write(&partial, text).unwrap();
        std::fs::rename(&partial, self.path(name)).unwrap();
        self.path(name)
    }

    pub(crate) fn put_pair(&self, (certificate, key): &(String, String)) {
        self.put("server.pem", certificate);
        self.put("server-key.pem", key);
    }

    /// Those of a worker that an authority signed, which believes a service by the same.
    pub(crate) fn of_worker(&self, authority: &Authority) -> RemoteFiles {
        let (certificate, key) = authority.sign(|_| {});
        let identity = (self.put("worker.pem", &certificate), self.put("worker-key.pem", &key));
        RemoteFiles { authorities: Some(self.put("service-ca.pem", &authority.pem())), identity: Some(identity) }
    }

    pub(crate) fn tls(&self, clients: ClientCertificates) -> Result<Tls, TlsError> {
        Tls::open(TlsFiles { certificate: self.path("server.pem"), key: self.path("server-key.pem"), clients })
    }

    fn config(&self, clients: ClientCertificates) -> Config {
        let transport = Transport::Tls(Arc::new(self.tls(clients).unwrap()));
        Config { transport, ..config(&self.path("data")) }
    }
}

pub(crate) async fn connect(
    address: SocketAddr,
    authority: &Authority,
    identity: Option<Identity>,
) -> Result<Client, tonic::transport::Error> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(authority.pem())).domain_name("localhost");
    let tls = identity.into_iter().fold(tls, ClientTlsConfig::identity);
    let endpoint = Channel::from_shared(format!("https://{address}")).unwrap().tls_config(tls)?;
    Ok(Client::over(endpoint.connect().await?))
}

async fn tenant(client: &Client) -> Result<String, tonic::Status> {
    let mut system = SystemServiceClient::new(client.channel.clone());
    Ok(system.get_server_info(v1::GetServerInfoRequest {}).await?.into_inner().tenant)
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_proved_over_tls_and_neither_strangers_nor_plaintext_get_through() {
    let (files, authority) = (Files::new(), Authority::new());
    files.put_pair(&authority.server());
    let service = Service::start(files.config(ClientCertificates::None)).await;
    let mut client = connect(service.address, &authority, None).await.unwrap();
    let model = client.ready_model("mlp").await.name;
    let job = client.create_job(&model, "steps=1").await.name;
    assert_eq!(client.job_end(&job).await.state(), v1::job::State::Succeeded);
    assert!(connect(service.address, &Authority::new(), None).await.is_err(), "the client must refuse another authority's service");
    let plain = Channel::from_shared(format!("http://{}", service.address)).unwrap().connect().await;
    if let Ok(channel) = plain {
        assert!(tenant(&Client::over(channel)).await.is_err());
    }
    drop(client);
    assert_eq!(service.stop().await, Ended::Drained);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_its_holders_name_and_tenant() {
    let (files, authority) = (Files::new(), Authority::new());
    files.put_pair(&authority.server());
    let ca = files.put("ca.pem", &authority.pem());
    let map = files.put("map", "spiffe://acme/prover acme scopes=jobs.read\nlaptop umbrella\n");
    let mut config = files.config(ClientCertificates::Required(ca));
    config.authentication = Authentication::none().with_certificates(&map).unwrap();
    let service = Service::start(config).await;

    let mut prover = connect(service.address, &authority, Some(authority.spiffe_client("spiffe://acme/prover"))).await.unwrap();
    assert_eq!(tenant(&prover).await.unwrap(), "tenants/acme");
    prover.proofs.list_jobs(v1::ListJobsRequest::default()).await.unwrap();
    let status = prover.models.list_models(v1::ListModelsRequest::default()).await.unwrap_err();
    expect_error(&status, Code::PermissionDenied, "SCOPE_MISSING");
    let mut laptop = connect(service.address, &authority, Some(authority.client("laptop"))).await.unwrap();
    assert_eq!(tenant(&laptop).await.unwrap(), "tenants/umbrella");
    laptop.models.list_models(v1::ListModelsRequest::default()).await.unwrap();

    let nobody = connect(service.address, &authority, Some(authority.client("nobody"))).await.unwrap();
    expect_error(&tenant(&nobody).await.unwrap_err(), Code::Unauthenticated, "UNAUTHENTICATED");
    let pretender = connect(service.address, &authority, Some(authority.client("spiffe://acme/prover"))).await.unwrap();
    expect_error(&tenant(&pretender).await.unwrap_err(), Code::Unauthenticated, "UNAUTHENTICATED");
    // Wrong credentials are not made good by a certificate.
    let mut system = SystemServiceClient::new(laptop.channel.clone());
    let status = system.get_server_info(with_bearer(v1::GetServerInfoRequest {}, "zki_00")).await.unwrap_err();
    expect_error(&status, Code::Unauthenticated, "UNAUTHENTICATED");

    // In TLS 1.3 a client learns only after its handshake that its certificate was refused.
    for identity in [None, Some(Authority::new().client("laptop"))] {
        let refused = match connect(service.address, &authority, identity).await {
            Ok(client) => tenant(&client).await.is_err(),
            Err(_) => true,
        };
        assert!(refused);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_optional_certificates_keys_count_too() {
    let (files, authority) = (Files::new(), Authority::new());
    files.put_pair(&authority.server());
    let ca = files.put("ca.pem", &authority.pem());
    let map = files.put("map", "laptop umbrella");
    let key = KeyFile::at(&files.path("keys")).create("acme", "server", Scopes::of_tenant(), None).unwrap();
    let mut config = files.config(ClientCertificates::Optional(ca));
    config.authentication = Authentication::none().with_certificates(&map).unwrap().with_keys(&files.path("keys")).unwrap();
    let service = Service::start(config).await;
    let laptop = connect(service.address, &authority, Some(authority.client("laptop"))).await.unwrap();
    assert_eq!(tenant(&laptop).await.unwrap(), "tenants/umbrella");
    let server = connect(service.address, &authority, None).await.unwrap();
    expect_error(&tenant(&server).await.unwrap_err(), Code::Unauthenticated, "UNAUTHENTICATED");
    let request = with_bearer(v1::GetServerInfoRequest {}, secrecy::ExposeSecret::expose_secret(&key.secret));
    let info = SystemServiceClient::new(server.channel.clone()).get_server_info(request).await.unwrap();
    assert_eq!(info.into_inner().tenant, "tenants/acme");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_are_let_in_by_their_certificates_alone() {
    let (files, authority) = (Files::new(), Authority::new());
    files.put_pair(&authority.server());
    let ca = files.put("ca.pem", &authority.pem());
    let (mut config, address) = config_for_workers(&files.path("data"), any_socket(), Duration::from_secs(5));
    config.worker_listeners[0].transport = Transport::Tls(Arc::new(files.tls(ClientCertificates::Required(ca)).unwrap()));
    let service = Service::start(config).await;
    for identity in [None, Some(Authority::new().client("worker"))] {
        let refused = match connect(address, &authority, identity).await {
            Ok(client) => WorkerServiceClient::new(client.channel).open_session(v1::OpenSessionRequest::default()).await.is_err(),
            Err(_) => true,
        };
        assert!(refused);
    }
    let options =
        RemoteOptions { files: files.of_worker(&authority), ..RemoteOptions::new(format!("https://localhost:{}", address.port())) };
    let worker = worker_over(Arc::new(RemoteSource::new(&options).unwrap()), Arc::default());
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let job = client.create_job(&model, "steps=1").await.name;
    assert_eq!(client.job_end(&job).await.state(), v1::job::State::Succeeded);
    end(worker).await;
    drop(client);
    service.stop().await;
}

/// The certificate that the service shows now.
async fn shown(address: SocketAddr, authority: &Authority) -> CertificateDer<'static> {
    let stream = handshake(address, authority).await;
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

async fn handshake(address: SocketAddr, authority: &Authority) -> TlsStream<TcpStream> {
    handshake_with(address, &Arc::new(client_config(authority))).await
}

/// A client that shows a certificate if it is asked for one.
fn client_config(authority: &Authority) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(authority.0.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let own = authority.server();
    let key = PrivateKeyDer::from_pem_slice(own.1.as_bytes()).unwrap();
    let mut config = builder.with_root_certificates(roots).with_client_auth_cert(vec![der(&own)], key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

async fn handshake_with(address: SocketAddr, config: &Arc<ClientConfig>) -> TlsStream<TcpStream> {
    let stream = TcpStream::connect(address).await.unwrap();
    TlsConnector::from(config.clone()).connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
}

/// How the second of two connections of one client begins, after the first has spoken.
async fn second_handshake(address: SocketAddr, authority: &Authority) -> Option<HandshakeKind> {
    let config = Arc::new(client_config(authority));
    let mut first = handshake_with(address, &config).await;
    first.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    // The service's settings come behind its tickets.
    let n_read = first.read(&mut [0; 64]).await.unwrap();
    assert!(n_read > 0);
    handshake_with(address, &config).await.get_ref().1.handshake_kind()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_is_verified_anew_for_every_connection() {
    let (files, authority) = (Files::new(), Authority::new());
    files.put_pair(&authority.server());
    let ca = files.put("ca.pem", &authority.pem());
    let service = Service::start(files.config(ClientCertificates::None)).await;
    assert_eq!(
        second_handshake(service.address, &authority).await,
        Some(HandshakeKind::Resumed),
        "where no client is asked, sessions go on"
    );
    service.stop().await;
    for clients in [ClientCertificates::Required(ca.clone()), ClientCertificates::Optional(ca.clone())] {
        let service = Service::start(files.config(clients)).await;
        assert_eq!(second_handshake(service.address, &authority).await, Some(HandshakeKind::Full));
        service.stop().await;
    }
}

fn der(pair: &(String, String)) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pair.0.as_bytes()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_exchanged_without_dropping_connections_and_broken_ones_change_nothing() {
    let (files, authority) = (Files::new(), Authority::new());
    let (first, second) = (authority.server(), authority.server());
    files.put_pair(&first);
    let config = files.config(ClientCertificates::None);
    let transport = config.transport.clone();
    let service = Service::start(config).await;
    let mut client = connect(service.address, &authority, None).await.unwrap();
    let model = client.ready_model("mlp").await.name;
    let job = client.create_job(&model, "steps=10 ms=50").await.name;
    let request = v1::WatchJobRequest { name: job.clone(), from_sequence: 0 };
    let mut watch = client.proofs.watch_job(request).await.unwrap().into_inner();
    assert_eq!(shown(service.address, &authority).await, der(&first));

    // Half of a pair, and no certificate at all: looked at, and not taken.
    for broken in [&second.0, "no certificate", ""] {
        files.put("server.pem", broken);
        transport.reload_changed();
        assert_eq!(shown(service.address, &authority).await, der(&first), "{broken}");
    }
    files.put_pair(&second);
    let noticed = async {
        while shown(service.address, &authority).await != der(&second) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), noticed).await.expect("the service notices");
    // The stream that began before goes on to its end.
    let mut last = None;
    while let Some(event) = watch.message().await.unwrap() {
        last = Some(event);
    }
    assert!(last.is_some());
    assert_eq!(client.get_job(&job).await.state(), v1::job::State::Succeeded);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exchanged_authority_refuses_the_clients_of_the_one_before() {
    let (files, authority, next) = (Files::new(), Authority::new(), Authority::new());
    files.put_pair(&authority.server());
    let ca = files.put("ca.pem", &authority.pem());
    let config = files.config(ClientCertificates::Required(ca));
    let transport = config.transport.clone();
    let service = Service::start(config).await;
    let may_connect = async |signed_by: &Authority| match connect(service.address, &authority, Some(signed_by.client("laptop"))).await {
        Ok(client) => tenant(&client).await.is_ok(),
        Err(_) => false,
    };
    let open = connect(service.address, &authority, Some(authority.client("laptop"))).await.unwrap();
    assert!(may_connect(&authority).await && !may_connect(&next).await);
    files.put("ca.pem", &next.pem());
    transport.reload_changed();
    assert!(!may_connect(&authority).await && may_connect(&next).await);
    assert_eq!(tenant(&open).await.unwrap(), "tenants/default");
    service.stop().await;
}

/// Reads until the other end closes, within `patience`.
async fn is_closed(mut stream: impl tokio::io::AsyncRead + Unpin, patience: Duration) -> bool {
    let mut buffer = [0; 1024];
    let end = async { while matches!(stream.read(&mut buffer).await, Ok(n) if n > 0) {} };
    tokio::time::timeout(patience, end).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_handshakes_and_prefaces_are_cut_and_hold_up_nobody() {
    const PATIENCE: Duration = Duration::from_secs(20);
    let (files, authority) = (Files::new(), Authority::new());
    files.put_pair(&authority.server());
    let mut config = files.config(ClientCertificates::None);
    config.limits.first_byte = Duration::from_millis(300);
    let service = Service::start(config).await;
    // Nothing at all; the beginning of a handshake; no HTTP/2 after it; a preface byte by byte.
    let silent = TcpStream::connect(service.address).await.unwrap();
    let mut half = TcpStream::connect(service.address).await.unwrap();
    half.write_all(&[0x16, 0x03, 0x01, 0x02, 0x00]).await.unwrap();
    let quiet = handshake(service.address, &authority).await;
    let mut slow = handshake(service.address, &authority).await;
    slow.write_all(b"PRI").await.unwrap();
    let client = connect(service.address, &authority, None).await.unwrap();
    tenant(&client).await.unwrap();
    assert!(is_closed(silent, PATIENCE).await && is_closed(half, PATIENCE).await);
    assert!(is_closed(quiet, PATIENCE).await && is_closed(slow, PATIENCE).await);
    tenant(&client).await.expect("a connection that speaks goes on");
    drop(client);
    assert_eq!(service.stop().await, Ended::Drained);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_only_began_a_handshake_count_as_connections() {
    let (files, authority) = (Files::new(), Authority::new());
    files.put_pair(&authority.server());
    let mut config = files.config(ClientCertificates::None);
    config.limits.connections = 2;
    let service = Service::start(config).await;
    let first = connect(service.address, &authority, None).await.unwrap();
    tenant(&first).await.unwrap();
    let began = TcpStream::connect(service.address).await.unwrap();
    let third = TcpStream::connect(service.address).await.unwrap();
    assert!(is_closed(third, Duration::from_secs(5)).await);
    assert!(!is_closed(began, Duration::from_millis(50)).await);
    tenant(&first).await.unwrap();
    service.stop().await;
}

#[tokio::test]
async fn files_that_make_no_tls_are_named() {
    let (files, authority) = (Files::new(), Authority::new());
    let pair = authority.server();
    let error = |clients| files.tls(clients).unwrap_err();
    assert!(matches!(error(ClientCertificates::None), TlsError::Read { path, .. } if path.ends_with("server.pem")));
    files.put_pair(&(pair.0.clone(), "no key".to_owned()));
    assert!(matches!(error(ClientCertificates::None), TlsError::Read { path, .. } if path.ends_with("server-key.pem")));
    files.put_pair(&(String::new(), pair.1.clone()));
    assert!(matches!(error(ClientCertificates::None), TlsError::NoCertificate { .. }));
    files.put_pair(&(pair.0.clone(), authority.server().1));
    assert!(matches!(error(ClientCertificates::None), TlsError::Pair { .. }));
    files.put_pair(&pair);
    let missing = files.path("ca.pem");
    assert!(matches!(error(ClientCertificates::Required(missing.clone())), TlsError::Read { path, .. } if path == missing));
    files.put("ca.pem", "");
    assert!(matches!(error(ClientCertificates::Optional(missing)), TlsError::NoCertificate { .. }));
}

#[tokio::test]
async fn certificates_cannot_tell_who_calls_where_nobody_asks_for_them() {
    let (files, authority) = (Files::new(), Authority::new());
    files.put_pair(&authority.server());
    let map = files.put("map", "laptop umbrella");
    for transport in [Transport::Plaintext, files.config(ClientCertificates::None).transport] {
        let authentication = Authentication::none().with_certificates(&map).unwrap();
        let config = Config { authentication, transport, ..config(Path::new("nowhere")) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let prover = Arc::new(crate::scripted_prover::ScriptedProver::default());
        let ended = zkinfer_server::run(config, prover, listener, std::future::pending()).await;
        assert!(matches!(ended, Err(ServeError::NoClientCertificates)));
    }
}
