//! Models and jobs on SQLite.

use prost::Message as _;
use sqlx::{QueryBuilder, Row as _, Sqlite, SqliteConnection};
use zkinfer_proto::name::{JobName, ModelName};
use zkinfer_proto::v1;

use super::super::document::{Change, Document};
use super::super::{
    EngineError, EngineFuture, JobFilter, NewJob, NewModel, Page, PageRequest, RequestKey, Resources, StoredEvent, Subject, SubjectKind,
    timestamp_ms,
};
use super::tasks::{Stop, end_stopped};
use super::{SqliteEngine, append_event, apply, idempotency, load};

impl Resources for SqliteEngine {
    fn create_model(&self, new: NewModel) -> EngineFuture<'_, v1::Model> {
        Box::pin(self.insert_model(new))
    }

    fn model(&self, tenant: &str, id: &str) -> EngineFuture<'_, Option<v1::Model>> {
        let subject = subject(SubjectKind::Model, tenant, id);
        Box::pin(async move {
            let mut reader = self.readers.acquire().await?;
            let Some(Document::Model(mut model)) = load(&mut reader, &subject).await? else {
                return Ok(None);
            };
            if model.state() == v1::model::State::Compiling {
                set_queue_position(&mut reader, &subject, &mut model.progress).await?;
            }
            Ok(Some(*model))
        })
    }

    fn list_models(&self, tenant: &str, page: PageRequest) -> EngineFuture<'_, Page<v1::Model>> {
        let mut query = QueryBuilder::new("SELECT created_ms, id, doc FROM models WHERE tenant = ");
        query.push_bind(tenant.to_owned());
        Box::pin(async move { self.page(query, page, |bytes| v1::Model::decode(bytes).map_err(EngineError::Damaged)).await })
    }

    fn create_job(&self, new: NewJob) -> EngineFuture<'_, v1::Job> {
        Box::pin(self.insert_job(new))
    }

    fn create_jobs(&self, tenant: &str, batch: Vec<NewJob>, key: Option<RequestKey>) -> EngineFuture<'_, Vec<v1::Job>> {
        let tenant = tenant.to_owned();
        Box::pin(async move { self.insert_jobs(&tenant, batch, key.as_ref()).await })
    }

    fn job(&self, tenant: &str, id: &str) -> EngineFuture<'_, Option<v1::Job>> {
        let subject = subject(SubjectKind::Job, tenant, id);
        Box::pin(async move {
            let mut reader = self.readers.acquire().await?;
            let Some(Document::Job(mut job)) = load(&mut reader, &subject).await? else {
                return Ok(None);
            };
            if job.state() == v1::job::State::Queued {
                set_queue_position(&mut reader, &subject, &mut job.progress).await?;
            }
            Ok(Some(*job))
        })
    }

    fn list_jobs(&self, tenant: &str, filter: JobFilter, page: PageRequest) -> EngineFuture<'_, Page<v1::Job>> {
        let mut query = QueryBuilder::new("SELECT created_ms, id, doc FROM jobs WHERE tenant = ");
        query.push_bind(tenant.to_owned());
        push_job_filter(&mut query, filter);
        Box::pin(async move { self.page(query, page, |bytes| v1::Job::decode(bytes).map_err(EngineError::Damaged)).await })
    }

    fn cancel_job(&self, tenant: &str, id: &str, note: &str) -> EngineFuture<'_, Option<v1::Job>> {
        let (subject, note) = (subject(SubjectKind::Job, tenant, id), note.to_owned());
        Box::pin(async move {
            let mut transaction = self.begin().await?;
            let Some(mut document) = load(&mut transaction, &subject).await? else {
                return Ok(None);
            };
            if !document.is_final() {
                stop_job(&mut transaction, &subject, &mut document, &Stop::cancel(note)).await?;
            }
            transaction.commit().await?;
            let Document::Job(job) = document else { return Ok(None) };
            Ok(Some(*job))
        })
    }

    fn events(&self, subject: &Subject, from: i64, limit: u32) -> EngineFuture<'_, Vec<StoredEvent>> {
        let subject = subject.clone();
        Box::pin(async move {
            let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
                "SELECT seq, body FROM events \
                 WHERE kind = ? AND tenant = ? AND subject = ? AND seq >= ? ORDER BY seq LIMIT ?",
            )
            .bind(subject.kind.task_kind())
            .bind(&subject.tenant)
            .bind(&subject.id)
            .bind(from)
            .bind(limit)
            .fetch_all(&self.readers)
            .await?;
            Ok(rows.into_iter().map(|(sequence, body)| StoredEvent { sequence, body }).collect())
        })
    }
}

fn subject(kind: SubjectKind, tenant: &str, id: &str) -> Subject {
    Subject { kind, tenant: tenant.to_owned(), id: id.to_owned() }
}

impl SqliteEngine {
    async fn insert_model(&self, new: NewModel) -> Result<v1::Model, EngineError> {
        const METHOD: &str = "CreateModel";
        // The service makes names, so this cannot fail; if it does, nothing is written.
        let name = ModelName::parse(&new.model.name).map_err(|_| EngineError::ModelNotFound)?;
        let subject = subject(SubjectKind::Model, &name.tenant, &name.model_id);
        let mut transaction = self.begin().await?;
        let known = idempotency::replay(&mut transaction, &name.tenant, METHOD, new.key.as_ref()).await?;
        if let Some(response) = known {
            return v1::Model::decode(response.as_slice()).map_err(EngineError::Damaged);
        }
        if load(&mut transaction, &subject).await?.is_some() {
            return Err(EngineError::AlreadyExists);
        }
        self.check_queue(&mut transaction, &subject.tenant).await?;
        let created_ms = new.model.create_time.as_ref().map_or(0, timestamp_ms);
        let mut document = Document::Model(Box::new(new.model));
        let body = document.apply(Change::Admitted, created_ms);
        sqlx::query(
            "INSERT INTO models(tenant, id, state, created_ms, last_seq, doc, salt, seed) \
             VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&subject.tenant)
        .bind(&subject.id)
        .bind(document.state())
        .bind(created_ms)
        .bind(document.last_sequence())
        .bind(document.encode())
        .bind(new.salt.as_slice())
        .bind(new.seed.as_slice())
        .execute(&mut *transaction)
        .await?;
        append_event(&mut transaction, &subject, document.last_sequence(), body).await?;
        insert_task(&mut transaction, &subject, 0).await?;
        let key = new.key.as_ref();
        idempotency::record(&mut transaction, &subject.tenant, METHOD, key, document.encode()).await?;
        transaction.commit().await?;
        let Document::Model(model) = document else { return Err(EngineError::ModelNotFound) };
        Ok(*model)
    }

    async fn insert_job(&self, new: NewJob) -> Result<v1::Job, EngineError> {
        const METHOD: &str = "CreateJob";
        let name = JobName::parse(&new.job.name).map_err(|_| EngineError::ModelNotFound)?;
        let mut transaction = self.begin().await?;
        let key = new.key.clone();
        let known = idempotency::replay(&mut transaction, &name.tenant, METHOD, key.as_ref()).await?;
        if let Some(response) = known {
            return v1::Job::decode(response.as_slice()).map_err(EngineError::Damaged);
        }
        let job = self.admit(&mut transaction, new).await?;
        idempotency::record(&mut transaction, &name.tenant, METHOD, key.as_ref(), job.encode_to_vec()).await?;
        transaction.commit().await?;
        Ok(job)
    }

    async fn insert_jobs(&self, tenant: &str, batch: Vec<NewJob>, key: Option<&RequestKey>) -> Result<Vec<v1::Job>, EngineError> {
        const METHOD: &str = "BatchCreateJobs";
        let mut transaction = self.begin().await?;
        let known = idempotency::replay(&mut transaction, tenant, METHOD, key).await?;
        if let Some(response) = known {
            let response = v1::BatchCreateJobsResponse::decode(response.as_slice()).map_err(EngineError::Damaged)?;
            return Ok(response.jobs);
        }
        let mut jobs = Vec::with_capacity(batch.len());
        for (index, new) in batch.into_iter().enumerate() {
            let admitted = self.admit(&mut transaction, new).await;
            jobs.push(admitted.map_err(|error| EngineError::InBatch { index, source: Box::new(error) })?);
        }
        let response = v1::BatchCreateJobsResponse { jobs };
        idempotency::record(&mut transaction, tenant, METHOD, key, response.encode_to_vec()).await?;
        transaction.commit().await?;
        Ok(response.jobs)
    }

    /// Writes a job with its task and its first event.
    async fn admit(&self, transaction: &mut SqliteConnection, new: NewJob) -> Result<v1::Job, EngineError> {
        let name = JobName::parse(&new.job.name).map_err(|_| EngineError::ModelNotFound)?;
        let model = ModelName::parse(&new.job.model).map_err(|_| EngineError::ModelNotFound)?;
        let subject = subject(SubjectKind::Job, &name.tenant, &name.job_id);
        check_model_ready(transaction, &model).await?;
        self.check_queue(transaction, &subject.tenant).await?;
        let created_ms = new.job.create_time.as_ref().map_or(0, timestamp_ms);
        let deadline_ms = new.job.deadline.as_ref().map(timestamp_ms);
        let labels = serde_json::json!(new.job.labels).to_string();
        let priority = new.job.priority;
        let mut document = Document::Job(Box::new(new.job));
        let body = document.apply(Change::Admitted, created_ms);
        sqlx::query(
            "INSERT INTO jobs(tenant, id, model_id, state, created_ms, deadline_ms, labels, \
             last_seq, doc, input_salt, seed) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        )
        .bind(&subject.tenant)
        .bind(&subject.id)
        .bind(&model.model_id)
        .bind(document.state())
        .bind(created_ms)
        .bind(deadline_ms)
        .bind(labels)
        .bind(document.last_sequence())
        .bind(document.encode())
        .bind(new.input_salt.as_slice())
        .bind(new.seed.as_slice())
        .execute(&mut *transaction)
        .await?;
        append_event(transaction, &subject, document.last_sequence(), body).await?;
        insert_task(transaction, &subject, priority).await?;
        let Document::Job(job) = document else { return Err(EngineError::ModelNotFound) };
        Ok(*job)
    }

    async fn check_queue(&self, connection: &mut SqliteConnection, tenant: &str) -> Result<(), EngineError> {
        let queued: u32 = sqlx::query_scalar("SELECT count(*) FROM tasks WHERE state = 'READY' AND tenant = ?")
            .bind(tenant)
            .fetch_one(connection)
            .await?;
        if queued >= self.queued_per_tenant {
            let limit = self.queued_per_tenant;
            return Err(EngineError::QuotaExceeded { what: "queued jobs", limit });
        }
        Ok(())
    }

    async fn page<T>(
        &self,
        mut query: QueryBuilder<Sqlite>,
        page: PageRequest,
        decode: impl Fn(&[u8]) -> Result<T, EngineError>,
    ) -> Result<Page<T>, EngineError> {
        if let Some((created_ms, id)) = page.after {
            query.push(" AND (created_ms, id) < (").push_bind(created_ms);
            query.push(", ").push_bind(id).push(")");
        }
        query.push(" ORDER BY created_ms DESC, id DESC LIMIT ").push_bind(page.size + 1);
        let rows = query.build().fetch_all(&self.readers).await?;
        let mut items = Vec::new();
        let mut n_bytes = 0;
        for row in rows.iter().take(page.size as usize) {
            let document: &[u8] = row.try_get("doc")?;
            n_bytes += document.len();
            // A page is one message; a short page is a page like any other.
            if n_bytes > self.page_bytes && !items.is_empty() {
                break;
            }
            items.push(decode(document)?);
        }
        let next = match items.len().checked_sub(1).and_then(|last| rows.get(last)) {
            Some(last) if items.len() < rows.len() => Some((last.try_get("created_ms")?, last.try_get("id")?)),
            _ => None,
        };
        Ok(Page { items, next })
    }
}

async fn check_model_ready(connection: &mut SqliteConnection, model: &ModelName) -> Result<(), EngineError> {
    let subject = subject(SubjectKind::Model, &model.tenant, &model.model_id);
    match load(connection, &subject).await? {
        Some(Document::Model(model)) if model.state() == v1::model::State::Ready => Ok(()),
        Some(Document::Model(model)) => Err(EngineError::ModelNotReady(model.state())),
        Some(Document::Job(_)) | None => Err(EngineError::ModelNotFound),
    }
}

async fn insert_task(connection: &mut SqliteConnection, subject: &Subject, priority: i32) -> Result<(), EngineError> {
    sqlx::query("INSERT INTO tasks(kind, tenant, subject, state, priority) VALUES (?, ?, ?, 'READY', ?)")
        .bind(subject.kind.task_kind())
        .bind(&subject.tenant)
        .bind(&subject.id)
        .bind(priority)
        .execute(connection)
        .await?;
    Ok(())
}

/// Stops a job that is not final: at once if it waits, else by leaving word for its worker.
pub(super) async fn stop_job(
    connection: &mut SqliteConnection,
    subject: &Subject,
    document: &mut Document,
    stop: &Stop,
) -> Result<(), EngineError> {
    if document.state() == v1::job::State::Cancelling as i32 {
        return Ok(());
    }
    let cancelled = sqlx::query(
        "UPDATE tasks SET state = 'CANCELLED' \
         WHERE kind = 'PROVE' AND tenant = ? AND subject = ? AND state = 'READY'",
    )
    .bind(&subject.tenant)
    .bind(&subject.id)
    .execute(&mut *connection)
    .await?;
    sqlx::query("UPDATE jobs SET stop_cause = ?, stop_note = ? WHERE tenant = ? AND id = ?")
        .bind(stop.cause.as_str())
        .bind(&stop.note)
        .bind(&subject.tenant)
        .bind(&subject.id)
        .execute(&mut *connection)
        .await?;
    if cancelled.rows_affected() == 0 {
        return apply(connection, subject, document, Change::Cancelling).await;
    }
    end_stopped(connection, subject, document, stop).await
}

async fn set_queue_position(
    connection: &mut SqliteConnection,
    subject: &Subject,
    progress: &mut Option<v1::Progress>,
) -> Result<(), EngineError> {
    let ahead: Option<i32> = sqlx::query_scalar(
        "SELECT (SELECT count(*) FROM tasks AS other WHERE other.state = 'READY' \
           AND (other.priority > mine.priority OR (other.priority = mine.priority AND other.id < mine.id))) \
         FROM tasks AS mine WHERE kind = ? AND tenant = ? AND subject = ? AND state = 'READY'",
    )
    .bind(subject.kind.task_kind())
    .bind(&subject.tenant)
    .bind(&subject.id)
    .fetch_optional(connection)
    .await?;
    progress.get_or_insert_default().queue_position = ahead.unwrap_or(-1);
    Ok(())
}

fn push_job_filter(query: &mut QueryBuilder<Sqlite>, filter: JobFilter) {
    if let Some(model_id) = filter.model_id {
        query.push(" AND model_id = ").push_bind(model_id);
    }
    if !filter.states.is_empty() {
        query.push(" AND state IN (");
        let mut list = query.separated(", ");
        for state in filter.states {
            list.push_bind(state as i32);
        }
        query.push(")");
    }
    for (key, value) in filter.labels {
        query.push(" AND EXISTS (SELECT 1 FROM json_each(labels) WHERE key = ").push_bind(key);
        query.push(" AND value = ").push_bind(value).push(")");
    }
}
