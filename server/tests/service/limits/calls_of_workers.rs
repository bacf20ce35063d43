//! What a worker elsewhere may ask for, hold, and say.

use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Code, Status};
use zkinfer_proto::v1;
use zkinfer_proto::v1::worker_service_client::WorkerServiceClient;

use crate::harness::{Service, expect_error, fields};
use crate::workers::{any_socket, config_for_workers};

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, field: &str) {
    let details = expect_error(&answer.unwrap_err(), Code::InvalidArgument, "INVALID_FIELDS");
    assert_eq!(fields(&details), [field]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_tasks_in_vain_is_answered_within_the_time_of_a_call() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, address) = config_for_workers(folder.path(), any_socket(), Duration::from_secs(30));
    config.limits.unary = Duration::from_secs(3);
    let service = Service::start(config).await;
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut workers = WorkerServiceClient::new(channel);
    let session = workers.open_session(v1::OpenSessionRequest::default()).await.unwrap().into_inner().session;
    let ask = v1::LeaseTasksRequest { session, max_tasks: 1, ..Default::default() };
    assert!(workers.lease_tasks(ask).await.expect("no deadline passes").into_inner().tasks.is_empty());
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_texts_and_results_of_workers_are_taken_up_to_their_numbers_and_sizes() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, address) = config_for_workers(folder.path(), any_socket(), Duration::from_secs(30));
    config.limits.tasks_per_worker = 2;
    config.limits.task_artifact_bytes = 1000;
    // As long as a session's name.
    config.limits.worker_text_bytes = 36;
    config.limits.worker_entries = 2;
    let service = Service::start(config).await;
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut workers = WorkerServiceClient::new(channel);
    let open = |n_bytes: usize, n_devices: usize| v1::OpenSessionRequest {
        worker: "w".repeat(n_bytes),
        devices: vec!["d".repeat(n_bytes); n_devices],
    };
    refused(workers.open_session(open(37, 0)).await, "worker");
    refused(workers.open_session(open(1, 3)).await, "devices");
    let session = workers.open_session(open(36, 2)).await.unwrap().into_inner().session;

    // Something to lease, so that nobody waits.
    let mut client = service.client().await;
    client.create_model("mlp", "steps=1").await;
    let ask = |max_tasks: u32, n_models: usize| v1::LeaseTasksRequest {
        session: session.clone(),
        max_tasks,
        cached_models: vec![vec![1; 32]; n_models],
        ..Default::default()
    };
    refused(workers.lease_tasks(ask(3, 0)).await, "max_tasks");
    refused(workers.lease_tasks(ask(2, 3)).await, "cached_models");
    let tasks = workers.lease_tasks(ask(2, 2)).await.unwrap().into_inner().tasks;
    let lease = tasks.into_iter().next().unwrap().lease.unwrap();
    let renew =
        |n_held: usize| v1::RenewLeasesRequest { session: session.clone(), held: vec![lease.clone(); n_held], ..Default::default() };
    refused(workers.renew_leases(renew(3)).await, "held");
    workers.renew_leases(renew(2)).await.unwrap();

    let write = |n_bytes: usize| {
        tokio_stream::iter([v1::WriteTaskArtifactRequest {
            session: session.clone(),
            lease: Some(lease.clone()),
            class: v1::ArtifactClass::Internal as i32,
            size_bytes: n_bytes as u64,
            data: vec![1; n_bytes].into(),
            ..Default::default()
        }])
    };
    refused(workers.write_task_artifact(write(1001)).await, "size_bytes");
    workers.write_task_artifact(write(1000)).await.unwrap();
    drop((client, workers));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_given_to_as_many_workers_as_may_die_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, address) = config_for_workers(folder.path(), any_socket(), Duration::from_secs(30));
    config.limits.worker_deaths = 3;
    let service = Service::start(config).await;
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    let mut workers = WorkerServiceClient::new(channel);
    let mut client = service.client().await;
    let name = client.create_model("mlp", "steps=1").await.name;
    for n in 1..=3 {
        let session = workers.open_session(v1::OpenSessionRequest::default()).await.unwrap().into_inner().session;
        let ask = v1::LeaseTasksRequest { session: session.clone(), max_tasks: 1, ..Default::default() };
        assert_eq!(workers.lease_tasks(ask).await.unwrap().into_inner().tasks.len(), 1, "{n}");
        workers.close_session(v1::CloseSessionRequest { session, crashed: true, crash: None }).await.unwrap();
        let model = client.models.get_model(v1::GetModelRequest { name: name.clone() }).await.unwrap().into_inner();
        let reason = model.failure.map(|failure| failure.reason);
        assert_eq!(reason.as_deref(), (n == 3).then_some("POISONED"), "{n}");
    }
    drop((client, workers));
    service.stop().await;
}
