//! What is created, listed and recorded.

use zkinfer_proto::v1;

use super::Digest;
use crate::artifacts::Class;
use crate::secret::Secret;

/// Makes a create idempotent.
#[derive(Debug, Clone)]
pub struct RequestKey {
    /// The client's UUID.
    pub request_id: String,
    /// Hash of the request without it.
    pub request_hash: Digest,
}

/// A model to create.
pub struct NewModel {
    /// As it will be answered, in COMPILING; its creation time is the engine's.
    pub model: v1::Model,
    /// Size of its file: what its registration is expected to take follows from that.
    pub source_bytes: u64,
    /// Salt of its commitment.
    pub salt: Secret,
    /// Seed of the rest.
    pub seed: Secret,
    /// Request id, if the client gave one.
    pub key: Option<RequestKey>,
}

/// A job to create.
pub struct NewJob {
    /// As it will be answered, in QUEUED; its creation time is the engine's.
    pub job: v1::Job,
    /// The artifact that it names as its input, if it was stored for it and is to be recorded with it.
    pub input: Option<ArtifactFacts>,
    /// Salt of the input commitment.
    pub input_salt: Secret,
    /// Seed of the rest.
    pub seed: Secret,
    /// Request id, if the client gave one.
    pub key: Option<RequestKey>,
}

/// Jobs to create together.
pub struct NewBatch {
    /// Owner.
    pub tenant: String,
    /// UUID of the batch.
    pub id: String,
    /// In order; their own keys are not looked at.
    pub jobs: Vec<NewJob>,
    /// Request id, if the client gave one.
    pub key: Option<RequestKey>,
}

/// Which page of a list.
#[derive(Debug, Clone)]
pub struct PageRequest {
    /// Entries, at most.
    pub size: u32,
    /// Only entries that come after this one in the list's order: creation time and id.
    pub after: Option<(i64, String)>,
}

/// A page of a list, newest first unless the list says otherwise.
#[derive(Debug)]
pub struct Page<T> {
    /// The entries.
    pub items: Vec<T>,
    /// Where the next page starts, if there is one.
    pub next: Option<(i64, String)>,
}

/// Which jobs to list.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Of this model.
    pub model_id: Option<String>,
    /// In one of these states; empty: in any.
    pub states: Vec<v1::job::State>,
    /// With all of these labels.
    pub labels: Vec<(String, String)>,
    /// Of this batch.
    pub batch_id: Option<String>,
}

/// Facts of a stored artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArtifactFacts {
    /// Who may read it.
    pub class: Class,
    /// Owner.
    pub tenant: String,
    /// Hash.
    pub digest: Digest,
    /// Size.
    pub size_bytes: u64,
    /// What it is.
    pub media_type: String,
    /// When it was first stored. A record has the time of the engine's clock instead.
    pub created_ms: i64,
}

/// An upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UploadFacts {
    /// Owner.
    pub tenant: String,
    /// UUID.
    pub id: String,
    /// Hash that the bytes must have.
    pub digest: Digest,
    /// Size that they must have.
    pub size_bytes: u64,
    /// What they are.
    pub media_type: String,
    /// How many are on disk.
    pub committed_bytes: u64,
    /// They are an artifact now.
    pub is_complete: bool,
}

/// A stored event.
#[derive(Debug, Clone)]
pub struct StoredEvent {
    /// Its number.
    pub sequence: i64,
    /// Encoded `ModelEvent` or `JobEvent`.
    pub body: Vec<u8>,
}
