//! Times: how long something is waited for, kept, or tried again.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio_stream::StreamExt as _;
use tonic::Code;
use tonic::transport::Channel;
use zkinfer_proto::v1;
use zkinfer_proto::v1::job::State;

use super::PATIENCE;
use crate::deletion::by_hand;
use crate::harness::{Client, ENDLESS, Service, chunks, config, expect_error};

async fn begin(client: &mut Client, bytes: &[u8]) -> String {
    let blake3 = blake3::hash(bytes).as_bytes().to_vec();
    let request = v1::BeginUploadRequest { size_bytes: bytes.len() as i64, blake3, ..Default::default() };
    client.artifacts.begin_upload(request).await.unwrap().into_inner().upload
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_falls_silent_ends_and_keeps_what_came() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.upload_idle = Duration::from_secs(1);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let bytes = vec![3; 2000];
    let upload = begin(&mut client, &bytes).await;
    let first = chunks(&upload, &bytes, 0, 1000).into_iter().take(1);
    let silent = client.artifacts.write_chunks(tokio_stream::iter(first).chain(tokio_stream::pending()));
    let status = tokio::time::timeout(PATIENCE, silent).await.expect("it ends").unwrap_err();
    expect_error(&status, Code::DeadlineExceeded, "DEADLINE_EXCEEDED");
    let session = client.artifacts.get_upload(v1::GetUploadRequest { upload: upload.clone() }).await.unwrap().into_inner();
    assert_eq!(session.committed_bytes, 1000);
    let rest = chunks(&upload, &bytes, 1000, 1000);
    assert!(client.artifacts.write_chunks(tokio_stream::iter(rest)).await.unwrap().into_inner().complete);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_is_as_long_as_it_may_be_and_no_call_is_ended_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    // Longer than another call may take.
    config.limits.unary = Duration::from_secs(2);
    config.limits.wait = Duration::from_secs(4);
    config.limits.default_wait = Duration::from_millis(500);
    let (wait, default_wait) = (config.limits.wait, config.limits.default_wait);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let name = client.create_job(&model, ENDLESS).await.name;
    for (timeout, expected) in [(Some(prost_types::Duration { seconds: 3600, nanos: 0 }), wait..PATIENCE), (None, default_wait..wait)] {
        let request = v1::WaitJobRequest { name: name.clone(), timeout };
        let asked = Instant::now();
        let answer = tokio::time::timeout(PATIENCE, client.proofs.wait_job(request)).await.expect("is answered");
        assert!(matches!(answer.unwrap().into_inner().state(), State::Queued | State::Running));
        let waited = asked.elapsed();
        assert!(expected.contains(&waited), "{timeout:?}: it waited for {waited:?}");
    }
    client.cancel(&name).await;
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_news_gives_signs_of_life() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    // The model stays as it is.
    config.workers = 0;
    config.limits.heartbeat = Duration::from_millis(100);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let name = client.create_model("mlp", "steps=1").await.name;
    let mut stream = client.models.watch_model(v1::WatchModelRequest { name, from_sequence: 0 }).await.unwrap().into_inner();
    let mut details = Vec::new();
    for _ in 0..2 {
        let event = tokio::time::timeout(PATIENCE, stream.message()).await.expect("something comes").unwrap().unwrap();
        details.push(event.detail.unwrap());
    }
    use v1::model_event::Detail;
    assert!(matches!(details[..], [Detail::Snapshot(_), Detail::Heartbeat(_)]), "{details:?}");
    drop(stream);
    service.stop().await;
}

/// A service over the data of one that has stopped, as soon as nothing of that one holds them any more.
async fn start_again(folder: &Path) -> (Service, Client) {
    let started = async {
        loop {
            let service = Service::start(config(folder)).await;
            let channel = Channel::from_shared(format!("http://{}", service.address)).unwrap().connect_lazy();
            let mut client = Client::over(channel);
            if client.proofs.list_jobs(v1::ListJobsRequest::default()).await.is_ok() {
                break (service, client);
            }
        }
    };
    tokio::time::timeout(PATIENCE, started).await.expect("it starts")
}

#[tokio::test(flavor = "multi_thread")]
async fn request_ids_and_unfinished_uploads_are_kept_for_their_time_and_then_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let upload = begin(&mut client, &[3; 2000]).await;
    let part = chunks(&upload, &[3; 2000], 0, 1000).into_iter().take(1);
    client.artifacts.write_chunks(tokio_stream::iter(part)).await.unwrap();
    let file = folder.path().join("uploads").join(upload.rsplit('/').next().unwrap());
    let source_artifact = client.upload(b"steps=1").await;
    let request_id = uuid::Uuid::new_v4().to_string();
    let create = |model_id: &str| v1::CreateModelRequest {
        model_id: model_id.into(),
        model: Some(v1::Model { source_artifact: source_artifact.clone(), ..Default::default() }),
        request_id: request_id.clone(),
        ..Default::default()
    };
    client.models.create_model(create("first")).await.unwrap();
    drop(client);
    service.stop().await;

    let grow_older = async |hours: i64| {
        let by_ms = hours * 3_600_000;
        for table in ["uploads", "idempotency"] {
            by_hand(folder.path(), &format!("UPDATE {table} SET created_ms = created_ms - {by_ms}")).await;
        }
    };
    grow_older(23).await;
    let (service, mut client) = start_again(folder.path()).await;
    let status = client.models.create_model(create("second")).await.unwrap_err();
    expect_error(&status, Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED");
    let get = v1::GetUploadRequest { upload };
    assert_eq!(client.artifacts.get_upload(get.clone()).await.unwrap().into_inner().committed_bytes, 1000);
    assert!(file.exists());
    drop(client);
    service.stop().await;

    grow_older(2).await;
    let (service, mut client) = start_again(folder.path()).await;
    let gone = async {
        while file.exists() || client.artifacts.get_upload(get.clone()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("it is forgotten");
    let status = client.artifacts.get_upload(get).await.unwrap_err();
    expect_error(&status, Code::NotFound, "NOT_FOUND");
    client.models.create_model(create("second")).await.expect("the request id is forgotten");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_attempted_as_often_as_it_may_be() {
    let folder = tempfile::tempdir().unwrap();
    let mut few = config(folder.path());
    few.limits.attempts = 2;
    let service = Service::start(few).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let job = client.create_job(&model, "steps=1 device").await.name;
    let failure = client.job_end(&job).await.failure.unwrap();
    assert_eq!((failure.reason.as_str(), failure.attempts), ("DEVICE_LOST", 2));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_runs_for_too_long_fails_and_others_succeed() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.task = Duration::from_secs(1);
    config.limits.lease = Duration::from_secs(3);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let long = client.create_job(&model, ENDLESS).await.name;
    let short = client.create_job(&model, "steps=1").await.name;
    let ended = async {
        loop {
            let job = client.job_end(&long).await;
            if let Some(failure) = job.failure {
                break failure;
            }
        }
    };
    let failure = tokio::time::timeout(PATIENCE, ended).await.expect("it fails");
    assert_eq!(failure.reason, "TASK_TIMEOUT", "{failure:?}");
    assert_eq!(client.job_end(&short).await.state(), State::Succeeded);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_takes_less_than_it_may_is_one_task() {
    // Nine steps of half a minute each.
    for (seconds, n_tasks) in [(270, 9), (271, 1)] {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(folder.path());
        config.limits.fuse_below = Duration::from_secs(seconds);
        let service = Service::start(config).await;
        let mut client = service.client().await;
        let model = client.create_model("split", "steps=1 layers=3").await.name;
        assert_eq!(client.model_end(&model).await.state(), v1::model::State::Ready);
        let name = client.create_job(&model, "steps=1").await.name;
        assert_eq!(client.job_end(&name).await.state(), State::Succeeded);
        let tasks = client.proofs.list_job_tasks(v1::ListJobTasksRequest { name }).await.unwrap().into_inner().tasks;
        assert_eq!(tasks.len(), n_tasks, "{seconds}");
        service.stop().await;
    }
}
