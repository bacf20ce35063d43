//! Who may call what: keys, tenants, scopes, and addresses beyond loopback.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;

use tokio::net::TcpListener;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use zkinfer_proto::v1;
use zkinfer_proto::v1::system_service_client::SystemServiceClient;
use zkinfer_server::auth::{Authentication, KeyFile, Scopes};
use zkinfer_server::tls::Transport;
use zkinfer_server::{Config, Lacks, ServeError};

use crate::harness::{Service, config, expect_error, with_bearer};
use crate::scripted_prover::ScriptedProver;

/// A new key of `scopes` in the file at `path`.
fn new_key(path: &Path, tenant: &str, name: &str, scopes: &str) -> String {
    let key = KeyFile::at(path).create(tenant, name, Scopes::parse(scopes).unwrap(), None).unwrap();
    key.secret.expose_secret().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_nothing_is_answered_and_tenants_do_not_see_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    let path = folder.path().join("keys");
    let all = Scopes::of_tenant().to_string();
    let (acme, rival) = (new_key(&path, "acme", "laptop", &all), new_key(&path, "rival", "laptop", &all));
    config.authentication = Authentication::none().with_keys(&path).unwrap();
    let service = Service::start(config).await;
    let mut client = service.client().await;

    let list = v1::ListModelsRequest::default();
    let status = client.models.list_models(list.clone()).await.unwrap_err();
    expect_error(&status, Code::Unauthenticated, "UNAUTHENTICATED");
    let status = client.models.list_models(with_bearer(list.clone(), "zki_00")).await.unwrap_err();
    expect_error(&status, Code::Unauthenticated, "UNAUTHENTICATED");
    let watch = v1::WatchJobRequest { name: "x".into(), from_sequence: 0 };
    let status = client.proofs.watch_job(watch).await.unwrap_err();
    expect_error(&status, Code::Unauthenticated, "UNAUTHENTICATED");
    let mut health = HealthClient::new(client.channel.clone());
    health.check(HealthCheckRequest::default()).await.expect("probes have no key");

    let bytes = b"steps=1";
    let request =
        v1::BeginUploadRequest { size_bytes: bytes.len() as i64, blake3: blake3::hash(bytes).as_bytes().to_vec(), ..Default::default() };
    let session = client.artifacts.begin_upload(with_bearer(request, &acme)).await.unwrap();
    let upload = session.into_inner().upload;
    assert!(upload.starts_with("tenants/acme/"));
    let messages = crate::harness::chunks(&upload, bytes, 0, 100);
    let mut request = Request::new(tokio_stream::iter(messages.clone()));
    request.metadata_mut().insert("authorization", format!("Bearer {rival}").parse().unwrap());
    let status = client.artifacts.write_chunks(request).await.unwrap_err();
    expect_error(&status, Code::NotFound, "NOT_FOUND");
    let mut request = Request::new(tokio_stream::iter(messages));
    request.metadata_mut().insert("authorization", format!("Bearer {acme}").parse().unwrap());
    let artifact = client.artifacts.write_chunks(request).await.unwrap().into_inner().artifact;
    let name = artifact.unwrap().name;
    let request = v1::GetArtifactRequest { name: name.clone() };
    client.artifacts.get_artifact(with_bearer(request.clone(), &acme)).await.unwrap();
    let status = client.artifacts.get_artifact(with_bearer(request, &rival)).await.unwrap_err();
    expect_error(&status, Code::NotFound, "NOT_FOUND");
    let list = v1::ListModelsRequest { parent: "tenants/acme".into(), ..list };
    let status = client.models.list_models(with_bearer(list, &rival)).await.unwrap_err();
    expect_error(&status, Code::NotFound, "NOT_FOUND");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_what_its_scopes_say_and_the_refusal_names_the_scope() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let reader = new_key(&path, "acme", "reader", "models.read,jobs.read");
    let prober = new_key(&path, "acme", "prober", "");
    let mut config = config(folder.path());
    config.authentication = Authentication::none().with_keys(&path).unwrap();
    let service = Service::start(config).await;
    let mut client = service.client().await;
    client.models.list_models(with_bearer(v1::ListModelsRequest::default(), &reader)).await.unwrap();
    client.proofs.list_jobs(with_bearer(v1::ListJobsRequest::default(), &reader)).await.unwrap();
    let mut refused = Vec::new();
    let request = || v1::CreateModelRequest::default();
    refused.push((client.models.create_model(with_bearer(request(), &reader)).await.unwrap_err(), "models.write"));
    let request = || v1::CreateJobRequest::default();
    refused.push((client.proofs.create_job(with_bearer(request(), &reader)).await.unwrap_err(), "jobs.create"));
    let request = || v1::VerifyProofRequest::default();
    refused.push((client.proofs.verify_proof(with_bearer(request(), &reader)).await.unwrap_err(), "verify"));
    let request = || v1::GetArtifactRequest::default();
    refused.push((client.artifacts.get_artifact(with_bearer(request(), &reader)).await.unwrap_err(), "artifacts.read"));
    let request = || v1::BeginUploadRequest::default();
    refused.push((client.artifacts.begin_upload(with_bearer(request(), &reader)).await.unwrap_err(), "artifacts.write"));
    let request = || v1::ListModelsRequest::default();
    refused.push((client.models.list_models(with_bearer(request(), &prober)).await.unwrap_err(), "models.read"));
    let request = || v1::WatchJobRequest::default();
    refused.push((client.proofs.watch_job(with_bearer(request(), &prober)).await.unwrap_err(), "jobs.read"));
    for (status, scope) in refused {
        let details = expect_error(&status, Code::PermissionDenied, "SCOPE_MISSING");
        assert_eq!(details.error_info().unwrap().metadata["scope"], scope);
    }
    let mut system = SystemServiceClient::new(client.channel.clone());
    let info = system.get_server_info(with_bearer(v1::GetServerInfoRequest {}, &prober)).await.unwrap().into_inner();
    assert_eq!(info.tenant, "tenants/acme");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_made_and_revoked_while_the_service_runs_count_soon_and_wrong_files_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    let first = new_key(&path, "acme", "first", "jobs.read");
    let mut config = config(folder.path());
    config.authentication = Authentication::none().with_keys(&path).unwrap();
    let service = Service::start(config).await;
    let client = service.client().await;
    let may_call = async |key: &str| {
        let request = with_bearer(v1::ListJobsRequest::default(), key);
        match client.proofs.clone().list_jobs(request).await {
            Ok(_) => true,
            Err(status) => {
                expect_error(&status, Code::Unauthenticated, "UNAUTHENTICATED");
                false
            }
        }
    };
    let becomes = async |key: &str, expected: bool| {
        let wait = async {
            while may_call(key).await != expected {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), wait).await.expect("the service notices");
    };
    assert!(may_call(&first).await);
    let second = new_key(&path, "acme", "second", "jobs.read");
    becomes(&second, true).await;
    KeyFile::at(&path).revoke("acme/first").unwrap();
    becomes(&first, false).await;
    let right = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, "nonsense").unwrap();
    // A file that is right again is noticed, so the wrong one before it was looked at or is gone.
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(may_call(&second).await && !may_call(&first).await);
    std::fs::write(&path, format!("{right}# again\n")).unwrap();
    let third = new_key(&path, "acme", "third", "jobs.read");
    becomes(&third, true).await;
    service.stop().await;
}

#[tokio::test]
async fn refuses_to_listen_for_everybody_without_authentication_or_without_tls() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    new_key(&path, "acme", "laptop", "verify");
    let keys = Authentication::none().with_keys(&path).unwrap();
    let run = async |authentication: &Authentication, transport: Transport| {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let config = Config { authentication: authentication.clone(), transport, ..config(folder.path()) };
        zkinfer_server::run(config, Arc::new(ScriptedProver::default()), listener, std::future::ready(())).await
    };
    let lacks = async |authentication: &Authentication, transport: Transport| match run(authentication, transport).await {
        Err(error @ ServeError::Unprotected { lacks, .. }) => {
            let text = error.to_string();
            assert_eq!(
                (text.contains("--keys"), text.contains("--tls-cert")),
                (lacks != Lacks::Tls, lacks != Lacks::Authentication),
                "{text}"
            );
            lacks
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(lacks(&Authentication::none(), Transport::Plaintext).await, Lacks::Both);
    assert_eq!(lacks(&Authentication::none(), Transport::PlaintextBehindProxy).await, Lacks::Authentication);
    assert_eq!(lacks(&keys, Transport::Plaintext).await, Lacks::Tls);
    assert!(run(&keys, Transport::PlaintextBehindProxy).await.is_ok());
}
