//! Admission: a subject, its whole graph of tasks and its first event, in one transaction.

use prost::Message as _;
use zkinfer_proto::name::{ArtifactName, BatchName, JobName, ModelName};
use zkinfer_proto::v1;

use super::super::document::{Change, Document};
use super::super::{EngineError, NewBatch, NewJob, NewModel, Notice, Subject, SubjectKind, graph, timestamp, timestamp_ms};
use super::garbage::{Referrer, refer};
use super::{SqlEngine, Writing, append_event, idempotency, load, subject};
use crate::artifacts::{ArtifactId, Class};
use crate::placement;

impl SqlEngine {
    pub(super) async fn insert_model(&self, new: NewModel) -> Result<v1::Model, EngineError> {
        const METHOD: &str = "CreateModel";
        // The service makes names, so this cannot fail; if it does, nothing is written.
        let name = ModelName::parse(&new.model.name).map_err(|_| EngineError::ModelNotFound)?;
        let subject = subject(SubjectKind::Model, &name.tenant, &name.model_id);
        let mut writing = self.begin().await?;
        if let Some(response) = idempotency::replay(&mut writing, &name.tenant, METHOD, new.key.as_ref()).await? {
            self.commit(writing).await?;
            return v1::Model::decode(response.as_slice()).map_err(EngineError::Damaged);
        }
        if load(writing.connection(), &subject).await?.is_some() {
            return Err(EngineError::AlreadyExists);
        }
        self.check_room(&mut writing, &subject.tenant, 1).await?;
        let created_ms = new.model.create_time.as_ref().map_or(0, timestamp_ms);
        let named = [new.model.source_artifact.clone(), new.model.calibration_artifact.clone()];
        let mut document = Document::Model(Box::new(new.model));
        let body = document.apply(Change::Admitted, created_ms);
        sqlx::query("INSERT INTO models(tenant, id, state, created_ms, last_seq, doc, salt, seed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)")
            .bind(&subject.tenant)
            .bind(&subject.id)
            .bind(i64::from(document.state()))
            .bind(created_ms)
            .bind(document.last_sequence())
            .bind(document.encode())
            .bind(new.salt.to_vec())
            .bind(new.seed.to_vec())
            .execute(writing.connection())
            .await?;
        refer_to_named(&mut writing, &subject, named.iter().map(String::as_str)).await?;
        append_event(&mut writing, &subject, document.last_sequence(), body).await?;
        let plan = Plan { graph: graph::single(graph::REGISTER, 0), priority: 0, created_ms, model_digest: None };
        insert_graph(&mut writing, &subject, &plan).await?;
        idempotency::record(&mut writing, &subject.tenant, METHOD, new.key.as_ref(), document.encode()).await?;
        self.commit(writing).await?;
        let Document::Model(model) = document else { return Err(EngineError::ModelNotFound) };
        Ok(*model)
    }

    pub(super) async fn insert_job(&self, new: NewJob) -> Result<v1::Job, EngineError> {
        const METHOD: &str = "CreateJob";
        let name = JobName::parse(&new.job.name).map_err(|_| EngineError::ModelNotFound)?;
        let mut writing = self.begin().await?;
        let key = new.key.clone();
        if let Some(response) = idempotency::replay(&mut writing, &name.tenant, METHOD, key.as_ref()).await? {
            self.commit(writing).await?;
            return v1::Job::decode(response.as_slice()).map_err(EngineError::Damaged);
        }
        self.check_room(&mut writing, &name.tenant, 1).await?;
        let job = admit(&mut writing, new).await?;
        idempotency::record(&mut writing, &name.tenant, METHOD, key.as_ref(), job.encode_to_vec()).await?;
        self.commit(writing).await?;
        Ok(job)
    }

    pub(super) async fn insert_jobs(&self, new: NewBatch) -> Result<v1::BatchCreateJobsResponse, EngineError> {
        const METHOD: &str = "BatchCreateJobs";
        let NewBatch { tenant, id, jobs, key } = new;
        let mut writing = self.begin().await?;
        if let Some(response) = idempotency::replay(&mut writing, &tenant, METHOD, key.as_ref()).await? {
            self.commit(writing).await?;
            return v1::BatchCreateJobsResponse::decode(response.as_slice()).map_err(EngineError::Damaged);
        }
        let batch = BatchName { tenant: tenant.clone(), batch_id: id.clone() }.to_string();
        insert_batch(&mut writing, &tenant, &id, jobs.len()).await?;
        let mut response = v1::BatchCreateJobsResponse { jobs: Vec::with_capacity(jobs.len()), batch: batch.clone() };
        let room = self.room(&mut writing, &tenant, jobs.len() as i64).await?;
        for (index, mut new) in jobs.into_iter().enumerate() {
            new.job.batch = batch.clone();
            let admitted = match index as i64 >= room.free {
                true => Err(room.exceeded()),
                false => admit(&mut writing, new).await,
            };
            response.jobs.push(admitted.map_err(|error| EngineError::InBatch { index, source: Box::new(error) })?);
        }
        idempotency::record(&mut writing, &tenant, METHOD, key.as_ref(), response.encode_to_vec()).await?;
        self.commit(writing).await?;
        Ok(response)
    }

    pub(super) async fn batch_facts(&self, tenant: &str, id: &str) -> Result<Option<v1::Batch>, EngineError> {
        let row: Option<(i64, i64)> = sqlx::query_as("SELECT n_jobs, created_ms FROM batches WHERE tenant = $1 AND id = $2")
            .bind(tenant)
            .bind(id)
            .fetch_optional(&self.readers)
            .await?;
        let Some((n_jobs, created_ms)) = row else { return Ok(None) };
        let states: Vec<(i64, i64)> =
            sqlx::query_as("SELECT state, count(*) FROM jobs WHERE tenant = $1 AND batch = $2 GROUP BY state ORDER BY state")
                .bind(tenant)
                .bind(id)
                .fetch_all(&self.readers)
                .await?;
        use v1::job::State;
        let column = |count: i64| i32::try_from(count).unwrap_or(i32::MAX);
        let count = |wanted: State| states.iter().find(|(state, _)| *state == wanted as i64).map_or(0, |(_, count)| column(*count));
        Ok(Some(v1::Batch {
            name: BatchName { tenant: tenant.into(), batch_id: id.into() }.to_string(),
            create_time: Some(timestamp(created_ms)),
            total: column(n_jobs),
            queued: count(State::Queued),
            running: count(State::Running) + count(State::Cancelling),
            succeeded: count(State::Succeeded),
            failed: count(State::Failed),
            cancelled: count(State::Cancelled),
            expired: count(State::Expired),
        }))
    }
}

async fn insert_batch(writing: &mut Writing, tenant: &str, id: &str, n_jobs: usize) -> Result<(), EngineError> {
    let now_ms = writing.now_ms;
    sqlx::query("INSERT INTO batches(tenant, id, n_jobs, created_ms) VALUES ($1, $2, $3, $4)")
        .bind(tenant)
        .bind(id)
        .bind(n_jobs as i64)
        .bind(now_ms)
        .execute(writing.connection())
        .await?;
    Ok(())
}

/// What is known of a ready model.
struct ReadyModel {
    graph: v1::TaskGraph,
    private_digest: Option<Vec<u8>>,
}

async fn ready_model(writing: &mut Writing, name: &ModelName) -> Result<ReadyModel, EngineError> {
    let row: Option<(Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>)> =
        sqlx::query_as("SELECT doc, graph, private_digest FROM models WHERE tenant = $1 AND id = $2")
            .bind(&name.tenant)
            .bind(&name.model_id)
            .fetch_optional(writing.connection())
            .await?;
    let (document, graph, private_digest) = row.ok_or(EngineError::ModelNotFound)?;
    let model = v1::Model::decode(document.as_slice()).map_err(EngineError::Damaged)?;
    if model.state() != v1::model::State::Ready {
        return Err(EngineError::ModelNotReady(model.state()));
    }
    let graph = match graph {
        Some(bytes) => v1::TaskGraph::decode(bytes.as_slice()).map_err(EngineError::Damaged)?,
        None => graph::single(graph::PROVE, 0),
    };
    Ok(ReadyModel { graph, private_digest })
}

/// Writes a job with its tasks and its first event.
async fn admit(writing: &mut Writing, new: NewJob) -> Result<v1::Job, EngineError> {
    let name = JobName::parse(&new.job.name).map_err(|_| EngineError::ModelNotFound)?;
    let model_name = ModelName::parse(&new.job.model).map_err(|_| EngineError::ModelNotFound)?;
    let subject = subject(SubjectKind::Job, &name.tenant, &name.job_id);
    let model = ready_model(writing, &model_name).await?;
    let created_ms = new.job.create_time.as_ref().map_or(0, timestamp_ms);
    let priority = i64::from(new.job.priority);
    let mut document = Document::Job(Box::new(new.job));
    let body = document.apply(Change::Admitted, created_ms);
    let Document::Job(job) = document else { return Err(EngineError::ModelNotFound) };
    sqlx::query(
        "INSERT INTO jobs(tenant, id, model_id, state, created_ms, deadline_ms, priority, last_seq, doc, input_salt, seed, batch) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
    )
    .bind(&subject.tenant)
    .bind(&subject.id)
    .bind(&model_name.model_id)
    .bind(i64::from(job.state))
    .bind(created_ms)
    .bind(job.deadline.as_ref().map(timestamp_ms))
    .bind(priority)
    .bind(job.last_sequence)
    .bind(job.encode_to_vec())
    .bind(new.input_salt.to_vec())
    .bind(new.seed.to_vec())
    .bind(BatchName::parse(&job.batch).ok().map(|name| name.batch_id))
    .execute(writing.connection())
    .await?;
    let input = match job.input.as_ref().and_then(|input| input.source.as_ref()) {
        Some(v1::input::Source::Artifact(name)) => Some(name.as_str()),
        Some(v1::input::Source::Inline(_)) | None => None,
    };
    refer_to_named(writing, &subject, input).await?;
    insert_labels(writing, &subject, &job).await?;
    append_event(writing, &subject, job.last_sequence, body).await?;
    insert_graph(writing, &subject, &Plan { graph: model.graph, priority, created_ms, model_digest: model.private_digest }).await?;
    Ok(*job)
}

/// Makes a subject refer to the public artifacts of these names. An empty one names nothing.
///
/// # Errors
/// [`EngineError::ArtifactGone`].
pub(super) async fn refer_to_named<'a>(
    writing: &mut Writing,
    subject: &Subject,
    names: impl IntoIterator<Item = &'a str>,
) -> Result<(), EngineError> {
    for name in names.into_iter().filter(|name| !name.is_empty()) {
        // The service has checked that it is a name, and the tenant's own; what is neither cannot be kept.
        let name = ArtifactName::parse(name).map_err(|_| EngineError::ArtifactGone)?;
        if name.tenant != subject.tenant {
            return Err(EngineError::ArtifactGone);
        }
        let artifact = ArtifactId { class: Class::Public, tenant: name.tenant, digest: name.blake3 };
        refer(writing, subject, Referrer::Document, &artifact).await?;
    }
    Ok(())
}

async fn insert_labels(writing: &mut Writing, subject: &Subject, job: &v1::Job) -> Result<(), EngineError> {
    for (key, value) in &job.labels {
        sqlx::query("INSERT INTO job_labels(tenant, job, key, value) VALUES ($1, $2, $3, $4)")
            .bind(&subject.tenant)
            .bind(&subject.id)
            .bind(key)
            .bind(value)
            .execute(writing.connection())
            .await?;
    }
    Ok(())
}

/// What all tasks of a subject share.
struct Plan {
    graph: v1::TaskGraph,
    priority: i64,
    created_ms: i64,
    model_digest: Option<Vec<u8>>,
}

async fn insert_graph(writing: &mut Writing, subject: &Subject, plan: &Plan) -> Result<(), EngineError> {
    let priority = i32::try_from(plan.priority).unwrap_or(0);
    let level = placement::level(priority, plan.created_ms.unsigned_abs(), &placement::Limits::default());
    for (ordinal, node) in plan.graph.nodes.iter().enumerate() {
        let state = if node.needs.is_empty() { "READY" } else { "WAITING" };
        sqlx::query(
            "INSERT INTO tasks(kind, tenant, subject, ordinal, name, step, state, waiting_on, priority, level, created_ms, rank_ms, estimated_ms, \
               device_bytes, model_digest) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)",
        )
        .bind(subject.kind.task_kind())
        .bind(&subject.tenant)
        .bind(&subject.id)
        .bind(ordinal as i64)
        .bind(&node.name)
        .bind(&node.step)
        .bind(state)
        .bind(node.needs.len() as i64)
        .bind(plan.priority)
        .bind(level)
        .bind(plan.created_ms)
        .bind(node.rank_ms)
        .bind(node.estimated_ms)
        .bind(node.device_bytes)
        .bind(plan.model_digest.clone())
        .execute(writing.connection())
        .await?;
        for &needs in &node.needs {
            insert_dependency(writing, subject, i64::from(needs), ordinal as i64).await?;
        }
    }
    writing.changed.push(Notice::Ready);
    Ok(())
}

async fn insert_dependency(writing: &mut Writing, subject: &Subject, needs: i64, task: i64) -> Result<(), EngineError> {
    sqlx::query("INSERT INTO deps(tenant, job, needs, task) VALUES ($1, $2, $3, $4)")
        .bind(&subject.tenant)
        .bind(&subject.id)
        .bind(needs)
        .bind(task)
        .execute(writing.connection())
        .await?;
    Ok(())
}
