//! `WebhookService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use zkinfer_proto::name::WebhookName;
use zkinfer_proto::v1;
use zkinfer_proto::v1::webhook_service_server::WebhookService;

use super::caller::{App, Caller};
use super::error::ApiError;
use super::fields::Fields;
use super::page;
use crate::engine::NewWebhook;
use crate::record_seal::{SecretKind, SecretPlace};
use crate::secret::Secret;
use crate::webhooks::{SecretText, check_url};

/// The service.
pub(crate) struct Hooks(pub(crate) Arc<App>);

#[tonic::async_trait]
impl WebhookService for Hooks {
    async fn create_webhook(&self, request: Request<v1::CreateWebhookRequest>) -> Result<Response<v1::CreateWebhookResponse>, Status> {
        self.0.unary(request, |caller, message| create(&self.0, caller, message)).await
    }

    async fn list_webhooks(&self, request: Request<v1::ListWebhooksRequest>) -> Result<Response<v1::ListWebhooksResponse>, Status> {
        let app = &self.0;
        app.unary(request, async |caller: Caller, message: v1::ListWebhooksRequest| {
            caller.check_parent(&message.parent)?;
            let page = page::parse(message.page_size, &message.page_token, &app.limits)?;
            let found = app.webhooks.list_webhooks(&caller.tenant, page).await?;
            Ok(v1::ListWebhooksResponse { next_page_token: page::token(found.next), webhooks: found.items })
        })
        .await
    }

    async fn delete_webhook(&self, request: Request<v1::DeleteWebhookRequest>) -> Result<Response<v1::DeleteWebhookResponse>, Status> {
        let app = &self.0;
        app.unary(request, async |caller: Caller, message: v1::DeleteWebhookRequest| {
            let mut fields = Fields::default();
            let name = fields.parse("name", WebhookName::parse(&message.name));
            fields.finish()?;
            let found = match name.filter(|name| caller.owns(&name.tenant)) {
                Some(name) => app.webhooks.delete_webhook(&name.tenant, &name.webhook_id).await?,
                None => false,
            };
            if found { Ok(v1::DeleteWebhookResponse {}) } else { Err(ApiError::NotFound { kind: "webhook", name: message.name }) }
        })
        .await
    }
}

async fn create(app: &App, caller: Caller, message: v1::CreateWebhookRequest) -> Result<v1::CreateWebhookResponse, ApiError> {
    app.check_admission()?;
    caller.check_parent(&message.parent)?;
    let mut fields = Fields::default();
    let (url_bytes, max_bytes) = (message.url.len(), app.limits.webhook_url_bytes);
    if url_bytes > max_bytes {
        fields.wrong("url", format!("has {url_bytes} bytes; at most {max_bytes} are taken"));
    } else {
        fields.parse("url", check_url(&message.url, app.reach, &app.webhook_ports));
    }
    fields.finish()?;
    let no_random = |error: getrandom::Error| ApiError::Internal { context: "no random bytes", source: error.to_string().into() };
    let secret = Secret::random().map_err(no_random)?;
    let name = WebhookName { tenant: caller.tenant, webhook_id: uuid::Uuid::now_v7().to_string() };
    let parent = format!("tenants/{}", name.tenant);
    let place = SecretPlace { kind: SecretKind::Webhook, tenant: &name.tenant, id: &name.webhook_id };
    let stored = app.seal.seal(&secret, place).map_err(no_random)?;
    let new = NewWebhook { tenant: name.tenant, id: name.webhook_id, url: message.url, secret: stored };
    let created = app.webhooks.create_webhook(new, app.limits.webhooks_per_tenant).await;
    let webhook = created.map_err(|error| ApiError::engine(error, "webhook", &parent))?;
    Ok(v1::CreateWebhookResponse { webhook: Some(webhook), secret: SecretText(secret.expose()).to_string() })
}
