//! `AdminService`.

use std::sync::Arc;

use tonic::{Request, Response, Status};
use zkinfer_proto::name::parse_tenant;
use zkinfer_proto::v1;
use zkinfer_proto::v1::admin_service_server::AdminService;

use super::caller::{App, Caller};
use super::error::ApiError;
use super::fields::Fields;
use crate::engine::{SessionFacts, timestamp};

/// Largest weight of a tenant.
const MAX_SHARE_MILLI: i64 = 1_000_000;

/// The service.
pub(crate) struct Admin(pub(crate) Arc<App>);

#[tonic::async_trait]
impl AdminService for Admin {
    async fn list_workers(&self, request: Request<v1::ListWorkersRequest>) -> Result<Response<v1::ListWorkersResponse>, Status> {
        let app = &self.0;
        app.unary(request, async |_: Caller, _| {
            let workers = app.operations.sessions().await?.into_iter().map(worker).collect();
            Ok(v1::ListWorkersResponse { workers })
        })
        .await
    }

    async fn cordon_worker(&self, request: Request<v1::CordonWorkerRequest>) -> Result<Response<v1::CordonWorkerResponse>, Status> {
        let app = &self.0;
        app.unary(request, async |_: Caller, message: v1::CordonWorkerRequest| {
            let mut fields = Fields::default();
            fields.text("session", &message.session, &app.limits);
            fields.finish()?;
            match app.operations.cordon(&message.session, message.cordoned).await? {
                true => Ok(v1::CordonWorkerResponse {}),
                false => Err(ApiError::NotFound { kind: "worker", name: message.session }),
            }
        })
        .await
    }

    async fn get_quota(&self, request: Request<v1::GetQuotaRequest>) -> Result<Response<v1::Quota>, Status> {
        let app = &self.0;
        app.unary(request, async |_: Caller, message: v1::GetQuotaRequest| {
            let mut fields = Fields::default();
            let tenant = fields.parse("tenant", parse_tenant(&message.tenant));
            fields.finish()?;
            Ok(app.operations.quota(tenant.unwrap_or_default()).await?)
        })
        .await
    }

    async fn set_quota(&self, request: Request<v1::SetQuotaRequest>) -> Result<Response<v1::Quota>, Status> {
        let app = &self.0;
        app.unary(request, async |_: Caller, message: v1::SetQuotaRequest| {
            let quota = message.quota.unwrap_or_default();
            let mut fields = Fields::default();
            let tenant = fields.parse("quota.tenant", parse_tenant(&quota.tenant)).unwrap_or_default().to_owned();
            fields.require("quota.share_milli", (0..=MAX_SHARE_MILLI).contains(&quota.share_milli), "must be from 0 to 1,000,000");
            fields.require("quota.max_queued", quota.max_queued >= 0, "must not be negative");
            fields.require("quota.max_running", quota.max_running >= 0, "must not be negative");
            fields.finish()?;
            app.operations.set_quota(&tenant, quota).await?;
            // What was paused or held back may start now.
            app.hub.task_ready();
            Ok(app.operations.quota(&tenant).await?)
        })
        .await
    }

    async fn get_queue(&self, request: Request<v1::GetQueueRequest>) -> Result<Response<v1::Queue>, Status> {
        let app = &self.0;
        app.unary(request, async |_: Caller, _| {
            let facts = app.operations.queue().await?;
            let count = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
            Ok(v1::Queue { waiting: count(facts.waiting), ready: count(facts.ready), running: count(facts.running) })
        })
        .await
    }
}

fn worker(facts: SessionFacts) -> v1::Worker {
    v1::Worker {
        session: facts.id,
        name: facts.worker,
        devices: facts.devices,
        open_time: Some(timestamp(facts.opened_ms)),
        last_seen_time: Some(timestamp(facts.seen_ms)),
        cordoned: facts.is_cordoned,
        running: i64::try_from(facts.running).unwrap_or(i64::MAX),
    }
}
