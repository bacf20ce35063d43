//! More connections and more calls than a client may have.

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tonic::Code;
use zkinfer_proto::v1;

use super::{PATIENCE, is_served};
use crate::harness::{Service, config, expect_error};

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_too_many_is_closed_and_its_place_is_free_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.connections = 5;
    let service = Service::start(config).await;
    let mut client = service.client().await;
    is_served(&mut client).await;
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(TcpStream::connect(service.address).await.unwrap());
    }
    // Accepted in order: those above hold the places.
    let mut refused = TcpStream::connect(service.address).await.unwrap();
    let closed = tokio::time::timeout(PATIENCE, refused.read(&mut [0; 16])).await.expect("is closed");
    assert!(matches!(closed, Ok(0) | Err(_)), "{closed:?}");
    is_served(&mut client).await;
    drop(idle);
    // The service sees later that they are gone; who comes before that is closed as above.
    let served = async { while service.client().await.proofs.list_jobs(v1::ListJobsRequest::default()).await.is_err() {} };
    tokio::time::timeout(PATIENCE, served).await.expect("a place is free");
    drop(client);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn creations_beyond_the_rate_are_refused_and_reads_are_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.creates_per_second = 1;
    config.limits.creates_burst = 10;
    let service = Service::start(config).await;
    let mut client = service.client().await;
    let begin = |number: u8| v1::BeginUploadRequest { size_bytes: 1, blake3: vec![number; 32], ..Default::default() };
    let mut taken = 0;
    let status = loop {
        match client.artifacts.begin_upload(begin(taken)).await {
            Ok(_) => taken += 1,
            Err(status) => break status,
        }
    };
    // One a second may have come on top, on a slow machine.
    assert!((10..=20).contains(&taken), "{taken}");
    let details = expect_error(&status, Code::ResourceExhausted, "RATE_LIMITED");
    let wait = details.retry_info().and_then(|retry| retry.retry_delay).expect("when to try again");
    assert!(!wait.is_zero() && wait.as_secs() <= 1);
    assert_eq!(details.quota_failure().unwrap().violations[0].subject, "tenants/default");
    for _ in 0..30 {
        is_served(&mut client).await;
    }
    tokio::time::sleep(wait).await;
    client.artifacts.begin_upload(begin(99)).await.expect("the bucket fills again");
    service.stop().await;
}
