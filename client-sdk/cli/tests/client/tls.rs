//! The client library and the command against a service that speaks TLS and asks who calls.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use zkinfer_client::{Client, ClientCertificate, ClientError, ClientOptions, RefusalKind, Secret, TlsOptions};
use zkinfer_server::Config;
use zkinfer_server::auth::{Authentication, KeyFile, Scopes};
use zkinfer_server::tls::{ClientCertificates, Tls, TlsFiles, Transport};

use crate::service::Service;

/// An authority, and what it signed, as files.
struct Certificates {
    folder: tempfile::TempDir,
}

impl Certificates {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: String| std::fs::write(folder.path().join(name), text).unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        write("ca.pem", authority.pem());
        for name in ["server", "client"] {
            let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            let key = KeyPair::generate().unwrap();
            write(&format!("{name}.pem"), params.signed_by(&key, &authority).unwrap().pem());
            write(&format!("{name}-key.pem"), key.serialize_pem());
        }
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// A service that takes keys, and the holder of the client certificate.
    async fn service(&self) -> Service {
        std::fs::write(self.path("map"), "client acme").unwrap();
        Service::start_with(|data| {
            let clients = ClientCertificates::Optional(self.path("ca.pem"));
            let files = TlsFiles { certificate: self.path("server.pem"), key: self.path("server-key.pem"), clients };
            let authentication = Authentication::none().with_certificates(&self.path("map")).unwrap();
            Config {
                authentication: authentication.with_keys(&self.path("keys")).unwrap(),
                transport: Transport::Tls(Arc::new(Tls::open(files).unwrap())),
                ..Config::new(data)
            }
        })
        .await
    }

    fn new_key(&self) -> String {
        let key = KeyFile::at(&self.path("keys")).create("umbrella", "laptop", Scopes::of_tenant(), None).unwrap();
        secrecy::ExposeSecret::expose_secret(&key.secret).to_owned()
    }

    fn options(&self) -> ClientOptions {
        let tls = TlsOptions { authorities: Some(self.text("ca.pem").into_bytes()), certificate: None };
        ClientOptions { tls, ..ClientOptions::default() }
    }
}

#[tokio::test]
async fn a_key_and_a_certificate_each_tell_who_calls_over_tls() {
    let files = Certificates::new();
    let key = files.new_key();
    let service = files.service().await;
    let with_key = ClientOptions { api_key: Some(Secret::new(key)), ..files.options() };
    let client = Client::connect_with(&service.address, with_key).await.unwrap();
    assert_eq!(client.server_info().await.unwrap().tenant, "tenants/umbrella");
    let mut with_certificate = files.options();
    let certificate = files.text("client.pem").into_bytes();
    with_certificate.tls.certificate = Some(ClientCertificate { certificate, key: Secret::new(files.text("client-key.pem")) });
    let client = Client::connect_with(&service.address, with_certificate).await.unwrap();
    assert_eq!(client.server_info().await.unwrap().tenant, "tenants/acme");
    let client = Client::connect_with(&service.address, files.options()).await.unwrap();
    let ClientError::Refused(refusal) = client.server_info().await.unwrap_err() else { panic!("refused") };
    assert_eq!((refusal.kind, refusal.reason.as_str()), (RefusalKind::Denied, "UNAUTHENTICATED"));
    // Nobody of this system's authorities signed for the service.
    let error = Client::connect_with(&service.address, ClientOptions::default()).await.unwrap_err();
    assert!(matches!(error, ClientError::Unreachable { .. } | ClientError::Certificates { .. }), "{error}");
    service.stop().await;
}

fn zkinfer(server: &str, more: &[&str], environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zkinfer"));
    for name in ["ZKINFER_API_KEY", "ZKINFER_TOKEN", "ZKINFER_CA", "ZKINFER_CLIENT_CERT", "ZKINFER_CLIENT_KEY"] {
        command.env_remove(name);
    }
    // The model is not there: that the service says so, by the name of the caller's tenant, shows that it knows the caller.
    let estimate = ["estimate", "--json", "--model", "nobody", "--server", server];
    command.args(estimate).args(more).envs(environment.iter().copied()).output().unwrap()
}

fn ended(output: &Output) -> (Option<i32>, String, String) {
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |name: &str| json[name].as_str().unwrap_or_default().to_owned();
    (output.status.code(), text("reason"), text("message"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_takes_credentials_from_arguments_and_environment_and_keeps_its_exit_codes() {
    let files = Certificates::new();
    let key = files.new_key();
    let service = files.service().await;
    let server = service.address.clone();
    let path = |name: &str| files.path(name).to_str().unwrap().to_owned();
    let (ca, certificate, own_key, key_file) = (path("ca.pem"), path("client.pem"), path("client-key.pem"), path("key"));
    std::fs::write(Path::new(&key_file), format!("{key}\n")).unwrap();
    let run = |more: &[&str], environment: &[(&str, &str)]| ended(&zkinfer(&server, more, environment));

    for (more, environment, tenant) in [
        (vec!["--ca", &ca, "--token", &key], vec![], "tenants/umbrella"),
        (vec!["--ca", &ca, "--api-key-file", &key_file], vec![("ZKINFER_TOKEN", "wrong")], "tenants/umbrella"),
        (vec!["--ca", &ca], vec![("ZKINFER_API_KEY", key.as_str())], "tenants/umbrella"),
        (vec![], vec![("ZKINFER_TOKEN", key.as_str()), ("ZKINFER_CA", ca.as_str())], "tenants/umbrella"),
        (vec!["--ca", &ca, "--client-cert", &certificate, "--client-key", &own_key], vec![], "tenants/acme"),
    ] {
        let (code, reason, message) = run(&more, &environment);
        assert_eq!((code, reason.as_str()), (Some(5), "NOT_FOUND"), "{more:?}: {message}");
        assert!(message.contains(tenant), "{more:?}: {message}");
    }
    let (code, reason, _) = run(&["--ca", &ca], &[]);
    assert_eq!((code, reason.as_str()), (Some(5), "UNAUTHENTICATED"));
    let (code, reason, message) = run(&["--ca", &certificate, "--token", &key], &[]);
    assert_eq!((code, reason.as_str()), (Some(4), "UNREACHABLE"), "{message}");
    assert_eq!(run(&["--ca", "/does/not/exist"], &[]).0, Some(1));
    let usage = zkinfer(&server, &["--ca", &ca, "--client-cert", &certificate], &[]);
    assert_eq!(usage.status.code(), Some(2));
    service.stop().await;
}
