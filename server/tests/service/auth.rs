//! Who may call: keys, tenants, and addresses beyond loopback.

use std::sync::Arc;

use tokio::net::TcpListener;
use tonic::{Code, Request};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use zkinfer_proto::v1;
use zkinfer_server::ServeError;
use zkinfer_server::auth::{ApiKeys, Authentication, generate_key};

use crate::harness::{Service, config, expect_error};
use crate::scripted_prover::ScriptedProver;

fn with_key<T>(message: T, key: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {key}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_key_nothing_is_answered_and_tenants_do_not_see_each_other() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    let (acme, acme_line) = generate_key("acme", "laptop").unwrap();
    let (rival, rival_line) = generate_key("rival", "laptop").unwrap();
    let keys = ApiKeys::parse(&format!("{acme_line}\n{rival_line}")).unwrap();
    config.authentication = Authentication::ApiKeys(keys);
    let service = Service::start(config).await;
    let mut client = service.client().await;

    let list = v1::ListModelsRequest::default();
    let status = client.models.list_models(list.clone()).await.unwrap_err();
    expect_error(&status, Code::Unauthenticated, "UNAUTHENTICATED");
    let status = client.models.list_models(with_key(list.clone(), "zki_00")).await.unwrap_err();
    expect_error(&status, Code::Unauthenticated, "UNAUTHENTICATED");
    let watch = v1::WatchJobRequest { name: "x".into(), from_sequence: 0 };
    let status = client.proofs.watch_job(watch).await.unwrap_err();
    expect_error(&status, Code::Unauthenticated, "UNAUTHENTICATED");
    let mut health = HealthClient::new(client.channel.clone());
    health.check(HealthCheckRequest::default()).await.expect("probes have no key");

    let bytes = b"steps=1";
    let request =
        v1::BeginUploadRequest { size_bytes: bytes.len() as i64, blake3: blake3::hash(bytes).as_bytes().to_vec(), ..Default::default() };
    let session = client.artifacts.begin_upload(with_key(request, &acme)).await.unwrap();
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
    client.artifacts.get_artifact(with_key(request.clone(), &acme)).await.unwrap();
    let status = client.artifacts.get_artifact(with_key(request, &rival)).await.unwrap_err();
    expect_error(&status, Code::NotFound, "NOT_FOUND");
    let list = v1::ListModelsRequest { parent: "tenants/acme".into(), ..list };
    let status = client.models.list_models(with_key(list, &rival)).await.unwrap_err();
    expect_error(&status, Code::NotFound, "NOT_FOUND");
    service.stop().await;
}

#[tokio::test]
async fn refuses_to_listen_for_everybody_without_keys() {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let prover = Arc::new(ScriptedProver::default());
    let ended = zkinfer_server::run(config(folder.path()), prover, listener, std::future::pending()).await;
    assert!(matches!(ended, Err(ServeError::Unprotected { .. })));
}
