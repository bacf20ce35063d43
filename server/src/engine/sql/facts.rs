//! What is told of tasks and sessions.

use std::collections::BTreeMap;

use super::super::{AttemptFacts, EngineError, QueueFacts, SessionFacts, Subject, TaskFacts};
use super::SqlEngine;

impl SqlEngine {
    pub(super) async fn queue_facts(&self) -> Result<QueueFacts, EngineError> {
        let (waiting, ready, running): (i64, i64, i64) = sqlx::query_as(
            "SELECT (SELECT count(*) FROM tasks WHERE state = 'WAITING'), (SELECT count(*) FROM tasks WHERE state = 'READY'), \
               (SELECT count(*) FROM tasks WHERE state = 'RUNNING')",
        )
        .fetch_one(&self.readers)
        .await?;
        // One look at the end of an index.
        let oldest_queued_ms: Option<i64> =
            sqlx::query_scalar("SELECT min(created_ms) FROM jobs WHERE state = 1").fetch_one(&self.readers).await?;
        let now_ms = self.clock_ms().await?;
        Ok(QueueFacts {
            oldest_queued_ms,
            now_ms,
            waiting: waiting.unsigned_abs(),
            ready: ready.unsigned_abs(),
            running: running.unsigned_abs(),
        })
    }

    pub(super) async fn task_facts(&self, subject: &Subject) -> Result<Vec<TaskFacts>, EngineError> {
        let tasks: Vec<(i64, String, String, String)> = sqlx::query_as(
            "SELECT ordinal, name, step, state FROM tasks WHERE kind = $1 AND tenant = $2 AND subject = $3 ORDER BY ordinal",
        )
        .bind(subject.kind.task_kind())
        .bind(&subject.tenant)
        .bind(&subject.id)
        .fetch_all(&self.readers)
        .await?;
        let deps: Vec<(i64, i64)> = sqlx::query_as("SELECT needs, task FROM deps WHERE tenant = $1 AND job = $2 ORDER BY needs")
            .bind(&subject.tenant)
            .bind(&subject.id)
            .fetch_all(&self.readers)
            .await?;
        let mut attempts = self.attempt_facts(subject).await?;
        let names: BTreeMap<i64, String> = tasks.iter().map(|(ordinal, name, _, _)| (*ordinal, name.clone())).collect();
        let mut needs: BTreeMap<i64, Vec<String>> = BTreeMap::new();
        for (needed, task) in deps {
            needs.entry(task).or_default().extend(names.get(&needed).cloned());
        }
        let facts = |(ordinal, name, step, state)| TaskFacts {
            name,
            step,
            state,
            needs: needs.remove(&ordinal).unwrap_or_default(),
            attempts: attempts.remove(&ordinal).unwrap_or_default(),
        };
        Ok(tasks.into_iter().map(facts).collect())
    }

    async fn attempt_facts(&self, subject: &Subject) -> Result<BTreeMap<i64, Vec<AttemptFacts>>, EngineError> {
        let rows: Vec<(i64, String, String, i64, Option<i64>, String, String)> = sqlx::query_as(
            "SELECT ordinal, worker, device, started_ms, ended_ms, outcome, last_words FROM attempts \
             WHERE kind = $1 AND tenant = $2 AND subject = $3 ORDER BY ordinal, epoch",
        )
        .bind(subject.kind.task_kind())
        .bind(&subject.tenant)
        .bind(&subject.id)
        .fetch_all(&self.readers)
        .await?;
        let mut attempts: BTreeMap<i64, Vec<AttemptFacts>> = BTreeMap::new();
        for (ordinal, worker, device, started_ms, ended_ms, outcome, last_words) in rows {
            attempts.entry(ordinal).or_default().push(AttemptFacts { worker, device, started_ms, ended_ms, outcome, last_words });
        }
        Ok(attempts)
    }

    pub(super) async fn session_facts(&self) -> Result<Vec<SessionFacts>, EngineError> {
        let rows: Vec<(String, String, String, i64, i64, i64, i64)> = sqlx::query_as(
            "SELECT id, worker, devices, opened_ms, seen_ms, is_cordoned, \
               (SELECT count(*) FROM tasks WHERE tasks.state = 'RUNNING' AND tasks.session = sessions.id) \
             FROM sessions ORDER BY opened_ms DESC, id DESC",
        )
        .fetch_all(&self.readers)
        .await?;
        let facts =
            |(id, worker, devices, opened_ms, seen_ms, is_cordoned, running): (String, String, String, i64, i64, i64, i64)| SessionFacts {
                id,
                worker,
                devices: devices.lines().map(str::to_owned).collect(),
                opened_ms,
                seen_ms,
                is_cordoned: is_cordoned != 0,
                running: running.unsigned_abs(),
            };
        Ok(rows.into_iter().map(facts).collect())
    }
}
