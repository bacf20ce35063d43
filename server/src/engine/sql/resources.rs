//! Models and jobs as clients read them.

use prost::Message as _;
use sqlx::any::{AnyArguments, AnyRow};
use sqlx::{Arguments as _, AssertSqlSafe, Row as _};
use zkinfer_proto::name::ModelName;
use zkinfer_proto::v1;

use super::super::document::Document;
use super::super::{
    Deletion, EngineError, EngineFuture, JobFilter, ModelDeletion, NewBatch, NewJob, NewModel, Page, PageRequest, RequestKey, Resources,
    StoredEvent, Subject, SubjectKind, TaskFacts,
};
use super::positions::set_model_position;
use super::stopping::Stop;
use super::{SqlEngine, load, subject};

impl Resources for SqlEngine {
    fn create_model(&self, new: NewModel) -> EngineFuture<'_, v1::Model> {
        Box::pin(self.insert_model(new))
    }

    fn foresee(&self, tenant: &str, models: Vec<ModelName>, key: Option<RequestKey>) -> EngineFuture<'_, ()> {
        let tenant = tenant.to_owned();
        Box::pin(async move { self.foresee_jobs(&tenant, &models, key.as_ref()).await })
    }

    fn model(&self, tenant: &str, id: &str) -> EngineFuture<'_, Option<v1::Model>> {
        let subject = subject(SubjectKind::Model, tenant, id);
        Box::pin(async move {
            let mut reader = self.readers.acquire().await?;
            let Some(Document::Model(mut model)) = load(&mut reader, &subject).await? else {
                return Ok(None);
            };
            if model.state() == v1::model::State::Compiling {
                set_model_position(&mut reader, &subject, &mut model).await?;
            }
            Ok(Some(*model))
        })
    }

    fn list_models(&self, tenant: &str, page: PageRequest) -> EngineFuture<'_, Page<v1::Model>> {
        let mut query = ListQuery::new("SELECT created_ms, id, doc FROM models WHERE tenant = ");
        query.push_text(tenant);
        Box::pin(async move { self.page(query, page, |bytes| v1::Model::decode(bytes).map_err(EngineError::Damaged)).await })
    }

    fn delete_model(&self, tenant: &str, id: &str) -> EngineFuture<'_, ModelDeletion> {
        let subject = subject(SubjectKind::Model, tenant, id);
        Box::pin(async move { self.delete_model_of(&subject).await })
    }

    fn create_job(&self, new: NewJob) -> EngineFuture<'_, v1::Job> {
        Box::pin(self.insert_job(new))
    }

    fn create_jobs(&self, new: NewBatch) -> EngineFuture<'_, v1::BatchCreateJobsResponse> {
        Box::pin(self.insert_jobs(new))
    }

    fn batch(&self, tenant: &str, id: &str) -> EngineFuture<'_, Option<v1::Batch>> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        Box::pin(async move { self.batch_facts(&tenant, &id).await })
    }

    fn ended_of_batch(&self, tenant: &str, id: &str) -> EngineFuture<'_, Vec<String>> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        Box::pin(async move {
            let ended = sqlx::query_scalar("SELECT id FROM jobs WHERE tenant = $1 AND batch = $2 AND state > 3 ORDER BY id");
            Ok(ended.bind(tenant).bind(id).fetch_all(&self.readers).await?)
        })
    }

    fn tasks(&self, subject: &Subject) -> EngineFuture<'_, Vec<TaskFacts>> {
        let subject = subject.clone();
        Box::pin(async move { self.task_facts(&subject).await })
    }

    fn job(&self, tenant: &str, id: &str) -> EngineFuture<'_, Option<v1::Job>> {
        let subject = subject(SubjectKind::Job, tenant, id);
        Box::pin(async move {
            let mut reader = self.readers.acquire().await?;
            let Some(Document::Job(mut job)) = load(&mut reader, &subject).await? else {
                return Ok(None);
            };
            if job.state() == v1::job::State::Queued {
                self.set_job_position(&mut reader, &subject, &mut job).await?;
            }
            Ok(Some(*job))
        })
    }

    fn list_jobs(&self, tenant: &str, filter: JobFilter, page: PageRequest) -> EngineFuture<'_, Page<v1::Job>> {
        let mut query = ListQuery::new("SELECT created_ms, id, doc FROM jobs WHERE tenant = ");
        query.push_text(tenant);
        push_job_filter(&mut query, filter);
        Box::pin(async move { self.page(query, page, |bytes| v1::Job::decode(bytes).map_err(EngineError::Damaged)).await })
    }

    fn cancel_job(&self, tenant: &str, id: &str, note: &str) -> EngineFuture<'_, Option<v1::Job>> {
        let (subject, stop) = (subject(SubjectKind::Job, tenant, id), Stop::cancel(note.to_owned()));
        Box::pin(async move {
            let Some(Document::Job(job)) = self.stop(&subject, &stop).await? else { return Ok(None) };
            Ok(Some(*job))
        })
    }

    fn delete_job(&self, tenant: &str, id: &str) -> EngineFuture<'_, Deletion> {
        let subject = subject(SubjectKind::Job, tenant, id);
        Box::pin(async move { self.delete_one(&subject).await })
    }

    fn events(&self, subject: &Subject, from: i64, limit: u32) -> EngineFuture<'_, Vec<StoredEvent>> {
        let subject = subject.clone();
        Box::pin(async move {
            let rows: Vec<(i64, Vec<u8>)> = sqlx::query_as(
                "SELECT seq, body FROM events WHERE kind = $1 AND tenant = $2 AND subject = $3 AND seq >= $4 ORDER BY seq LIMIT $5",
            )
            .bind(subject.kind.task_kind())
            .bind(&subject.tenant)
            .bind(&subject.id)
            .bind(from)
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
            Ok(rows.into_iter().map(|(sequence, body)| StoredEvent { sequence, body }).collect())
        })
    }
}

/// A statement that grows with its values. Only literals become text of it.
pub(super) struct ListQuery {
    sql: String,
    values: AnyArguments,
}

impl ListQuery {
    pub(super) fn new(sql: &'static str) -> Self {
        Self { sql: sql.to_owned(), values: AnyArguments::default() }
    }

    fn push(&mut self, sql: &'static str) {
        self.sql.push_str(sql);
    }

    fn push_number(&mut self, value: i64) {
        // Adding a number or a text to the list of values cannot fail.
        let _ = self.values.add(value);
        self.push_placeholder();
    }

    pub(super) fn push_text(&mut self, value: &str) {
        let _ = self.values.add(value.to_owned());
        self.push_placeholder();
    }

    fn push_placeholder(&mut self) {
        self.sql.push('$');
        self.sql.push_str(&self.values.len().to_string());
    }
}

/// In which order a list is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    NewestFirst,
    OldestFirst,
}

impl Order {
    /// What comes after a place, up to the place itself.
    fn after(self) -> &'static str {
        match self {
            Self::NewestFirst => " AND (created_ms, id) < (",
            Self::OldestFirst => " AND (created_ms, id) > (",
        }
    }

    fn by(self) -> &'static str {
        match self {
            Self::NewestFirst => " ORDER BY created_ms DESC, id DESC LIMIT ",
            Self::OldestFirst => " ORDER BY created_ms, id LIMIT ",
        }
    }
}

impl SqlEngine {
    /// A page of documents, newest first.
    pub(super) async fn page<T>(
        &self,
        query: ListQuery,
        page: PageRequest,
        decode: impl Fn(&[u8]) -> Result<T, EngineError>,
    ) -> Result<Page<T>, EngineError> {
        let decode = |row: &AnyRow| {
            let document: Vec<u8> = row.try_get("doc")?;
            Ok::<_, EngineError>((decode(&document)?, document.len()))
        };
        self.page_in(Order::NewestFirst, query, page, decode).await
    }

    /// A page of rows with the columns `created_ms` and `id`; `decode` answers an entry and about how many bytes it has.
    pub(super) async fn page_in<T>(
        &self,
        order: Order,
        mut query: ListQuery,
        page: PageRequest,
        decode: impl Fn(&AnyRow) -> Result<(T, usize), EngineError>,
    ) -> Result<Page<T>, EngineError> {
        if let Some((created_ms, id)) = page.after {
            query.push(order.after());
            query.push_number(created_ms);
            query.push(", ");
            query.push_text(&id);
            query.push(")");
        }
        query.push(order.by());
        query.push_number(i64::from(page.size) + 1);
        let rows = sqlx::query_with(AssertSqlSafe(query.sql), query.values).fetch_all(&self.readers).await?;
        let mut items = Vec::new();
        let mut n_bytes = 0;
        for row in rows.iter().take(page.size as usize) {
            let (item, item_bytes) = decode(row)?;
            n_bytes += item_bytes;
            // A page is one message; a short page is a page like any other.
            if n_bytes > self.rules.page_bytes && !items.is_empty() {
                break;
            }
            items.push(item);
        }
        let next = match items.len().checked_sub(1).and_then(|last| rows.get(last)) {
            Some(last) if items.len() < rows.len() => Some((last.try_get("created_ms")?, last.try_get("id")?)),
            _ => None,
        };
        Ok(Page { items, next })
    }
}

pub(super) fn push_job_filter(query: &mut ListQuery, filter: JobFilter) {
    if let Some(model_id) = filter.model_id {
        query.push(" AND model_id = ");
        query.push_text(&model_id);
    }
    if !filter.states.is_empty() {
        query.push(" AND state IN (");
        for (i, state) in filter.states.into_iter().enumerate() {
            query.push(if i == 0 { "" } else { ", " });
            query.push_number(i64::from(state as i32));
        }
        query.push(")");
    }
    if let Some(batch_id) = filter.batch_id {
        query.push(" AND batch = ");
        query.push_text(&batch_id);
    }
    for (key, value) in filter.labels {
        query.push(
            " AND EXISTS (SELECT 1 FROM job_labels AS label WHERE label.tenant = jobs.tenant AND label.job = jobs.id AND label.key = ",
        );
        query.push_text(&key);
        query.push(" AND label.value = ");
        query.push_text(&value);
        query.push(")");
    }
}
