//! What operators see of all tenants at once.

use prost::Message as _;
use zkinfer_proto::v1;

use super::super::{Census, EngineError, EngineFuture, JobFilter, Overview, Page, PageRequest, RunningTask, Subject, SubjectKind};
use super::SqlEngine;
use super::resources::{ListQuery, push_job_filter};

impl Overview for SqlEngine {
    fn census(&self) -> EngineFuture<'_, Census> {
        Box::pin(async move {
            let count = |sql: &'static str| sqlx::query_as::<_, (i64, i64)>(sql).fetch_all(&self.readers);
            let jobs = count("SELECT state, count(*) FROM jobs GROUP BY state ORDER BY state").await?;
            let models = count("SELECT state, count(*) FROM models GROUP BY state ORDER BY state").await?;
            Ok(Census {
                jobs: by_state(jobs, |state| v1::job::State::try_from(state).ok()),
                models: by_state(models, |state| v1::model::State::try_from(state).ok()),
            })
        })
    }

    fn running_tasks(&self, limit: u32) -> EngineFuture<'_, Vec<RunningTask>> {
        Box::pin(async move {
            let rows: Vec<(String, String, String, String, String, String, i64)> = sqlx::query_as(
                "SELECT tasks.session, tasks.kind, tasks.tenant, tasks.subject, tasks.name, tasks.step, attempts.started_ms FROM tasks \
                 JOIN attempts ON attempts.kind = tasks.kind AND attempts.tenant = tasks.tenant AND attempts.subject = tasks.subject \
                   AND attempts.ordinal = tasks.ordinal AND attempts.epoch = tasks.epoch \
                 WHERE tasks.state = 'RUNNING' AND tasks.session IS NOT NULL \
                 ORDER BY tasks.session, attempts.started_ms, tasks.subject, tasks.ordinal LIMIT $1",
            )
            .bind(i64::from(limit))
            .fetch_all(&self.readers)
            .await?;
            let task = |(session, kind, tenant, id, name, step, started_ms): (String, String, String, String, String, String, i64)| {
                let subject = Subject { kind: SubjectKind::from_task_kind(&kind), tenant, id };
                RunningTask { session, subject, name, step, started_ms }
            };
            Ok(rows.into_iter().map(task).collect())
        })
    }

    fn recent_jobs(&self, filter: JobFilter, page: PageRequest) -> EngineFuture<'_, Page<v1::Job>> {
        let mut query = ListQuery::new("SELECT created_ms, id, doc FROM jobs WHERE 1 = 1");
        push_job_filter(&mut query, filter);
        Box::pin(async move { self.page(query, page, |bytes| v1::Job::decode(bytes).map_err(EngineError::Damaged)).await })
    }

    fn recent_models(&self, page: PageRequest) -> EngineFuture<'_, Page<v1::Model>> {
        let query = ListQuery::new("SELECT created_ms, id, doc FROM models WHERE 1 = 1");
        Box::pin(async move { self.page(query, page, |bytes| v1::Model::decode(bytes).map_err(EngineError::Damaged)).await })
    }
}

/// Counts of the states that this version knows.
fn by_state<S>(rows: Vec<(i64, i64)>, state: impl Fn(i32) -> Option<S>) -> Vec<(S, u64)> {
    let known = |(number, count): (i64, i64)| Some((state(i32::try_from(number).ok()?)?, count.unsigned_abs()));
    rows.into_iter().filter_map(known).collect()
}
