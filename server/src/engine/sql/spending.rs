//! What attempts at a job's tasks took: it is added to the job's cost in the transaction in which they end, and written with what follows from that.

use zkinfer_proto::v1;

use super::super::document::Document;
use super::super::{EngineError, Subject, Usage};
use super::Writing;
use super::held::Held;
use crate::observe::cost::{self, Spent};

/// Adds what an attempt took that ends now; with the result that it gave, if it proved the job.
///
/// A whole proof took what its result, its worker or its progress tells of its stages; a step, the time since it was given out.
pub(super) async fn spend(
    writing: &mut Writing,
    held: &mut Held,
    usage: &Usage,
    result: Option<&v1::JobResult>,
) -> Result<(), EngineError> {
    let Document::Job(job) = &held.document else { return Ok(()) };
    let stage_times = if held.is_whole() { whole_times(job, usage, result) } else { step_time(writing, held).await? };
    let spent = Spent {
        stage_times: &stage_times,
        device: &usage.device,
        peak_host_bytes: usage.peak_host_bytes.max(result.map_or(0, |result| result.peak_host_bytes)),
        peak_device_bytes: usage.peak_device_bytes,
    };
    add(&mut held.document, &spent);
    if held.is_whole() { Ok(()) } else { count_runs(writing, &held.subject, &mut held.document).await }
}

/// Adds what an attempt took that is lost. Of a whole proof its progress tells; when a step was last worked at is not known, and no time is added.
pub(super) async fn spend_lost(writing: &mut Writing, held: &mut Held) -> Result<(), EngineError> {
    let Document::Job(job) = &held.document else { return Ok(()) };
    if !held.is_whole() {
        return count_runs(writing, &held.subject, &mut held.document).await;
    }
    let stage_times = cost::reported(job);
    add(&mut held.document, &Spent { stage_times: &stage_times, ..Spent::default() });
    Ok(())
}

/// Adds what the attempts at a job's steps took that run and are about to be cancelled with it. Where they run is not told.
pub(super) async fn spend_running(writing: &mut Writing, subject: &Subject, document: &mut Document) -> Result<(), EngineError> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT tasks.step, CAST(sum($1 - attempts.started_ms) AS BIGINT) FROM attempts \
           JOIN tasks ON tasks.kind = attempts.kind AND tasks.tenant = attempts.tenant AND tasks.subject = attempts.subject \
             AND tasks.ordinal = attempts.ordinal \
         WHERE attempts.kind = 'PROVE' AND attempts.tenant = $2 AND attempts.subject = $3 AND attempts.ended_ms IS NULL \
         GROUP BY tasks.step ORDER BY min(tasks.ordinal)",
    )
    .bind(writing.now_ms)
    .bind(&subject.tenant)
    .bind(&subject.id)
    .fetch_all(writing.connection())
    .await?;
    let stage_times: Vec<v1::StageTime> = rows.into_iter().map(|(step, ms)| stage_time(step, ms)).collect();
    if stage_times.is_empty() {
        // A job whose work has not begun has no cost.
        return Ok(());
    }
    add(document, &Spent { stage_times: &stage_times, ..Spent::default() });
    count_runs(writing, subject, document).await
}

/// Counts the attempts at a job's steps, those that run too. A whole job counts its own when they begin, since its document is written then.
async fn count_runs(writing: &mut Writing, subject: &Subject, document: &mut Document) -> Result<(), EngineError> {
    let Document::Job(job) = document else { return Ok(()) };
    let runs: i64 = sqlx::query_scalar("SELECT count(*) FROM attempts WHERE kind = 'PROVE' AND tenant = $1 AND subject = $2")
        .bind(&subject.tenant)
        .bind(&subject.id)
        .fetch_one(writing.connection())
        .await?;
    job.cost.get_or_insert_default().runs = u32::try_from(runs).unwrap_or(u32::MAX);
    Ok(())
}

/// A stage's time from milliseconds; a clock that was set back makes none negative.
pub(super) fn stage_time(name: String, ms: i64) -> v1::StageTime {
    let ms = ms.max(0);
    v1::StageTime { name, elapsed: Some(prost_types::Duration { seconds: ms / 1000, nanos: (ms % 1000) as i32 * 1_000_000 }) }
}

fn add(document: &mut Document, spent: &Spent<'_>) {
    if let Document::Job(job) = document {
        cost::add(job.cost.get_or_insert_default(), spent);
    }
}

fn whole_times(job: &v1::Job, usage: &Usage, result: Option<&v1::JobResult>) -> Vec<v1::StageTime> {
    match result {
        Some(result) => result.stage_times.clone(),
        None if usage.stage_times.is_empty() => cost::reported(job),
        None => usage.stage_times.clone(),
    }
}

/// The time since a step was given out, as that of its kind.
async fn step_time(writing: &mut Writing, held: &Held) -> Result<Vec<v1::StageTime>, EngineError> {
    let row: Option<(String, i64)> = sqlx::query_as(
        "SELECT tasks.step, attempts.started_ms FROM attempts \
           JOIN tasks ON tasks.kind = attempts.kind AND tasks.tenant = attempts.tenant AND tasks.subject = attempts.subject \
             AND tasks.ordinal = attempts.ordinal \
         WHERE attempts.kind = 'PROVE' AND attempts.tenant = $1 AND attempts.subject = $2 AND attempts.ordinal = $3 AND attempts.epoch = $4",
    )
    .bind(&held.subject.tenant)
    .bind(&held.subject.id)
    .bind(held.ordinal)
    .bind(held.epoch)
    .fetch_optional(writing.connection())
    .await?;
    let now_ms = writing.now_ms;
    Ok(row.into_iter().map(|(step, started_ms)| stage_time(step, now_ms.saturating_sub(started_ms))).collect())
}
