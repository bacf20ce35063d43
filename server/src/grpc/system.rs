//! `SystemService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use zkinfer_proto::v1;
use zkinfer_proto::v1::system_service_server::SystemService;

use super::caller::{App, Caller};

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
    let long = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let int = |value: u64| i32::try_from(value).unwrap_or(i32::MAX);
    v1::Limits {
        max_message_bytes: long(limits.message_bytes as u64),
        max_chunk_bytes: long(limits.chunk_bytes as u64),
        max_model_bytes: long(limits.model_bytes),
        max_input_bytes: long(limits.input_bytes),
        max_inline_input_bytes: long(limits.inline_input_bytes as u64),
        max_page_size: int(u64::from(limits.page_size)),
        max_labels: int(limits.labels as u64),
        max_queued_jobs: int(u64::from(limits.queued_per_tenant)),
        max_batch_jobs: int(limits.jobs_at_once() as u64),
    }
}
