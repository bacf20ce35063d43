//! Deleting jobs that are over, with all that belongs to them.
//!
//! Which ended long ago is found by an index: nothing ends before it is created, so those of a final state that were created long ago are looked at, oldest
//! first, and their documents tell when they ended. Those that are found too young are few: they lived while the time passed.
//!
//! A page is deleted in a transaction, so that nobody waits for long and what is broken off is whole. Rows are locked as everywhere: jobs, passing over those
//! that others have; then tenants and then batches, in the order of their keys. So two who delete at once share the work and do not wait in a circle.
//!
//! A job stays as long as a webhook is still to hear of its end. What webhooks are to hear is written with that end and nothing is added, so what was not
//! there once the job is final never comes. Its artifacts lose one reference each, and the collector takes those that nothing else refers to. The
//! answers to request ids stay for their own time: the same request is not admitted anew because its job is gone.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use prost::Message as _;
use zkinfer_proto::v1;

use super::super::document::{Document, is_final_job};
use super::super::{Deletion, EngineError, Notice, Operations as _, Subject, SubjectKind, timestamp_ms};
use super::lease::get;
use super::many::{Many, Value, row};
use super::{Dialect, Locked, SqlEngine, Writing, lock, subject};

/// Jobs that are looked at, and deleted, at a time.
const PAGE: usize = 50;

/// Of a final state those created until $1, behind a place, in the order of the index. The state is a literal: of one that few jobs have PostgreSQL must
/// know that, or it goes through all jobs in the order of their creation.
macro_rules! created_before {
    ($state:literal) => {
        concat!(
            "SELECT tenant, id, created_ms, doc FROM jobs WHERE state = ",
            $state,
            " AND created_ms <= $1 AND (created_ms, id) > ($2, $3) ORDER BY created_ms, id LIMIT $4"
        )
    };
}
/// Succeeded, failed, cancelled, expired.
const CREATED_BEFORE: [&str; 4] = [created_before!(4), created_before!(5), created_before!(6), created_before!(7)];

/// Of these jobs those that are final and whose end all webhooks have heard of.
macro_rules! told {
    () => {
        ") SELECT j.tenant, j.id, j.batch FROM wanted CROSS JOIN jobs j WHERE j.tenant = wanted.tenant AND j.id = wanted.id AND j.state > 3 \
           AND NOT EXISTS (SELECT 1 FROM webhooks w CROSS JOIN outbox o \
             WHERE w.tenant = j.tenant AND o.tenant = w.tenant AND o.webhook = w.id AND o.job = j.id)"
    };
}
const TOLD: Many = Many::new("WITH wanted(tenant, id) AS (VALUES ", "(?, ?)", told!());
const TOLD_LOCKED: Many = Many::new("WITH wanted(tenant, id) AS (VALUES ", "(?, ?)", concat!(told!(), " FOR UPDATE OF j SKIP LOCKED"));

/// A tenant that is there keeps the newer of the two times when it was last given a task.
macro_rules! newest_lease {
    () => {
        " ON CONFLICT (tenant) DO UPDATE SET last_leased_ms = \
           CASE WHEN excluded.last_leased_ms > tenants.last_leased_ms THEN excluded.last_leased_ms ELSE tenants.last_leased_ms END"
    };
}
pub(super) use newest_lease;

/// Keeps when tenants were last given a task of these jobs: that decides who comes next.
const KEEP_LEASES: Many = Many::new(
    "WITH wanted(tenant, subject) AS (VALUES ",
    "(?, ?)",
    concat!(
        ") INSERT INTO tenants(tenant, last_leased_ms) SELECT a.tenant, max(a.started_ms) FROM wanted CROSS JOIN attempts a \
             WHERE a.kind = 'PROVE' AND a.tenant = wanted.tenant AND a.subject = wanted.subject GROUP BY a.tenant ORDER BY a.tenant",
        newest_lease!()
    ),
);

/// Deletes the rows of these keys. As a table of its own, the keys lead SQLite to the index; as a bare list they would be compared with each row.
macro_rules! delete_of {
    ($rows:literal) => {
        Many::new("WITH gone(tenant, id) AS (VALUES ", "(?, ?)", concat!(") DELETE FROM ", $rows, " IN (SELECT tenant, id FROM gone)"))
    };
}
/// What belongs to these jobs, but for their labels.
const BELONGINGS: [Many; 6] = [
    delete_of!("tasks WHERE kind = 'PROVE' AND (tenant, subject)"),
    delete_of!("deps WHERE (tenant, job)"),
    delete_of!("attempts WHERE kind = 'PROVE' AND (tenant, subject)"),
    delete_of!("events WHERE kind = 'PROVE' AND (tenant, subject)"),
    delete_of!("results WHERE (tenant, job)"),
    // Those of its tasks have ended with it.
    delete_of!("artifact_references WHERE kind = 'JOB' AND (tenant, subject)"),
];
/// Labels by their whole keys, the one index that there is.
const LABELS: Many = Many::new(
    "WITH gone(tenant, key, value, job) AS (VALUES ",
    "(?, ?, ?, ?)",
    ") DELETE FROM job_labels WHERE (tenant, key, value, job) IN (SELECT tenant, key, value, job FROM gone)",
);
const JOBS: Many = delete_of!("jobs WHERE (tenant, id)");

const LOCK_BATCHES: Many = Many::new(
    "WITH wanted(tenant, id) AS (VALUES ",
    "(?, ?)",
    ") SELECT b.id FROM wanted CROSS JOIN batches b WHERE b.tenant = wanted.tenant AND b.id = wanted.id ORDER BY b.tenant, b.id FOR UPDATE OF b",
);
const SHRINK_BATCHES: Many = Many::new(
    "WITH gone(tenant, id, n) AS (VALUES ",
    "(?, ?, ?)",
    ") UPDATE batches SET n_jobs = n_jobs - gone.n FROM gone WHERE batches.tenant = gone.tenant AND batches.id = gone.id",
);
const EMPTY_BATCHES: Many = delete_of!("batches WHERE n_jobs <= 0 AND (tenant, id)");

/// A job that is over.
struct Over {
    subject: Subject,
    labels: Vec<(String, String)>,
}

impl Over {
    fn new(tenant: &str, id: &str, job: v1::Job) -> Self {
        Self { subject: subject(SubjectKind::Job, tenant, id), labels: job.labels.into_iter().collect() }
    }

    fn key(&self) -> Vec<Value> {
        row![&self.subject.tenant, &self.subject.id]
    }
}

/// A place in the order of creation: behind this time and id.
type Place = (i64, String);

impl SqlEngine {
    /// Deletes jobs that ended longer ago than `age`, and stops after the page with which it has deleted `limit`; answers how many.
    pub(super) async fn delete_ended_jobs(&self, age: Duration, limit: usize) -> Result<u64, EngineError> {
        let before_ms = self.now().await?.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let mut n_deleted = 0;
        for created_before in CREATED_BEFORE {
            let mut place = Some((i64::MIN, String::new()));
            while let Some(from) = place.take().filter(|_| n_deleted < limit) {
                let (over, next) = self.ended_before(created_before, before_ms, from).await?;
                n_deleted += self.delete_page(over).await?;
                place = next;
            }
        }
        Ok(n_deleted as u64)
    }

    /// Of one state those of the page behind a place that ended long ago, and the end of the page unless it was the last.
    async fn ended_before(
        &self,
        created_before: &'static str,
        before_ms: i64,
        from: Place,
    ) -> Result<(Vec<Over>, Option<Place>), EngineError> {
        let rows: Vec<(String, String, i64, Vec<u8>)> =
            sqlx::query_as(created_before).bind(before_ms).bind(from.0).bind(from.1).bind(PAGE as i64).fetch_all(&self.readers).await?;
        let next = rows.last().filter(|_| rows.len() == PAGE).map(|(_, id, created_ms, _)| (*created_ms, id.clone()));
        let mut over = Vec::new();
        for (tenant, id, created_ms, document) in rows {
            match v1::Job::decode(document.as_slice()) {
                Ok(job) if job.end_time.as_ref().map_or(created_ms, timestamp_ms) <= before_ms => over.push(Over::new(&tenant, &id, job)),
                Ok(_) => {}
                // One damaged row keeps no others.
                Err(error) => tracing::error!(%error, tenant, id, "a stored job is damaged; it is not deleted"),
            }
        }
        Ok((over, next))
    }

    /// Deletes those that nobody else is deleting and that no webhook is to hear of; answers how many.
    async fn delete_page(&self, mut over: Vec<Over>) -> Result<usize, EngineError> {
        if over.is_empty() {
            return Ok(0);
        }
        let mut writing = self.begin().await?;
        let told = lock_told(&mut writing, &over).await?;
        over.retain(|job| told.ids.contains(&(job.subject.tenant.clone(), job.subject.id.clone())));
        delete(&mut writing, &over, told.batches).await?;
        self.commit(writing).await?;
        Ok(over.len())
    }

    /// Deletes a job, if it is over.
    pub(super) async fn delete_one(&self, subject: &Subject) -> Result<Deletion, EngineError> {
        let mut writing = self.begin().await?;
        let deletion = match lock(&mut writing, subject).await? {
            None => Deletion::Absent,
            Some(Locked { document: Document::Job(job), .. }) => delete_locked(&mut writing, subject, *job).await?,
            // A subject of this kind has no other document.
            Some(Locked { document: Document::Model(_), .. }) => Deletion::Absent,
        };
        self.commit(writing).await?;
        Ok(deletion)
    }
}

async fn delete_locked(writing: &mut Writing, subject: &Subject, job: v1::Job) -> Result<Deletion, EngineError> {
    let state = job.state();
    if !is_final_job(state) {
        return Ok(Deletion::NotFinal(state));
    }
    let over = [Over::new(&subject.tenant, &subject.id, job)];
    let told = lock_told(writing, &over).await?;
    if told.ids.is_empty() {
        return Ok(Deletion::Untold);
    }
    delete(writing, &over, told.batches).await?;
    writing.changed.push(Notice::Changed(subject.clone()));
    Ok(Deletion::Deleted)
}

/// Jobs that may be deleted, locked.
struct Told {
    ids: HashSet<(String, String)>,
    /// How many of them each batch has.
    batches: BTreeMap<(String, String), i64>,
}

async fn lock_told(writing: &mut Writing, over: &[Over]) -> Result<Told, EngineError> {
    let told = match writing.dialect {
        Dialect::Sqlite => TOLD,
        Dialect::Postgres => TOLD_LOCKED,
    };
    let keys: Vec<_> = over.iter().map(Over::key).collect();
    let (mut ids, mut batches) = (HashSet::new(), BTreeMap::new());
    for row in told.fetch(writing.connection(), &keys).await? {
        let tenant: String = get(&row, "tenant")?;
        if let Some(batch) = get::<Option<String>>(&row, "batch")? {
            *batches.entry((tenant.clone(), batch)).or_default() += 1;
        }
        ids.insert((tenant, get(&row, "id")?));
    }
    Ok(Told { ids, batches })
}

/// Deletes jobs that are locked. A batch goes with its last job.
async fn delete(writing: &mut Writing, over: &[Over], batches: BTreeMap<(String, String), i64>) -> Result<(), EngineError> {
    let keys: Vec<_> = over.iter().map(Over::key).collect();
    KEEP_LEASES.execute(writing.connection(), &keys).await?;
    for belongings in BELONGINGS {
        belongings.execute(writing.connection(), &keys).await?;
    }
    let label =
        |job: &Over| job.labels.iter().map(|(key, value)| row![&job.subject.tenant, key, value, &job.subject.id]).collect::<Vec<_>>();
    LABELS.execute(writing.connection(), &over.iter().flat_map(label).collect::<Vec<_>>()).await?;
    JOBS.execute(writing.connection(), &keys).await?;
    let keys: Vec<_> = batches.keys().map(|(tenant, id)| row![tenant, id]).collect();
    if writing.dialect == Dialect::Postgres {
        LOCK_BATCHES.fetch(writing.connection(), &keys).await?;
    }
    let gone: Vec<_> = batches.iter().map(|((tenant, id), n)| row![tenant, id, *n]).collect();
    SHRINK_BATCHES.execute(writing.connection(), &gone).await?;
    EMPTY_BATCHES.execute(writing.connection(), &keys).await
}

#[cfg(test)]
pub(super) mod tests {
    use sqlx::{AssertSqlSafe, Row as _};

    use super::*;
    use crate::limits::Limits;

    /// What SQLite says of how it executes a statement.
    pub(crate) async fn plan(engine: &SqlEngine, sql: &str) -> Vec<String> {
        let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {sql}"))).fetch_all(&engine.readers).await.unwrap();
        rows.iter().map(|row| row.get("detail")).collect()
    }

    #[tokio::test]
    async fn every_row_is_found_by_an_index() {
        let folder = tempfile::tempdir().unwrap();
        let engine = SqlEngine::open_sqlite(folder.path(), &Limits::default()).await.unwrap();
        let labels = LABELS.text(&[row!["a", "k", "v", "j"], row!["a", "l", "w", "j"]]);
        let shrink = SHRINK_BATCHES.text(&[row!["a", "b", 1], row!["a", "c", 2]]);
        let of_keys = BELONGINGS.iter().chain([&TOLD, &KEEP_LEASES, &JOBS, &EMPTY_BATCHES]);
        let texts = of_keys
            .map(|many| many.text(&[row!["a", "b"], row!["a", "c"]]))
            .chain([labels, shrink])
            .chain(CREATED_BEFORE.map(str::to_owned));
        for sql in texts {
            let plan = plan(&engine, &sql).await;
            let scans: Vec<&String> = plan.iter().filter(|step| step.starts_with("SCAN")).collect();
            // The rows that the statement itself holds.
            let is_own = |step: &&&String| ["CONSTANT ROW", "ROW VALUES CLAUSE", "wanted", "gone"].iter().any(|own| step.contains(own));
            assert_eq!(scans.iter().filter(is_own).count(), scans.len(), "{sql}: {plan:#?}");
            let is_slow = |step: &String| step.contains("FOR ORDER BY") || step.ends_with("(kind=?)");
            assert!(!plan.iter().any(is_slow), "{sql}: {plan:#?}");
        }
        assert!(plan(&engine, CREATED_BEFORE[0]).await[0].contains("jobs_by_state"));
    }
}
