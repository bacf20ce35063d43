//! An input that ends every process that proves it.

use std::net::SocketAddr;

use serde_json::Value;
use zkinfer_proto::v1;
use zkinfer_server::observe::{Exposure, HttpPort};

use crate::children::Kept;
use crate::harness::Service;
use crate::scripted_prover::LAST_WORDS;
use crate::workers::config_for_workers;

/// A job as operators see it.
async fn shown(http: SocketAddr, job: &str) -> Value {
    let id = job.rsplit('/').next().unwrap();
    let answer = reqwest::get(format!("http://{http}/dashboard/api/jobs/default/{id}")).await.unwrap();
    serde_json::from_str(&answer.text().await.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_its_workers_is_given_up_after_two_and_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, address) = config_for_workers(folder.path());
    assert_eq!(config.limits.worker_deaths, 2);
    let port = HttpPort::bind("127.0.0.1:0".parse().unwrap(), Exposure::Loopback).unwrap();
    let http = port.address();
    config.http = Some(port);
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let kept = Kept::start(address, &[]);
    let model = client.ready_model("mlp").await.name;
    let poisoned = client.create_job(&model, "steps=1 ms=5 abort").await.name;
    let mut others = Vec::new();
    for i in 0..4 {
        others.push(client.create_job(&model, &format!("steps=1 ms={i}")).await.name);
    }
    let ended = client.job_end(&poisoned).await;
    assert_eq!(ended.state(), v1::job::State::Failed);
    let failure = ended.failure.clone().unwrap();
    assert_eq!((failure.reason.as_str(), failure.retryable), ("POISONED", false));
    assert!(ended.result.is_none());
    for other in &others {
        let other = client.job_end(other).await;
        assert_eq!(other.state(), v1::job::State::Succeeded, "{:?}", other.failure);
    }
    assert_eq!(kept.n_starts(), 3, "two died");
    // Operators are shown what the dead wrote last, the tenant is not.
    let attempts = shown(http, &poisoned).await["tasks"][0]["attempts"].clone();
    let told = |attempt: &Value| attempt["last_words"].as_str().unwrap().contains(LAST_WORDS);
    assert!(attempts.as_array().unwrap().iter().any(told), "{attempts}");
    let tasks = client.proofs.list_job_tasks(v1::ListJobTasksRequest { name: poisoned.clone() }).await.unwrap().into_inner();
    assert!(!format!("{ended:?} {tasks:?}").contains(LAST_WORDS));
    kept.end().await;
    service.stop().await;
}
