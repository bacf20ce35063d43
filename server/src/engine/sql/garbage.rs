//! What refers to artifacts, and what is garbage. Why this loses nothing: `artifacts/garbage.rs`.
//!
//! In PostgreSQL many transactions write at once, and each statement sees what was committed before it began. So who refers to an artifact or holds it
//! locks its row for sharing, and dooming has two steps: it locks the rows that look like garbage, passing over those that others have locked, and only
//! then looks, with a later statement, whether they are. What referred to them before the lock is seen; what comes after it waits, and sees the doom.
//! A hold is written before the artifact's row is looked at, since there may be none: then the hold's own row is what the two meet at.

use std::time::Duration;

use super::super::{Digest, EngineError, EngineFuture, Subject, SubjectKind};
use super::{SqlEngine, Writing, fixed};
use crate::artifacts::{ArtifactId, Class, Doomed, GarbageRecords};

/// What is garbage at $1: recorded before $2 by a version that counts references, not held, and nothing refers to it; or doomed before $3 by a sweep that
/// broke off.
macro_rules! garbage {
    () => {
        "(a.doomed_ms <= $3 AND a.doomed_ms <> $1 OR a.doomed_ms IS NULL AND a.is_counted = 1 AND a.created_ms <= $2 \
           AND NOT EXISTS (SELECT 1 FROM artifact_holds h \
             WHERE h.tenant = a.tenant AND h.class = a.class AND h.digest = a.digest AND h.until_ms > $1) \
           AND NOT EXISTS (SELECT 1 FROM artifact_references r WHERE r.tenant = a.tenant AND r.class = a.class AND r.digest = a.digest) \
           AND NOT EXISTS (SELECT 1 FROM uploads u WHERE u.tenant = a.tenant AND a.class = 'PUBLIC' AND u.digest = a.digest))"
    };
}

/// Times that decide what is garbage.
struct Bounds {
    now_ms: i64,
    recorded_before_ms: i64,
    doomed_before_ms: i64,
}

/// Who refers to an artifact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Referrer {
    /// The subject, as long as it is there.
    Document,
    /// Tasks of the subject, until it is final.
    Tasks,
}

impl Referrer {
    fn kind(self, subject: &Subject) -> &'static str {
        match (self, subject.kind) {
            (Self::Tasks, _) => "TASK",
            (Self::Document, SubjectKind::Model) => "MODEL",
            (Self::Document, SubjectKind::Job) => "JOB",
        }
    }
}

impl GarbageRecords for SqlEngine {
    fn hold(&self, artifacts: Vec<ArtifactId>, time: Duration) -> EngineFuture<'_, bool> {
        Box::pin(async move {
            let mut writing = self.begin().await?;
            let until_ms = writing.now_ms.saturating_add(ms(time));
            for artifact in &artifacts {
                insert_hold(&mut writing, artifact, until_ms).await?;
                if is_doomed(&mut writing, artifact).await? {
                    // Dropped, the transaction is rolled back with all holds.
                    return Ok(false);
                }
            }
            self.commit(writing).await?;
            Ok(true)
        })
    }

    fn doom(&self, grace: Duration, quarantine: Duration, limit: u32) -> EngineFuture<'_, Doomed> {
        Box::pin(async move {
            let mut writing = self.begin().await?;
            let now_ms = writing.now_ms;
            let bounds = Bounds {
                now_ms,
                recorded_before_ms: now_ms.saturating_sub(ms(grace)),
                doomed_before_ms: now_ms.saturating_sub(ms(quarantine)),
            };
            let mut artifacts = doom_unrecorded(&mut writing, i64::from(limit)).await?;
            let room = i64::from(limit) - artifacts.len() as i64;
            for artifact in candidates(&mut writing, &bounds, room).await? {
                if doom_one(&mut writing, &bounds, &artifact).await? {
                    artifacts.push(artifact);
                }
            }
            self.commit(writing).await?;
            Ok(Doomed { artifacts, at_ms: now_ms })
        })
    }

    fn forget(&self, doomed: Doomed) -> EngineFuture<'_, ()> {
        Box::pin(async move {
            let mut writing = self.begin().await?;
            for artifact in &doomed.artifacts {
                sqlx::query("DELETE FROM artifacts WHERE tenant = $1 AND class = $2 AND digest = $3 AND doomed_ms = $4")
                    .bind(&artifact.tenant)
                    .bind(artifact.class.as_str())
                    .bind(artifact.digest.to_vec())
                    .bind(doomed.at_ms)
                    .execute(writing.connection())
                    .await?;
            }
            self.commit(writing).await
        })
    }
}

fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

async fn insert_hold(writing: &mut Writing, artifact: &ArtifactId, until_ms: i64) -> Result<(), EngineError> {
    // Two holds last as long as the longer one.
    let sql = writing.dialect.pick(
        "INSERT INTO artifact_holds(tenant, class, digest, until_ms) VALUES ($1, $2, $3, $4) \
         ON CONFLICT(tenant, class, digest) DO UPDATE SET until_ms = max(artifact_holds.until_ms, excluded.until_ms)",
        "INSERT INTO artifact_holds(tenant, class, digest, until_ms) VALUES ($1, $2, $3, $4) \
         ON CONFLICT(tenant, class, digest) DO UPDATE SET until_ms = greatest(artifact_holds.until_ms, excluded.until_ms)",
    );
    sqlx::query(sql)
        .bind(&artifact.tenant)
        .bind(artifact.class.as_str())
        .bind(artifact.digest.to_vec())
        .bind(until_ms)
        .execute(writing.connection())
        .await?;
    Ok(())
}

/// Locks the record, if there is one, against a doom.
async fn is_doomed(writing: &mut Writing, artifact: &ArtifactId) -> Result<bool, EngineError> {
    let record = lock_record(writing, artifact).await?;
    Ok(matches!(record, Some(Some(_))))
}

/// The time of an artifact's doom, if it is recorded, and if it is doomed. Until the transaction ends, this does not change.
async fn lock_record(writing: &mut Writing, artifact: &ArtifactId) -> Result<Option<Option<i64>>, EngineError> {
    let sql = writing.dialect.pick(
        "SELECT doomed_ms FROM artifacts WHERE tenant = $1 AND class = $2 AND digest = $3",
        "SELECT doomed_ms FROM artifacts WHERE tenant = $1 AND class = $2 AND digest = $3 FOR SHARE",
    );
    let record = sqlx::query_scalar(sql)
        .bind(&artifact.tenant)
        .bind(artifact.class.as_str())
        .bind(artifact.digest.to_vec())
        .fetch_optional(writing.connection())
        .await?;
    Ok(record)
}

/// Checks that an artifact is recorded and not doomed, and keeps it so until the transaction ends.
///
/// # Errors
/// [`EngineError::ArtifactGone`].
pub(super) async fn require(writing: &mut Writing, artifact: &ArtifactId) -> Result<(), EngineError> {
    match lock_record(writing, artifact).await? {
        Some(None) => Ok(()),
        Some(Some(_)) | None => Err(EngineError::ArtifactGone),
    }
}

/// Makes a subject refer to an artifact. Again is no error.
///
/// # Errors
/// [`EngineError::ArtifactGone`].
pub(super) async fn refer(writing: &mut Writing, subject: &Subject, by: Referrer, artifact: &ArtifactId) -> Result<(), EngineError> {
    require(writing, artifact).await?;
    sqlx::query("INSERT INTO artifact_references(tenant, class, digest, kind, subject) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING")
        .bind(&artifact.tenant)
        .bind(artifact.class.as_str())
        .bind(artifact.digest.to_vec())
        .bind(by.kind(subject))
        .bind(&subject.id)
        .execute(writing.connection())
        .await?;
    Ok(())
}

/// Ends the references of a job's tasks: nobody reads their results any more.
pub(super) async fn drop_task_references(writing: &mut Writing, job: &Subject) -> Result<(), EngineError> {
    sqlx::query("DELETE FROM artifact_references WHERE tenant = $1 AND kind = 'TASK' AND subject = $2")
        .bind(&job.tenant)
        .bind(&job.id)
        .execute(writing.connection())
        .await?;
    Ok(())
}

/// Ends the holds whose time has passed, and dooms what was held and never recorded: bytes that an attempt put before it failed.
async fn doom_unrecorded(writing: &mut Writing, limit: i64) -> Result<Vec<ArtifactId>, EngineError> {
    let now_ms = writing.now_ms;
    let ended: Vec<(String, String, Vec<u8>)> = sqlx::query_as(
        "DELETE FROM artifact_holds WHERE until_ms <= $1 AND (tenant, class, digest) IN \
           (SELECT tenant, class, digest FROM artifact_holds WHERE until_ms <= $1 ORDER BY until_ms LIMIT $2) RETURNING tenant, class, digest",
    )
    .bind(now_ms)
    .bind(limit)
    .fetch_all(writing.connection())
    .await?;
    let mut doomed = Vec::new();
    for row in ended {
        let artifact = artifact_id(row)?;
        let inserted = sqlx::query(
            "INSERT INTO artifacts(tenant, class, digest, size_bytes, media_type, created_ms, doomed_ms, is_counted) \
             VALUES ($1, $2, $3, 0, '', $4, $4, 1) ON CONFLICT DO NOTHING",
        )
        .bind(&artifact.tenant)
        .bind(artifact.class.as_str())
        .bind(artifact.digest.to_vec())
        .bind(now_ms)
        .execute(writing.connection())
        .await?;
        if inserted.rows_affected() > 0 {
            doomed.push(artifact);
        }
    }
    Ok(doomed)
}

/// Locks what looks like garbage, passing over what others have locked.
async fn candidates(writing: &mut Writing, bounds: &Bounds, limit: i64) -> Result<Vec<ArtifactId>, EngineError> {
    let sql = writing.dialect.pick(
        concat!("SELECT a.tenant, a.class, a.digest FROM artifacts a WHERE ", garbage!(), " LIMIT $4"),
        concat!("SELECT a.tenant, a.class, a.digest FROM artifacts a WHERE ", garbage!(), " LIMIT $4 FOR UPDATE OF a SKIP LOCKED"),
    );
    let rows: Vec<(String, String, Vec<u8>)> = sqlx::query_as(sql)
        .bind(bounds.now_ms)
        .bind(bounds.recorded_before_ms)
        .bind(bounds.doomed_before_ms)
        .bind(limit)
        .fetch_all(writing.connection())
        .await?;
    rows.into_iter().map(artifact_id).collect()
}

/// Dooms an artifact whose record is locked, if it still is garbage. Answers whether it was.
async fn doom_one(writing: &mut Writing, bounds: &Bounds, artifact: &ArtifactId) -> Result<bool, EngineError> {
    let sql = concat!("UPDATE artifacts AS a SET doomed_ms = $1 WHERE a.tenant = $4 AND a.class = $5 AND a.digest = $6 AND ", garbage!());
    let updated = sqlx::query(sql)
        .bind(bounds.now_ms)
        .bind(bounds.recorded_before_ms)
        .bind(bounds.doomed_before_ms)
        .bind(&artifact.tenant)
        .bind(artifact.class.as_str())
        .bind(artifact.digest.to_vec())
        .execute(writing.connection())
        .await?;
    Ok(updated.rows_affected() > 0)
}

fn artifact_id((tenant, class, digest): (String, String, Vec<u8>)) -> Result<ArtifactId, EngineError> {
    // The schema admits no third.
    let class = if class == Class::Internal.as_str() { Class::Internal } else { Class::Public };
    let digest: Digest = fixed(&digest)?;
    Ok(ArtifactId { class, tenant, digest })
}
