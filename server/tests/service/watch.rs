//! Streams of events: a snapshot first, no gap, to the end.

use std::time::Duration;

use tonic::Code;
use zkinfer_proto::v1;
use zkinfer_proto::v1::job_event::Detail;

use crate::harness::{Client, ENDLESS, Service, config, expect_error};

async fn watch(client: &mut Client, name: &str, from_sequence: i64) -> tonic::Streaming<v1::JobEvent> {
    let request = v1::WatchJobRequest { name: name.into(), from_sequence };
    client.proofs.watch_job(request).await.unwrap().into_inner()
}

/// All events but heartbeats; checks that the first is a snapshot and the rest follow without a gap.
pub(crate) async fn collect(mut stream: tonic::Streaming<v1::JobEvent>) -> Vec<v1::JobEvent> {
    let mut events: Vec<v1::JobEvent> = Vec::new();
    while let Some(event) = stream.message().await.unwrap() {
        match (&event.detail, events.last()) {
            (Some(Detail::Snapshot(_)), None) => {}
            (Some(Detail::Heartbeat(_)), Some(last)) => {
                assert_eq!(event.sequence, last.sequence);
                continue;
            }
            (_, Some(last)) => assert_eq!(event.sequence, last.sequence + 1),
            (_, None) => panic!("the first message is a snapshot"),
        }
        events.push(event);
    }
    events
}

#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_comes_first_then_every_event_until_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.heartbeat = Duration::from_millis(20);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let name = client.create_job(&model, "steps=8 ms=60").await.name;
    let events = collect(watch(&mut client, &name, 0).await).await;
    assert!(events.len() > 5);
    let fractions: Vec<f64> = events.iter().filter_map(|e| e.progress.as_ref()).map(|p| p.fraction).collect();
    assert!(fractions.is_sorted(), "{fractions:?}");
    let last = events.last().unwrap();
    assert_eq!(last.state(), v1::job::State::Succeeded);
    assert!(matches!(last.detail, Some(Detail::Result(_))));

    // From the start again, from the middle, and after the end.
    let all = collect(watch(&mut client, &name, 1).await).await;
    assert_eq!(all.first().unwrap().sequence, 0);
    assert_eq!(all.last().unwrap(), last);
    let middle = last.sequence - 2;
    let some = collect(watch(&mut client, &name, middle).await).await;
    assert_eq!(some.len(), 4);
    let none = collect(watch(&mut client, &name, last.sequence + 1).await).await;
    assert_eq!(none.len(), 1);
    let request = v1::WatchJobRequest { name, from_sequence: last.sequence + 2 };
    let status = client.proofs.watch_job(request).await.unwrap_err();
    expect_error(&status, Code::OutOfRange, "SEQUENCE_OUT_OF_RANGE");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_watcher_misses_nothing_and_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let model = client.ready_model("mlp").await.name;
    let name = client.create_job(&model, "steps=30 ms=30").await.name;
    // Not read while the job runs.
    let slow = watch(&mut client, &name, 1).await;
    let job = client.job_end(&name).await;
    assert_eq!(job.state(), v1::job::State::Succeeded);
    let events = collect(slow).await;
    assert_eq!(events.last().unwrap().sequence, job.last_sequence);
    assert_eq!(events.len() as i64, job.last_sequence + 1);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn watchers_are_counted_and_strangers_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.watchers = 1;
    config.limits.watch = Duration::from_secs(3);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let none = "tenants/default/jobs/01923c5e-7b1c-7d3a-9a55-0123456789ab";
    let request = v1::WatchJobRequest { name: none.into(), from_sequence: 0 };
    let status = client.proofs.watch_job(request).await.unwrap_err();
    expect_error(&status, Code::NotFound, "NOT_FOUND");
    let model = client.ready_model("mlp").await.name;
    let name = client.create_job(&model, ENDLESS).await.name;
    let mut first = watch(&mut client, &name, 0).await;
    let request = v1::WatchJobRequest { name: name.clone(), from_sequence: 0 };
    let status = client.proofs.watch_job(request.clone()).await.unwrap_err();
    expect_error(&status, Code::ResourceExhausted, "TOO_MANY_WATCHERS");
    // The stream ends by itself after its time, and its place is free again.
    while first.message().await.unwrap().is_some() {}
    client.proofs.watch_job(request).await.unwrap();
    client.cancel(&name).await;
    service.stop().await;
}
