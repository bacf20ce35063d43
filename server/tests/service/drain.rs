//! The end of a service: what runs, what waits, and who watches.

use std::time::Duration;

use tonic::Code;
use zkinfer_proto::v1;
use zkinfer_server::Ended;

use crate::harness::{Service, config, expect_error, job_request};

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
