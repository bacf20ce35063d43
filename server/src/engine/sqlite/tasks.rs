//! The queue on SQLite.

use sqlx::SqliteConnection;
use zkinfer_proto::name::ModelName;
use zkinfer_proto::v1;

use super::super::document::{Change, Document};
use super::super::{
    ArtifactFacts, Claimed, Digest, EngineError, EngineFuture, Expired, Subject, SubjectKind, Task, TaskFlow, Tasks, Work, now_ms,
};
use super::artifact_records::insert_artifact;
use super::resources::stop_job;
use super::{SqliteEngine, WriteTransaction, apply, load};
use crate::observe::QueueFacts;

/// Why a job was told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopCause {
    Cancel,
    Deadline,
}

impl StopCause {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Cancel => "CANCEL",
            Self::Deadline => "DEADLINE",
        }
    }
}

/// The word left for a job's worker.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    pub(super) cause: StopCause,
    pub(super) note: String,
}

impl Stop {
    pub(super) fn cancel(note: String) -> Self {
        Self { cause: StopCause::Cancel, note }
    }

    fn deadline() -> Self {
        Self { cause: StopCause::Deadline, note: "the deadline has passed".into() }
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

/// Ends a job the way it was told to.
pub(super) async fn end_stopped(
    connection: &mut SqliteConnection,
    subject: &Subject,
    document: &mut Document,
    stop: &Stop,
) -> Result<(), EngineError> {
    let attempts = match document {
        Document::Job(job) => job.progress.as_ref().map_or(0, |progress| progress.attempt),
        Document::Model(_) => 0,
    };
    apply(connection, subject, document, stop.change(attempts)).await
}

/// A running task's document, after its epoch was checked.
struct Held {
    task_id: i64,
    document: Document,
    stop: Option<Stop>,
}

impl SqliteEngine {
    async fn hold(&self, transaction: &mut WriteTransaction, task: &Task) -> Result<Held, EngineError> {
        let task_id: Option<i64> = sqlx::query_scalar(
            "SELECT id FROM tasks WHERE kind = ? AND tenant = ? AND subject = ? AND epoch = ? \
             AND state = 'RUNNING'",
        )
        .bind(task.subject.kind.task_kind())
        .bind(&task.subject.tenant)
        .bind(&task.subject.id)
        .bind(task.epoch)
        .fetch_optional(&mut **transaction)
        .await?;
        let task_id = task_id.ok_or(EngineError::Fenced)?;
        let document = load(transaction, &task.subject).await?.ok_or(EngineError::Fenced)?;
        let stop = load_stop(transaction, &task.subject).await?;
        Ok(Held { task_id, document, stop })
    }

    /// Ends a task with `change`, or the way its job was told to stop.
    async fn end(&self, task: &Task, task_state: &'static str, change: Change, artifacts: Vec<ArtifactFacts>) -> Result<(), EngineError> {
        let mut transaction = self.begin().await?;
        let mut held = self.hold(&mut transaction, task).await?;
        if let Some(stop) = held.stop {
            set_state(&mut transaction, held.task_id, "CANCELLED").await?;
            end_stopped(&mut transaction, &task.subject, &mut held.document, &stop).await?;
        } else {
            for facts in &artifacts {
                insert_artifact(&mut transaction, facts).await?;
            }
            set_state(&mut transaction, held.task_id, task_state).await?;
            apply(&mut transaction, &task.subject, &mut held.document, change).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    async fn requeue(&self, task: &Task, not_before_ms: i64, attempts: u32) -> Result<(), EngineError> {
        let mut transaction = self.begin().await?;
        let mut held = self.hold(&mut transaction, task).await?;
        if let Some(stop) = held.stop {
            set_state(&mut transaction, held.task_id, "CANCELLED").await?;
            end_stopped(&mut transaction, &task.subject, &mut held.document, &stop).await?;
        } else {
            sqlx::query("UPDATE tasks SET state = 'READY', not_before_ms = ?, attempt = ? WHERE id = ?")
                .bind(not_before_ms)
                .bind(attempts)
                .bind(held.task_id)
                .execute(&mut *transaction)
                .await?;
            let change = Change::Requeued(attempts);
            apply(&mut transaction, &task.subject, &mut held.document, change).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    async fn claim_first(&self) -> Result<Option<Claimed>, EngineError> {
        let mut transaction = self.begin().await?;
        let row: Option<(i64, String, String, String, i64, u32)> = sqlx::query_as(
            "UPDATE tasks SET state = 'RUNNING', epoch = epoch + 1, attempt = attempt + 1 \
             WHERE id = (SELECT id FROM tasks WHERE state = 'READY' AND not_before_ms <= ? \
                         ORDER BY priority DESC, id LIMIT 1) \
             RETURNING id, kind, tenant, subject, epoch, attempt",
        )
        .bind(now_ms())
        .fetch_optional(&mut *transaction)
        .await?;
        let Some((_, kind, tenant, id, epoch, attempt)) = row else { return Ok(None) };
        let subject = Subject { kind: SubjectKind::from_task_kind(&kind), tenant, id };
        let mut document = load(&mut transaction, &subject).await?.ok_or(EngineError::Fenced)?;
        apply(&mut transaction, &subject, &mut document, Change::Started(attempt)).await?;
        let work = match document {
            Document::Model(model) => load_registration(&mut transaction, &subject, model).await?,
            Document::Job(job) => load_proof(&mut transaction, &subject, job).await?,
        };
        transaction.commit().await?;
        Ok(Some(Claimed { task: Task { subject, epoch, attempt }, work }))
    }

    async fn recover_running(&self, max_attempts: u32) -> Result<(u32, u32), EngineError> {
        let mut transaction = self.begin().await?;
        let rows: Vec<(i64, String, String, String, u32)> =
            sqlx::query_as("SELECT id, kind, tenant, subject, attempt FROM tasks WHERE state = 'RUNNING'")
                .fetch_all(&mut *transaction)
                .await?;
        let (mut requeued, mut failed) = (0, 0);
        for (task_id, kind, tenant, id, attempt) in rows {
            let subject = Subject { kind: SubjectKind::from_task_kind(&kind), tenant, id };
            let mut document = load(&mut transaction, &subject).await?.ok_or(EngineError::Fenced)?;
            let (state, change) = match load_stop(&mut transaction, &subject).await? {
                Some(stop) => ("CANCELLED", stop.change(attempt)),
                None if attempt >= max_attempts => ("FAILED", Change::Failed(poisoned(attempt))),
                None => ("READY", Change::Requeued(attempt)),
            };
            match state {
                "READY" => requeued += 1,
                _ => failed += 1,
            }
            sqlx::query("UPDATE tasks SET state = ?, epoch = epoch + 1, not_before_ms = 0 WHERE id = ?")
                .bind(state)
                .bind(task_id)
                .execute(&mut *transaction)
                .await?;
            apply(&mut transaction, &subject, &mut document, change).await?;
        }
        transaction.commit().await?;
        Ok((requeued, failed))
    }

    async fn expire_jobs(&self) -> Result<Expired, EngineError> {
        // Cheap look first: the writer is not disturbed when there is nothing to do.
        const DUE: &str = "SELECT tenant, id FROM jobs WHERE deadline_ms <= ? \
             AND deadline_ms IS NOT NULL AND stop_cause IS NULL AND state IN (1, 2)";
        let now = now_ms();
        let due: Vec<(String, String)> = sqlx::query_as(DUE).bind(now).fetch_all(&self.readers).await?;
        let mut expired = Expired::default();
        if due.is_empty() {
            return Ok(expired);
        }
        let mut transaction = self.begin().await?;
        let due: Vec<(String, String)> = sqlx::query_as(DUE).bind(now).fetch_all(&mut *transaction).await?;
        for (tenant, id) in due {
            let subject = Subject { kind: SubjectKind::Job, tenant, id };
            let mut document = load(&mut transaction, &subject).await?.ok_or(EngineError::Fenced)?;
            stop_job(&mut transaction, &subject, &mut document, &Stop::deadline()).await?;
            match document.is_final() {
                true => expired.ended.push(subject),
                false => expired.stopping.push(subject),
            }
        }
        transaction.commit().await?;
        Ok(expired)
    }
}

impl Tasks for SqliteEngine {
    fn recover(&self, max_attempts: u32) -> EngineFuture<'_, (u32, u32)> {
        Box::pin(self.recover_running(max_attempts))
    }

    fn claim(&self) -> EngineFuture<'_, Option<Claimed>> {
        Box::pin(async move {
            // Cheap look first, as the poll of an idle worker must not write.
            let ready: Option<i64> = sqlx::query_scalar("SELECT id FROM tasks WHERE state = 'READY' AND not_before_ms <= ? LIMIT 1")
                .bind(now_ms())
                .fetch_optional(&self.readers)
                .await?;
            match ready {
                Some(_) => self.claim_first().await,
                None => Ok(None),
            }
        })
    }

    fn progress(&self, task: &Task, progress: v1::Progress) -> EngineFuture<'_, TaskFlow> {
        let task = task.clone();
        Box::pin(async move {
            let mut transaction = self.begin().await?;
            let mut held = self.hold(&mut transaction, &task).await?;
            let change = Change::Progressed(progress);
            apply(&mut transaction, &task.subject, &mut held.document, change).await?;
            transaction.commit().await?;
            Ok(if held.stop.is_some() { TaskFlow::Stop } else { TaskFlow::Continue })
        })
    }

    fn complete_model(
        &self,
        task: &Task,
        registered: v1::RegisteredModel,
        private_digest: Digest,
        artifacts: Vec<ArtifactFacts>,
    ) -> EngineFuture<'_, ()> {
        let task = task.clone();
        Box::pin(async move {
            let mut transaction = self.begin().await?;
            let mut held = self.hold(&mut transaction, &task).await?;
            for facts in &artifacts {
                insert_artifact(&mut transaction, facts).await?;
            }
            sqlx::query("UPDATE models SET private_digest = ? WHERE tenant = ? AND id = ?")
                .bind(private_digest.as_slice())
                .bind(&task.subject.tenant)
                .bind(&task.subject.id)
                .execute(&mut *transaction)
                .await?;
            set_state(&mut transaction, held.task_id, "DONE").await?;
            let change = Change::Registered(Box::new(registered));
            apply(&mut transaction, &task.subject, &mut held.document, change).await?;
            transaction.commit().await?;
            Ok(())
        })
    }

    fn complete_job(&self, task: &Task, result: v1::JobResult, artifacts: Vec<ArtifactFacts>) -> EngineFuture<'_, ()> {
        let task = task.clone();
        Box::pin(async move { self.end(&task, "DONE", Change::Proved(Box::new(result)), artifacts).await })
    }

    fn fail(&self, task: &Task, failure: v1::Failure) -> EngineFuture<'_, ()> {
        let task = task.clone();
        Box::pin(async move { self.end(&task, "FAILED", Change::Failed(failure), Vec::new()).await })
    }

    fn retry(&self, task: &Task, not_before_ms: i64) -> EngineFuture<'_, ()> {
        let task = task.clone();
        Box::pin(async move { self.requeue(&task, not_before_ms, task.attempt).await })
    }

    fn release(&self, task: &Task) -> EngineFuture<'_, ()> {
        let task = task.clone();
        Box::pin(async move { self.requeue(&task, 0, task.attempt.saturating_sub(1)).await })
    }

    fn expire(&self) -> EngineFuture<'_, Expired> {
        Box::pin(self.expire_jobs())
    }

    fn queue(&self) -> EngineFuture<'_, QueueFacts> {
        Box::pin(self.queue_facts())
    }
}

fn poisoned(attempts: u32) -> v1::Failure {
    v1::Failure {
        reason: "POISONED".into(),
        message: format!("the service died {attempts} times while working on it"),
        retryable: false,
        attempts,
        stage: String::new(),
    }
}

async fn set_state(connection: &mut SqliteConnection, task_id: i64, state: &'static str) -> Result<(), EngineError> {
    sqlx::query("UPDATE tasks SET state = ? WHERE id = ?").bind(state).bind(task_id).execute(connection).await?;
    Ok(())
}

async fn load_stop(connection: &mut SqliteConnection, subject: &Subject) -> Result<Option<Stop>, EngineError> {
    if subject.kind == SubjectKind::Model {
        return Ok(None);
    }
    let row: Option<(Option<String>, Option<String>)> =
        sqlx::query_as("SELECT stop_cause, stop_note FROM jobs WHERE tenant = ? AND id = ?")
            .bind(&subject.tenant)
            .bind(&subject.id)
            .fetch_optional(connection)
            .await?;
    Ok(row.and_then(|(cause, note)| {
        let cause = match cause?.as_str() {
            "DEADLINE" => StopCause::Deadline,
            _ => StopCause::Cancel,
        };
        Some(Stop { cause, note: note.unwrap_or_default() })
    }))
}

async fn load_registration(connection: &mut SqliteConnection, subject: &Subject, model: Box<v1::Model>) -> Result<Work, EngineError> {
    let (salt, seed): (Vec<u8>, Vec<u8>) = sqlx::query_as("SELECT salt, seed FROM models WHERE tenant = ? AND id = ?")
        .bind(&subject.tenant)
        .bind(&subject.id)
        .fetch_one(connection)
        .await?;
    Ok(Work::Register { model, salt: fixed(&salt)?, seed: fixed(&seed)? })
}

async fn load_proof(connection: &mut SqliteConnection, subject: &Subject, job: Box<v1::Job>) -> Result<Work, EngineError> {
    let (input_salt, seed): (Vec<u8>, Vec<u8>) = sqlx::query_as("SELECT input_salt, seed FROM jobs WHERE tenant = ? AND id = ?")
        .bind(&subject.tenant)
        .bind(&subject.id)
        .fetch_one(&mut *connection)
        .await?;
    let name = ModelName::parse(&job.model).map_err(|_| EngineError::ModelNotFound)?;
    let owner = Subject { kind: SubjectKind::Model, tenant: name.tenant, id: name.model_id };
    let Some(Document::Model(model)) = load(connection, &owner).await? else {
        return Err(EngineError::ModelNotFound);
    };
    let private: Vec<u8> = sqlx::query_scalar("SELECT private_digest FROM models WHERE tenant = ? AND id = ?")
        .bind(&owner.tenant)
        .bind(&owner.id)
        .fetch_one(connection)
        .await?;
    let private_digest = fixed(&private)?;
    Ok(Work::Prove { job, model, private_digest, input_salt: fixed(&input_salt)?, seed: fixed(&seed)? })
}

/// A column of 32 bytes.
pub(super) fn fixed(bytes: &[u8]) -> Result<[u8; 32], EngineError> {
    bytes.try_into().map_err(|_| {
        let source = std::io::Error::new(std::io::ErrorKind::InvalidData, "not 32 bytes");
        EngineError::Database(sqlx::Error::Decode(source.into()))
    })
}
