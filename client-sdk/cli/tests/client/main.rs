//! The client library against the real service, over real TCP, also through connections that break.

mod batches;
mod cut;
mod deletion;
#[path = "../../../../server/tests/service/faulty_store.rs"]
mod faulty_store;
mod jobs;
mod listing;
#[path = "../../../../server/tests/service/scripted_prover.rs"]
#[allow(dead_code, reason = "the tests of the service use the rest")]
mod scripted_prover;
mod service;
mod tls;
mod uploads;
mod webhooks;

use std::sync::Arc;
use std::time::Duration;

use cut::CuttingProxy;
use faulty_store::{Fault, FaultyStore};
use object_store::local::LocalFileSystem;
use service::Service;
use zkinfer_client::proto::model::State;
use zkinfer_client::{
    Client, ClientError, ClientOptions, JobRequest, MAX_DOCUMENT_BYTES, MediaType, ModelRequest, RefusalKind, RetryPolicy, UploadSource,
};
use zkinfer_server::Config;
use zkinfer_server::artifacts::ArtifactPlace;

fn options() -> ClientOptions {
    let (first_wait, longest_wait) = (Duration::from_millis(10), Duration::from_millis(100));
    // The service asks for 2 s where its store does not answer.
    let retry = RetryPolicy { attempts: 8, first_wait, longest_wait, budget: Duration::from_secs(3) };
    ClientOptions { retry, ..ClientOptions::default() }
}

/// Bytes without pattern, the same in each run.
fn noise(n_bytes: usize) -> Vec<u8> {
    let mut state = 1u32;
    let step = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(step).take(n_bytes).collect()
}

fn refusal(error: ClientError) -> zkinfer_client::Refusal {
    match error {
        ClientError::Refused(refusal) => refusal,
        other => panic!("{other}"),
    }
}

/// What the command does, asked for JSON.
async fn command(service: &Service, arguments: &[&str]) -> (Option<i32>, serde_json::Value) {
    let arguments = [arguments, &["--json", "--server", &service.address]].concat();
    let arguments: Vec<String> = arguments.into_iter().map(str::to_owned).collect();
    let run = || std::process::Command::new(env!("CARGO_BIN_EXE_zkinfer")).args(arguments).env_remove("ZKINFER_API_KEY").output();
    let done = tokio::task::spawn_blocking(run).await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    (done.status.code(), serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}")))
}

#[tokio::test]
async fn uploads_from_memory_and_from_a_file_are_one_artifact_and_come_back() {
    let service = Service::start().await;
    let client = Client::connect_with(&service.address, options()).await.unwrap();
    let bytes = noise(1_300_001);
    let path = service.folder().join("upload");
    std::fs::write(&path, &bytes).unwrap();
    let from_file = client.upload(&UploadSource::from(path.as_path()), MediaType::OctetStream).await.unwrap();
    let from_memory = client.upload(&UploadSource::from(bytes.clone()), MediaType::OctetStream).await.unwrap();
    assert_eq!(from_file.name, from_memory.name);
    let artifact = client.artifact(&from_file.name).await.unwrap();
    assert_eq!((artifact.size_bytes, artifact.name), (1_300_001, from_file.name.clone()));
    assert_eq!(client.download(&from_file.name, MAX_DOCUMENT_BYTES).await.unwrap(), bytes);
    let error = client.download(&from_file.name, 1_300_000).await.unwrap_err();
    assert!(matches!(error, ClientError::TooLarge { limit: 1_300_000, .. }), "{error}");
    service.stop().await;
}

#[tokio::test]
async fn transfers_go_on_where_a_connection_broke() {
    let service = Service::start().await;
    // Three connections break after 700 kB each, in either direction.
    let proxy = CuttingProxy::start(&service.address, vec![700_000; 3]).await;
    let client = Client::connect_with(&proxy.address, options()).await.unwrap();
    let bytes = noise(1_500_000);
    let artifact = client.upload(&UploadSource::from(bytes.clone()), MediaType::OctetStream).await.unwrap();
    assert_eq!(client.download(&artifact.name, MAX_DOCUMENT_BYTES).await.unwrap(), bytes);
    assert!(proxy.connections() > 3, "the proxy cut nothing");
    service.stop().await;
}

#[tokio::test]
async fn an_upload_goes_on_by_itself_when_the_store_works_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = FaultyStore::around(LocalFileSystem::new_with_prefix(folder.path()).unwrap());
    let place = ArtifactPlace::Store(Arc::new(store.clone()));
    let service = Service::start_with(|data| Config { artifacts: place, ..Config::new(data) }).await;
    let client = Client::connect_with(&service.address, options()).await.unwrap();
    // The store is probed at the start: it must have been.
    client.server_info().await.unwrap();
    store.set(Some(Fault::Full));
    let full = refusal(client.upload(&UploadSource::from(noise(1_000_000)), MediaType::OctetStream).await.unwrap_err());
    assert_eq!((full.reason.as_str(), full.retry_after), ("STORAGE_FULL", Some(Duration::from_secs(30))), "longer than this client waits");
    for fault in [Fault::Silent, Fault::AnswerLost, Fault::Torn] {
        let bytes = noise(1_000_000 + fault as usize);
        store.set(Some(fault));
        let mend = async {
            tokio::time::sleep(Duration::from_millis(150)).await;
            store.set(None);
        };
        let source = UploadSource::from(bytes.clone());
        let (artifact, ()) = tokio::join!(client.upload(&source, MediaType::OctetStream), mend);
        assert_eq!(client.download(&artifact.unwrap().name, MAX_DOCUMENT_BYTES).await.unwrap(), bytes, "{fault:?}");
    }
    store.set(None);
    let artifact = client.upload(&UploadSource::from(noise(5000)), MediaType::OctetStream).await.unwrap();
    for fault in [Fault::FlippedBit, Fault::Short] {
        store.set(Some(fault));
        let error = client.download(&artifact.name, MAX_DOCUMENT_BYTES).await.unwrap_err();
        assert_eq!(refusal(error).reason, "STORED_BYTES_DAMAGED", "{fault:?}");
    }
    store.set(Some(Fault::Silent));
    let error = client.upload(&UploadSource::from(noise(77)), MediaType::OctetStream).await.unwrap_err();
    assert_eq!(refusal(error).reason, "STORAGE_UNAVAILABLE", "it gives up in the end");
    service.stop().await;
}

#[tokio::test]
async fn refusals_name_their_reason_and_their_fields() {
    let service = Service::start().await;
    let client = Client::connect_with(&service.address, options()).await.unwrap();
    let missing = refusal(client.model("tenants/default/models/nobody").await.unwrap_err());
    assert_eq!((missing.kind, missing.reason.as_str()), (RefusalKind::NotFound, "NOT_FOUND"));
    assert!(!missing.request_id.is_empty());
    let wrong = refusal(client.create_model(&ModelRequest::new("No Id", "tenants/default/artifacts/x")).await.unwrap_err());
    assert_eq!(wrong.kind, RefusalKind::Invalid);
    let fields: Vec<&str> = wrong.fields.iter().map(|problem| problem.field.as_str()).collect();
    assert!(fields.contains(&"model_id") && fields.contains(&"model.source_artifact"), "{fields:?}");
    let job = JobRequest::npy("tenants/default/models/nobody", vec![0; 8]);
    assert_eq!(refusal(client.create_job(&job).await.unwrap_err()).kind, RefusalKind::NotFound);
    service.stop().await;
}

#[tokio::test]
async fn a_failed_registration_ends_with_its_reason() {
    let service = Service::start().await;
    let client = Client::connect_with(&service.address, options()).await.unwrap();
    let source = client.upload(&UploadSource::from(noise(1000)), MediaType::Onnx).await.unwrap();
    let model = client.create_model(&ModelRequest::new("noise", source.name)).await.unwrap();
    let mut sequences = Vec::new();
    let error = client.finish_model(&model.name, |event| sequences.push(event.sequence)).await.unwrap_err();
    let ClientError::Ended { failure: Some(failure), state, .. } = error else { panic!("{error}") };
    assert_eq!((failure.reason.as_str(), state), ("MODEL_INVALID", State::Failed.as_str_name()));
    assert!(sequences.windows(2).all(|pair| pair[1] == pair[0] + 1), "{sequences:?}");
    service.stop().await;
}

#[tokio::test]
async fn a_service_that_is_gone_is_unavailable() {
    let service = Service::start().await;
    let client = Client::connect_with(&service.address, options()).await.unwrap();
    client.server_info().await.unwrap();
    service.stop().await;
    let error = client.server_info().await.unwrap_err();
    assert!(error.is_unavailable(), "{error}");
}
