//! Jobs that are deleted.

use zkinfer_client::Client;

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
