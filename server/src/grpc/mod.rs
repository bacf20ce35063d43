//! The API over gRPC. Handlers parse, call the engine or the stores, and convert; nothing here decides about jobs.

mod admission;
mod artifacts;
mod caller;
mod connection;
mod error;
mod fields;
mod guard;
mod idempotency;
mod models;
mod page;
mod proofs;
mod rate;
mod status;
mod system;
mod verify;
mod watch;

use std::sync::Arc;

pub(crate) use caller::App;
pub(crate) use connection::incoming;
pub(crate) use guard::GuardLayer;
pub(crate) use rate::CreateRate;
use tonic::service::Routes;
use zkinfer_proto::v1::artifact_service_server::ArtifactServiceServer;
use zkinfer_proto::v1::model_service_server::ModelServiceServer;
use zkinfer_proto::v1::proof_service_server::ProofServiceServer;
use zkinfer_proto::v1::system_service_server::SystemServiceServer;

/// Adds the four services to `routes`.
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
    routes.add_service(
        SystemServiceServer::new(system::System(app.clone())).max_decoding_message_size(limit).max_encoding_message_size(limit),
    )
}
