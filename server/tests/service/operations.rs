//! Batches, tasks, webhooks and what operators see, over the wire.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tonic::Code;
use zkinfer_proto::v1;
use zkinfer_proto::v1::admin_service_client::AdminServiceClient;
use zkinfer_proto::v1::webhook_service_client::WebhookServiceClient;
use zkinfer_server::Config;
use zkinfer_server::artifacts::ArtifactKeys;

use crate::harness::{ENDLESS, Service, config, expect_error, fields, job_request};

fn batch_request(model: &str, scripts: &[&str]) -> v1::BatchCreateJobsRequest {
    v1::BatchCreateJobsRequest { requests: scripts.iter().map(|script| job_request(model, script)).collect(), ..Default::default() }
}

#[tokio::test]
async fn a_batch_is_watched_to_its_end_and_tells_each_end_once() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let model = client.ready_model("net").await.name;
    let request = batch_request(&model, &["steps=1", "steps=2 ms=300", "reject"]);
    let created = client.proofs.batch_create_jobs(request).await.unwrap().into_inner();
    assert!(created.jobs.iter().all(|job| job.batch == created.batch));
    let watch = v1::WatchBatchRequest { name: created.batch.clone() };
    let mut stream = client.proofs.watch_batch(watch).await.unwrap().into_inner();
    let (mut ended, mut last) = (Vec::new(), v1::Batch::default());
    while let Some(event) = stream.message().await.unwrap() {
        ended.extend(event.ended);
        last = event.batch.unwrap();
    }
    assert_eq!((last.total, last.succeeded, last.failed), (3, 2, 1));
    let mut names: Vec<String> = created.jobs.iter().map(|job| job.name.clone()).collect();
    names.sort();
    ended.sort();
    assert_eq!(ended, names);
    let of_batch = v1::ListJobsRequest { batch: created.batch.clone(), ..Default::default() };
    assert_eq!(client.proofs.list_jobs(of_batch).await.unwrap().into_inner().jobs.len(), 3);
    let get = v1::GetBatchRequest { name: created.batch };
    assert_eq!(client.proofs.get_batch(get).await.unwrap().into_inner(), last);
    let other = v1::GetBatchRequest { name: format!("tenants/other/batches/{}", uuid::Uuid::new_v4()) };
    expect_error(&client.proofs.get_batch(other).await.unwrap_err(), Code::NotFound, "NOT_FOUND");
    service.stop().await;
}

#[tokio::test]
async fn the_tasks_of_a_job_are_told_with_their_attempts() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let model = client.ready_model("net").await.name;
    let job = client.create_job(&model, "steps=1").await.name;
    client.job_end(&job).await;
    let request = v1::ListJobTasksRequest { name: job };
    let tasks = client.proofs.list_job_tasks(request).await.unwrap().into_inner().tasks;
    let last = tasks.last().unwrap();
    assert_eq!((last.state.as_str(), last.attempts.len()), ("DONE", 1));
    assert_eq!(last.attempts[0].outcome, "DONE");
    assert!(last.attempts[0].end_time.is_some());
    service.stop().await;
}

#[tokio::test]
async fn webhooks_are_made_listed_and_deleted_and_reach_nothing_within() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let client = service.client().await;
    let mut hooks = WebhookServiceClient::new(client.channel.clone());
    let create = |url: &str| v1::CreateWebhookRequest { url: url.into(), ..Default::default() };
    for url in ["http://example.com/", "https://127.0.0.1/", "https://user@example.com/", "nonsense"] {
        let error = hooks.create_webhook(create(url)).await.unwrap_err();
        assert_eq!(fields(&expect_error(&error, Code::InvalidArgument, "INVALID_FIELDS")), ["url"], "{url}");
    }
    let made = hooks.create_webhook(create("https://example.com/hook")).await.unwrap().into_inner();
    assert!(made.secret.starts_with("whsec_"));
    let name = made.webhook.unwrap().name;
    let list = hooks.list_webhooks(v1::ListWebhooksRequest::default()).await.unwrap().into_inner();
    assert_eq!(list.webhooks.iter().map(|hook| &hook.name).collect::<Vec<_>>(), [&name]);
    let second = hooks.create_webhook(create("https://example.com/other")).await.unwrap().into_inner().webhook.unwrap().name;
    let mut page = v1::ListWebhooksRequest { page_size: 1, ..Default::default() };
    for (expected, is_last) in [(&name, false), (&second, true)] {
        let list = hooks.list_webhooks(page.clone()).await.unwrap().into_inner();
        assert_eq!(list.webhooks.iter().map(|hook| &hook.name).collect::<Vec<_>>(), [expected]);
        assert_eq!(list.next_page_token.is_empty(), is_last);
        page.page_token = list.next_page_token;
    }
    let wrong = v1::ListWebhooksRequest { page_size: -1, page_token: "nonsense".into(), ..Default::default() };
    let details = expect_error(&hooks.list_webhooks(wrong).await.unwrap_err(), Code::InvalidArgument, "INVALID_FIELDS");
    assert_eq!(fields(&details), ["page_size", "page_token"]);
    hooks.delete_webhook(v1::DeleteWebhookRequest { name: name.clone() }).await.unwrap();
    let again = hooks.delete_webhook(v1::DeleteWebhookRequest { name }).await.unwrap_err();
    expect_error(&again, Code::NotFound, "NOT_FOUND");
    service.stop().await;
}

#[tokio::test]
async fn webhooks_at_ports_that_nothing_is_sent_to_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.webhook_ports = vec![443, 8443];
    let service = Service::start(config).await;
    let mut hooks = WebhookServiceClient::new(service.client().await.channel);
    let create = |url: &str| v1::CreateWebhookRequest { url: url.into(), ..Default::default() };
    for url in ["https://example.com/hook", "https://example.com:8443/hook"] {
        hooks.create_webhook(create(url)).await.unwrap();
    }
    let error = hooks.create_webhook(create("https://example.com:8444/hook")).await.unwrap_err();
    assert_eq!(fields(&expect_error(&error, Code::InvalidArgument, "INVALID_FIELDS")), ["url"]);
    drop(hooks);
    service.stop().await;
}

/// Whether a file below the folder holds these bytes.
fn is_on_disk(folder: &Path, bytes: &[u8]) -> bool {
    std::fs::read_dir(folder).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => is_on_disk(&path, bytes),
            false => std::fs::read(&path).unwrap().windows(bytes.len()).any(|window| window == bytes),
        }
    })
}

fn artifact_keys(folder: &Path) -> ArtifactKeys {
    let path = folder.join("keys");
    std::fs::write(&path, blake3::hash(b"a key of artifacts").to_hex().as_str()).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    ArtifactKeys::read(&path).unwrap()
}

#[tokio::test]
async fn the_secret_of_a_webhook_is_on_disk_as_it_is_only_without_a_key() {
    let folder = tempfile::tempdir().unwrap();
    for (name, keys, is_clear) in [("clear", None, true), ("sealed", Some(artifact_keys(folder.path())), false)] {
        let data = folder.path().join(name);
        let service = Service::start(Config { artifact_keys: keys, ..config(&data) }).await;
        let client = service.client().await;
        let request = v1::CreateWebhookRequest { url: "https://example.com/hook".into(), ..Default::default() };
        let made = WebhookServiceClient::new(client.channel.clone()).create_webhook(request).await.unwrap().into_inner();
        let text = made.secret.strip_prefix("whsec_").unwrap();
        let secret = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, text).unwrap();
        assert_eq!(is_on_disk(&data, &secret), is_clear, "{name}");
        drop(client);
        service.stop().await;
        assert_eq!(is_on_disk(&data, &secret), is_clear, "{name}, at the end");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_salt_of_an_input_is_on_disk_as_it_is_only_without_a_key() {
    let folder = tempfile::tempdir().unwrap();
    for (name, keys, is_clear) in [("clear", None, true), ("sealed", Some(artifact_keys(folder.path())), false)] {
        let data = folder.path().join(name);
        let service = Service::start(Config { artifact_keys: keys, ..config(&data) }).await;
        let mut client = service.client().await;
        let model = client.ready_model("mlp").await.name;
        let salt = *blake3::hash(name.as_bytes()).as_bytes();
        let mut request = job_request(&model, ENDLESS);
        request.input_salt = salt.to_vec();
        request.job.as_mut().unwrap().privacy = v1::Privacy::InputCommitted.into();
        let job = client.proofs.create_job(request).await.unwrap().into_inner().name;
        client.job_runs(&job).await;
        assert_eq!(is_on_disk(&data, &salt), is_clear, "{name}, while it runs");
        client.cancel(&job).await;
        drop(client);
        service.stop().await;
        // What was erased may still lie where the database has not written again.
        assert!(is_clear || !is_on_disk(&data, &salt), "{name}, at the end");
    }
}

#[tokio::test]
async fn operators_see_workers_and_the_queue_and_set_quotas() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let client = service.client().await;
    let mut admin = AdminServiceClient::new(client.channel.clone());
    // The service's own worker opens its session beside the start.
    let mut workers = Vec::new();
    while workers.is_empty() {
        workers = admin.list_workers(v1::ListWorkersRequest {}).await.unwrap().into_inner().workers;
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(workers.len(), 1);
    let cordon = v1::CordonWorkerRequest { session: "missing".into(), cordoned: true };
    expect_error(&admin.cordon_worker(cordon).await.unwrap_err(), Code::NotFound, "NOT_FOUND");
    assert_eq!(admin.get_queue(v1::GetQueueRequest {}).await.unwrap().into_inner(), v1::Queue::default());
    let quota = v1::Quota { tenant: "tenants/acme".into(), share_milli: 2000, max_queued: 5, max_running: 1, paused: false };
    let set = admin.set_quota(v1::SetQuotaRequest { quota: Some(quota.clone()) }).await.unwrap().into_inner();
    assert_eq!(set, quota);
    let wrong = v1::Quota { tenant: "acme".into(), share_milli: -1, max_queued: -1, ..Default::default() };
    let error = admin.set_quota(v1::SetQuotaRequest { quota: Some(wrong) }).await.unwrap_err();
    let named = expect_error(&error, Code::InvalidArgument, "INVALID_FIELDS");
    assert_eq!(fields(&named), ["quota.tenant", "quota.share_milli", "quota.max_queued"]);
    service.stop().await;
}
