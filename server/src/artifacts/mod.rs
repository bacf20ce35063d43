//! Bytes, named by their hash.
//!
//! An artifact has a class. *Public* ones are what its owner may read: uploads, inputs, proofs, statements, keys,
//! reports. *Internal* ones are what proving needs and nobody may read: a model's private material. The two are kept
//! in separate folders, and the API is given a [`PublicArtifacts`], which cannot name an internal one.
//! Where they lie, how they are encrypted and how they are deleted: docs/STORAGE.md.

mod bytes_store;
mod error;
mod garbage;
mod held;
mod keys;
mod place;
mod reader;
mod seal;
#[cfg(test)]
mod tests;
mod uploads;

use std::sync::Arc;
use std::time::Duration;

pub use bytes_store::ArtifactBytes;
pub use error::BytesError;
pub use garbage::{ArtifactId, Collector, Doomed, GarbageRecords, QUARANTINE};
pub use held::HeldBytes;
pub(crate) use keys::ArtifactKey;
#[cfg(test)]
pub(crate) use keys::tests::keys as numbered_keys;
pub use keys::{ArtifactKeys, ArtifactKeysError};
pub use place::{ArtifactPlace, ArtifactPlaceError, ArtifactUrl, ArtifactUrlError};
pub use reader::ArtifactReader;
pub use uploads::{UploadError, UploadRoom, UploadWriter, Uploads};

use crate::engine::{ArtifactFacts, ArtifactRecords, Digest, EngineError, now_ms};

/// Who may read an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Its owner, through the API.
    Public = 0,
    /// Only workers.
    Internal = 1,
}

impl Class {
    /// As stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Public => "PUBLIC",
            Self::Internal => "INTERNAL",
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Internal => "internal",
        }
    }
}

/// Why an artifact cannot be had or stored.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Its facts.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Its bytes.
    #[error(transparent)]
    Bytes(#[from] BytesError),
}

/// The public artifacts: their facts and their bytes.
#[derive(Clone)]
pub struct PublicArtifacts {
    records: Arc<dyn ArtifactRecords>,
    bytes: ArtifactBytes,
    held: HeldBytes,
}

impl PublicArtifacts {
    /// Joins the two stores. What is put is kept for `grace`, until something refers to it.
    pub fn new(records: Arc<dyn ArtifactRecords>, bytes: ArtifactBytes, grace: Duration) -> Self {
        let held = HeldBytes::new(records.clone(), bytes.clone(), grace);
        Self { records, bytes, held }
    }

    /// Facts of an artifact, if the tenant has it.
    ///
    /// # Errors
    /// The engine's.
    pub async fn facts(&self, tenant: &str, digest: Digest) -> Result<Option<ArtifactFacts>, EngineError> {
        self.records.artifact(Class::Public, tenant, digest).await
    }

    /// Stores small bytes.
    ///
    /// # Errors
    /// An earlier copy is being deleted; no space, or a failing disk or database.
    pub async fn put(&self, tenant: &str, media_type: &str, bytes: bytes::Bytes) -> Result<ArtifactFacts, ArtifactError> {
        let facts = self.put_unrecorded(tenant, media_type, bytes).await?;
        self.records.add_artifact(facts.clone()).await?;
        Ok(facts)
    }

    /// Stores small bytes, which are held for the grace: until then they are to be recorded with what refers to them.
    ///
    /// # Errors
    /// As [`Self::put`].
    pub async fn put_unrecorded(&self, tenant: &str, media_type: &str, bytes: bytes::Bytes) -> Result<ArtifactFacts, ArtifactError> {
        let size_bytes = bytes.len() as u64;
        let digest = self.held.put(Class::Public, tenant, bytes).await?;
        Ok(ArtifactFacts {
            class: Class::Public,
            tenant: tenant.to_owned(),
            digest,
            size_bytes,
            media_type: media_type.to_owned(),
            created_ms: now_ms(),
        })
    }

    /// All bytes of an artifact, checked against its hash.
    ///
    /// # Errors
    /// Missing or damaged bytes.
    pub async fn get(&self, facts: &ArtifactFacts) -> Result<bytes::Bytes, BytesError> {
        self.bytes.get(Class::Public, &facts.tenant, facts.digest).await
    }

    /// Checks the stored bytes of an artifact against its hash and size.
    ///
    /// # Errors
    /// Missing or damaged bytes.
    pub async fn check(&self, facts: &ArtifactFacts) -> Result<(), BytesError> {
        self.bytes.check(Class::Public, &facts.tenant, facts.digest, facts.size_bytes).await
    }

    /// Some bytes of an artifact.
    ///
    /// # Errors
    /// Missing bytes.
    pub async fn range(&self, facts: &ArtifactFacts, range: std::ops::Range<u64>) -> Result<bytes::Bytes, BytesError> {
        self.bytes.range(Class::Public, &facts.tenant, facts.digest, range).await
    }
}
