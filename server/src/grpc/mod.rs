//! The API over gRPC. Handlers parse, call the engine or the stores, and convert; nothing here decides about jobs.

mod admin;
mod admission;
mod artifacts;
mod batches;
mod budget;
mod caller;
mod calls;
mod connection;
mod error;
mod fields;
mod guard;
mod idempotency;
mod models;
mod page;
mod places;
mod proof_check;
mod proofs;
mod rate;
mod status;
mod system;
mod verify;
mod watch;
mod webhooks;
mod workers;

use std::sync::Arc;

pub(crate) use budget::ByteBudget;
pub(crate) use caller::App;
pub(crate) use calls::CallsLayer;
pub(crate) use connection::{accept, incoming};
pub(crate) use guard::GuardLayer;
pub(crate) use places::Places;
pub(crate) use rate::CreateRate;
use tonic::service::{Interceptor, Routes};
use tonic::{Request, Status};
use zkinfer_proto::v1::admin_service_server::AdminServiceServer;
use zkinfer_proto::v1::artifact_service_server::ArtifactServiceServer;
use zkinfer_proto::v1::model_service_server::ModelServiceServer;
use zkinfer_proto::v1::proof_service_server::ProofServiceServer;
use zkinfer_proto::v1::system_service_server::SystemServiceServer;
use zkinfer_proto::v1::webhook_service_server::WebhookServiceServer;
use zkinfer_proto::v1::worker_service_server::WorkerServiceServer;

use crate::worker::LocalSource;
use crate::worker_listener::{WorkerListener, WorkerToken};

/// Adds the public services to `routes`.
pub(crate) fn add_services(mut routes: Routes, app: &Arc<App>) -> Routes {
    let limit = app.limits.message_bytes;
    routes = routes.add_service(
        ModelServiceServer::new(models::Models(app.clone())).max_decoding_message_size(limit).max_encoding_message_size(limit),
    );
    routes = routes.add_service(
        ArtifactServiceServer::new(artifacts::Artifacts(app.clone())).max_decoding_message_size(limit).max_encoding_message_size(limit),
    );
    routes = routes.add_service(
        ProofServiceServer::new(proofs::Proofs(app.clone())).max_decoding_message_size(limit).max_encoding_message_size(limit),
    );
    routes = routes.add_service(
        WebhookServiceServer::new(webhooks::Hooks(app.clone())).max_decoding_message_size(limit).max_encoding_message_size(limit),
    );
    routes = routes
        .add_service(AdminServiceServer::new(admin::Admin(app.clone())).max_decoding_message_size(limit).max_encoding_message_size(limit));
    routes.add_service(
        SystemServiceServer::new(system::System(app.clone())).max_decoding_message_size(limit).max_encoding_message_size(limit),
    )
}

/// Lets workers in: those that show the token, if there is one.
#[derive(Clone)]
struct WorkerGuard(Option<WorkerToken>);

impl Interceptor for WorkerGuard {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        match &self.0 {
            Some(token) if !token.is_shown(request.metadata()) => Err(error::ApiError::Unauthenticated.into()),
            _ => Ok(request),
        }
    }
}

/// The service for workers, which is on no other listener than theirs.
pub(crate) fn worker_routes(app: &Arc<App>, source: LocalSource, listener: &WorkerListener) -> Routes {
    let limit = app.limits.message_bytes;
    let workers = workers::Workers { app: app.clone(), source, are_own: listener.is_own, known: Arc::default() };
    let service = WorkerServiceServer::new(workers).max_decoding_message_size(limit).max_encoding_message_size(limit);
    Routes::new(tonic::service::interceptor::InterceptedService::new(service, WorkerGuard(listener.token.clone())))
}
