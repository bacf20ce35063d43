//! What models refer to. A model is never deleted and keeps its references, so what was seen once holds for good: its artifacts need not be locked by each of
//! its jobs, which all refer to them. Rows that many transactions lock at once are dear in PostgreSQL.

use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

use super::super::{EngineError, SubjectKind};
use super::garbage::Referrer;
use super::{SqlEngine, Writing, subject};
use crate::artifacts::ArtifactId;

/// References that are remembered; with more, all are forgotten.
const MAX_KNOWN: usize = 10_000;

/// References that were seen.
#[derive(Debug, Default)]
pub(super) struct ModelArtifacts(Mutex<HashSet<(String, ArtifactId)>>);

impl SqlEngine {
    /// Whether the model of this id, of the artifact's tenant, refers to the artifact.
    pub(super) async fn is_of_model(&self, writing: &mut Writing, model_id: &str, artifact: &ArtifactId) -> Result<bool, EngineError> {
        let reference = (model_id.to_owned(), artifact.clone());
        if self.model_artifacts.0.lock().unwrap_or_else(PoisonError::into_inner).contains(&reference) {
            return Ok(true);
        }
        let model = subject(SubjectKind::Model, &artifact.tenant, model_id);
        let found: Option<i64> = sqlx::query_scalar(
            "SELECT count(*) FROM artifact_references WHERE tenant = $1 AND class = $2 AND digest = $3 AND kind = $4 AND subject = $5",
        )
        .bind(&artifact.tenant)
        .bind(artifact.class.as_str())
        .bind(artifact.digest.to_vec())
        .bind(Referrer::Document.kind(&model))
        .bind(&model.id)
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
