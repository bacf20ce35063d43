//! Calls that the service signs are believed by the client.

use std::time::{SystemTime, UNIX_EPOCH};

use zkinfer_client::{Client, WebhookCall, WebhookError, WebhookKey};
use zkinfer_server::Config;
use zkinfer_server::limits::Limits;
use zkinfer_server::webhooks::{Reach, SecretText, sign};

use crate::refusal;
use crate::service::Service;

#[test]
fn what_the_service_signs_is_believed() {
    let secret = [7; 32];
    let key = WebhookKey::parse(&SecretText(&secret).to_string()).unwrap();
    let body =
        r#"{"type": "job.ended", "timestamp": null, "data": {"name": "tenants/a/jobs/1", "state": "FAILED", "reason": "SHAPE_MISMATCH"}}"#;
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let signature = sign(&secret, "hook.1.2", seconds as i64, body);
    let timestamp = seconds.to_string();
    let call = WebhookCall { id: "hook.1.2", timestamp: &timestamp, signature: &signature, body: body.as_bytes() };
    let event = key.verify(&call).unwrap();
    assert_eq!((event.id.as_str(), event.job.as_str(), event.reason.as_str()), ("hook.1.2", "tenants/a/jobs/1", "SHAPE_MISMATCH"));
    let other = sign(&[8; 32], "hook.1.2", seconds as i64, body);
    assert_eq!(key.verify(&WebhookCall { signature: &other, ..call }), Err(WebhookError::Signature));
}

#[tokio::test]
async fn webhooks_are_made_listed_and_deleted() {
    // A webhook a page.
    let limits = Limits { default_page_size: 1, ..Limits::default() };
    let service = Service::start_with(|data| Config { reach: Reach::Anywhere, limits, ..Config::new(data) }).await;
    let client = Client::connect(&service.address).await.unwrap();
    let made = client.create_webhook("http://127.0.0.1:1/hook").await.unwrap();
    assert!(WebhookKey::parse(&made.secret).is_ok());
    let name = made.webhook.unwrap().name;
    let second = client.create_webhook("http://127.0.0.1:1/other").await.unwrap().webhook.unwrap().name;
    let listed: Vec<String> = client.webhooks().await.unwrap().into_iter().map(|hook| hook.name).collect();
    assert_eq!(listed, [&*name, &*second]);
    client.delete_webhook(&second).await.unwrap();
    client.delete_webhook(&name).await.unwrap();
    assert_eq!(client.webhooks().await.unwrap(), []);
    assert_eq!(refusal(client.delete_webhook(&name).await.unwrap_err()).reason, "NOT_FOUND");
    service.stop().await;
}
