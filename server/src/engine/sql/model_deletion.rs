//! Deleting models, with all that belongs to them but for their jobs that are over.
//!
//! The model's row is locked first, as whoever admits a job of it does: so either the job is seen here, and the model stays, or whoever admits it finds no
//! model. Jobs that are over need nothing of it: a job that succeeded refers to proof, statement and verifier key by itself, and workers are done with the
//! rest. The model's own references end, and the collector takes what nothing else refers to: source, calibration, report and private material.

use super::super::{EngineError, ModelDeletion, Notice, Subject};
use super::deletion::newest_lease;
use super::{Locked, SqlEngine, Writing, lock};

/// Jobs of a model that are not over: queued, running, cancelling. The state is a literal, for the sake of the index.
const UNFINISHED: &str = "SELECT count(*) FROM jobs WHERE tenant = $1 AND model_id = $2 AND state < 4";

/// What is done with the rows of a model, in this order. When its tenant was last given a task of its registration is kept.
const DELETE: [&str; 6] = [
    concat!(
        "INSERT INTO tenants(tenant, last_leased_ms) SELECT tenant, max(started_ms) FROM attempts \
           WHERE kind = 'REGISTER' AND tenant = $1 AND subject = $2 GROUP BY tenant",
        newest_lease!()
    ),
    "DELETE FROM tasks WHERE kind = 'REGISTER' AND tenant = $1 AND subject = $2",
    "DELETE FROM attempts WHERE kind = 'REGISTER' AND tenant = $1 AND subject = $2",
    "DELETE FROM events WHERE kind = 'REGISTER' AND tenant = $1 AND subject = $2",
    "DELETE FROM artifact_references WHERE kind = 'MODEL' AND tenant = $1 AND subject = $2",
    "DELETE FROM models WHERE tenant = $1 AND id = $2",
];

impl SqlEngine {
    /// Deletes a model, if its registration and its jobs are over.
    pub(super) async fn delete_model_of(&self, subject: &Subject) -> Result<ModelDeletion, EngineError> {
        let mut writing = self.begin().await?;
        let deletion = match lock(&mut writing, subject).await? {
            None => ModelDeletion::Absent,
            Some(Locked { document, .. }) if !document.is_final() => ModelDeletion::NotFinal,
            Some(_) => delete_unless_used(&mut writing, subject).await?,
        };
        self.commit(writing).await?;
        Ok(deletion)
    }
}

async fn delete_unless_used(writing: &mut Writing, subject: &Subject) -> Result<ModelDeletion, EngineError> {
    // A statement of its own, after the lock: it sees all jobs that were admitted before.
    let n_unfinished: i64 = sqlx::query_scalar(UNFINISHED).bind(&subject.tenant).bind(&subject.id).fetch_one(writing.connection()).await?;
    if n_unfinished > 0 {
        return Ok(ModelDeletion::HasJobs(n_unfinished.unsigned_abs()));
    }
    for sql in DELETE {
        sqlx::query(sql).bind(&subject.tenant).bind(&subject.id).execute(writing.connection()).await?;
    }
    writing.changed.push(Notice::Changed(subject.clone()));
    Ok(ModelDeletion::Deleted)
}

#[cfg(test)]
mod tests {
    use super::super::deletion::tests::plan;
    use super::*;
    use crate::limits::Limits;

    #[tokio::test]
    async fn every_row_is_found_by_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let engine = SqlEngine::open_sqlite(folder.path(), &Limits::default()).await.unwrap();
        for sql in DELETE {
            let plan = plan(&engine, sql).await;
            assert!(!plan.iter().any(|step| step.starts_with("SCAN") || step.ends_with("(kind=?)")), "{sql}: {plan:#?}");
        }
        let plan = plan(&engine, UNFINISHED).await;
        assert!(plan[0].contains("jobs_unfinished (tenant=? AND model_id=? AND state<?)"), "{plan:#?}");
    }
}
