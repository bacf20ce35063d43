//! The end of a service: what runs, what waits, and who watches.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use zkinfer_proto::v1;
use zkinfer_server::engine::sql::SqlEngine;
use zkinfer_server::limits::Limits;
use zkinfer_server::{Config, Ended};

use crate::harness::{Client, Service, chunks, config, expect_error, job_request};

#[tokio::test(flavor = "multi_thread")]
async fn a_draining_service_finishes_what_runs_admits_nothing_and_keeps_what_waits() {
    let folder = tempfile::tempdir().unwrap();
    let mut service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let running = client.create_job(&model, "steps=10 ms=50").await.name;
    let waiting = client.create_job(&model, "steps=1").await.name;
    client.job_runs(&running).await;
    service.begin_stop();
    let status = loop {
        match client.proofs.create_job(job_request(&model, "steps=1")).await {
            Ok(_) => tokio::time::sleep(Duration::from_millis(5)).await,
            Err(status) => break status,
        }
    };
    let details = expect_error(&status, Code::Unavailable, "DRAINING");
    assert!(details.retry_info().is_some());
    assert_eq!(client.job_end(&running).await.state(), v1::job::State::Succeeded);
    drop(client);
    assert_eq!(service.ended().await, Ended::Drained);

    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    assert_eq!(client.job_end(&waiting).await.state(), v1::job::State::Succeeded);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_job_is_given_back_without_losing_an_attempt_and_watchers_are_told_to_resume() {
    let folder = tempfile::tempdir().unwrap();
    let mut short = config(folder.path());
    short.drain = Duration::from_millis(100);
    let mut service = Service::start(short).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let name = client.create_job(&model, "steps=60 ms=20").await.name;
    client.job_runs(&name).await;
    let request = v1::WatchJobRequest { name: name.clone(), from_sequence: 0 };
    let mut stream = client.proofs.watch_job(request).await.unwrap().into_inner();
    service.begin_stop();
    let mut last = 0;
    let status = loop {
        match stream.message().await {
            Ok(Some(event)) => last = event.sequence,
            Ok(None) => panic!("the stream ends with a hint"),
            Err(status) => break status,
        }
    };
    expect_error(&status, Code::Unavailable, "DRAINING");
    drop((client, stream));
    assert_eq!(service.ended().await, Ended::Drained);

    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let request = v1::WatchJobRequest { name: name.clone(), from_sequence: last + 1 };
    let stream = client.proofs.watch_job(request).await.unwrap().into_inner();
    let events = crate::watch::collect(stream).await;
    assert_eq!(events[1].sequence, last + 1);
    let job = client.get_job(&name).await;
    assert_eq!(job.state(), v1::job::State::Succeeded);
    assert_eq!(job.progress.unwrap().attempt, 1);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_does_not_listen_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.drain = Duration::from_millis(50);
    config.drain_grace = Duration::from_millis(200);
    let mut service = Service::start(config).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let name = client.create_job(&model, "steps=1 ms=1500 deaf").await.name;
    client.job_runs(&name).await;
    drop(client);
    service.begin_stop();
    let ended = tokio::time::timeout(Duration::from_secs(1), service.ended()).await;
    assert_eq!(ended.expect("ends by its deadline"), Ended::Forced);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_taken_after_readiness_went_off_until_those_who_send_them_have_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.drain_pause = Duration::from_secs(2);
    let mut service = Service::start(config).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let mut health = HealthClient::new(client.channel.clone());
    service.begin_stop();
    while health.check(HealthCheckRequest::default()).await.unwrap().into_inner().status() == ServingStatus::Serving {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // By another connection too.
    let late = service.client().await.create_job(&model, "steps=1").await.name;
    assert_eq!(client.job_end(&late).await.state(), v1::job::State::Succeeded);
    drop((client, health));
    assert_eq!(service.ended().await, Ended::Drained);
}

/// While it sweeps, and is asked in every way: calls and streams are cut off at its end, wherever they are.
#[tokio::test(flavor = "multi_thread")]
async fn the_folder_is_free_for_another_service_as_soon_as_one_has_ended() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.job_retention = Some(Duration::from_secs(60));
    let service = Service::start(config.clone()).await;
    let model = service.client().await.ready_model("mlp").await.name;
    assert_eq!(service.stop().await, Ended::Drained);
    let mut asking = tokio::task::JoinSet::new();
    for round in 0..40u64 {
        let service = Service::start(config.clone()).await;
        let mut client = service.client().await;
        let job = client.create_job(&model, "steps=3 ms=5").await.name;
        for _ in 0..4 {
            let (mut lists, mut watches, job) = (client.clone(), client.clone(), job.clone());
            asking.spawn(async move { while lists.proofs.list_jobs(v1::ListJobsRequest::default()).await.is_ok() {} });
            asking.spawn(async move {
                let watch = || v1::WatchJobRequest { name: job.clone(), from_sequence: 0 };
                while let Ok(stream) = watches.proofs.watch_job(watch()).await {
                    let mut stream = stream.into_inner();
                    while let Ok(Some(_)) = stream.message().await {}
                }
            });
        }
        drop(client);
        // In the middle of different things.
        tokio::time::sleep(Duration::from_millis(round % 20)).await;
        service.stop().await;
        let again = SqlEngine::open_sqlite(folder.path(), &Limits::default()).await;
        again.unwrap_or_else(|error| panic!("round {round}: {error}")).close().await;
    }
    while asking.join_next().await.is_some() {}
}

/// A service without workers while an upload is on its way: when this answers, the service has told who watches to go elsewhere.
struct Uploading {
    service: Service,
    rest: Vec<v1::WriteChunksRequest>,
    sender: mpsc::Sender<v1::WriteChunksRequest>,
    written: tokio::task::JoinHandle<Result<Response<v1::UploadSession>, Status>>,
}

async fn drain_while_uploading(mut config: Config) -> Uploading {
    config.workers = 0;
    let uploads = config.data_dir.join("uploads");
    let mut service = Service::start(config).await;
    let mut client = service.client().await;
    // Nobody registers it, so that it is watched for as long as the service likes.
    let name = client.create_model("mlp", "steps=1").await.name;
    let mut watching = client.models.watch_model(v1::WatchModelRequest { name, from_sequence: 0 }).await.unwrap().into_inner();
    let bytes = [7; 3000];
    let request = v1::BeginUploadRequest { size_bytes: 3000, blake3: blake3::hash(&bytes).as_bytes().to_vec(), ..Default::default() };
    let upload = client.artifacts.begin_upload(request).await.unwrap().into_inner().upload;
    let mut rest = chunks(&upload, &bytes, 0, 1000);
    let (sender, receiver) = mpsc::channel(rest.len());
    let Client { mut artifacts, .. } = client;
    let written = tokio::spawn(async move { artifacts.write_chunks(ReceiverStream::new(receiver)).await });
    sender.send(rest.remove(0)).await.unwrap();
    let file = uploads.join(upload.rsplit('/').next().unwrap());
    // Its stream is known to the service.
    while !file.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    service.begin_stop();
    let status = loop {
        match watching.message().await {
            Ok(event) => assert!(event.is_some(), "the stream ends with a hint"),
            Err(status) => break status,
        }
    };
    expect_error(&status, Code::Unavailable, "DRAINING");
    Uploading { service, rest, sender, written }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_may_finish_while_a_service_without_workers_drains() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.drain = Duration::from_secs(60);
    let Uploading { service, rest, sender, written } = drain_while_uploading(config).await;
    for chunk in rest {
        sender.send(chunk).await.unwrap();
    }
    drop(sender);
    assert!(written.await.unwrap().unwrap().into_inner().complete);
    assert_eq!(service.ended().await, Ended::Drained);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_takes_longer_is_told_to_go_on_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.drain = Duration::from_millis(50);
    let Uploading { service, rest: _, sender, written } = drain_while_uploading(config).await;
    let status = written.await.unwrap().unwrap_err();
    expect_error(&status, Code::Unavailable, "DRAINING");
    drop(sender);
    assert_eq!(service.ended().await, Ended::Drained);
}
