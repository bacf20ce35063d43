//! What becomes of a task whose worker reports: progress, success, failure, release.

use zkinfer_proto::v1;

use super::super::document::Change;
use super::super::verdict::{Verdict, decide};
use super::super::{
    ArtifactFacts, Ended, EngineError, FailedAttempt, FailureCause, Lease, Notice, Outcome, Subject, SubjectKind, TaskFlow, Usage, graph,
};
use super::admission::named;
use super::artifact_records::{id_of, record_and_require};
use super::garbage::{REFERENCES, Referrer, reference_rows};
use super::held::{Held, hold, hold_with_others};
use super::many::{Part, row};
use super::memory::{largest_device, largest_host};
use super::remake::{make_again, wait_for_needs};
use super::spending::{spend, spend_running, stage_time};
use super::stopping::{Stop, cancel_all, end_if_idle};
use super::{SqlEngine, Writing, apply, apply_with};
use crate::artifacts::{ArtifactId, Class};
use crate::placement::retry::History;

impl SqlEngine {
    pub(super) async fn note_progress(&self, lease: &Lease, progress: v1::Progress) -> Result<TaskFlow, EngineError> {
        // A step is not told of: the job's progress counts whole tasks.
        if !graph::is_whole(&lease.task.name) {
            return self.flow(lease).await;
        }
        let mut writing = self.begin().await?;
        let mut held = hold(&mut writing, lease).await?;
        apply(&mut writing, &held.subject, &mut held.document, Change::Progressed(progress)).await?;
        self.commit(writing).await?;
        Ok(if held.stop.is_some() { TaskFlow::Stop } else { TaskFlow::Continue })
    }

    /// Whether a step is still wanted, without a write.
    async fn flow(&self, lease: &Lease) -> Result<TaskFlow, EngineError> {
        let subject = &lease.task.subject;
        let stop: Option<Option<String>> = sqlx::query_scalar(
            "SELECT jobs.stop_cause FROM tasks JOIN jobs ON jobs.tenant = tasks.tenant AND jobs.id = tasks.subject \
             WHERE tasks.kind = 'PROVE' AND tasks.tenant = $1 AND tasks.subject = $2 AND tasks.name = $3 AND tasks.epoch = $4 \
               AND tasks.state = 'RUNNING'",
        )
        .bind(&subject.tenant)
        .bind(&subject.id)
        .bind(&lease.task.name)
        .bind(lease.epoch)
        .fetch_optional(&self.readers)
        .await?;
        match stop {
            None => Err(EngineError::Fenced),
            Some(None) => Ok(TaskFlow::Continue),
            Some(Some(_)) => Ok(TaskFlow::Stop),
        }
    }

    /// Completes a task in a transaction of its own.
    pub(super) async fn complete_alone(&self, lease: &Lease, outcome: Outcome, usage: &Usage) -> Result<Option<Ended>, EngineError> {
        let mut writing = self.begin().await?;
        let mut held = match outcome {
            Outcome::Proved { .. } => hold_with_others(&mut writing, lease).await?,
            Outcome::Registered { .. } | Outcome::Result(_) => hold(&mut writing, lease).await?,
        };
        if let Some(stop) = held.stop.clone() {
            spend(&mut writing, &mut held, usage, None).await?;
            end_task(&mut writing, &held, "CANCELLED", usage).await?;
            end_stopped(&mut writing, &mut held, &stop).await?;
            self.commit(writing).await?;
            return Ok(held.document.into_ended());
        }
        check_outcome(&mut writing, &held, &outcome).await?;
        spend(&mut writing, &mut held, usage, outcome.result()).await?;
        end_task(&mut writing, &held, "DONE", usage).await?;
        note_fallback(&mut writing, &mut held, usage).await?;
        match outcome {
            Outcome::Registered { registered, private_digest, graph, artifacts } => {
                let private = ArtifactId { class: Class::Internal, tenant: held.subject.tenant.clone(), digest: private_digest };
                insert_artifacts(&mut writing, &held.subject, Referrer::Document, &artifacts, vec![private]).await?;
                keep_model(&mut writing, &held.subject, private_digest, &graph).await?;
                apply(&mut writing, &held.subject, &mut held.document, Change::Registered(registered)).await?;
            }
            Outcome::Result(facts) => {
                insert_artifacts(&mut writing, &held.subject, Referrer::Tasks, std::slice::from_ref(&facts), Vec::new()).await?;
                hand_on(&mut writing, &held, &facts).await?;
                let progress = graph_progress(&mut writing, &held).await?;
                apply(&mut writing, &held.subject, &mut held.document, Change::Progressed(progress)).await?;
            }
            Outcome::Proved { mut result, artifacts } => {
                let (referred, required) = self.artifacts_of_proof(&mut writing, &held, &result, &artifacts).await?;
                record_and_require(&mut writing, &artifacts, &required).await?;
                if !held.is_whole() {
                    result.stage_times = step_times(&mut writing, &held.subject).await?;
                }
                let mut parts: Vec<Part> =
                    REFERENCES.part(reference_rows(&held.subject, Referrer::Document, &referred)).into_iter().collect();
                parts.push(published(&held.subject, &result, writing.now_ms));
                apply_with(&mut writing, &held.subject, &mut held.document, Change::Proved(result), parts).await?;
                if !held.is_whole() {
                    // A job that has its result is at its end, and so are its tasks.
                    cancel_all(&mut writing, &held.subject).await?;
                }
            }
        }
        self.commit(writing).await?;
        Ok(held.document.into_ended())
    }

    /// What a job refers to once it has its proof: what that consists of, and the model's key. And what of it must be recorded then.
    pub(super) async fn artifacts_of_proof(
        &self,
        writing: &mut Writing,
        held: &Held,
        result: &v1::JobResult,
        artifacts: &[ArtifactFacts],
    ) -> Result<(Vec<ArtifactId>, Vec<ArtifactId>), EngineError> {
        let own: Vec<ArtifactId> = artifacts.iter().map(id_of).collect();
        let mut required = own.clone();
        let keys = named(&held.subject, [result.verifier_key_artifact.as_str()])?;
        for key in &keys {
            if !self.is_of_model(writing, held.model(), key).await? {
                required.push(key.clone());
            }
        }
        Ok((own.into_iter().chain(keys).collect(), required))
    }

    pub(super) async fn fail_task(&self, lease: &Lease, failed: &FailedAttempt, usage: &Usage) -> Result<(), EngineError> {
        let mut writing = self.begin().await?;
        let mut held = hold_with_others(&mut writing, lease).await?;
        let (history, verdict) = self.judge(&mut writing, &held, failed, usage).await?;
        held.history = history;
        spend(&mut writing, &mut held, usage, None).await?;
        end_attempt(&mut writing, &held, failed.cause.as_str(), usage).await?;
        let goes_on = held.stop.is_none() && matches!(verdict, Verdict::Retry { .. });
        self.follow(&mut writing, &mut held, verdict, failed.cause.as_str(), &failed.message).await?;
        if goes_on && failed.cause == FailureCause::Storage {
            make_again(&mut writing, &mut held, &failed.damaged).await?;
        }
        self.commit(writing).await
    }

    /// Decides, after what the attempt took and what there is, if it found too little memory.
    pub(super) async fn judge(
        &self,
        writing: &mut Writing,
        held: &Held,
        failed: &FailedAttempt,
        usage: &Usage,
    ) -> Result<(History, Verdict), EngineError> {
        let mut task = held.failed();
        // What others took beside it does not make it larger.
        let of_its_own = |peak_bytes| if usage.is_shared { 0 } else { u64::try_from(peak_bytes).unwrap_or(0) };
        match failed.cause {
            FailureCause::DeviceMemory => {
                task.peak_device_bytes = of_its_own(usage.peak_device_bytes);
                task.largest_device_bytes = largest_device(writing, self.rules.lease_ms).await?;
            }
            FailureCause::HostMemory => {
                task.peak_host_bytes = of_its_own(usage.peak_host_bytes);
                task.largest_host_bytes = largest_host(writing, self.rules.lease_ms, held.device_bytes).await?;
            }
            _ => {}
        }
        Ok(decide(failed, &task, &self.rules.budgets))
    }

    pub(super) async fn release_task(&self, lease: &Lease, usage: &Usage) -> Result<(), EngineError> {
        let mut writing = self.begin().await?;
        let mut held = hold_with_others(&mut writing, lease).await?;
        self.give_back(&mut writing, &mut held, usage).await?;
        self.commit(writing).await
    }

    /// Queues a task again; the attempt does not count.
    pub(super) async fn give_back(&self, writing: &mut Writing, held: &mut Held, usage: &Usage) -> Result<(), EngineError> {
        spend(writing, held, usage, None).await?;
        end_attempt(writing, held, "RELEASED", usage).await?;
        held.attempts = held.attempts.saturating_sub(1);
        if let Some(stop) = held.stop.clone() {
            set_state(writing, held, "CANCELLED").await?;
            return end_stopped(writing, held, &stop).await;
        }
        requeue(writing, held, writing.now_ms).await?;
        // A whole job was written as one that waits again.
        if held.is_whole() { Ok(()) } else { apply(writing, &held.subject, &mut held.document, Change::Spent).await }
    }

    /// Does what was decided after an attempt went wrong. A job that was told to stop ends that way.
    pub(super) async fn follow(
        &self,
        writing: &mut Writing,
        held: &mut Held,
        verdict: Verdict,
        outcome: &str,
        message: &str,
    ) -> Result<(), EngineError> {
        if let Some(stop) = held.stop.clone() {
            set_state(writing, held, "CANCELLED").await?;
            return end_stopped(writing, held, &stop).await;
        }
        match verdict {
            Verdict::Retry { after, device_bytes, host_bytes } => {
                (held.device_bytes, held.host_bytes) = (device_bytes, host_bytes);
                let after_ms = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
                let not_before_ms = writing.now_ms.saturating_add(after_ms);
                note(writing, held, outcome, message).await?;
                requeue(writing, held, not_before_ms).await
            }
            Verdict::Fail(mut failure) => {
                set_state(writing, held, "FAILED").await?;
                if !held.is_whole() {
                    spend_running(writing, &held.subject, &mut held.document).await?;
                    failure.stage = held.name.clone();
                }
                cancel_all(writing, &held.subject).await?;
                apply(writing, &held.subject, &mut held.document, Change::Failed(failure)).await
            }
        }
    }
}

/// Refuses what a task of another kind gives: a registration, a result that other tasks read, or the proof that no task reads.
async fn check_outcome(writing: &mut Writing, held: &Held, outcome: &Outcome) -> Result<(), EngineError> {
    let expected = match held.subject.kind {
        SubjectKind::Model => "a registration",
        SubjectKind::Job if held.is_whole() => "a proof",
        SubjectKind::Job => {
            let reader: Option<i64> = sqlx::query_scalar("SELECT task FROM deps WHERE tenant = $1 AND job = $2 AND needs = $3 LIMIT 1")
                .bind(&held.subject.tenant)
                .bind(&held.subject.id)
                .bind(held.ordinal)
                .fetch_optional(writing.connection())
                .await?;
            if reader.is_some() { "a result for other tasks" } else { "a proof" }
        }
    };
    let got = outcome.name();
    if got == expected { Ok(()) } else { Err(EngineError::OtherOutcome { task: held.name.clone(), expected, got }) }
}

/// After the end of an attempt, ends a job that was told to stop if none other runs; else keeps what the attempt took.
async fn end_stopped(writing: &mut Writing, held: &mut Held, stop: &Stop) -> Result<(), EngineError> {
    if end_if_idle(writing, &held.subject, &mut held.document, stop).await? {
        return Ok(());
    }
    apply(writing, &held.subject, &mut held.document, Change::Spent).await
}

/// Ends a task and its attempt.
async fn end_task(writing: &mut Writing, held: &Held, state: &'static str, usage: &Usage) -> Result<(), EngineError> {
    let parts = [task_state(held, state), attempt_end(held, state, usage, writing.now_ms)];
    writing.execute_together(&parts).await
}

fn task_state(held: &Held, state: &'static str) -> Part {
    let Held { subject, ordinal, .. } = held;
    Part::new(
        "UPDATE tasks SET state = ?, session = NULL WHERE kind = ? AND tenant = ? AND subject = ? AND ordinal = ?",
        row![state, subject.kind.task_kind(), &subject.tenant, &subject.id, *ordinal],
    )
}

fn attempt_end(held: &Held, outcome: &str, usage: &Usage, now_ms: i64) -> Part {
    let Held { subject, ordinal, epoch, .. } = held;
    Part::new(
        "UPDATE attempts SET ended_ms = ?, outcome = ?, device = ? WHERE kind = ? AND tenant = ? AND subject = ? AND ordinal = ? AND epoch = ?",
        row![now_ms, outcome, &usage.device, subject.kind.task_kind(), &subject.tenant, &subject.id, *ordinal, *epoch],
    )
}

async fn set_state(writing: &mut Writing, held: &Held, state: &'static str) -> Result<(), EngineError> {
    writing.execute_together(&[task_state(held, state)]).await
}

pub(super) async fn end_attempt(writing: &mut Writing, held: &Held, outcome: &str, usage: &Usage) -> Result<(), EngineError> {
    let end = attempt_end(held, outcome, usage, writing.now_ms);
    writing.execute_together(&[end]).await
}

/// Keeps what a worker's process wrote last, for operators.
pub(super) async fn keep_last_words(writing: &mut Writing, held: &Held, last_words: &str) -> Result<(), EngineError> {
    if last_words.is_empty() {
        return Ok(());
    }
    let Held { subject, ordinal, epoch, .. } = held;
    let kept = Part::new(
        "UPDATE attempts SET last_words = ? WHERE kind = ? AND tenant = ? AND subject = ? AND ordinal = ? AND epoch = ?",
        row![last_words, subject.kind.task_kind(), &subject.tenant, &subject.id, *ordinal, *epoch],
    );
    writing.execute_together(&[kept]).await
}

/// Queues a task again, with its failures so far and a new epoch. A subject without other tasks waits again as a whole.
async fn requeue(writing: &mut Writing, held: &mut Held, not_before_ms: i64) -> Result<(), EngineError> {
    let History { task, infrastructure, memory, killed_sessions } = held.history;
    sqlx::query(
        "UPDATE tasks SET state = 'READY', waiting_on = 0, epoch = epoch + 1, session = NULL, not_before_ms = $1, attempts = $2, failed_task = $3, \
           failed_infra = $4, failed_memory = $5, deaths = $6, device_bytes = $7, host_bytes = $8, too_large_ms = NULL \
         WHERE kind = $9 AND tenant = $10 AND subject = $11 AND ordinal = $12",
    )
    .bind(not_before_ms)
    .bind(i64::from(held.attempts))
    .bind(i64::from(task))
    .bind(i64::from(infrastructure))
    .bind(i64::from(memory))
    .bind(i64::from(killed_sessions))
    .bind(i64::try_from(held.device_bytes).unwrap_or(i64::MAX))
    .bind(i64::try_from(held.host_bytes).unwrap_or(i64::MAX))
    .bind(held.subject.kind.task_kind())
    .bind(&held.subject.tenant)
    .bind(&held.subject.id)
    .bind(held.ordinal)
    .execute(writing.connection())
    .await?;
    if held.is_whole() {
        apply(writing, &held.subject, &mut held.document, Change::Requeued(held.attempts)).await?;
    }
    if held.is_outdated {
        wait_for_needs(writing, &held.subject).await?;
    }
    writing.changed.push(Notice::Ready);
    Ok(())
}

/// Tells clients of something that happened to a task and did not end the job.
async fn note(writing: &mut Writing, held: &mut Held, outcome: &str, message: &str) -> Result<(), EngineError> {
    if held.subject.kind == SubjectKind::Model {
        return Ok(());
    }
    let note = v1::TaskNote { task: held.name.clone(), attempt: held.attempts, outcome: outcome.to_owned(), message: message.to_owned() };
    apply(writing, &held.subject, &mut held.document, Change::Noted(note)).await
}

async fn note_fallback(writing: &mut Writing, held: &mut Held, usage: &Usage) -> Result<(), EngineError> {
    match usage.fallback.as_str() {
        "" => Ok(()),
        reason => note(writing, held, "FALLBACK", reason).await,
    }
}

/// Records artifacts that a subject refers to, beside `others` that are there.
async fn insert_artifacts(
    writing: &mut Writing,
    subject: &Subject,
    by: Referrer,
    artifacts: &[ArtifactFacts],
    others: Vec<ArtifactId>,
) -> Result<(), EngineError> {
    let referred: Vec<ArtifactId> = artifacts.iter().map(id_of).chain(others).collect();
    record_and_require(writing, artifacts, &referred).await?;
    REFERENCES.execute(writing.connection(), &reference_rows(subject, by, &referred)).await
}

async fn keep_model(writing: &mut Writing, subject: &Subject, private: [u8; 32], graph: &v1::TaskGraph) -> Result<(), EngineError> {
    use prost::Message as _;
    sqlx::query("UPDATE models SET private_digest = $1, graph = $2 WHERE tenant = $3 AND id = $4")
        .bind(private.to_vec())
        .bind(graph.encode_to_vec())
        .bind(&subject.tenant)
        .bind(&subject.id)
        .execute(writing.connection())
        .await?;
    Ok(())
}

/// Gives a task's result to those that wait for it.
async fn hand_on(writing: &mut Writing, held: &Held, facts: &ArtifactFacts) -> Result<(), EngineError> {
    debug_assert_eq!(held.subject.kind, SubjectKind::Job, "a registration is one task");
    sqlx::query("UPDATE tasks SET output = $1 WHERE kind = 'PROVE' AND tenant = $2 AND subject = $3 AND ordinal = $4")
        .bind(facts.digest.to_vec())
        .bind(&held.subject.tenant)
        .bind(&held.subject.id)
        .bind(held.ordinal)
        .execute(writing.connection())
        .await?;
    let now_ms = writing.now_ms;
    sqlx::query(
        "UPDATE tasks SET waiting_on = waiting_on - 1, state = CASE WHEN waiting_on = 1 THEN 'READY' ELSE state END, not_before_ms = $4 \
         WHERE kind = 'PROVE' AND tenant = $1 AND subject = $2 AND state = $5 \
           AND ordinal IN (SELECT task FROM deps WHERE deps.tenant = $1 AND deps.job = $2 AND deps.needs = $3)",
    )
    .bind(&held.subject.tenant)
    .bind(&held.subject.id)
    .bind(held.ordinal)
    // From then on it waits.
    .bind(now_ms)
    // A value and no literal: with that PostgreSQL may take the index of waiting tasks, and read all that the tenant has.
    .bind("WAITING")
    .execute(writing.connection())
    .await?;
    prefer_holder(writing, held).await?;
    writing.changed.push(Notice::Ready);
    Ok(())
}

/// A layer is best proved by the session that committed it and still holds the oracle.
async fn prefer_holder(writing: &mut Writing, held: &Held) -> Result<(), EngineError> {
    let (Some(number), Some(session)) = (held.name.strip_prefix("commit-"), &held.session) else { return Ok(()) };
    sqlx::query("UPDATE tasks SET sibling = $1 WHERE kind = 'PROVE' AND tenant = $2 AND subject = $3 AND name = $4")
        .bind(session)
        .bind(&held.subject.tenant)
        .bind(&held.subject.id)
        .bind(format!("layer-{number}"))
        .execute(writing.connection())
        .await?;
    Ok(())
}

/// The job's one result. A second one breaks the key.
fn published(subject: &Subject, result: &v1::JobResult, now_ms: i64) -> Part {
    Part::new(
        "INSERT INTO results(tenant, job, proof, published_ms) VALUES (?, ?, ?, ?)",
        row![&subject.tenant, &subject.id, &result.proof_artifact, now_ms],
    )
}

/// How far a job of several tasks is: its steps in the order of the graph.
pub(super) async fn graph_progress(writing: &mut Writing, held: &Held) -> Result<v1::Progress, EngineError> {
    let rows: Vec<(String, i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT step, count(*), count(CASE WHEN state = 'DONE' THEN 1 END), CAST(sum(estimated_ms + 1) AS BIGINT), \
           CAST(coalesce(sum(CASE WHEN state = 'DONE' THEN estimated_ms + 1 END), 0) AS BIGINT) \
         FROM tasks WHERE kind = 'PROVE' AND tenant = $1 AND subject = $2 GROUP BY step ORDER BY min(ordinal)",
    )
    .bind(&held.subject.tenant)
    .bind(&held.subject.id)
    .fetch_all(writing.connection())
    .await?;
    let (total_ms, done_ms) = rows.iter().fold((0, 0), |(total, done), row| (total + row.3, done + row.4));
    let count = |column: i64| u32::try_from(column).unwrap_or(u32::MAX);
    let stage = |(name, total, done, _, _): &(String, i64, i64, i64, i64)| v1::Stage {
        name: name.clone(),
        total: count(*total),
        done: count(*done),
        elapsed: None,
    };
    let phase = rows.iter().find(|row| row.2 < row.1).map(|row| row.0.clone()).unwrap_or_default();
    Ok(v1::Progress {
        stages: rows.iter().map(stage).collect(),
        fraction: if total_ms > 0 { done_ms as f64 / total_ms as f64 } else { 0.0 },
        eta: None,
        queue_position: -1,
        phase,
        attempt: 1,
    })
}

/// How long the steps of a job took, all attempts that gave a result added up.
async fn step_times(writing: &mut Writing, subject: &Subject) -> Result<Vec<v1::StageTime>, EngineError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT tasks.step, CAST(sum(attempts.ended_ms - attempts.started_ms) AS BIGINT) FROM attempts \
           JOIN tasks ON tasks.kind = attempts.kind AND tasks.tenant = attempts.tenant AND tasks.subject = attempts.subject \
             AND tasks.ordinal = attempts.ordinal \
         WHERE attempts.kind = 'PROVE' AND attempts.tenant = $1 AND attempts.subject = $2 AND attempts.outcome = 'DONE' \
         GROUP BY tasks.step ORDER BY min(tasks.ordinal)",
    )
    .bind(&subject.tenant)
    .bind(&subject.id)
    .fetch_all(writing.connection())
    .await?;
    Ok(rows.into_iter().map(|(name, ms)| stage_time(name, ms)).collect())
}
