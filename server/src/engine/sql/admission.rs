//! Admission: a subject, its whole graph of tasks and its first event, in one transaction.

use std::collections::HashMap;

use prost::Message as _;
use zkinfer_proto::name::{ArtifactName, BatchName, JobName, ModelName};
use zkinfer_proto::v1;

use super::super::document::{Change, Document, admit_job};
use super::super::{
    ArtifactFacts, ArtifactRecords as _, EngineError, NewBatch, NewJob, NewModel, Notice, RequestKey, Subject, SubjectKind, graph,
    timestamp, timestamp_ms,
};
use super::artifact_records::record_and_require;
use super::garbage::{REFERENCES, Referrer, reference_rows};
use super::lines::Waits;
use super::many::{Many, Part, Value, row};
use super::work::Sealed;
use super::{SqlEngine, Writing, idempotency, load, subject};
use crate::artifacts::{ArtifactId, Class};
use crate::placement;
use crate::placement::cost::{self, Estimate};
use crate::record_seal::RecordSeal;

/// The method whose request ids jobs of their own have.
pub(super) const CREATE_JOB: &str = "CreateJob";

impl SqlEngine {
    pub(super) async fn insert_model(&self, new: NewModel) -> Result<v1::Model, EngineError> {
        const METHOD: &str = "CreateModel";
        // The service makes names, so this cannot fail; if it does, nothing is written.
        let name = ModelName::parse(&new.model.name).map_err(|_| EngineError::ModelNotFound)?;
        let subject = subject(SubjectKind::Model, &name.tenant, &name.model_id);
        let sealed = Sealed::seal(&self.seal, &subject, &new.salt, &new.seed)?;
        let named_by = [new.model.source_artifact.clone(), new.model.calibration_artifact.clone()];
        let mut writing = self.begin().await?;
        let created_ms = writing.now_ms;
        let mut document = Document::Model(Box::new(v1::Model { create_time: Some(timestamp(created_ms)), ..new.model }));
        let event = document.apply(Change::Admitted, created_ms);
        if let Some(response) = idempotency::claim(&mut writing, &name.tenant, METHOD, new.key.as_ref(), &document.encode()).await? {
            self.commit(writing).await?;
            return v1::Model::decode(response.as_slice()).map_err(EngineError::Damaged);
        }
        if load(writing.connection(), &subject).await?.is_some() {
            return Err(EngineError::AlreadyExists);
        }
        self.check_room(&mut writing, &subject.tenant, 1).await?;
        sqlx::query("INSERT INTO models(tenant, id, state, created_ms, last_seq, doc, salt, seed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)")
            .bind(&subject.tenant)
            .bind(&subject.id)
            .bind(i64::from(document.state()))
            .bind(created_ms)
            .bind(document.last_sequence())
            .bind(document.encode())
            .bind(sealed.salt.to_vec())
            .bind(sealed.seed.to_vec())
            .execute(writing.connection())
            .await?;
        let mut admitted = Admitted::default();
        admitted.refer(&subject, named(&subject, named_by.iter().map(String::as_str))?);
        admitted.push_event(&subject, document.last_sequence(), event);
        let plan = Plan { graph: &registration(new.source_bytes), priority: 0, created_ms, model_digest: None };
        admitted.push_graph(&subject, &plan);
        admitted.write(&mut writing).await?;
        self.commit(writing).await?;
        let Document::Model(model) = document else { return Err(EngineError::ModelNotFound) };
        Ok(*model)
    }

    /// Admits a job in a transaction of its own.
    pub(super) async fn admit_alone(&self, new: &Prepared, waits: Waits) -> Result<v1::Job, EngineError> {
        let mut writing = self.begin_with(waits).await?;
        let tenant = &new.subject.tenant;
        let dated = new.at(writing.now_ms);
        if let Some(response) = idempotency::claim(&mut writing, tenant, CREATE_JOB, new.key.as_ref(), &dated.job.encode_to_vec()).await? {
            self.commit(writing).await?;
            return v1::Job::decode(response.as_slice()).map_err(EngineError::Damaged);
        }
        self.check_room(&mut writing, tenant, 1).await?;
        let model = ready_model(&mut writing, &new.model).await?;
        let mut admitted = Admitted::default();
        admitted.push_job(&dated, &model)?;
        admitted.write(&mut writing).await?;
        self.commit(writing).await?;
        Ok(dated.job)
    }

    pub(super) async fn insert_jobs(&self, new: NewBatch) -> Result<v1::BatchCreateJobsResponse, EngineError> {
        const METHOD: &str = "BatchCreateJobs";
        let NewBatch { tenant, id, jobs, key } = new;
        let batch = BatchName { tenant: tenant.clone(), batch_id: id.clone() }.to_string();
        let mut prepared = Vec::with_capacity(jobs.len());
        for (index, mut new) in jobs.into_iter().enumerate() {
            new.job.batch = batch.clone();
            prepared.push(Prepared::new(new, &self.seal).map_err(|error| in_batch(index, error))?);
        }
        let mut writing = self.begin().await?;
        let dated: Vec<Dated<'_>> = prepared.iter().map(|new| new.at(writing.now_ms)).collect();
        let response = v1::BatchCreateJobsResponse { jobs: dated.iter().map(|new| new.job.clone()).collect(), batch };
        if let Some(response) = idempotency::claim(&mut writing, &tenant, METHOD, key.as_ref(), &response.encode_to_vec()).await? {
            self.commit(writing).await?;
            return v1::BatchCreateJobsResponse::decode(response.as_slice()).map_err(EngineError::Damaged);
        }
        insert_batch(&mut writing, &tenant, &id, prepared.len()).await?;
        let room = self.room(&mut writing, &tenant, prepared.len() as i64).await?;
        let mut models: HashMap<&ModelName, ReadyModel> = HashMap::new();
        let mut admitted = Admitted::default();
        for (index, new) in dated.iter().enumerate() {
            if index as i64 >= room.free {
                return Err(in_batch(index, room.exceeded()));
            }
            let model = &new.prepared.model;
            if !models.contains_key(model) {
                models.insert(model, ready_model(&mut writing, model).await.map_err(|error| in_batch(index, error))?);
            }
            admitted.push_job(new, &models[model]).map_err(|error| in_batch(index, error))?;
        }
        if let Err(error) = admitted.write(&mut writing).await {
            return Err(self.place(error, &prepared).await);
        }
        self.commit(writing).await?;
        Ok(response)
    }

    /// An artifact that is gone stops a batch as a whole; it is told which job named it.
    async fn place(&self, error: EngineError, prepared: &[Prepared]) -> EngineError {
        if !matches!(error, EngineError::ArtifactGone) {
            return error;
        }
        // What was stored for a job is held.
        for (index, new) in prepared.iter().enumerate().filter(|(_, new)| new.input.is_none()) {
            for input in new.inputs().unwrap_or_default() {
                if !matches!(self.artifact(input.class, &input.tenant, input.digest).await, Ok(Some(_))) {
                    return in_batch(index, error);
                }
            }
        }
        error
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

/// The one task of a registration.
fn registration(source_bytes: u64) -> v1::TaskGraph {
    let Estimate { micros, device_bytes, .. } = cost::register(source_bytes);
    let column = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    graph::single(graph::REGISTER, column(micros.div_ceil(1_000)), column(device_bytes))
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

pub(super) fn in_batch(index: usize, error: EngineError) -> EngineError {
    EngineError::InBatch { index, source: Box::new(error) }
}

/// What is known of a ready model.
pub(super) struct ReadyModel {
    graph: v1::TaskGraph,
    private_digest: Option<Vec<u8>>,
}

/// A model that takes jobs. It is not deleted before the transaction ends.
pub(super) async fn ready_model(writing: &mut Writing, name: &ModelName) -> Result<ReadyModel, EngineError> {
    macro_rules! model {
        () => {
            "SELECT doc, graph, private_digest FROM models WHERE tenant = $1 AND id = $2"
        };
    }
    // Many admit jobs of a model at once.
    let sql = writing.dialect.pick(model!(), concat!(model!(), " FOR KEY SHARE"));
    let row: Option<(Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>)> =
        sqlx::query_as(sql).bind(&name.tenant).bind(&name.model_id).fetch_optional(writing.connection()).await?;
    let (document, graph, private_digest) = row.ok_or(EngineError::ModelNotFound)?;
    let model = v1::Model::decode(document.as_slice()).map_err(EngineError::Damaged)?;
    if model.state() != v1::model::State::Ready {
        return Err(EngineError::ModelNotReady(model.state()));
    }
    let graph = match graph {
        Some(bytes) => v1::TaskGraph::decode(bytes.as_slice()).map_err(EngineError::Damaged)?,
        None => graph::single(graph::PROVE, 0, 0),
    };
    Ok(ReadyModel { graph, private_digest })
}

/// A job that is to be admitted, before anything is read. When that will be is not known.
pub(super) struct Prepared {
    pub(super) subject: Subject,
    pub(super) model: ModelName,
    pub(super) job: v1::Job,
    key: Option<RequestKey>,
    input: Option<ArtifactFacts>,
    sealed: Sealed,
}

// Without keys its salt and seed are as they are.
impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("subject", &self.subject).finish_non_exhaustive()
    }
}

impl Prepared {
    pub(super) fn new(new: NewJob, seal: &RecordSeal) -> Result<Self, EngineError> {
        // The service makes and checks names, so this cannot fail; if it does, nothing is written.
        let NewJob { job, input, input_salt, seed, key } = new;
        let name = JobName::parse(&job.name).map_err(|_| EngineError::ModelNotFound)?;
        let model = ModelName::parse(&job.model).map_err(|_| EngineError::ModelNotFound)?;
        let subject = subject(SubjectKind::Job, &name.tenant, &name.job_id);
        let sealed = Sealed::seal(seal, &subject, &input_salt, &seed)?;
        Ok(Self { subject, model, job, key, input, sealed })
    }

    /// The job as it is if it is admitted then, by the engine's clock: its place in the queue comes from there.
    pub(super) fn at(&self, created_ms: i64) -> Dated<'_> {
        let mut job = v1::Job { create_time: Some(timestamp(created_ms)), ..self.job.clone() };
        let event = admit_job(&mut job, created_ms);
        Dated { prepared: self, created_ms, job, event }
    }

    /// The request id of the job's own, and the tenant that it is of.
    pub(super) fn place(&self) -> Option<idempotency::Place> {
        self.key.as_ref().map(|key| (self.subject.tenant.clone(), key.request_id.clone()))
    }

    /// The artifact that the job reads.
    fn inputs(&self) -> Result<Vec<ArtifactId>, EngineError> {
        match self.job.input.as_ref().and_then(|input| input.source.as_ref()) {
            Some(v1::input::Source::Artifact(name)) => named(&self.subject, [name.as_str()]),
            Some(v1::input::Source::Inline(_)) | None => Ok(Vec::new()),
        }
    }
}

/// A job as it is when it is admitted.
pub(super) struct Dated<'a> {
    pub(super) prepared: &'a Prepared,
    created_ms: i64,
    pub(super) job: v1::Job,
    event: Vec<u8>,
}

impl<'a> Dated<'a> {
    /// The answer to the request.
    pub(super) fn claim(&self) -> Option<idempotency::Claim<'a>> {
        let key = self.prepared.key.as_ref()?;
        Some(idempotency::Claim { tenant: &self.prepared.subject.tenant, key, response: self.job.encode_to_vec() })
    }
}

/// The public artifacts of these names, which are the subject's tenant's. An empty one names nothing.
///
/// # Errors
/// [`EngineError::ArtifactGone`]: the service has checked that it is a name, and the tenant's own; what is neither cannot be kept.
pub(super) fn named<'a>(subject: &Subject, names: impl IntoIterator<Item = &'a str>) -> Result<Vec<ArtifactId>, EngineError> {
    let parse = |name: &str| {
        let name = ArtifactName::parse(name).ok().filter(|name| name.tenant == subject.tenant).ok_or(EngineError::ArtifactGone)?;
        Ok(ArtifactId { class: Class::Public, tenant: name.tenant, digest: name.blake3 })
    };
    names.into_iter().filter(|name| !name.is_empty()).map(parse).collect()
}

/// What all tasks of a subject share.
struct Plan<'a> {
    graph: &'a v1::TaskGraph,
    priority: i64,
    created_ms: i64,
    model_digest: Option<Vec<u8>>,
}

/// The rows of what is admitted: one statement a table, however many there are.
#[derive(Default)]
pub(super) struct Admitted {
    jobs: Vec<Vec<Value>>,
    labels: Vec<Vec<Value>>,
    records: Vec<ArtifactFacts>,
    artifacts: Vec<ArtifactId>,
    references: Vec<Vec<Value>>,
    events: Vec<Vec<Value>>,
    tasks: Vec<Vec<Value>>,
    dependencies: Vec<Vec<Value>>,
}

impl Admitted {
    pub(super) fn push_job(&mut self, dated: &Dated<'_>, model: &ReadyModel) -> Result<(), EngineError> {
        let Dated { prepared: new, created_ms, job, event } = dated;
        let subject = &new.subject;
        let priority = i64::from(job.priority);
        self.jobs.push(row![
            &subject.tenant,
            &subject.id,
            &new.model.model_id,
            i64::from(job.state),
            *created_ms,
            job.deadline.as_ref().map(timestamp_ms),
            priority,
            job.last_sequence,
            job.encode_to_vec(),
            &new.sealed.salt,
            &new.sealed.seed,
            BatchName::parse(&job.batch).ok().map(|name| name.batch_id),
        ]);
        self.records.extend(new.input.clone());
        self.refer(subject, new.inputs()?);
        self.labels.extend(job.labels.iter().map(|(key, value)| row![&subject.tenant, &subject.id, key, value]));
        self.push_event(subject, job.last_sequence, event.clone());
        let plan = Plan { graph: &model.graph, priority, created_ms: *created_ms, model_digest: model.private_digest.clone() };
        self.push_graph(subject, &plan);
        Ok(())
    }

    fn refer(&mut self, subject: &Subject, artifacts: Vec<ArtifactId>) {
        self.references.extend(reference_rows(subject, Referrer::Document, &artifacts));
        self.artifacts.extend(artifacts);
    }

    fn push_event(&mut self, subject: &Subject, sequence: i64, body: Vec<u8>) {
        self.events.push(row![subject.kind.task_kind(), &subject.tenant, &subject.id, sequence, body]);
    }

    fn push_graph(&mut self, subject: &Subject, plan: &Plan<'_>) {
        let priority = i32::try_from(plan.priority).unwrap_or(0);
        let level = placement::level(priority, plan.created_ms.unsigned_abs(), &placement::Limits::default());
        for (ordinal, node) in (0i64..).zip(&plan.graph.nodes) {
            self.tasks.push(row![
                subject.kind.task_kind(),
                &subject.tenant,
                &subject.id,
                ordinal,
                &node.name,
                &node.step,
                if node.needs.is_empty() { "READY" } else { "WAITING" },
                node.needs.len() as i64,
                plan.priority,
                level,
                plan.created_ms,
                node.rank_ms,
                node.estimated_ms,
                node.device_bytes,
                node.load_ms,
                plan.model_digest.clone(),
            ]);
            let needs = node.needs.iter().map(|&needs| row![&subject.tenant, &subject.id, i64::from(needs), ordinal]);
            self.dependencies.extend(needs);
        }
    }

    pub(super) async fn write(self, writing: &mut Writing) -> Result<(), EngineError> {
        record_and_require(writing, &self.records, &self.artifacts).await?;
        let tables = [
            (JOBS, self.jobs),
            (REFERENCES, self.references),
            (LABELS, self.labels),
            (EVENTS, self.events),
            (TASKS, self.tasks),
            (DEPENDENCIES, self.dependencies),
        ];
        let n_rows = tables.iter().map(|(_, rows)| rows.len()).sum::<usize>();
        match n_rows <= FEW_ROWS {
            true => {
                let parts: Vec<Part> = tables.into_iter().filter_map(|(table, rows)| table.part(rows)).collect();
                writing.execute_together(&parts).await?;
            }
            false => {
                for (table, rows) in &tables {
                    table.execute(writing.connection(), rows).await?;
                }
            }
        }
        writing.changed.push(Notice::Ready);
        Ok(())
    }
}

/// So many rows of all tables go in one statement.
const FEW_ROWS: usize = 100;

const JOBS: Many = Many::new(
    "INSERT INTO jobs(tenant, id, model_id, state, created_ms, deadline_ms, priority, last_seq, doc, input_salt, seed, batch) VALUES ",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "",
);
const LABELS: Many = Many::new("INSERT INTO job_labels(tenant, job, key, value) VALUES ", "(?, ?, ?, ?)", "");
pub(super) const EVENTS: Many = Many::new("INSERT INTO events(kind, tenant, subject, seq, body) VALUES ", "(?, ?, ?, ?, ?)", "");
const TASKS: Many = Many::new(
    "INSERT INTO tasks(kind, tenant, subject, ordinal, name, step, state, waiting_on, priority, level, created_ms, rank_ms, estimated_ms, \
       device_bytes, load_ms, model_digest) VALUES ",
    "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    "",
);
const DEPENDENCIES: Many = Many::new("INSERT INTO deps(tenant, job, needs, task) VALUES ", "(?, ?, ?, ?)", "");
