//! Writes bytes so that no sweep deletes them before what refers to them is committed.
//!
//! Those who ask for holds while others are being written share the next transaction: it holds all or none, and none only if one of them is being deleted.
//! Then each asks for itself.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::bytes_store::hash;
use super::{ArtifactBytes, ArtifactError, ArtifactId, BytesError, Class, GarbageRecords};
use crate::engine::{Digest, EngineError};

/// A put may take this part of the grace. A task writes up to three artifacts and then its outcome, each for at most ten minutes and one put more: all of
/// that is over before the first hold ends, with the shortest grace that the limits admit.
const PUTS_IN_GRACE: u32 = 8;

/// The bytes, for those who write them. Cheap to clone.
#[derive(Clone)]
pub struct HeldBytes {
    records: Arc<dyn GarbageRecords>,
    bytes: ArtifactBytes,
    grace: Duration,
    asking: Arc<Asking>,
}

/// Who asks for holds.
#[derive(Default)]
struct Asking {
    /// Told when it is held; dropped if not all could be.
    waiting: Mutex<Vec<(ArtifactId, oneshot::Sender<()>)>>,
    turn: tokio::sync::Mutex<()>,
}

impl Asking {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(ArtifactId, oneshot::Sender<()>)>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Holds that are written together, at most.
const MAX_TOGETHER: usize = 64;

impl HeldBytes {
    /// Holds what is written for `grace`; until then what refers to it must be committed.
    pub fn new(records: Arc<dyn GarbageRecords>, bytes: ArtifactBytes, grace: Duration) -> Self {
        Self { records, bytes, grace, asking: Arc::default() }
    }

    /// Holds an artifact that is there, or will be. Answers `false` if it is being deleted.
    ///
    /// # Errors
    /// The engine's.
    pub async fn hold(&self, artifact: ArtifactId) -> Result<bool, EngineError> {
        let (sender, mut held) = oneshot::channel();
        self.asking.lock().push((artifact.clone(), sender));
        let turn = self.asking.turn.lock().await;
        // Another may have asked for this one too.
        if held.try_recv().is_ok() {
            return Ok(true);
        }
        let together: Vec<_> = {
            let mut waiting = self.asking.lock();
            let n = waiting.len().min(MAX_TOGETHER);
            waiting.drain(..n).collect()
        };
        let artifacts: Vec<ArtifactId> = together.iter().map(|(artifact, _)| artifact.clone()).collect();
        if !artifacts.is_empty() && self.records.hold(artifacts, self.grace).await? {
            for (_, sender) in together {
                // Who was dropped meanwhile is not told.
                let _ = sender.send(());
            }
        }
        drop(turn);
        match held.try_recv() {
            Ok(()) => Ok(true),
            // One of them could not be held, or whoever asked for it was dropped, or there were too many.
            Err(_) => self.records.hold(vec![artifact], self.grace).await,
        }
    }

    /// As [`ArtifactBytes::put`].
    ///
    /// # Errors
    /// [`EngineError::ArtifactGone`] while an earlier copy is being deleted; no space, or a failing store or engine.
    pub async fn put(&self, class: Class, tenant: &str, bytes: Bytes) -> Result<Digest, ArtifactError> {
        let artifact = ArtifactId { class, tenant: tenant.to_owned(), digest: hash(bytes.clone()).await };
        self.write(artifact, self.bytes.put(class, tenant, bytes)).await
    }

    /// As [`ArtifactBytes::put_file`].
    ///
    /// # Errors
    /// The file has another hash; else as [`Self::put`].
    pub async fn put_file(&self, class: Class, tenant: &str, digest: Digest, file: &Path) -> Result<(), ArtifactError> {
        let artifact = ArtifactId { class, tenant: tenant.to_owned(), digest };
        self.write(artifact, self.bytes.put_file(class, tenant, digest, file)).await
    }

    async fn write<T>(&self, artifact: ArtifactId, put: impl Future<Output = Result<T, BytesError>>) -> Result<T, ArtifactError> {
        if !self.hold(artifact).await? {
            return Err(EngineError::ArtifactGone.into());
        }
        match tokio::time::timeout(self.grace / PUTS_IN_GRACE, put).await {
            Ok(done) => Ok(done?),
            Err(elapsed) => Err(BytesError::Unavailable(elapsed.into()).into()),
        }
    }
}
