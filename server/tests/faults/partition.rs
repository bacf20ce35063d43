//! A network between worker and server that falls apart.

use std::time::Duration;

use zkinfer_proto::v1;

use crate::harness::{Client, Service};
use crate::proxy::Proxy;
use crate::workers::{LEASE, config_for_workers, worker};

/// Outcomes of the attempts at a job's one task, with the worker of each.
async fn attempts(client: &mut Client, job: &str) -> Vec<(String, String)> {
    let request = v1::ListJobTasksRequest { name: job.into() };
    let tasks = client.proofs.list_job_tasks(request).await.unwrap().into_inner().tasks;
    assert_eq!(tasks.len(), 1);
    tasks[0].attempts.iter().map(|attempt| (attempt.worker.clone(), attempt.outcome.clone())).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(worker, outcome)| ((*worker).to_owned(), (*outcome).to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_worker_behind_a_cut_finishes_too_late_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (config, address) = config_for_workers(folder.path());
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let network = Proxy::start(address).await;
    let _far = worker(network.address, "far");
    let model = client.ready_model("mlp").await.name;
    // It does not look whether it is still wanted, and so finishes behind the cut.
    let job = client.create_job(&model, "steps=30 ms=20 deaf").await.name;
    client.job_runs(&job).await;
    network.cut();
    let near = worker(address, "near");
    let done = client.job_end(&job).await;
    assert_eq!(done.state(), v1::job::State::Succeeded, "{:?}", done.failure);
    assert_eq!(attempts(&mut client, &job).await, pairs(&[("far", "LOST"), ("near", "DONE")]));
    assert!(near.drain(Duration::from_secs(10), Duration::from_secs(5)).await);
    network.heal();
    // The one that was cut off is the only worker now: it comes back, and does the next job.
    let next = client.create_job(&model, "steps=2 ms=20").await.name;
    assert_eq!(client.job_end(&next).await.state(), v1::job::State::Succeeded);
    let after = client.get_job(&job).await;
    assert_eq!((after.result, after.last_sequence), (done.result, done.last_sequence));
    assert_eq!(attempts(&mut client, &job).await, pairs(&[("far", "LOST"), ("near", "DONE")]));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_shorter_than_a_lease_costs_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (config, address) = config_for_workers(folder.path());
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let network = Proxy::start(address).await;
    let _far = worker(network.address, "far");
    let model = client.ready_model("mlp").await.name;
    let job = client.create_job(&model, "steps=60 ms=20").await.name;
    client.job_runs(&job).await;
    network.cut();
    tokio::time::sleep(LEASE / 4).await;
    network.heal();
    let done = client.job_end(&job).await;
    assert_eq!(done.state(), v1::job::State::Succeeded, "{:?}", done.failure);
    assert_eq!(attempts(&mut client, &job).await, pairs(&[("far", "DONE")]));
    service.stop().await;
}
