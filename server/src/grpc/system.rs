//! `SystemService`.

use std::sync::Arc;
use std::time::Duration;

use tonic::{Request, Response, Status};
use zkinfer_proto::v1;
use zkinfer_proto::v1::system_service_server::SystemService;

use super::caller::{App, Caller};
use crate::convert;

/// The service.
pub(crate) struct System(pub(crate) Arc<App>);

#[tonic::async_trait]
impl SystemService for System {
    async fn get_server_info(&self, request: Request<v1::GetServerInfoRequest>) -> Result<Response<v1::ServerInfo>, Status> {
        let app = &self.0;
        app.unary(request, async |caller: Caller, _| {
            let of_children = app.children.as_ref().and_then(|children| children.backend());
            let backend = of_children.unwrap_or_else(|| app.prover.backend());
            Ok(v1::ServerInfo {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                backend: backend.name,
                backend_reason: backend.reason,
                parameter_sets: app.prover.parameter_sets(),
                tenant: format!("tenants/{}", caller.tenant),
                limits: Some(limits(app)),
            })
        })
        .await
    }
}

fn limits(app: &App) -> v1::Limits {
    let limits = &app.limits;
    let int = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
    let number = |value: usize| i32::try_from(value).unwrap_or(i32::MAX);
    let long = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let size = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
    let time = |value: Duration| Some(convert::duration(value));
    v1::Limits {
        max_message_bytes: size(limits.message_bytes),
        max_chunk_bytes: size(limits.chunk_bytes),
        max_model_bytes: long(limits.model_bytes),
        max_input_bytes: long(limits.input_bytes),
        max_inline_input_bytes: size(limits.inline_input_bytes),
        max_page_size: int(limits.page_size),
        max_labels: number(limits.labels),
        max_queued_jobs: int(limits.queued_per_tenant),
        max_batch_jobs: number(limits.jobs_at_once()),
        max_label_key_bytes: number(limits.label_key_bytes),
        max_label_value_bytes: number(limits.label_value_bytes),
        max_text_bytes: number(limits.text_bytes),
        max_proof_bytes: long(limits.proof_bytes),
        max_estimate_bytes: long(limits.computation_bytes),
        max_webhook_url_bytes: number(limits.webhook_url_bytes),
        max_webhooks: int(limits.webhooks_per_tenant),
        max_uploads: int(limits.uploads_per_tenant),
        max_unfinished_upload_bytes: long(limits.upload_disk_bytes.min(limits.upload_disk_per_tenant_bytes)),
        max_creates_per_second: int(limits.creates_per_second),
        max_creates_at_once: int(limits.creates_burst),
        max_calls: number(limits.calls.min(limits.calls_per_tenant)),
        max_watchers: number(limits.watchers.min(limits.watchers_per_tenant)),
        max_downloads: number(limits.downloads.min(limits.downloads_per_tenant)),
        max_computations: number((limits.cpu_queue + 1).min(limits.cpu_queue_per_tenant)),
        max_calls_per_connection: int(limits.streams_per_connection),
        max_call_time: time(limits.unary),
        max_wait: time(limits.wait),
        max_upload_pause: time(limits.upload_idle),
        heartbeat: time(limits.heartbeat),
        request_id_time: time(limits.retention),
    }
}
