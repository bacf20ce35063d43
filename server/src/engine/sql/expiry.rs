//! Deadlines.

use super::super::{EngineError, Expired, SubjectKind};
use super::stopping::Stop;
use super::{SqlEngine, subject};

/// Jobs ended in one go; the next go comes soon.
const MAX_AT_ONCE: i64 = 256;

impl SqlEngine {
    /// Stops the jobs whose deadline has passed.
    pub(super) async fn expire_jobs(&self) -> Result<Expired, EngineError> {
        let now_ms = self.clock_ms().await?;
        let due: Vec<(String, String)> = sqlx::query_as(
            "SELECT tenant, id FROM jobs WHERE deadline_ms <= $1 AND deadline_ms IS NOT NULL AND stop_cause IS NULL AND state IN (1, 2) LIMIT $2",
        )
        .bind(now_ms)
        .bind(MAX_AT_ONCE)
        .fetch_all(&self.readers)
        .await?;
        let mut expired = Expired::default();
        for (tenant, id) in due {
            let subject = subject(SubjectKind::Job, &tenant, &id);
            match self.stop(&subject, &Stop::deadline()).await {
                Ok(Some(document)) if document.is_final() => expired.ended.push(subject),
                Ok(Some(_)) => expired.stopping.push(subject),
                Ok(None) => {}
                Err(error @ (EngineError::Busy(_) | EngineError::Full(_))) => return Err(error),
                // One damaged row keeps no others.
                Err(error) => {
                    tracing::error!(
                        error = &error as &dyn std::error::Error,
                        tenant,
                        id,
                        "a job whose deadline has passed cannot be stopped"
                    );
                }
            }
        }
        Ok(expired)
    }
}
