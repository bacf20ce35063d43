//! What the pages ask for, as JSON.

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderValue, header};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use zkinfer_proto::v1;

use super::failure::Failure;
use super::view::{JobPage, JobView, ModelView, OverviewPage};
use super::{Shared, access, live};
use crate::engine::{JobFilter, Page, PageRequest, Subject, SubjectKind};

/// Entries of a page, unless another number is asked for.
const PAGE: u32 = 50;
/// Running tasks that the overview names.
const RUNNING_SHOWN: u32 = 1000;

pub(super) fn routes(shared: &Shared) -> Router<Shared> {
    Router::new()
        .route("/dashboard/api/session", get(session))
        .route("/dashboard/api/overview", get(overview))
        .route("/dashboard/api/live", get(live::overview))
        .route("/dashboard/api/jobs", get(jobs))
        .route("/dashboard/api/jobs/{tenant}/{id}", get(job))
        .route("/dashboard/api/jobs/{tenant}/{id}/live", get(live::job))
        .route("/dashboard/api/models", get(models))
        .route("/dashboard/api/{*rest}", get(async || Failure::NotFound("answer")))
        .route_layer(middleware::from_fn_with_state(shared.clone(), access::admit))
}

/// Which part of a list.
#[derive(Debug, Default)]
struct ListQuery {
    /// Only of this tenant; empty: of all.
    tenant: String,
    /// Only in this state; empty: in any.
    state: String,
    /// Only of models of this id; empty: of all.
    model: String,
    /// Where the page before ended; empty: from the newest on.
    after: String,
    size: Option<u32>,
}

impl ListQuery {
    /// Parameters without a meaning here are passed over.
    fn parse(query: Option<&str>) -> Result<Self, Failure> {
        let mut parsed = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*name {
                "tenant" => parsed.tenant = value.into_owned(),
                "state" => parsed.state = value.into_owned(),
                "model" => parsed.model = value.into_owned(),
                "after" => parsed.after = value.into_owned(),
                "size" => {
                    let size =
                        value.parse().map_err(|_| Failure::Invalid { field: "size", problem: "must be a number of entries".into() })?;
                    parsed.size = Some(size);
                }
                _ => {}
            }
        }
        Ok(parsed)
    }

    /// At most `max_size` entries.
    fn page(&self, max_size: u32) -> Result<PageRequest, Failure> {
        Ok(PageRequest { size: self.size.unwrap_or(PAGE).clamp(1, max_size), after: parse_cursor(&self.after)? })
    }

    fn filter(&self) -> Result<JobFilter, Failure> {
        let states = match self.state.as_str() {
            "" => Vec::new(),
            name => vec![parse_state(name)?],
        };
        let model_id = (!self.model.is_empty()).then(|| self.model.clone());
        Ok(JobFilter { states, model_id, ..JobFilter::default() })
    }
}

fn parse_state(name: &str) -> Result<v1::job::State, Failure> {
    let state = v1::job::State::from_str_name(&format!("STATE_{name}")).filter(|state| *state != v1::job::State::Unspecified);
    state.ok_or_else(|| Failure::Invalid {
        field: "state",
        problem: "must be QUEUED, RUNNING, CANCELLING, SUCCEEDED, FAILED, CANCELLED or EXPIRED".into(),
    })
}

/// A place in a list: milliseconds, a dot, an id.
fn parse_cursor(text: &str) -> Result<Option<(i64, String)>, Failure> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = text.split_once('.').and_then(|(ms, id)| Some((ms.parse().ok()?, id.to_owned())));
    parsed.map(Some).ok_or_else(|| Failure::Invalid { field: "after", problem: "must be `next` of the page before".into() })
}

fn cursor(next: Option<(i64, String)>) -> Option<String> {
    next.map(|(ms, id)| format!("{ms}.{id}"))
}

fn json(body: &impl Serialize) -> Result<Response, Failure> {
    let content_type = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, content_type)], serde_json::to_string(body)?).into_response())
}

/// Answered to operators, and that is all it tells.
async fn session() -> Result<Response, Failure> {
    json(&serde_json::json!({ "operator": true }))
}

async fn overview(State(shared): State<Shared>) -> Result<Response, Failure> {
    let _place = shared.place()?;
    json(&shared.timely(read_overview(&shared)).await?)
}

pub(super) async fn read_overview(shared: &Shared) -> Result<OverviewPage, Failure> {
    let engine = shared.engine()?;
    // First what tells how the database fails.
    let sessions = engine.sessions().await?;
    let running = engine.running_tasks(RUNNING_SHOWN).await?;
    let (census, queue) = (shared.census().await?, shared.queue().await?);
    Ok(OverviewPage::new(engine.now().await?, queue, &census, sessions, running))
}

async fn jobs(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let _place = shared.place()?;
    let query = ListQuery::parse(query.as_deref())?;
    let (filter, page) = (query.filter()?, query.page(shared.dashboard_page_size())?);
    let engine = shared.engine()?;
    let found = match query.tenant.as_str() {
        "" => engine.recent_jobs(filter, page),
        tenant => engine.list_jobs(tenant, filter, page),
    };
    let Page { items, next } = shared.timely(async { Ok(found.await?) }).await?;
    let jobs: Vec<JobView> = items.iter().map(JobView::new).collect();
    json(&serde_json::json!({ "now_ms": engine.now().await?, "jobs": jobs, "next": cursor(next) }))
}

async fn job(State(shared): State<Shared>, Path((tenant, id)): Path<(String, String)>) -> Result<Response, Failure> {
    let _place = shared.place()?;
    let subject = Subject { kind: SubjectKind::Job, tenant, id };
    json(&shared.timely(read_job(&shared, &subject)).await?)
}

pub(super) async fn read_job(shared: &Shared, subject: &Subject) -> Result<JobPage, Failure> {
    let engine = shared.engine()?;
    let job = engine.job(&subject.tenant, &subject.id).await?.ok_or(Failure::NotFound("job"))?;
    let tasks = engine.tasks(subject).await?;
    Ok(JobPage::new(&job, tasks))
}

async fn models(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Result<Response, Failure> {
    let _place = shared.place()?;
    let query = ListQuery::parse(query.as_deref())?;
    let page = query.page(shared.dashboard_page_size())?;
    let engine = shared.engine()?;
    let found = match query.tenant.as_str() {
        "" => engine.recent_models(page),
        tenant => engine.list_models(tenant, page),
    };
    let Page { items, next } = shared.timely(async { Ok(found.await?) }).await?;
    let models: Vec<ModelView> = items.iter().map(ModelView::new).collect();
    json(&serde_json::json!({ "now_ms": engine.now().await?, "models": models, "next": cursor(next) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_have_as_many_entries_as_are_asked_for_and_no_more_than_they_may() {
        let size = |query: &str, max_size| ListQuery::parse(Some(query)).unwrap().page(max_size).unwrap().size;
        assert_eq!((size("", 200), size("", 3)), (PAGE, 3));
        assert_eq!((size("size=200", 200), size("size=201", 200), size("size=0", 200)), (200, 200, 1));
    }
}
