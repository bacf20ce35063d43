//! Sessions, and giving them tasks.
//!
//! Which task goes first: the tenant with the least running for its share; of that tenant the highest priority, then the oldest subject, then the
//! longest way to the subject's end; among those of the same priority, one whose model the session holds ready is preferred.

use sqlx::any::AnyRow;
use sqlx::{Decode, Row as _, Type};
use zkinfer_proto::name::ModelName;
use zkinfer_proto::v1;

use super::super::document::{Change, Document};
use super::super::{
    EngineError, Lease, Leased, NewSession, Notice, Offer, ProofWork, Renewal, SessionId, Subject, SubjectKind, TaskKey, Work, graph,
};
use super::stopping::load_stop;
use super::{SqlEngine, Writing, apply, fixed, load};

/// Tenants that are looked at for one request, and tasks of each beyond those asked for.
const MAX_TENANTS: usize = 16;
const SPARE_TASKS: i64 = 8;

/// Who has something ready, found by leaps over the index: its length does not matter.
const READY_TENANTS: &str = "WITH RECURSIVE ready(tenant) AS ( \
       SELECT min(tenant) FROM tasks WHERE state = 'READY' \
     UNION ALL \
       SELECT (SELECT min(tenant) FROM tasks WHERE state = 'READY' AND tenant > ready.tenant) FROM ready WHERE ready.tenant IS NOT NULL) \
     SELECT ready.tenant, coalesce(tenants.share_milli, 1000), coalesce(tenants.max_running, 9223372036854775807), \
       (SELECT count(*) FROM tasks WHERE state = 'RUNNING' AND tasks.tenant = ready.tenant) \
     FROM ready LEFT JOIN tenants ON tenants.tenant = ready.tenant \
     WHERE ready.tenant IS NOT NULL AND coalesce(tenants.is_paused, 0) = 0";

/// The best tasks of a tenant. PostgreSQL leaves out what another server is about to give away.
const CANDIDATES: &str = "SELECT kind, tenant, subject, ordinal, name, priority, device_bytes, model_digest, epoch, attempts FROM tasks \
     WHERE state = 'READY' AND tenant = $1 AND not_before_ms <= $2 \
     ORDER BY priority DESC, created_ms, subject, rank_ms DESC, ordinal LIMIT $3";
const CANDIDATES_LOCKED: &str = "SELECT kind, tenant, subject, ordinal, name, priority, device_bytes, model_digest, epoch, attempts FROM tasks \
     WHERE state = 'READY' AND tenant = $1 AND not_before_ms <= $2 \
     ORDER BY priority DESC, created_ms, subject, rank_ms DESC, ordinal LIMIT $3 FOR UPDATE SKIP LOCKED";

/// A tenant with something ready.
struct Tenant {
    name: String,
    share_milli: i64,
    may_run: i64,
    running: i64,
}

impl Tenant {
    /// Runs less for its share than the other.
    fn load(&self) -> f64 {
        self.running as f64 / self.share_milli.max(1) as f64
    }
}

/// A ready task.
struct Candidate {
    task: TaskKey,
    ordinal: i64,
    priority: i64,
    device_bytes: i64,
    model_digest: Option<Vec<u8>>,
    epoch: i64,
    attempts: i64,
}

impl SqlEngine {
    pub(super) async fn insert_session(&self, new: NewSession) -> Result<SessionId, EngineError> {
        let mut writing = self.begin().await?;
        let id = uuid::Uuid::now_v7().to_string();
        let now_ms = writing.now_ms;
        sqlx::query("INSERT INTO sessions(id, worker, is_local, devices, opened_ms, seen_ms) VALUES ($1, $2, $3, $4, $5, $5)")
            .bind(&id)
            .bind(&new.worker)
            .bind(i64::from(new.is_local))
            .bind(new.devices.join("\n"))
            .bind(now_ms)
            .execute(writing.connection())
            .await?;
        self.commit(writing).await?;
        Ok(id)
    }

    pub(super) async fn lease_tasks(&self, session: &str, offer: &Offer) -> Result<Vec<Leased>, EngineError> {
        // Cheap look first, as the poll of an idle worker must not write.
        if !self.has_ready().await? {
            return self.check_session(session).await.map(|()| Vec::new());
        }
        let mut writing = self.begin().await?;
        let worker = match session_state(&mut writing, session).await? {
            (_, true) => return Ok(Vec::new()),
            (worker, false) => worker,
        };
        let holder = Holder { session, worker: &worker, until_ms: writing.now_ms.saturating_add(self.rules.lease_ms) };
        let mut tenants = ready_tenants(&mut writing).await?;
        let mut given = Vec::new();
        while (given.len() as u32) < offer.max_tasks {
            // The fewest running for its share; ties by name, so that equal queues give equal answers.
            tenants.sort_by(|a, b| a.load().total_cmp(&b.load()).then_with(|| a.name.cmp(&b.name)));
            let Some(position) = tenants.iter().take(MAX_TENANTS).position(|tenant| tenant.running < tenant.may_run) else { break };
            match self.lease_of(&mut writing, &tenants[position].name, offer, &holder).await? {
                Some(leased) => {
                    tenants[position].running += 1;
                    given.push(leased);
                }
                None => drop(tenants.remove(position)),
            }
        }
        self.commit(writing).await?;
        Ok(given)
    }

    async fn has_ready(&self) -> Result<bool, EngineError> {
        let now_ms = self.now().await?;
        let ready: Option<i64> = sqlx::query_scalar("SELECT ordinal FROM tasks WHERE state = 'READY' AND not_before_ms <= $1 LIMIT 1")
            .bind(now_ms)
            .fetch_optional(&self.readers)
            .await?;
        Ok(ready.is_some())
    }

    async fn check_session(&self, session: &str) -> Result<(), EngineError> {
        let known: Option<i64> =
            sqlx::query_scalar("SELECT is_cordoned FROM sessions WHERE id = $1").bind(session).fetch_optional(&self.readers).await?;
        known.map(drop).ok_or(EngineError::NoSession)
    }

    /// Gives the best task of a tenant that the session can do, if there is one.
    async fn lease_of(
        &self,
        writing: &mut Writing,
        tenant: &str,
        offer: &Offer,
        holder: &Holder<'_>,
    ) -> Result<Option<Leased>, EngineError> {
        let mut candidates = candidates(writing, tenant, i64::from(offer.max_tasks) + SPARE_TASKS).await?;
        candidates.retain(|candidate| u64::try_from(candidate.device_bytes).unwrap_or(0) <= offer.free_device_bytes);
        prefer_cached(&mut candidates, offer);
        for candidate in candidates {
            if let Some(leased) = give(writing, candidate, holder).await? {
                return Ok(Some(leased));
            }
        }
        Ok(None)
    }

    pub(super) async fn renew_leases(&self, session: &str, held: Vec<Lease>) -> Result<Renewal, EngineError> {
        let mut writing = self.begin().await?;
        session_state(&mut writing, session).await?;
        let (now_ms, until_ms) = (writing.now_ms, writing.now_ms.saturating_add(self.rules.lease_ms));
        sqlx::query("UPDATE sessions SET seen_ms = $1 WHERE id = $2").bind(now_ms).bind(session).execute(writing.connection()).await?;
        let mut renewal = Renewal::default();
        for lease in held {
            let renewed = sqlx::query(
                "UPDATE tasks SET lease_until_ms = $1 \
                 WHERE kind = $2 AND tenant = $3 AND subject = $4 AND name = $5 AND epoch = $6 AND session = $7 AND state = 'RUNNING'",
            )
            .bind(until_ms)
            .bind(lease.task.subject.kind.task_kind())
            .bind(&lease.task.subject.tenant)
            .bind(&lease.task.subject.id)
            .bind(&lease.task.name)
            .bind(lease.epoch)
            .bind(session)
            .execute(writing.connection())
            .await?;
            if renewed.rows_affected() == 0 {
                renewal.lost.push(lease);
            } else if load_stop(&mut writing, &lease.task.subject).await?.is_some() {
                renewal.stop.push(lease);
            }
        }
        self.commit(writing).await?;
        Ok(renewal)
    }

    pub(super) async fn set_cordoned(&self, session: &str, cordoned: bool) -> Result<bool, EngineError> {
        let mut writing = self.begin().await?;
        let changed = sqlx::query("UPDATE sessions SET is_cordoned = $1 WHERE id = $2")
            .bind(i64::from(cordoned))
            .bind(session)
            .execute(writing.connection())
            .await?;
        self.commit(writing).await?;
        Ok(changed.rows_affected() > 0)
    }
}

/// Who is given a task, and until when.
struct Holder<'a> {
    session: &'a str,
    worker: &'a str,
    until_ms: i64,
}

/// The worker's name, and whether it is given nothing.
async fn session_state(writing: &mut Writing, session: &str) -> Result<(String, bool), EngineError> {
    let row: Option<(String, i64)> =
        sqlx::query_as("SELECT worker, is_cordoned FROM sessions WHERE id = $1").bind(session).fetch_optional(writing.connection()).await?;
    row.map(|(worker, is_cordoned)| (worker, is_cordoned != 0)).ok_or(EngineError::NoSession)
}

async fn ready_tenants(writing: &mut Writing) -> Result<Vec<Tenant>, EngineError> {
    let rows: Vec<(String, i64, i64, i64)> = sqlx::query_as(READY_TENANTS).fetch_all(writing.connection()).await?;
    let tenant = |(name, share_milli, may_run, running)| Tenant { name, share_milli, may_run, running };
    Ok(rows.into_iter().map(tenant).collect())
}

async fn candidates(writing: &mut Writing, tenant: &str, limit: i64) -> Result<Vec<Candidate>, EngineError> {
    let (sql, now_ms) = (writing.dialect.pick(CANDIDATES, CANDIDATES_LOCKED), writing.now_ms);
    let rows = sqlx::query(sql).bind(tenant).bind(now_ms).bind(limit).fetch_all(writing.connection()).await?;
    rows.iter().map(candidate).collect()
}

fn get<'r, T: Decode<'r, sqlx::Any> + Type<sqlx::Any>>(row: &'r AnyRow, column: &str) -> Result<T, sqlx::Error> {
    row.try_get(column)
}

fn candidate(row: &AnyRow) -> Result<Candidate, EngineError> {
    let kind: String = get(row, "kind")?;
    let subject = Subject { kind: SubjectKind::from_task_kind(&kind), tenant: get(row, "tenant")?, id: get(row, "subject")? };
    Ok(Candidate {
        task: TaskKey { subject, name: get(row, "name")? },
        ordinal: get(row, "ordinal")?,
        priority: get(row, "priority")?,
        device_bytes: get(row, "device_bytes")?,
        model_digest: get(row, "model_digest")?,
        epoch: get(row, "epoch")?,
        attempts: get(row, "attempts")?,
    })
}

/// Moves tasks whose model is ready before others of the same priority. The window of candidates bounds how often an older one is passed over.
fn prefer_cached(candidates: &mut [Candidate], offer: &Offer) {
    let is_cached = |candidate: &Candidate| {
        candidate.model_digest.as_deref().is_some_and(|digest| offer.cached_models.iter().any(|cached| cached.as_slice() == digest))
    };
    candidates.sort_by_key(|candidate| (std::cmp::Reverse(candidate.priority), !is_cached(candidate)));
}

/// Gives one task, unless its subject is in the hands of another transaction or has been told to stop.
async fn give(writing: &mut Writing, candidate: Candidate, holder: &Holder<'_>) -> Result<Option<Leased>, EngineError> {
    let subject = candidate.task.subject.clone();
    let Some(mut document) = try_lock(writing, &subject).await? else { return Ok(None) };
    if document.is_final() || load_stop(writing, &subject).await?.is_some() {
        return Ok(None);
    }
    let attempts = candidate.attempts + 1;
    let taken = sqlx::query(
        "UPDATE tasks SET state = 'RUNNING', epoch = epoch + 1, attempts = $1, session = $2, lease_until_ms = $3 \
         WHERE kind = $4 AND tenant = $5 AND subject = $6 AND ordinal = $7 AND epoch = $8 AND state = 'READY'",
    )
    .bind(attempts)
    .bind(holder.session)
    .bind(holder.until_ms)
    .bind(subject.kind.task_kind())
    .bind(&subject.tenant)
    .bind(&subject.id)
    .bind(candidate.ordinal)
    .bind(candidate.epoch)
    .execute(writing.connection())
    .await?;
    if taken.rows_affected() == 0 {
        return Ok(None);
    }
    let (lease, now_ms) = (Lease { task: candidate.task, epoch: candidate.epoch + 1 }, writing.now_ms);
    sqlx::query("INSERT INTO attempts(kind, tenant, subject, ordinal, epoch, worker, started_ms) VALUES ($1, $2, $3, $4, $5, $6, $7)")
        .bind(subject.kind.task_kind())
        .bind(&subject.tenant)
        .bind(&subject.id)
        .bind(candidate.ordinal)
        .bind(lease.epoch)
        .bind(holder.worker)
        .bind(now_ms)
        .execute(writing.connection())
        .await?;
    let attempt = u32::try_from(attempts).unwrap_or(u32::MAX);
    if graph::is_whole(&lease.task.name) || document.is_queued() {
        apply(writing, &subject, &mut document, Change::Started(attempt)).await?;
    }
    let work = work(writing, &lease.task, candidate.ordinal, document).await?;
    writing.changed.push(Notice::Changed(subject));
    Ok(Some(Leased { lease, attempt, work }))
}

/// Locks a subject's row, or answers `None` if another transaction has it: its end will wake the workers again.
async fn try_lock(writing: &mut Writing, subject: &Subject) -> Result<Option<Document>, EngineError> {
    let sql = match subject.kind {
        SubjectKind::Model => writing.dialect.pick(
            "SELECT doc FROM models WHERE tenant = $1 AND id = $2",
            "SELECT doc FROM models WHERE tenant = $1 AND id = $2 FOR UPDATE SKIP LOCKED",
        ),
        SubjectKind::Job => writing.dialect.pick(
            "SELECT doc FROM jobs WHERE tenant = $1 AND id = $2",
            "SELECT doc FROM jobs WHERE tenant = $1 AND id = $2 FOR UPDATE SKIP LOCKED",
        ),
    };
    let bytes: Option<Vec<u8>> =
        sqlx::query_scalar(sql).bind(&subject.tenant).bind(&subject.id).fetch_optional(writing.connection()).await?;
    bytes.map(|bytes| Document::decode(subject.kind, &bytes)).transpose()
}

async fn work(writing: &mut Writing, task: &TaskKey, ordinal: i64, document: Document) -> Result<Work, EngineError> {
    match document {
        Document::Model(model) => registration(writing, &task.subject, model).await,
        Document::Job(job) => {
            let proof = Box::new(proof(writing, &task.subject, *job).await?);
            if graph::is_whole(&task.name) {
                return Ok(Work::Prove(proof));
            }
            Ok(Work::Step { proof, results: results(writing, &task.subject, ordinal).await? })
        }
    }
}

async fn registration(writing: &mut Writing, subject: &Subject, model: Box<v1::Model>) -> Result<Work, EngineError> {
    let (salt, seed): (Vec<u8>, Vec<u8>) = sqlx::query_as("SELECT salt, seed FROM models WHERE tenant = $1 AND id = $2")
        .bind(&subject.tenant)
        .bind(&subject.id)
        .fetch_one(writing.connection())
        .await?;
    Ok(Work::Register { model, salt: fixed(&salt)?, seed: fixed(&seed)? })
}

async fn proof(writing: &mut Writing, subject: &Subject, job: v1::Job) -> Result<ProofWork, EngineError> {
    let (input_salt, seed): (Vec<u8>, Vec<u8>) = sqlx::query_as("SELECT input_salt, seed FROM jobs WHERE tenant = $1 AND id = $2")
        .bind(&subject.tenant)
        .bind(&subject.id)
        .fetch_one(writing.connection())
        .await?;
    let name = ModelName::parse(&job.model).map_err(|_| EngineError::ModelNotFound)?;
    let owner = super::subject(SubjectKind::Model, &name.tenant, &name.model_id);
    let Some(Document::Model(model)) = load(writing.connection(), &owner).await? else {
        return Err(EngineError::ModelNotFound);
    };
    let private: Vec<u8> = sqlx::query_scalar("SELECT private_digest FROM models WHERE tenant = $1 AND id = $2")
        .bind(&owner.tenant)
        .bind(&owner.id)
        .fetch_one(writing.connection())
        .await?;
    let private_digest = fixed(&private)?;
    Ok(ProofWork { job, model: *model, private_digest, input_salt: fixed(&input_salt)?, seed: fixed(&seed)? })
}

/// What the tasks before this one gave.
async fn results(writing: &mut Writing, subject: &Subject, ordinal: i64) -> Result<Vec<(String, [u8; 32])>, EngineError> {
    let rows: Vec<(String, Vec<u8>)> = sqlx::query_as(
        "SELECT tasks.name, tasks.output FROM deps \
           JOIN tasks ON tasks.kind = 'PROVE' AND tasks.tenant = deps.tenant AND tasks.subject = deps.job AND tasks.ordinal = deps.needs \
         WHERE deps.tenant = $1 AND deps.job = $2 AND deps.task = $3 ORDER BY deps.needs",
    )
    .bind(&subject.tenant)
    .bind(&subject.id)
    .bind(ordinal)
    .fetch_all(writing.connection())
    .await?;
    rows.into_iter().map(|(name, output)| Ok((name, fixed(&output)?))).collect()
}
