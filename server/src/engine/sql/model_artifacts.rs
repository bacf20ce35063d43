//! What models refer to. A model keeps its references as long as it is there, and it is there as long as one of its jobs is not over. So what was seen once
//! of a model holds for all its jobs: its artifacts need not be locked by each of them, though all refer to them. Rows that many transactions lock at once are
//! dear in PostgreSQL.
//!
//! Another model may be made under the name of one that was deleted: which of them it is, is told by the time when it was created.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::super::{EngineError, SubjectKind};
use super::garbage::Referrer;
use super::{SqlEngine, Writing, subject};
use crate::artifacts::ArtifactId;

/// References that are remembered; with more, all are forgotten.
const MAX_KNOWN: usize = 10_000;

/// A model of an artifact's tenant: its id, and when it was created.
pub(super) type ModelKey = (String, i64);

/// References that were seen.
#[derive(Debug, Default)]
pub(super) struct ModelArtifacts(Mutex<HashSet<(ModelKey, ArtifactId)>>);

impl SqlEngine {
    /// Whether a model, one of whose jobs the transaction has locked before its end, refers to the artifact.
    pub(super) async fn is_of_model(&self, writing: &mut Writing, model: ModelKey, artifact: &ArtifactId) -> Result<bool, EngineError> {
        let subject = subject(SubjectKind::Model, &artifact.tenant, &model.0);
        let reference = (model, artifact.clone());
        if self.model_artifacts.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&reference) {
            return Ok(true);
        }
        let found: Option<i64> = sqlx::query_scalar(
            "SELECT count(*) FROM artifact_references WHERE tenant = $1 AND class = $2 AND digest = $3 AND kind = $4 AND subject = $5",
        )
        .bind(&artifact.tenant)
        .bind(artifact.class.as_str())
        .bind(artifact.digest.to_vec())
        .bind(Referrer::Document.kind(&subject))
        .bind(&subject.id)
        .fetch_optional(writing.connection())
        .await?;
        let is_referred = found.is_some_and(|count| count > 0);
        if is_referred {
            let mut known = self.model_artifacts.0.lock().unwrap_or_else(PoisonError::into_inner);
            if known.len() >= MAX_KNOWN {
                known.clear();
            }
            known.insert(reference);
        }
        Ok(is_referred)
    }
}
