//! Sizes of what a request holds.

use prost::Message as _;
use tonic::{Code, Status};
use zkinfer_proto::v1;
use zkinfer_proto::v1::webhook_service_client::WebhookServiceClient;

use crate::harness::{Client, Service, chunks, config, expect_error, fields, job_request};

/// Asserts that a request is refused, and for which fields.
fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, expected: &[&str]) {
    let details = expect_error(&answer.unwrap_err(), Code::InvalidArgument, "INVALID_FIELDS");
    assert_eq!(fields(&details), expected);
}

fn begin(size_bytes: i64) -> v1::BeginUploadRequest {
    v1::BeginUploadRequest { size_bytes, blake3: vec![7; 32], ..Default::default() }
}

/// A script that does little, of so many bytes.
fn script(n_bytes: usize) -> String {
    format!("{:n_bytes$}", "steps=1")
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_chunks_and_inputs_in_requests_are_taken_up_to_their_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.message_bytes = 4096;
    config.limits.chunk_bytes = 1000;
    config.limits.inline_input_bytes = 900;
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let list = |message_bytes: usize| v1::ListJobsRequest { page_token: "f".repeat(message_bytes - 3), ..Default::default() };
    assert_eq!(list(4096).encoded_len(), 4096);
    refused(client.proofs.list_jobs(list(4096)).await, &["page_token"]);
    let status = client.proofs.list_jobs(list(4097)).await.unwrap_err();
    expect_error(&status, Code::ResourceExhausted, "MESSAGE_TOO_LARGE");

    let bytes = vec![9; 3000];
    let request = v1::BeginUploadRequest { blake3: blake3::hash(&bytes).as_bytes().to_vec(), ..begin(3000) };
    let upload = client.artifacts.begin_upload(request).await.unwrap().into_inner().upload;
    let mut messages = chunks(&upload, &bytes, 0, 1000);
    messages.truncate(1);
    messages.extend(chunks(&upload, &bytes, 1000, 1001).into_iter().take(1));
    refused(client.artifacts.write_chunks(tokio_stream::iter(messages)).await, &["data"]);
    let session = client.artifacts.get_upload(v1::GetUploadRequest { upload: upload.clone() }).await.unwrap().into_inner();
    assert_eq!(session.committed_bytes, 1000, "what came before stays");
    let rest = chunks(&upload, &bytes, 1000, 1000);
    let done = client.artifacts.write_chunks(tokio_stream::iter(rest)).await.unwrap().into_inner();
    let read = v1::ReadArtifactRequest { name: done.artifact.unwrap().name, ..Default::default() };
    let mut stream = client.artifacts.read_artifact(read).await.unwrap().into_inner();
    while let Some(chunk) = stream.message().await.unwrap() {
        assert_eq!(chunk.data.len(), 1000);
    }

    let model = client.ready_model("mlp").await.name;
    let job = client.create_job(&model, &script(900)).await.name;
    refused(client.proofs.create_job(job_request(&model, &script(901))).await, &["job.input.inline"]);
    assert_eq!(client.job_end(&job).await.state(), v1::job::State::Succeeded);
    service.stop().await;
}

/// A job whose input is an artifact.
fn job_over(model: &str, artifact: &str) -> v1::CreateJobRequest {
    let mut request = job_request(model, "");
    request.job.as_mut().unwrap().input.as_mut().unwrap().source = Some(v1::input::Source::Artifact(artifact.to_owned()));
    request
}

fn model(id: &str, source: &str, calibration: &str) -> v1::CreateModelRequest {
    let model = v1::Model { source_artifact: source.into(), calibration_artifact: calibration.into(), ..Default::default() };
    v1::CreateModelRequest { model_id: id.into(), model: Some(model), ..Default::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn artifacts_are_taken_up_to_the_size_of_what_they_are_used_for() {
    for (model_bytes, input_bytes) in [(100, 60), (60, 100)] {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        (config.limits.model_bytes, config.limits.input_bytes) = (model_bytes as u64, input_bytes as u64);
        let service = Service::start(config).await;
        let mut client = service.client().await;
        client.artifacts.begin_upload(begin(100)).await.unwrap();
        refused(client.artifacts.begin_upload(begin(101)).await, &["size_bytes"]);
        let [small, large] = [client.upload(script(60).as_bytes()).await, client.upload(script(61).as_bytes()).await];
        let ready = client.ready_model("mlp").await.name;
        client.models.create_model(model("small", &small, &small)).await.unwrap();
        client.proofs.create_job(job_over(&ready, &small)).await.unwrap();
        let (as_input, as_source) = (client.proofs.create_job(job_over(&ready, &large)).await, model("large", &large, ""));
        let as_calibration = client.models.create_model(model("calibrated", &small, &large)).await;
        let as_source = client.models.create_model(as_source).await;
        if input_bytes < model_bytes {
            as_source.unwrap();
            refused(as_input, &["job.input.artifact"]);
            refused(as_calibration, &["model.calibration_artifact"]);
        } else {
            refused(as_source, &["model.source_artifact"]);
            as_input.unwrap();
            as_calibration.unwrap();
        }
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_proofs_statements_and_keys_are_verified_up_to_their_size() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.proof_bytes = 100;
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let [small, large] = [client.upload(&[b'x'; 100]).await, client.upload(&[b'x'; 101]).await];
    use v1::verify_proof_request::{Proof, Statement, VerifierKey};
    let ask = |proof: &str, statement: &str, key: &str| v1::VerifyProofRequest {
        proof: Some(Proof::ProofArtifact(proof.into())),
        statement: Some(Statement::StatementArtifact(statement.into())),
        verifier_key: Some(VerifierKey::VerifierKeyArtifact(key.into())),
    };
    let answer = client.proofs.verify_proof(ask(&small, &small, &small)).await.unwrap().into_inner();
    assert_eq!((answer.valid, answer.reason.as_str()), (false, "STATEMENT_MALFORMED"), "it was looked at");
    refused(client.proofs.verify_proof(ask(&large, &small, &small)).await, &["proof_artifact"]);
    refused(client.proofs.verify_proof(ask(&small, &large, &small)).await, &["statement_artifact"]);
    refused(client.proofs.verify_proof(ask(&small, &small, &large)).await, &["verifier_key_artifact"]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_and_texts_are_taken_up_to_their_number_and_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.labels = 2;
    config.limits.label_key_bytes = 5;
    config.limits.label_value_bytes = 6;
    // As long as the media type and the reason that the harness gives.
    config.limits.text_bytes = 16;
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let name = client.ready_model("mlp").await.name;
    let labelled = |labels: &[(&str, &str)]| {
        let mut request = job_request(&name, "steps=1");
        request.job.as_mut().unwrap().labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        request
    };
    let job = client.proofs.create_job(labelled(&[("abcde", "123456"), ("b", "")])).await.unwrap().into_inner().name;
    refused(client.proofs.create_job(labelled(&[("a", ""), ("b", ""), ("c", "")])).await, &["job.labels"]);
    refused(client.proofs.create_job(labelled(&[("abcdef", "")])).await, &["job.labels"]);
    refused(client.proofs.create_job(labelled(&[("b", "1234567")])).await, &["job.labels[b]"]);
    let labels = ["a", "b", "c"].map(|key| (key.to_owned(), String::new())).into();
    refused(client.proofs.list_jobs(v1::ListJobsRequest { labels, ..Default::default() }).await, &["labels"]);

    let source = client.upload(b"steps=1").await;
    let named = |id: &str, n_bytes: usize| {
        let mut request = model(id, &source, "");
        request.model.as_mut().unwrap().display_name = "n".repeat(n_bytes);
        request
    };
    client.models.create_model(named("short", 16)).await.unwrap();
    refused(client.models.create_model(named("long", 17)).await, &["model.display_name"]);
    let typed = v1::BeginUploadRequest { media_type: "m".repeat(17), ..begin(1) };
    refused(client.artifacts.begin_upload(typed).await, &["media_type"]);
    let cancel = v1::CancelJobRequest { name: job.clone(), reason: "r".repeat(17) };
    refused(client.proofs.cancel_job(cancel).await, &["reason"]);
    client.cancel(&job).await;
    service.stop().await;
}

/// Jobs of the first page, if so many are asked for, and whether there are more.
async fn page(client: &mut Client, page_size: i32) -> (usize, bool) {
    let request = v1::ListJobsRequest { page_size, ..Default::default() };
    let page = client.proofs.list_jobs(request).await.unwrap().into_inner();
    (page.jobs.len(), !page.next_page_token.is_empty())
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_have_no_more_entries_than_they_may_whoever_says_how_many() {
    let folder = tempfile::tempdir().unwrap();
    for (page_size, default_page_size, expected) in [(2, 1, [1, 1, 2, 2]), (2, 50, [2, 1, 2, 2]), (50, 3, [3, 1, 2, 4])] {
        let mut config = config(folder.path());
        (config.limits.page_size, config.limits.default_page_size) = (page_size, default_page_size);
        let service = Service::start(config).await;
        let mut client = service.client().await;
        if page(&mut client, 1).await.0 == 0 {
            let model = client.ready_model("mlp").await.name;
            for _ in 0..4 {
                let job = client.create_job(&model, "steps=1").await.name;
                client.job_end(&job).await;
            }
        }
        for (asked, expected) in [0, 1, 2, 1000].into_iter().zip(expected) {
            assert_eq!(page(&mut client, asked).await, (expected, expected < 4), "{asked} of {page_size}, {default_page_size}");
        }
        drop(client);
        service.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn webhooks_are_taken_up_to_their_number_and_the_size_of_their_urls() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.webhooks_per_tenant = 2;
    config.limits.webhook_url_bytes = 3000;
    let service = Service::start(config).await;
    let client = service.client().await;
    let mut hooks = WebhookServiceClient::new(client.channel.clone());
    let create = |n_bytes: usize| {
        let url = format!("https://example.com/{}", "a".repeat(n_bytes - 20));
        v1::CreateWebhookRequest { url, ..Default::default() }
    };
    refused(hooks.create_webhook(create(3001)).await, &["url"]);
    let first = hooks.create_webhook(create(3000)).await.unwrap().into_inner().webhook.unwrap().name;
    hooks.create_webhook(create(30)).await.unwrap();
    let status = hooks.create_webhook(create(30)).await.unwrap_err();
    expect_error(&status, Code::ResourceExhausted, "QUOTA_EXCEEDED");
    hooks.delete_webhook(v1::DeleteWebhookRequest { name: first }).await.unwrap();
    hooks.create_webhook(create(30)).await.unwrap();
    service.stop().await;
}
