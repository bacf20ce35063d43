//! How many calls are served at a time.

use std::time::Duration;

use futures::future::select_all;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use zkinfer_proto::v1;
use zkinfer_proto::v1::worker_service_client::WorkerServiceClient;

use super::tenants::{Tenant, has_no_place, service_of_two};
use crate::harness::{Service, config, with_bearer};
use crate::workers::{any_socket, config_for_workers};

async fn check_health(channel: Channel) {
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await.unwrap();
    assert_eq!(answer.into_inner().status, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_counted_and_neither_streams_nor_health_checks_are_shut_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    // Its models stay as they are.
    config.workers = 0;
    (config.limits.calls, config.limits.calls_per_tenant) = (3, 2);
    let (service, [mut acme, mut rival]) = service_of_two(config).await;
    let model = acme.model().await;
    // Whoever has no place is answered first.
    let (refused, _, of_acme) = select_all((0..3).map(|_| acme.verifies("ms=3000"))).await;
    let status = refused.unwrap().unwrap_err();
    assert!(status.message().contains("calls_per_tenant"), "{status:?}");
    has_no_place(Err::<(), _>(status), "TOO_MANY_CALLS", "tenants/acme");
    let get = |tenant: &Tenant| with_bearer(v1::GetModelRequest { name: model.clone() }, &tenant.key);
    has_no_place(acme.client.models.get_model(get(&acme)).await, "TOO_MANY_CALLS", "tenants/acme");
    let (refused, _, of_rival) = select_all((0..2).map(|_| rival.verifies("ms=0"))).await;
    has_no_place(refused.unwrap(), "TOO_MANY_CALLS", "calls");
    has_no_place(rival.client.models.get_model(get(&rival)).await, "TOO_MANY_CALLS", "calls");
    // What has places of its own, and what asks whether the service lives.
    assert!(acme.watch(&model).await.unwrap().message().await.unwrap().is_some());
    check_health(acme.client.channel.clone()).await;
    for call in of_acme.into_iter().chain(of_rival) {
        assert!(call.await.unwrap().is_ok(), "who has a place is served");
    }
    acme.client.models.get_model(get(&acme)).await.expect("the places are free again");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_clients_shut_out_no_worker() {
    let folder = tempfile::tempdir().unwrap();
    let (mut config, address) = config_for_workers(folder.path(), any_socket(), Duration::from_secs(30));
    config.limits.calls = 1;
    let service = Service::start(config).await;
    // Where nobody is asked for a key, none is looked at.
    let client = Tenant { client: service.client().await, key: "none".into() };
    let (refused, _, held) = select_all((0..2).map(|_| client.verifies("ms=2000"))).await;
    has_no_place(refused.unwrap(), "TOO_MANY_CALLS", "calls");
    let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
    WorkerServiceClient::new(channel).open_session(v1::OpenSessionRequest::default()).await.expect("a worker is served");
    for call in held {
        assert!(call.await.unwrap().is_ok());
    }
    drop(client);
    service.stop().await;
}
