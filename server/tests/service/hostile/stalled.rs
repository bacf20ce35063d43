//! Clients that ask and do not read.

use std::time::Duration;

use prost::Message as _;
use tonic::Code;
use zkinfer_proto::v1;

use super::frames::{INITIAL_WINDOW_SIZE, Raw, call};
use super::{PATIENCE, ROOM, is_served, peak_bytes, peak_from_now};
use crate::crash::Process;
use crate::harness::{ENDLESS, Service, config, expect_error, job_request};

/// Identifiers of the streams of one connection, as many as it may have.
fn streams() -> impl Iterator<Item = u32> {
    (0..100).map(|index| 2 * index + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_that_never_read_hold_up_no_job_and_no_other_watcher() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), 3).await;
    let model = process.client.ready_model("mlp").await.name;
    let name = process.client.create_job(&model, "steps=400 ms=2").await.name;
    let before = peak_from_now(process.id());
    let message = v1::WatchJobRequest { name: name.clone(), from_sequence: 1 }.encode_to_vec();
    let mut stalled = Vec::new();
    for _ in 0..2 {
        let mut raw = Raw::connect(process.address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
        let calls: Vec<u8> = streams().flat_map(|stream| call(stream, "/zkinfer.v1.ProofService/WatchJob", &message)).collect();
        raw.send(&calls).await.unwrap();
        stalled.push(raw);
    }
    let request = v1::WatchJobRequest { name: name.clone(), from_sequence: 1 };
    let stream = process.client.proofs.watch_job(request).await.unwrap().into_inner();
    let events = tokio::time::timeout(PATIENCE, crate::watch::collect(stream)).await.expect("events come");
    assert_eq!(events.last().unwrap().state(), v1::job::State::Succeeded);
    is_served(&mut process.client).await;
    let growth = peak_bytes(process.id()).saturating_sub(before);
    assert!(growth < ROOM, "{growth} bytes more");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_that_is_watched_and_never_read_takes_its_place_no_longer_than_a_stream_may_last() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.watchers_per_tenant = 1;
    config.limits.heartbeat = Duration::from_millis(1);
    // It does not answer pings either, for which its connection would be closed.
    config.limits.keepalive_interval = Duration::from_secs(3600);
    // Long enough for more messages than are kept for a client.
    config.limits.watch = Duration::from_secs(6);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let create = v1::BatchCreateJobsRequest { requests: vec![job_request(&model, ENDLESS)], ..Default::default() };
    let created = client.proofs.batch_create_jobs(create).await.unwrap().into_inner();
    let watch = v1::WatchBatchRequest { name: created.batch };
    let mut raw = Raw::connect(service.address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
    raw.send(&call(1, "/zkinfer.v1.ProofService/WatchBatch", &watch.encode_to_vec())).await.unwrap();
    assert!(raw.has_answers(1).await);
    let status = client.proofs.watch_batch(watch.clone()).await.unwrap_err();
    expect_error(&status, Code::ResourceExhausted, "TOO_MANY_WATCHERS");
    let free = async {
        while client.proofs.watch_batch(watch.clone()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.expect("the place is free again");
    drop((raw, client));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_that_are_never_read_take_bounded_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut process = Process::start(folder.path(), 3).await;
    let name = process.client.upload(&vec![7; 8_000_000]).await;
    let before = peak_from_now(process.id());
    let message = v1::ReadArtifactRequest { name, ..Default::default() }.encode_to_vec();
    let mut stalled = Vec::new();
    for _ in 0..10 {
        let mut raw = Raw::connect(process.address, &[(INITIAL_WINDOW_SIZE, 0)]).await;
        let calls: Vec<u8> = streams().flat_map(|stream| call(stream, "/zkinfer.v1.ArtifactService/ReadArtifact", &message)).collect();
        raw.send(&calls).await.unwrap();
        stalled.push(raw);
    }
    for _ in 0..20 {
        is_served(&mut process.client).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // A thousand calls, of which as many are served at a time as may be.
    let growth = peak_bytes(process.id()).saturating_sub(before);
    assert!(growth < 4 * ROOM, "{growth} bytes more");
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_are_counted_and_a_stalled_one_loses_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.downloads = 1;
    config.limits.unary = Duration::from_secs(4);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let bytes = vec![7; 8_000_000];
    let name = client.upload(&bytes).await;
    // Answered, and then not read: on a connection of its own, whose window is soon full.
    let request = v1::ReadArtifactRequest { name: name.clone(), ..Default::default() };
    let stalled = service.client().await.artifacts.read_artifact(request).await.unwrap();
    let status = client.read(&name).await.unwrap_err();
    let details = expect_error(&status, Code::ResourceExhausted, "TOO_MANY_DOWNLOADS");
    assert!(details.retry_info().is_some() && details.quota_failure().is_some());
    let served = async {
        loop {
            match client.read(&name).await {
                Ok(read) => break read,
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    assert!(tokio::time::timeout(PATIENCE, served).await.expect("the place is free again") == bytes);
    drop(stalled);
    service.stop().await;
}
