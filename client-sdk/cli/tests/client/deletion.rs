//! Jobs and models that are deleted.

use zkinfer_client::{Client, ClientError, MediaType, ModelRequest, UploadSource};

use crate::refusal;
use crate::service::Service;

#[tokio::test]
async fn a_job_that_is_gone_is_deleted_without_an_error_and_one_of_another_tenant_is_not() {
    let service = Service::start().await;
    let client = Client::connect(&service.address).await.unwrap();
    let name = |tenant: &str| format!("tenants/{tenant}/jobs/0190c7a2-0000-7000-8000-000000000001");
    client.delete_job(&name("default")).await.unwrap();
    assert_eq!(refusal(client.delete_job(&name("other")).await.unwrap_err()).reason, "NOT_FOUND");
    assert_eq!(refusal(client.delete_job("one").await.unwrap_err()).reason, "INVALID_FIELDS");
    service.stop().await;
}

#[tokio::test]
async fn a_model_that_is_gone_is_deleted_without_an_error_and_one_of_another_tenant_is_not() {
    let service = Service::start().await;
    let client = Client::connect(&service.address).await.unwrap();
    let source = client.upload(&UploadSource::from(b"no network".to_vec()), MediaType::Onnx).await.unwrap();
    let model = client.create_model(&ModelRequest::new("one", source.name)).await.unwrap().name;
    assert!(matches!(client.finish_model(&model, |_| {}).await, Err(ClientError::Ended { .. })), "it is none, and so it is over");
    // The command takes its id, and tells of one that there is not.
    for (id, code) in [("two", 5), ("one", 0), ("one", 5)] {
        let arguments = ["model", "delete", id, "--json", "--server", &service.address].map(str::to_owned);
        let command = || std::process::Command::new(env!("CARGO_BIN_EXE_zkinfer")).args(arguments).env_remove("ZKINFER_API_KEY").output();
        let done = tokio::task::spawn_blocking(command).await.unwrap().unwrap();
        assert_eq!(done.status.code(), Some(code), "{id}: {}", String::from_utf8_lossy(&done.stdout));
    }
    client.delete_model(&model).await.unwrap();
    assert_eq!(refusal(client.model(&model).await.unwrap_err()).reason, "NOT_FOUND");
    assert_eq!(refusal(client.delete_model("tenants/other/models/one").await.unwrap_err()).reason, "NOT_FOUND");
    assert_eq!(refusal(client.delete_model("one").await.unwrap_err()).reason, "INVALID_FIELDS");
    service.stop().await;
}
