//! Writes bytes so that no sweep deletes them before what refers to them is committed.
//!
//! Those who ask for holds while others are being written share the next transaction: it holds all or none, and none only if one of them is being deleted.
//! Then each asks for itself.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::bytes_store::hash;
use super::{ArtifactBytes, ArtifactError, ArtifactId, BytesError, Class, GarbageRecords};
use crate::engine::{Digest, EngineError};
use crate::together::{Asked, Together};

/// A put may take this part of the grace. A task writes up to three artifacts and then its outcome, each for at most ten minutes and one put more: all of
/// that is over before the first hold ends, with the shortest grace that the limits admit.
const PUTS_IN_GRACE: u32 = 8;

/// Holds that are written together, at most.
const MAX_TOGETHER: usize = 64;

/// The bytes, for those who write them. Cheap to clone.
#[derive(Clone)]
pub struct HeldBytes {
    records: Arc<dyn GarbageRecords>,
    bytes: ArtifactBytes,
    grace: Duration,
    asking: Arc<Together<ArtifactId, ()>>,
}

impl HeldBytes {
    /// Holds what is written for `grace`; until then what refers to it must be committed. On the runtime that it is called on.
    pub fn new(records: Arc<dyn GarbageRecords>, bytes: ArtifactBytes, grace: Duration) -> Self {
        Self { records, bytes, grace, asking: Arc::new(Together::of_at_most(MAX_TOGETHER)) }
    }

    /// Holds an artifact that is there, or will be. Answers `false` if it is being deleted.
    ///
    /// # Errors
    /// The engine's.
    pub async fn hold(&self, artifact: ArtifactId) -> Result<bool, EngineError> {
        let (records, grace) = (&self.records, self.grace);
        match self.asking.ask(artifact.clone(), |asked| hold_together(records.clone(), grace, asked)).await {
            Some(()) => Ok(true),
            // One of them could not be held.
            None => self.records.hold(vec![artifact], self.grace).await,
        }
    }

    /// As [`ArtifactBytes::put`].
    ///
    /// # Errors
    /// [`EngineError::ArtifactGone`] while an earlier copy is being deleted; no space, or a failing store or engine.
    pub async fn put(&self, class: Class, tenant: &str, bytes: Bytes) -> Result<Digest, ArtifactError> {
        let digest = hash(bytes.clone()).await;
        let artifact = ArtifactId { class, tenant: tenant.to_owned(), digest };
        self.write(artifact, self.bytes.put_hashed(class, tenant, digest, bytes)).await?;
        Ok(digest)
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

/// All or none.
async fn hold_together(records: Arc<dyn GarbageRecords>, grace: Duration, asked: Vec<Asked<ArtifactId, ()>>) {
    let artifacts = asked.iter().map(|asked| asked.question.clone()).collect();
    if matches!(records.hold(artifacts, grace).await, Ok(true)) {
        // Who was dropped meanwhile is not told.
        for asked in asked {
            let _ = asked.answer(());
        }
    }
}
