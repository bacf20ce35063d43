//! How the listeners of a service end: uploads and downloads may finish, then they are told to go on elsewhere, then connections are cut.

use std::time::Duration;

use futures::future::join_all;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

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
