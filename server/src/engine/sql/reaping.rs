//! Taking tasks away from workers that are gone.

use super::super::verdict::decide_death;
use super::super::{EngineError, Lease, Reaped, Subject, SubjectKind, TaskKey, Usage};
use super::settle::{Held, end_attempt, hold};
use super::stopping::end_if_idle;
use super::{Locked, SqlEngine, Writing, lock, subject};

/// Tasks looked at in one go; the next go comes soon.
const MAX_AT_ONCE: i64 = 256;
/// Sessions without a sign of life for so many lengths of a lease are forgotten.
const FORGET_AFTER_LEASES: i64 = 20;

/// How a worker went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Going {
    /// It died with the task, or fell silent.
    Died,
    /// The process that has the database died with it: whose fault that was is not known.
    WithService,
    /// In order.
    InOrder,
}

impl SqlEngine {
    /// Takes away what was not renewed in time.
    pub(super) async fn reap_silent(&self) -> Result<Reaped, EngineError> {
        let now_ms = self.now().await?;
        let rows = sqlx::query_as(
            "SELECT kind, tenant, subject, name, epoch FROM tasks WHERE state = 'RUNNING' AND lease_until_ms < $1 ORDER BY tenant, subject LIMIT $2",
        )
        .bind(now_ms)
        .bind(MAX_AT_ONCE)
        .fetch_all(&self.readers)
        .await?;
        let reaped = self.take_away(rows, Going::Died, Some(now_ms)).await?;
        self.forget_sessions(now_ms).await?;
        Ok(reaped)
    }

    /// After a start of the process that has the database: the sessions that were part of it are gone.
    pub(super) async fn recover_local(&self) -> Result<Reaped, EngineError> {
        let rows = sqlx::query_as(
            "SELECT kind, tenant, subject, name, epoch FROM tasks \
             WHERE state = 'RUNNING' AND session IN (SELECT id FROM sessions WHERE is_local = 1) ORDER BY tenant, subject",
        )
        .fetch_all(&self.readers)
        .await?;
        let mut reaped = self.take_away(rows, Going::WithService, None).await?;
        let mut writing = self.begin().await?;
        sqlx::query("DELETE FROM sessions WHERE is_local = 1").execute(writing.connection()).await?;
        self.reset_times(&mut writing).await?;
        self.commit(writing).await?;
        reaped.ended.extend(self.end_stopped().await?);
        Ok(reaped)
    }

    /// The clock may have been set while the process was away, and nobody could renew: whoever holds a task has the length of a lease from now, and
    /// nothing waits for a time that an earlier clock meant.
    async fn reset_times(&self, writing: &mut Writing) -> Result<(), EngineError> {
        let (now_ms, until_ms) = (writing.now_ms, writing.now_ms.saturating_add(self.rules.lease_ms));
        for (sql, time_ms) in [
            ("UPDATE tasks SET lease_until_ms = $1 WHERE state = 'RUNNING'", until_ms),
            ("UPDATE tasks SET not_before_ms = $1 WHERE state = 'READY' AND not_before_ms > $1", now_ms),
            ("UPDATE outbox SET not_before_ms = $1 WHERE not_before_ms > $1", now_ms),
            ("UPDATE webhooks SET not_before_ms = $1 WHERE not_before_ms > $1", now_ms),
            ("UPDATE sessions SET seen_ms = $1", now_ms),
            // Bytes that were put and are not recorded yet are not taken for garbage.
            ("UPDATE artifact_holds SET until_ms = $1 WHERE until_ms < $1", until_ms),
        ] {
            sqlx::query(sql).bind(time_ms).execute(writing.connection()).await?;
        }
        Ok(())
    }

    pub(super) async fn end_session(&self, session: &str, crashed: bool) -> Result<Reaped, EngineError> {
        let rows = sqlx::query_as(
            "SELECT kind, tenant, subject, name, epoch FROM tasks WHERE state = 'RUNNING' AND session = $1 ORDER BY tenant, subject",
        )
        .bind(session)
        .fetch_all(&self.readers)
        .await?;
        let going = if crashed { Going::Died } else { Going::InOrder };
        let reaped = self.take_away(rows, going, None).await?;
        let mut writing = self.begin().await?;
        sqlx::query("DELETE FROM sessions WHERE id = $1").bind(session).execute(writing.connection()).await?;
        self.commit(writing).await?;
        Ok(reaped)
    }

    /// Takes tasks away, each in a transaction of its own. With a time, only what is still not renewed by then.
    async fn take_away(&self, rows: Vec<TaskRow>, going: Going, silent_since_ms: Option<i64>) -> Result<Reaped, EngineError> {
        let mut reaped = Reaped::default();
        for (kind, tenant, id, name, epoch) in rows {
            let subject = subject(SubjectKind::from_task_kind(&kind), &tenant, &id);
            let lease = Lease { task: TaskKey { subject: subject.clone(), name }, epoch };
            match self.take_away_one(&lease, going, silent_since_ms).await {
                Ok(true) => reaped.ended.push(subject),
                Ok(false) => reaped.requeued.push(subject),
                // Its worker reported meanwhile.
                Err(EngineError::Fenced) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(reaped)
    }

    /// Answers whether the subject ended.
    async fn take_away_one(&self, lease: &Lease, going: Going, silent_since_ms: Option<i64>) -> Result<bool, EngineError> {
        let mut writing = self.begin().await?;
        let mut held = hold(&mut writing, lease).await?;
        if let Some(silent_since_ms) = silent_since_ms {
            let until_ms: i64 =
                sqlx::query_scalar("SELECT lease_until_ms FROM tasks WHERE kind = $1 AND tenant = $2 AND subject = $3 AND ordinal = $4")
                    .bind(held.subject.kind.task_kind())
                    .bind(&held.subject.tenant)
                    .bind(&held.subject.id)
                    .bind(held.ordinal)
                    .fetch_one(writing.connection())
                    .await?;
            if until_ms >= silent_since_ms {
                return Err(EngineError::Fenced);
            }
        }
        if going == Going::InOrder {
            self.give_back(&mut writing, &mut held).await?;
        } else {
            // Whoever still gives signs of life did not die of it: it never heard of the task, or could not hand it in.
            let lives = going == Going::Died && silent_since_ms.is_some() && self.gives_signs(&mut writing, &held).await?;
            let (history, verdict) = decide_death(&held.failed(), lives || going == Going::WithService, &self.rules.budgets);
            held.history = history;
            end_attempt(&mut writing, &held, "LOST", &Usage::default()).await?;
            let message = "its worker died, or gave no sign of life";
            self.follow(&mut writing, &mut held, verdict, "LOST", message).await?;
        }
        let is_ended = held.document.is_final();
        self.commit(writing).await?;
        Ok(is_ended)
    }

    /// Whether the session that holds a task has renewed something within the length of a lease.
    async fn gives_signs(&self, writing: &mut Writing, held: &Held) -> Result<bool, EngineError> {
        let since_ms = writing.now_ms.saturating_sub(self.rules.lease_ms);
        let seen: Option<i64> = sqlx::query_scalar("SELECT seen_ms FROM sessions WHERE id = $1 AND seen_ms > $2 AND seen_ms > opened_ms")
            .bind(held.session.clone().unwrap_or_default())
            .bind(since_ms)
            .fetch_optional(writing.connection())
            .await?;
        Ok(seen.is_some())
    }

    /// Ends jobs that were told to stop and have nothing running: an earlier version left such.
    async fn end_stopped(&self) -> Result<Vec<Subject>, EngineError> {
        let rows: Vec<(String, String)> = sqlx::query_as("SELECT tenant, id FROM jobs WHERE stop_cause IS NOT NULL AND state IN (1, 2, 3)")
            .fetch_all(&self.readers)
            .await?;
        let mut ended = Vec::new();
        for (tenant, id) in rows {
            let subject = subject(SubjectKind::Job, &tenant, &id);
            let mut writing = self.begin().await?;
            let Some(Locked { mut document, stop: Some(stop) }) = lock(&mut writing, &subject).await? else { continue };
            if !document.is_final() && end_if_idle(&mut writing, &subject, &mut document, &stop).await? {
                self.commit(writing).await?;
                ended.push(subject);
            }
        }
        Ok(ended)
    }

    async fn forget_sessions(&self, now_ms: i64) -> Result<(), EngineError> {
        let before_ms = now_ms.saturating_sub(self.rules.lease_ms.saturating_mul(FORGET_AFTER_LEASES));
        let old: Option<i64> = sqlx::query_scalar("SELECT is_local FROM sessions WHERE seen_ms < $1 LIMIT 1")
            .bind(before_ms)
            .fetch_optional(&self.readers)
            .await?;
        if old.is_none() {
            return Ok(());
        }
        let mut writing = self.begin().await?;
        sqlx::query("DELETE FROM sessions WHERE seen_ms < $1").bind(before_ms).execute(writing.connection()).await?;
        self.commit(writing).await
    }
}

type TaskRow = (String, String, String, String, i64);
