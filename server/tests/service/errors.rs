//! Errors with details, on every path into the service.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use zkinfer_proto::v1;
use zkinfer_proto::v1::system_service_client::SystemServiceClient;
use zkinfer_server::limits::Limits;

use crate::harness::{Service, config, expect_error, job_request};

#[tokio::test(flavor = "multi_thread")]
async fn an_oversized_message_is_refused_with_details() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let mut client = service.client().await;
    let mut request = job_request("tenants/default/models/a", "");
    let bytes = vec![0; 5 << 20];
    request.job.as_mut().unwrap().input.as_mut().unwrap().source = Some(v1::input::Source::Inline(bytes.clone()));
    let status = client.proofs.create_job(request).await.unwrap_err();
    let details = expect_error(&status, Code::ResourceExhausted, "MESSAGE_TOO_LARGE");
    assert!(details.quota_failure().is_some());

    let message = v1::WriteChunksRequest { data: bytes.into(), ..Default::default() };
    let status = client.artifacts.write_chunks(tokio_stream::iter([message])).await.unwrap_err();
    expect_error(&status, Code::ResourceExhausted, "MESSAGE_TOO_LARGE");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_method_and_garbage_are_refused_with_details() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let client = service.client().await;
    let mut grpc = tonic::client::Grpc::new(client.channel.clone());
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<v1::GetJobRequest, v1::Job>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/zkinfer.v1.ProofService/No");
    let request = tonic::Request::new(v1::GetJobRequest::default());
    let status = grpc.unary(request, path, codec).await.unwrap_err();
    expect_error(&status, Code::Unimplemented, "UNIMPLEMENTED");

    // Field 1 of GetJobRequest is a string; here it holds bytes that are no UTF-8.
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<v1::Artifact, v1::Job>::default();
    let path = tonic::codegen::http::uri::PathAndQuery::from_static("/zkinfer.v1.ProofService/WatchJob");
    let garbage = v1::Artifact { size_bytes: 7, blake3: vec![0xff; 3], ..Default::default() };
    let status = grpc.unary(tonic::Request::new(garbage), path, codec).await.unwrap_err();
    expect_error(&status, Code::InvalidArgument, "INVALID_FIELDS");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_reflection_and_server_information_answer() {
    let folder = tempfile::tempdir().unwrap();
    let service = Service::start(config(folder.path())).await;
    let client = service.client().await;
    let mut health = HealthClient::new(client.channel.clone());
    for name in ["", "live", "ready"] {
        let request = HealthCheckRequest { service: name.into() };
        assert_eq!(health.check(request).await.unwrap().into_inner().status, 1, "{name}");
    }
    let mut reflection = ServerReflectionClient::new(client.channel.clone());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(MessageRequest::ListServices(String::new())) };
    let stream = reflection.server_reflection_info(tokio_stream::iter([request])).await.unwrap();
    let answer = stream.into_inner().message().await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(list)) = answer.message_response else {
        panic!("a list of services");
    };
    let names: Vec<&str> = list.service.iter().map(|s| s.name.as_str()).collect();
    for name in ["ModelService", "ArtifactService", "ProofService", "SystemService"] {
        assert!(names.contains(&format!("zkinfer.v1.{name}").as_str()), "{names:?}");
    }
    let mut system = SystemServiceClient::new(client.channel.clone());
    let info = system.get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
    assert_eq!((info.backend.as_str(), info.tenant.as_str()), ("scripted", "tenants/default"));
    assert_eq!(info.limits.unwrap().max_chunk_bytes, 1 << 20);
    service.stop().await;
}

/// Each limit is a number of its own, and so are those that clients are told.
#[tokio::test(flavor = "multi_thread")]
async fn clients_are_told_the_limits_that_they_can_keep_to() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    let seconds = Duration::from_secs;
    config.limits = Limits {
        message_bytes: 1 << 21,
        chunk_bytes: 1001,
        model_bytes: 1002,
        input_bytes: 1003,
        inline_input_bytes: 1004,
        page_size: 1005,
        labels: 1006,
        queued_per_tenant: 1007,
        batch_jobs: 1008,
        creates_burst: 1020,
        label_key_bytes: 1010,
        label_value_bytes: 1011,
        text_bytes: 1012,
        proof_bytes: 1013,
        computation_bytes: 5014,
        webhook_url_bytes: 1015,
        webhooks_per_tenant: 1016,
        uploads_per_tenant: 1017,
        upload_disk_per_tenant_bytes: 1018,
        creates_per_second: 1019,
        calls: 2021,
        calls_per_tenant: 1021,
        watchers: 2022,
        watchers_per_tenant: 1022,
        downloads: 2023,
        downloads_per_tenant: 1023,
        cpu_queue: 2024,
        cpu_queue_per_tenant: 1024,
        streams_per_connection: 1025,
        unary: seconds(1026),
        wait: seconds(1027),
        upload_idle: seconds(1028),
        heartbeat: seconds(1029),
        retention: seconds(86_400 + 1030),
        ..config.limits
    };
    let service = Service::start(config).await;
    let client = service.client().await;
    let info = SystemServiceClient::new(client.channel.clone()).get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner();
    let time = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
    let expected = v1::Limits {
        max_message_bytes: 1 << 21,
        max_chunk_bytes: 1001,
        max_model_bytes: 1002,
        max_input_bytes: 1003,
        max_inline_input_bytes: 1004,
        max_page_size: 1005,
        max_labels: 1006,
        max_queued_jobs: 1007,
        max_batch_jobs: 1008,
        max_label_key_bytes: 1010,
        max_label_value_bytes: 1011,
        max_text_bytes: 1012,
        max_proof_bytes: 1013,
        max_estimate_bytes: 5014,
        max_webhook_url_bytes: 1015,
        max_webhooks: 1016,
        max_uploads: 1017,
        max_unfinished_upload_bytes: 1018,
        max_creates_per_second: 1019,
        max_creates_at_once: 1020,
        max_calls: 1021,
        max_watchers: 1022,
        max_downloads: 1023,
        max_computations: 1024,
        max_calls_per_connection: 1025,
        max_call_time: time(1026),
        max_wait: time(1027),
        max_upload_pause: time(1028),
        heartbeat: time(1029),
        request_id_time: time(86_400 + 1030),
    };
    assert_eq!(info.limits, Some(expected));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_and_dribbling_connections_are_closed_and_do_not_hold_up_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.limits.first_byte = Duration::from_millis(200);
    let service = Service::start(config).await;
    service.client().await;
    let mut silent = tokio::net::TcpStream::connect(service.address).await.unwrap();
    let mut dribbling = tokio::net::TcpStream::connect(service.address).await.unwrap();
    dribbling.write_all(b"PRI").await.unwrap();
    for stream in [&mut silent, &mut dribbling] {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut rest));
        assert!(closed.await.is_ok(), "the server closes it");
    }
    let _half_open = tokio::net::TcpStream::connect(service.address).await.unwrap();
    let stopped = tokio::time::timeout(Duration::from_secs(4), service.stop()).await;
    assert!(stopped.is_ok());
}
