//! How the listeners of a service are made, and how they end: uploads and downloads may finish, then they are told to go on elsewhere, then connections are cut.

use std::time::Duration;

use futures::future::join_all;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

use crate::limits::Limits;

/// How a listener ended.
pub(crate) type Joined = Result<Result<(), tonic::transport::Error>, JoinError>;

/// What was told to take no more connections, and closes when its last call has ended.
pub(crate) struct Listeners {
    pub(crate) server: JoinHandle<Result<(), tonic::transport::Error>>,
    pub(crate) workers: Vec<JoinHandle<()>>,
}

impl Listeners {
    /// Ends uploads and downloads after `patience`, and cuts what is left `grace` later. Answers how the public listener ended, if it did by itself.
    pub(crate) async fn close(mut self, patience: Duration, grace: Duration, cutting: CancellationToken) -> Option<Joined> {
        let cutter = tokio::spawn(async move {
            tokio::time::sleep(patience).await;
            cutting.cancel();
        });
        // What workers hold is theirs until it is settled, here or at the next process.
        let workers = tokio::time::timeout(patience + grace, join_all(&mut self.workers));
        let (ended, _) = tokio::join!(tokio::time::timeout(patience + grace, &mut self.server), workers);
        cutter.abort();
        self.server.abort();
        self.workers.iter().for_each(JoinHandle::abort);
        ended.ok()
    }
}

/// What clients ask for the methods that there are.
pub(crate) fn reflection() -> Result<
    tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection>,
    tonic_reflection::server::Error,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(zkinfer_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
}

/// A listener with these limits, without layers and services.
pub(crate) fn builder(limits: &Limits) -> Server {
    Server::builder()
        .max_concurrent_streams(limits.streams_per_connection)
        .http2_keepalive_interval(Some(limits.keepalive_interval))
        .http2_keepalive_timeout(Some(limits.keepalive_timeout))
        .http2_max_pending_accept_reset_streams(Some(limits.pending_accept_reset_streams))
        .http2_max_local_error_reset_streams(Some(limits.local_error_reset_streams))
        .http2_max_header_list_size(limits.header_list_bytes)
        // Not its grace as well: with that the library cuts connections that it never told to go away. `grpc::incoming` cuts them.
        .max_connection_age(limits.connection_age)
}
