//! What refers to artifacts, and what is garbage. Why this loses nothing: `artifacts/garbage.rs`.
//!
//! In PostgreSQL many transactions write at once, and each statement sees what was committed before it began. So who refers to an artifact or holds it
//! locks its row for sharing, and dooming has two steps: it locks the rows that look like garbage, passing over those that others have locked, and only
//! then looks, with a later statement, whether they are. What referred to them before the lock is seen; what comes after it waits, and sees the doom.
//! A hold is written before the artifact's row is looked at, since there may be none: then the hold's own row is what the two meet at.
//!
//! What may be garbage is looked for page by page by a reader, which keeps nobody from writing; what looks like it is then confirmed and doomed, a page in a
//! transaction.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use sqlx::Row as _;
use sqlx::any::AnyRow;

use super::super::{Digest, EngineError, EngineFuture, Subject, SubjectKind};
use super::many::{Many, Part, Value, row};
use super::{Dialect, SqlEngine, Writing, fixed};
use crate::artifacts::{ArtifactId, Class, Doomed, GarbageRecords};

/// Rows that are looked at, or written, at a time.
const PAGE: usize = 250;

/// Not held at $1, and nothing refers to it.
macro_rules! unused {
    () => {
        "NOT EXISTS (SELECT 1 FROM artifact_holds h \
             WHERE h.tenant = a.tenant AND h.class = a.class AND h.digest = a.digest AND h.until_ms > $1) \
           AND NOT EXISTS (SELECT 1 FROM artifact_references r WHERE r.tenant = a.tenant AND r.class = a.class AND r.digest = a.digest) \
           AND NOT EXISTS (SELECT 1 FROM uploads u WHERE u.tenant = a.tenant AND a.class = 'PUBLIC' AND u.digest = a.digest)"
    };
}

/// What is garbage at $1: recorded before $2 by a version that counts references, and unused; or doomed before $3 by a sweep that broke off.
macro_rules! garbage {
    () => {
        concat!(
            "(a.doomed_ms <= $3 AND a.doomed_ms <> $1 OR a.doomed_ms IS NULL AND a.is_counted = 1 AND a.created_ms <= $2 AND ",
            unused!(),
            ")"
        )
    };
}

/// Of the old artifacts behind a place, in the order of the index: whether each looks like garbage.
const AGED: &str = concat!(
    "SELECT a.created_ms, a.tenant, a.class, a.digest, CASE WHEN ",
    unused!(),
    " THEN 1 ELSE 0 END FROM artifacts a WHERE a.doomed_ms IS NULL AND a.is_counted = 1 AND a.created_ms <= $2 \
       AND (a.created_ms, a.tenant, a.class, a.digest) > ($3, $4, $5, $6) \
     ORDER BY a.created_ms, a.tenant, a.class, a.digest LIMIT $7"
);

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
    pub(super) fn kind(self, subject: &Subject) -> &'static str {
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
            insert_holds(&mut writing, &artifacts, until_ms).await?;
            if is_any_doomed(&mut writing, &artifacts).await? {
                // Dropped, the transaction is rolled back with all holds.
                return Ok(false);
            }
            self.commit(writing).await?;
            Ok(true)
        })
    }

    fn doom(&self, grace: Duration, quarantine: Duration, limit: u32) -> EngineFuture<'_, Doomed> {
        Box::pin(async move {
            let now_ms = self.clock_ms().await?;
            let bounds = Bounds {
                now_ms,
                recorded_before_ms: now_ms.saturating_sub(ms(grace)),
                doomed_before_ms: now_ms.saturating_sub(ms(quarantine)),
            };
            let limit = limit as usize;
            let mut artifacts = self.doom_unrecorded(&bounds, limit).await?;
            self.doom_again(&bounds, limit, &mut artifacts).await?;
            self.doom_aged(&bounds, limit, &mut artifacts).await?;
            Ok(Doomed { artifacts, at_ms: now_ms })
        })
    }

    fn forget(&self, doomed: Doomed) -> EngineFuture<'_, ()> {
        Box::pin(async move {
            for artifacts in doomed.artifacts.chunks(PAGE) {
                let mut writing = self.begin().await?;
                for artifact in artifacts {
                    sqlx::query("DELETE FROM artifacts WHERE tenant = $1 AND class = $2 AND digest = $3 AND doomed_ms = $4")
                        .bind(&artifact.tenant)
                        .bind(artifact.class.as_str())
                        .bind(artifact.digest.to_vec())
                        .bind(doomed.at_ms)
                        .execute(writing.connection())
                        .await?;
                }
                self.commit(writing).await?;
            }
            Ok(())
        })
    }
}

impl SqlEngine {
    /// Ends the holds whose time has passed, and dooms what was held and never recorded: bytes that an attempt put before it failed.
    async fn doom_unrecorded(&self, bounds: &Bounds, limit: usize) -> Result<Vec<ArtifactId>, EngineError> {
        let mut doomed = Vec::new();
        while doomed.len() < limit {
            let ended: Option<i64> = sqlx::query_scalar("SELECT until_ms FROM artifact_holds WHERE until_ms <= $1 LIMIT 1")
                .bind(bounds.now_ms)
                .fetch_optional(&self.readers)
                .await?;
            if ended.is_none() {
                break;
            }
            let mut writing = self.begin().await?;
            let ended = end_holds(&mut writing, bounds, PAGE.min(limit - doomed.len())).await?;
            // Others may have locked what is left; it is found by the next sweep.
            let is_last = ended.is_empty();
            doomed.extend(insert_doomed(&mut writing, bounds, &ended).await?);
            self.commit(writing).await?;
            if is_last {
                break;
            }
        }
        Ok(doomed)
    }

    /// Dooms again what a sweep that broke off has left.
    async fn doom_again(&self, bounds: &Bounds, limit: usize, doomed: &mut Vec<ArtifactId>) -> Result<(), EngineError> {
        let room = i64::try_from(limit.saturating_sub(doomed.len())).unwrap_or(i64::MAX);
        let rows: Vec<ArtifactRow> = sqlx::query_as(
            "SELECT tenant, class, digest FROM artifacts WHERE doomed_ms IS NOT NULL AND doomed_ms <= $1 AND doomed_ms <> $2 \
             ORDER BY doomed_ms LIMIT $3",
        )
        .bind(bounds.doomed_before_ms)
        .bind(bounds.now_ms)
        .bind(room)
        .fetch_all(&self.readers)
        .await?;
        let left = rows.into_iter().map(artifact_id).collect::<Result<Vec<_>, _>>()?;
        self.doom_confirmed(bounds, &left, doomed).await
    }

    /// Dooms what is old and unused: first from where the last sweep stopped, so that each of many does not read again all that is kept before it.
    async fn doom_aged(&self, bounds: &Bounds, limit: usize, doomed: &mut Vec<ArtifactId>) -> Result<(), EngineError> {
        for start in [self.swept_to.take(), Some(Place::default())].into_iter().flatten() {
            let mut place = Some(start);
            while let Some(from) = place.take() {
                let room = limit.saturating_sub(doomed.len());
                if room == 0 {
                    self.swept_to.keep(from);
                    return Ok(());
                }
                let (mut unused, next) = self.aged(bounds, &from).await?;
                let is_cut = unused.len() > room;
                unused.truncate(room);
                self.doom_confirmed(bounds, &unused, doomed).await?;
                if is_cut {
                    self.swept_to.keep(from);
                    return Ok(());
                }
                place = next;
            }
        }
        Ok(())
    }

    /// What looks like garbage on the page behind a place, and the end of the page unless it was the last.
    async fn aged(&self, bounds: &Bounds, from: &Place) -> Result<(Vec<ArtifactId>, Option<Place>), EngineError> {
        let rows: Vec<(i64, String, String, Vec<u8>, i64)> = sqlx::query_as(AGED)
            .bind(bounds.now_ms)
            .bind(bounds.recorded_before_ms)
            .bind(from.created_ms)
            .bind(&from.artifact.0)
            .bind(&from.artifact.1)
            .bind(&from.artifact.2)
            .bind(PAGE as i64)
            .fetch_all(&self.readers)
            .await?;
        let last = rows.last().filter(|_| rows.len() == PAGE);
        let next = last.map(|(created_ms, tenant, class, digest, _)| Place {
            created_ms: *created_ms,
            artifact: (tenant.clone(), class.clone(), digest.clone()),
        });
        let unused = rows.into_iter().filter(|row| row.4 != 0).map(|(_, tenant, class, digest, _)| artifact_id((tenant, class, digest)));
        Ok((unused.collect::<Result<_, _>>()?, next))
    }

    /// Dooms those that are garbage when nobody else can change that, a page in a transaction.
    async fn doom_confirmed(&self, bounds: &Bounds, artifacts: &[ArtifactId], doomed: &mut Vec<ArtifactId>) -> Result<(), EngineError> {
        for page in artifacts.chunks(PAGE) {
            let mut writing = self.begin().await?;
            let mut confirmed = Vec::new();
            for artifact in page {
                if lock_unless_locked(&mut writing, artifact).await? && doom_one(&mut writing, bounds, artifact).await? {
                    confirmed.push(artifact.clone());
                }
            }
            self.commit(writing).await?;
            doomed.extend(confirmed);
        }
        Ok(())
    }
}

/// An artifact's columns.
pub(super) type ArtifactRow = (String, String, Vec<u8>);

/// A place in the order of age: behind this artifact.
#[derive(Debug, Default)]
struct Place {
    created_ms: i64,
    artifact: ArtifactRow,
}

/// Where a sweep stopped that found as much as it may take, for the next one of this process.
#[derive(Debug, Default)]
pub(super) struct SweptTo(Mutex<Option<Place>>);

impl SweptTo {
    fn take(&self) -> Option<Place> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn keep(&self, place: Place) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(place);
    }
}

fn ms(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

async fn insert_holds(writing: &mut Writing, artifacts: &[ArtifactId], until_ms: i64) -> Result<(), EngineError> {
    // Two holds last as long as the longer one. One statement must not meet a row twice; and all lock in one order.
    let artifacts: BTreeSet<&ArtifactId> = artifacts.iter().collect();
    let tail = writing.dialect.pick(
        " ON CONFLICT(tenant, class, digest) DO UPDATE SET until_ms = max(artifact_holds.until_ms, excluded.until_ms)",
        " ON CONFLICT(tenant, class, digest) DO UPDATE SET until_ms = greatest(artifact_holds.until_ms, excluded.until_ms)",
    );
    let rows: Vec<_> =
        artifacts.iter().map(|artifact| row![&artifact.tenant, artifact.class.as_str(), artifact.digest, until_ms]).collect();
    Many::new("INSERT INTO artifact_holds(tenant, class, digest, until_ms) VALUES ", "(?, ?, ?, ?)", tail)
        .execute(writing.connection(), &rows)
        .await
}

/// The key of an artifact's record.
fn row_of(artifact: &ArtifactId) -> Vec<Value> {
    row![&artifact.tenant, artifact.class.as_str(), artifact.digest]
}

/// The records of so many artifacts, each found by its key.
const DOOMS: Many = Many::new(
    "WITH wanted(tenant, class, digest) AS (VALUES ",
    "(?, ?, ?)",
    ") SELECT a.doomed_ms FROM wanted CROSS JOIN artifacts a WHERE a.tenant = wanted.tenant AND a.class = wanted.class AND a.digest = wanted.digest",
);
const DOOMS_LOCKED: Many = Many::new(
    "WITH wanted(tenant, class, digest) AS (VALUES ",
    "(?, ?, ?)",
    ") SELECT a.doomed_ms FROM wanted CROSS JOIN artifacts a WHERE a.tenant = wanted.tenant AND a.class = wanted.class AND a.digest = wanted.digest \
       FOR SHARE OF a",
);

/// The records of artifacts and the times of their dooms. Until the transaction ends, they do not change.
async fn lock_records(writing: &mut Writing, artifacts: &[ArtifactId]) -> Result<Vec<AnyRow>, EngineError> {
    let rows: Vec<_> = artifacts.iter().collect::<BTreeSet<_>>().into_iter().map(row_of).collect();
    let records = match writing.dialect {
        Dialect::Sqlite => DOOMS,
        Dialect::Postgres => DOOMS_LOCKED,
    };
    records.fetch(writing.connection(), &rows).await
}

/// Locks the records that there are against a doom.
async fn is_any_doomed(writing: &mut Writing, artifacts: &[ArtifactId]) -> Result<bool, EngineError> {
    for record in lock_records(writing, artifacts).await? {
        if record.try_get::<Option<i64>, _>("doomed_ms")?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Checks that artifacts are recorded and not doomed, and keeps it so until the transaction ends.
///
/// # Errors
/// [`EngineError::ArtifactGone`].
pub(super) async fn require(writing: &mut Writing, artifacts: &[ArtifactId]) -> Result<(), EngineError> {
    let wanted: BTreeSet<&ArtifactId> = artifacts.iter().collect();
    let records = lock_records(writing, artifacts).await?;
    let mut n_whole = 0;
    for record in &records {
        n_whole += usize::from(record.try_get::<Option<i64>, _>("doomed_ms")?.is_none());
    }
    if n_whole == wanted.len() { Ok(()) } else { Err(EngineError::ArtifactGone) }
}

/// References of a subject, to be written.
pub(super) fn reference_rows(subject: &Subject, by: Referrer, artifacts: &[ArtifactId]) -> Vec<Vec<Value>> {
    let row = |artifact: &ArtifactId| row![&artifact.tenant, artifact.class.as_str(), artifact.digest, by.kind(subject), &subject.id];
    artifacts.iter().map(row).collect()
}

/// References to artifacts that were required in this transaction.
pub(super) const REFERENCES: Many = Many::new(
    "INSERT INTO artifact_references(tenant, class, digest, kind, subject) VALUES ",
    "(?, ?, ?, ?, ?)",
    " ON CONFLICT DO NOTHING",
);

/// Ends the references of a job's tasks: nobody reads their results any more.
pub(super) fn drop_task_references(job: &Subject) -> Part {
    Part::new("DELETE FROM artifact_references WHERE tenant = ? AND kind = 'TASK' AND subject = ?", row![&job.tenant, &job.id])
}

/// Ends holds whose time has passed.
async fn end_holds(writing: &mut Writing, bounds: &Bounds, limit: usize) -> Result<Vec<ArtifactId>, EngineError> {
    let ended: Vec<ArtifactRow> = sqlx::query_as(
        "DELETE FROM artifact_holds WHERE until_ms <= $1 AND (tenant, class, digest) IN \
           (SELECT tenant, class, digest FROM artifact_holds WHERE until_ms <= $1 ORDER BY until_ms LIMIT $2) RETURNING tenant, class, digest",
    )
    .bind(bounds.now_ms)
    .bind(limit as i64)
    .fetch_all(writing.connection())
    .await?;
    ended.into_iter().map(artifact_id).collect()
}

/// Dooms those of which there is no record.
async fn insert_doomed(writing: &mut Writing, bounds: &Bounds, artifacts: &[ArtifactId]) -> Result<Vec<ArtifactId>, EngineError> {
    let now_ms = bounds.now_ms;
    let row = |artifact: &ArtifactId| row![&artifact.tenant, artifact.class.as_str(), artifact.digest, now_ms, now_ms];
    let rows: Vec<_> = artifacts.iter().map(row).collect();
    let inserted = Many::new(
        "INSERT INTO artifacts(tenant, class, digest, size_bytes, media_type, created_ms, doomed_ms, is_counted) VALUES ",
        "(?, ?, ?, 0, '', ?, ?, 1)",
        " ON CONFLICT DO NOTHING RETURNING tenant, class, digest",
    )
    .fetch(writing.connection(), &rows)
    .await?;
    inserted.iter().map(|row| artifact_id((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
}

/// Locks a record, unless another transaction has it: then it is in use.
async fn lock_unless_locked(writing: &mut Writing, artifact: &ArtifactId) -> Result<bool, EngineError> {
    if writing.dialect == Dialect::Sqlite {
        return Ok(true);
    }
    let locked: Option<i64> =
        sqlx::query_scalar("SELECT created_ms FROM artifacts WHERE tenant = $1 AND class = $2 AND digest = $3 FOR UPDATE SKIP LOCKED")
            .bind(&artifact.tenant)
            .bind(artifact.class.as_str())
            .bind(artifact.digest.to_vec())
            .fetch_optional(writing.connection())
            .await?;
    Ok(locked.is_some())
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

pub(super) fn artifact_id((tenant, class, digest): ArtifactRow) -> Result<ArtifactId, EngineError> {
    // The schema admits no third.
    let class = if class == Class::Internal.as_str() { Class::Internal } else { Class::Public };
    let digest: Digest = fixed(&digest)?;
    Ok(ArtifactId { class, tenant, digest })
}

#[cfg(test)]
mod tests {
    use super::super::super::{ArtifactFacts, ArtifactRecords as _};
    use super::*;
    use crate::limits::Limits;

    #[tokio::test]
    async fn what_is_used_is_looked_at_while_another_writes() {
        let folder = tempfile::tempdir().unwrap();
        let engine = SqlEngine::open_sqlite(folder.path(), &Limits::default()).await.unwrap();
        let facts = |number: u8| ArtifactFacts {
            class: Class::Public,
            tenant: "acme".into(),
            digest: [number; 32],
            size_bytes: 1,
            media_type: String::new(),
            created_ms: 0,
        };
        for number in 0..4 {
            let facts = facts(number);
            let held = ArtifactId { class: facts.class, tenant: facts.tenant.clone(), digest: facts.digest };
            assert!(engine.hold(vec![held], Duration::from_secs(60)).await.unwrap());
            engine.add_artifact(facts).await.unwrap();
        }
        let writing = engine.begin().await.unwrap();
        let sweep = engine.doom(Duration::ZERO, Duration::from_secs(60), 100);
        let doomed = tokio::time::timeout(Duration::from_secs(5), sweep).await.expect("does not wait for who writes").unwrap();
        assert!(doomed.artifacts.is_empty());
        engine.commit(writing).await.unwrap();
    }
}
