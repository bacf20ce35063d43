//! A store of artifacts that fails: callers are told what helps, nothing is lost, and all goes on when it works again.

use std::sync::Arc;

use object_store::local::LocalFileSystem;
use tonic::Code;
use zkinfer_proto::v1;
use zkinfer_server::Config;
use zkinfer_server::artifacts::ArtifactPlace;

use crate::faulty_store::{ENDPOINT, Fault, FaultyStore};
use crate::harness::{Client, Service, chunks, config, expect_error, job_request};

/// Above what is written in parts, and below.
const SIZES: [usize; 2] = [9_000_000, 30_000];

fn content(length: usize) -> Vec<u8> {
    (0..length).map(|i| (i * i % 241) as u8).collect()
}

/// A configuration whose artifacts are in a store that can be made to fail.
fn faulty(folder: &std::path::Path) -> (Config, FaultyStore) {
    let artifacts = folder.join("store");
    std::fs::create_dir_all(&artifacts).unwrap();
    let store = FaultyStore::around(LocalFileSystem::new_with_prefix(artifacts).unwrap());
    (Config { artifacts: ArtifactPlace::Store(Arc::new(store.clone())), ..config(folder) }, store)
}

async fn begin(client: &mut Client, bytes: &[u8]) -> String {
    let request =
        v1::BeginUploadRequest { size_bytes: bytes.len() as i64, blake3: blake3::hash(bytes).as_bytes().to_vec(), ..Default::default() };
    client.artifacts.begin_upload(request).await.unwrap().into_inner().upload
}

/// Asks for an upload that has all its bytes to be published.
async fn finish(client: &mut Client, upload: &str, length: usize) -> Result<v1::UploadSession, tonic::Status> {
    let message = v1::WriteChunksRequest { upload: upload.into(), write_offset: length as i64, ..Default::default() };
    Ok(client.artifacts.write_chunks(tokio_stream::iter([message])).await?.into_inner())
}

async fn an_upload_survives(fault: Fault, code: Code, reason: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (config, store) = faulty(folder.path());
    let service = Service::start(config).await;
    let mut client = service.client().await;
    for length in SIZES {
        let bytes = content(length);
        let upload = begin(&mut client, &bytes).await;
        store.set(Some(fault));
        let messages = chunks(&upload, &bytes, 0, 1 << 20);
        let status = client.artifacts.write_chunks(tokio_stream::iter(messages)).await.unwrap_err();
        let details = expect_error(&status, code, reason);
        assert!(details.retry_info().is_some_and(|retry| retry.retry_delay.is_some()), "{fault:?}");
        assert_eq!(details.quota_failure().is_some(), code == Code::ResourceExhausted);
        let again = finish(&mut client, &upload, length).await;
        store.set(None);

        // Not one byte has to be sent again.
        let request = v1::GetUploadRequest { upload: upload.clone() };
        let session = client.artifacts.get_upload(request).await.unwrap().into_inner();
        assert_eq!(session.committed_bytes, length as i64);
        assert_eq!(session.complete, again.is_ok(), "{fault:?}");
        let session = finish(&mut client, &upload, length).await.unwrap();
        let artifact = session.artifact.unwrap();
        assert!(client.read(&artifact.name).await.unwrap() == bytes, "{fault:?}, {length} bytes");
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_survives_a_full_store() {
    an_upload_survives(Fault::Full, Code::ResourceExhausted, "STORAGE_FULL").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_survives_a_store_that_does_not_answer() {
    an_upload_survives(Fault::Silent, Code::Unavailable, "STORAGE_UNAVAILABLE").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_survives_a_write_whose_answer_is_lost() {
    an_upload_survives(Fault::AnswerLost, Code::Unavailable, "STORAGE_UNAVAILABLE").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_survives_a_torn_write() {
    an_upload_survives(Fault::Torn, Code::Unavailable, "STORAGE_UNAVAILABLE").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_bits_and_short_reads_are_data_loss_until_the_store_reads_right_again() {
    let folder = tempfile::tempdir().unwrap();
    let (config, store) = faulty(folder.path());
    let service = Service::start(config).await;
    let mut client = service.client().await;
    for length in SIZES {
        let bytes = content(length);
        let name = client.upload(&bytes).await;
        for fault in [Fault::FlippedBit, Fault::Short] {
            store.set(Some(fault));
            let request = v1::ReadArtifactRequest { name: name.clone(), ..Default::default() };
            // Not one byte is sent: the call itself fails.
            let status = client.artifacts.read_artifact(request).await.unwrap_err();
            let details = expect_error(&status, Code::DataLoss, "STORED_BYTES_DAMAGED");
            assert_eq!(details.resource_info().unwrap().resource_name, name);
            store.set(None);
            assert!(client.read(&name).await.unwrap() == bytes, "{fault:?}");
        }
        store.set(Some(Fault::Silent));
        let status = client.read(&name).await.unwrap_err();
        expect_error(&status, Code::Unavailable, "STORAGE_UNAVAILABLE");
        store.set(None);
        assert!(client.read(&name).await.unwrap() == bytes);
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_whose_input_cannot_be_stored_is_not_admitted_and_may_be_sent_again() {
    let folder = tempfile::tempdir().unwrap();
    let (config, store) = faulty(folder.path());
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let request_id = uuid::Uuid::new_v4().to_string();
    let request = v1::CreateJobRequest { request_id, ..job_request(&model, "steps=2") };
    for (fault, code) in [
        (Fault::Full, Code::ResourceExhausted),
        (Fault::Silent, Code::Unavailable),
        (Fault::AnswerLost, Code::Unavailable),
        (Fault::Torn, Code::Unavailable),
    ] {
        store.set(Some(fault));
        let status = client.proofs.create_job(request.clone()).await.unwrap_err();
        assert_eq!(status.code(), code, "{fault:?}");
        let jobs = client.proofs.list_jobs(v1::ListJobsRequest::default()).await.unwrap().into_inner().jobs;
        assert!(jobs.is_empty(), "{fault:?}");
    }
    store.set(None);
    let job = client.proofs.create_job(request).await.unwrap().into_inner();
    assert_eq!(client.job_end(&job.name).await.state(), v1::job::State::Succeeded);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_proof_that_cannot_be_stored_is_made_again_until_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, store) = faulty(folder.path());
    config.limits.attempts = 20;
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let job = client.create_job(&model, "steps=3 ms=100").await;
    client.job_runs(&job.name).await;
    store.set(Some(Fault::Full));
    // The job goes on while the store is full: it is not final, and has no result.
    let request = v1::WaitJobRequest { name: job.name.clone(), timeout: Some(prost_types::Duration { seconds: 0, nanos: 300_000_000 }) };
    let waiting = client.proofs.wait_job(request).await.unwrap().into_inner();
    assert!(waiting.result.is_none() && waiting.failure.is_none(), "{waiting:?}");
    store.set(None);
    let job = client.job_end(&job.name).await;
    assert_eq!(job.state(), v1::job::State::Succeeded, "{:?}", job.failure);
    assert_eq!(client.read(&job.result.unwrap().proof_artifact).await.unwrap().len(), 32);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_tenant_is_told_where_the_store_is() {
    let folder = tempfile::tempdir().unwrap();
    let (config, store) = faulty(folder.path());
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let input = client.upload(b"steps=1").await;
    let mut request = job_request(&model, "");
    request.job.as_mut().unwrap().input.as_mut().unwrap().source = Some(v1::input::Source::Artifact(input.clone()));
    store.set(Some(Fault::Silent));
    let name = client.proofs.create_job(request).await.unwrap().into_inner().name;
    let watch = v1::WatchJobRequest { name: name.clone(), from_sequence: 1 };
    let events = crate::watch::collect(client.proofs.watch_job(watch).await.unwrap().into_inner()).await;
    let job = client.get_job(&name).await;
    let failure = job.failure.clone().unwrap();
    assert_eq!(failure.reason, "STORAGE", "{failure:?}");
    assert!(failure.message.contains("error id"), "{failure:?}");
    let tasks = client.proofs.list_job_tasks(v1::ListJobTasksRequest { name }).await.unwrap().into_inner();
    let status = client.read(&input).await.unwrap_err();
    let refused = client.proofs.create_job(job_request(&model, "steps=2")).await.unwrap_err();
    let model = client.create_model_of(&input, "other").await;
    let told = format!("{events:?} {job:?} {tasks:?} {status:?} {refused:?} {model:?}");
    for secret in [ENDPOINT, "store.internal", "a-bucket", "sending request", &*folder.path().to_string_lossy()] {
        assert!(!told.contains(secret), "{secret} in {told}");
    }
    store.set(None);
    service.stop().await;
}
