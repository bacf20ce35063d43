//! Stopping a job: at once if none of its tasks runs, else by leaving word for their workers.

use zkinfer_proto::v1;

use super::super::document::{Change, Document};
use super::super::{EngineError, Subject, SubjectKind};
use super::held::lock_running;
use super::{Locked, SqlEngine, Writing, apply, lock};

/// Why a job was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StopCause {
    Cancel,
    Deadline,
}

/// The word left for a job's workers.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    cause: StopCause,
    note: String,
}

impl Stop {
    pub(super) fn cancel(note: String) -> Self {
        Self { cause: StopCause::Cancel, note }
    }

    pub(super) fn deadline() -> Self {
        Self { cause: StopCause::Deadline, note: "the deadline has passed".into() }
    }

    /// As the columns of a job tell it.
    pub(super) fn from_columns(cause: Option<String>, note: Option<String>) -> Option<Self> {
        let cause = match cause?.as_str() {
            "DEADLINE" => StopCause::Deadline,
            _ => StopCause::Cancel,
        };
        Some(Self { cause, note: note.unwrap_or_default() })
    }

    fn change(&self, attempts: u32) -> Change {
        let failure = |reason: &str| v1::Failure {
            reason: reason.into(),
            message: self.note.clone(),
            retryable: false,
            attempts,
            stage: String::new(),
        };
        match self.cause {
            StopCause::Cancel => Change::Cancelled(failure("CANCELLED")),
            StopCause::Deadline => Change::Expired(failure("DEADLINE")),
        }
    }
}

impl SqlEngine {
    /// Stops a job that is not final; answers it as it is then, or `None` if there is none.
    pub(super) async fn stop(&self, subject: &Subject, stop: &Stop) -> Result<Option<Document>, EngineError> {
        let mut writing = self.begin().await?;
        let Some(Locked { mut document, .. }) = lock(&mut writing, subject).await? else { return Ok(None) };
        if document.is_final() || document.state() == v1::job::State::Cancelling as i32 {
            self.commit(writing).await?;
            return Ok(Some(document));
        }
        sqlx::query("UPDATE jobs SET stop_cause = $1, stop_note = $2 WHERE tenant = $3 AND id = $4")
            .bind(match stop.cause {
                StopCause::Cancel => "CANCEL",
                StopCause::Deadline => "DEADLINE",
            })
            .bind(&stop.note)
            .bind(&subject.tenant)
            .bind(&subject.id)
            .execute(writing.connection())
            .await?;
        cancel_waiting(&mut writing, subject).await?;
        if !end_if_idle(&mut writing, subject, &mut document, stop).await? {
            apply(&mut writing, subject, &mut document, Change::Cancelling).await?;
        }
        self.commit(writing).await?;
        Ok(Some(document))
    }
}

/// The word left for a subject's workers, if any.
pub(super) async fn load_stop(writing: &mut Writing, subject: &Subject) -> Result<Option<Stop>, EngineError> {
    if subject.kind == SubjectKind::Model {
        return Ok(None);
    }
    let row: Option<(Option<String>, Option<String>)> =
        sqlx::query_as("SELECT stop_cause, stop_note FROM jobs WHERE tenant = $1 AND id = $2")
            .bind(&subject.tenant)
            .bind(&subject.id)
            .fetch_optional(writing.connection())
            .await?;
    Ok(row.and_then(|(cause, note)| Stop::from_columns(cause, note)))
}

/// Cancels what nobody works at.
pub(super) async fn cancel_waiting(writing: &mut Writing, subject: &Subject) -> Result<(), EngineError> {
    sqlx::query("UPDATE tasks SET state = 'CANCELLED' WHERE kind = $1 AND tenant = $2 AND subject = $3 AND state IN ('WAITING', 'READY')")
        .bind(subject.kind.task_kind())
        .bind(&subject.tenant)
        .bind(&subject.id)
        .execute(writing.connection())
        .await?;
    Ok(())
}

/// Cancels all that is not done, and takes it away from those who work at it: their epoch is an older one now.
pub(super) async fn cancel_all(writing: &mut Writing, subject: &Subject) -> Result<(), EngineError> {
    lock_running(writing, subject).await?;
    cancel_waiting(writing, subject).await?;
    let now_ms = writing.now_ms;
    sqlx::query(
        "UPDATE attempts SET ended_ms = $1, outcome = 'CANCELLED' WHERE kind = $2 AND tenant = $3 AND subject = $4 AND ended_ms IS NULL",
    )
    .bind(now_ms)
    .bind(subject.kind.task_kind())
    .bind(&subject.tenant)
    .bind(&subject.id)
    .execute(writing.connection())
    .await?;
    sqlx::query(
        "UPDATE tasks SET state = 'CANCELLED', epoch = epoch + 1, session = NULL \
         WHERE kind = $1 AND tenant = $2 AND subject = $3 AND state = 'RUNNING'",
    )
    .bind(subject.kind.task_kind())
    .bind(&subject.tenant)
    .bind(&subject.id)
    .execute(writing.connection())
    .await?;
    Ok(())
}

/// Ends a job that was told to stop once none of its tasks runs. Answers whether it ended.
pub(super) async fn end_if_idle(
    writing: &mut Writing,
    subject: &Subject,
    document: &mut Document,
    stop: &Stop,
) -> Result<bool, EngineError> {
    let running: Option<i64> =
        sqlx::query_scalar("SELECT ordinal FROM tasks WHERE kind = $1 AND tenant = $2 AND subject = $3 AND state = 'RUNNING' LIMIT 1")
            .bind(subject.kind.task_kind())
            .bind(&subject.tenant)
            .bind(&subject.id)
            .fetch_optional(writing.connection())
            .await?;
    if running.is_some() {
        return Ok(false);
    }
    cancel_waiting(writing, subject).await?;
    let attempts = match &*document {
        Document::Job(job) => job.progress.as_ref().map_or(0, |progress| progress.attempt),
        Document::Model(_) => 0,
    };
    apply(writing, subject, document, stop.change(attempts)).await?;
    Ok(true)
}
