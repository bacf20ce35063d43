//! What a call answers when it does not answer what was asked. `status.rs` puts it on the wire.

use std::time::Duration;

use zkinfer_proto::name::ArtifactName;

use crate::artifacts::{ArtifactError, BytesError, UploadError};
use crate::auth::Scope;
use crate::engine::{EngineError, UploadFacts};
use crate::prover::ProverError;
use crate::scheduler::CpuPoolError;
use crate::worker::rejection_reason;

/// A field of a request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Path in the request, such as `job.input.encoding`.
    pub(crate) field: String,
    /// What is wrong and what would be right.
    pub(crate) description: String,
}

impl Violation {
    /// The same in a larger request, where the path begins at `place`.
    pub(crate) fn within(self, place: &str) -> Self {
        Self { field: format!("{place}.{}", self.field), ..self }
    }
}

/// Why a call fails.
#[derive(Debug)]
pub(crate) enum ApiError {
    /// All wrong fields at once.
    Invalid(Vec<Violation>),
    /// A field is wrong, for a reason that has a name of its own.
    Rejected {
        reason: &'static str,
        field: &'static str,
        message: String,
    },
    NotFound {
        kind: &'static str,
        name: String,
    },
    AlreadyExists {
        kind: &'static str,
        name: String,
    },
    RequestIdReused {
        request_id: String,
    },
    Precondition {
        reason: &'static str,
        subject: String,
        message: String,
    },
    Exhausted {
        reason: &'static str,
        subject: String,
        message: String,
        retry: Option<Duration>,
    },
    Unavailable {
        reason: &'static str,
        message: String,
        retry: Duration,
    },
    Aborted {
        reason: &'static str,
        message: String,
        retry: Duration,
    },
    OutOfRange {
        reason: &'static str,
        message: String,
    },
    DataLoss {
        name: String,
    },
    Deadline,
    Unauthenticated,
    /// The caller is known, and may not.
    ScopeMissing {
        scope: Scope,
    },
    NoMethod,
    /// A bug or a broken machine. The source goes to the log, not to the client.
    Internal {
        context: &'static str,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

const SECOND: Duration = Duration::from_secs(1);
/// The reason where computations that clients wait for are too many.
pub(crate) const TOO_MANY_COMPUTATIONS: &str = "TOO_MANY_COMPUTATIONS";

impl ApiError {
    pub(crate) fn invalid(field: &str, description: impl Into<String>) -> Self {
        Self::Invalid(vec![Violation { field: field.into(), description: description.into() }])
    }

    /// The same about a part of a larger request: wrong fields are named by their whole path.
    pub(crate) fn within(self, place: &str) -> Self {
        match self {
            Self::Invalid(violations) => Self::Invalid(violations.into_iter().map(|violation| violation.within(place)).collect()),
            other => other,
        }
    }

    /// The engine's error, about the resource that the request names.
    pub(crate) fn engine(error: EngineError, kind: &'static str, name: &str) -> Self {
        match error {
            EngineError::AlreadyExists => Self::AlreadyExists { kind, name: name.into() },
            EngineError::ModelNotFound => Self::NotFound { kind: "model", name: name.into() },
            EngineError::ModelNotReady(state) => Self::Precondition {
                reason: "MODEL_NOT_READY",
                subject: name.into(),
                message: format!("the model is {}, not READY", state.as_str_name()),
            },
            EngineError::QuotaExceeded { .. } => {
                Self::Exhausted { reason: "QUOTA_EXCEEDED", subject: name.into(), message: error.to_string(), retry: Some(5 * SECOND) }
            }
            other => other.into(),
        }
    }

    /// All places for downloads are taken.
    pub(crate) fn too_many_downloads(limit: usize) -> Self {
        let message = format!("the service serves {limit} downloads at a time");
        Self::Exhausted { reason: "TOO_MANY_DOWNLOADS", subject: "downloads".into(), message, retry: Some(SECOND) }
    }

    /// A read of stored bytes failed.
    pub(crate) fn bytes(error: BytesError, artifact: &ArtifactName) -> Self {
        match error {
            BytesError::Missing | BytesError::Damaged => Self::DataLoss { name: artifact.to_string() },
            other => other.into(),
        }
    }

    /// A chunk was not taken.
    pub(crate) fn upload(error: UploadError, upload: &UploadFacts) -> Self {
        match error {
            UploadError::Offset { .. } => Self::OutOfRange { reason: "OFFSET_MISMATCH", message: error.to_string() },
            UploadError::TooLong { .. } => Self::OutOfRange { reason: "UPLOAD_TOO_LONG", message: error.to_string() },
            UploadError::Checksum { .. } => Self::Rejected { reason: "CHECKSUM_MISMATCH", field: "crc32c", message: error.to_string() },
            UploadError::HashMismatch => {
                Self::Precondition { reason: "HASH_MISMATCH", subject: upload.id.clone(), message: error.to_string() }
            }
            UploadError::Elsewhere => Self::Aborted { reason: "UPLOAD_STARTS_AGAIN", message: error.to_string(), retry: SECOND },
            UploadError::InUse => Self::Aborted { reason: "UPLOAD_IN_USE", message: error.to_string(), retry: SECOND },
            UploadError::NoRoom { .. } => storage_full("storage".into(), error.to_string()),
            UploadError::NoRoomOfTenant { .. } => storage_full(format!("tenants/{}", upload.tenant), error.to_string()),
            UploadError::Engine(error) => error.into(),
            UploadError::Bytes(error) => error.into(),
        }
    }

    /// The prover refused or failed while the caller waited.
    pub(crate) fn prover(error: ProverError, field: &'static str) -> Self {
        match error {
            ProverError::Rejected { rejection, message } => Self::Rejected { reason: rejection_reason(rejection), field, message },
            other => Self::Internal { context: "the prover failed", source: other.into() },
        }
    }
}

fn storage_full(subject: String, message: String) -> ApiError {
    ApiError::Exhausted { reason: "STORAGE_FULL", subject, message, retry: Some(30 * SECOND) }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        match error {
            EngineError::InBatch { source, .. } => (*source).into(),
            EngineError::RequestIdReused => Self::RequestIdReused { request_id: String::new() },
            EngineError::Busy(_) => Self::Unavailable { reason: "DATABASE_BUSY", message: error.to_string(), retry: SECOND },
            EngineError::ArtifactGone => {
                Self::Unavailable { reason: "ARTIFACT_BEING_DELETED", message: error.to_string(), retry: 2 * SECOND }
            }
            EngineError::Full(_) => storage_full("storage".into(), error.to_string()),
            // The second net: fields are looked at one by one before.
            EngineError::Text(_) => Self::invalid("*", error.to_string()),
            other => Self::Internal { context: "the engine failed", source: other.into() },
        }
    }
}

impl From<BytesError> for ApiError {
    fn from(error: BytesError) -> Self {
        match error {
            BytesError::Full(_) => storage_full("storage".into(), error.to_string()),
            BytesError::Unavailable(ref source) => {
                tracing::warn!(error = &**source as &dyn std::error::Error, "the artifact store does not answer");
                Self::Unavailable { reason: "STORAGE_UNAVAILABLE", message: error.to_string(), retry: 2 * SECOND }
            }
            other => Self::Internal { context: "the artifact store failed", source: other.into() },
        }
    }
}

impl From<ArtifactError> for ApiError {
    fn from(error: ArtifactError) -> Self {
        match error {
            ArtifactError::Engine(error) => error.into(),
            ArtifactError::Bytes(error) => error.into(),
        }
    }
}

impl From<CpuPoolError> for ApiError {
    fn from(error: CpuPoolError) -> Self {
        match error {
            CpuPoolError::Full => Self::Exhausted {
                reason: TOO_MANY_COMPUTATIONS,
                subject: "computations".into(),
                message: error.to_string(),
                retry: Some(SECOND),
            },
            CpuPoolError::Panicked => Self::Internal { context: "a computation panicked", source: error.into() },
        }
    }
}
