//! Taking tasks away from workers that are gone.

use super::super::verdict::decide_death;
use super::super::{Crash, EngineError, FailedAttempt, FailureCause, Lease, Reaped, SessionEnd, Subject, SubjectKind, TaskKey, Usage};
use super::held::{Held, hold_with_others};
use super::outage::Look;
use super::settle::{end_attempt, keep_last_words};
use super::spending::spend_lost;
use super::stopping::end_if_idle;
use super::{Locked, SqlEngine, Writing, lock, subject};

/// Tasks read in one go.
const PAGE: usize = 256;
/// A database that is busy or full for so many of them is left alone until the next look.
const MAX_BUSY: usize = 3;
/// Sessions without a sign of life for so many lengths of a lease are forgotten.
const FORGET_AFTER_LEASES: i64 = 20;

/// Who is to blame for a lost attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Blame {
    /// The task: one death of its workers is counted.
    Task,
    /// That is not known: more of it is borne.
    Unknown,
}

/// How a worker went.
#[derive(Debug, Clone, Copy)]
enum Going<'a> {
    /// It died with the task, and with so many others.
    Died(&'a Crash, usize),
    /// It fell silent.
    Silent(Look),
    /// The process that has the database died with it: whose fault that was is not known.
    WithService,
    /// In order.
    InOrder,
}

/// A time without a look for silent workers that may be none, but a clock that was set.
const LONG_GAP_MS: i64 = 3_600_000;

/// Request ids and unfinished uploads are no older than they were when the process went: a clock that was set forward meanwhile ends their time no sooner,
/// one that was set back no later. A short while is passed over, since it is cheap not to write.
async fn keep_ages(writing: &mut Writing) -> Result<(), EngineError> {
    let last_ms: i64 = sqlx::query_scalar("SELECT reaped_ms FROM reaping WHERE id = 1").fetch_one(writing.connection()).await?;
    let gap_ms = writing.now_ms.saturating_sub(last_ms);
    if last_ms == 0 || gap_ms.abs() < LONG_GAP_MS {
        return Ok(());
    }
    for sql in ["UPDATE idempotency SET created_ms = created_ms + $1", "UPDATE uploads SET created_ms = created_ms + $1"] {
        sqlx::query(sql).bind(gap_ms).execute(writing.connection()).await?;
    }
    Ok(())
}

impl SqlEngine {
    /// Takes away what was not renewed in time.
    pub(super) async fn reap_silent(&self) -> Result<Reaped, EngineError> {
        let look = self.begin_look().await?;
        let mut reaped = Reaped::default();
        let mut after = (String::new(), String::new(), String::new());
        loop {
            let rows = self.silent(&look, &after).await?;
            let is_last = rows.len() < PAGE;
            if let Some((_, tenant, subject, name, _)) = rows.last() {
                after = (tenant.clone(), subject.clone(), name.clone());
            }
            self.take_away(rows, Going::Silent(look), &mut reaped).await?;
            if is_last {
                break;
            }
        }
        self.forget_sessions(&look).await?;
        self.settle_too_large(&look, &mut reaped).await?;
        Ok(reaped)
    }

    /// Tasks whose leases have ended, in the order of their keys, those after one of them: what cannot be taken away hides no others.
    async fn silent(&self, look: &Look, after: &(String, String, String)) -> Result<Vec<TaskRow>, EngineError> {
        let rows = sqlx::query_as(
            "SELECT kind, tenant, subject, name, epoch FROM tasks WHERE state = 'RUNNING' AND lease_until_ms < $1 \
               AND (tenant, subject, name) > ($2, $3, $4) ORDER BY tenant, subject, name LIMIT $5",
        )
        .bind(look.now_ms)
        .bind(&after.0)
        .bind(&after.1)
        .bind(&after.2)
        .bind(PAGE as i64)
        .fetch_all(&self.readers)
        .await?;
        Ok(rows)
    }

    /// After a start of the process that has the database: the sessions that were part of it are gone.
    pub(super) async fn recover_local(&self) -> Result<Reaped, EngineError> {
        let rows = sqlx::query_as(
            "SELECT kind, tenant, subject, name, epoch FROM tasks \
             WHERE state = 'RUNNING' AND session IN (SELECT id FROM sessions WHERE is_local = 1) ORDER BY tenant, subject",
        )
        .fetch_all(&self.readers)
        .await?;
        let mut reaped = Reaped::default();
        self.take_away(rows, Going::WithService, &mut reaped).await?;
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
        let now_ms = writing.now_ms;
        keep_ages(writing).await?;
        // Those of a clock that was ahead are shorter.
        sqlx::query("UPDATE tasks SET lease_until_ms = 0 WHERE state = 'RUNNING'").execute(writing.connection()).await?;
        let until_ms = self.extend_leases(writing).await?;
        for (sql, time_ms) in [
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

    pub(super) async fn end_session(&self, session: &str, end: SessionEnd) -> Result<Reaped, EngineError> {
        let rows: Vec<TaskRow> = sqlx::query_as(
            "SELECT kind, tenant, subject, name, epoch FROM tasks WHERE state = 'RUNNING' AND session = $1 ORDER BY tenant, subject",
        )
        .bind(session)
        .fetch_all(&self.readers)
        .await?;
        let going = match &end {
            SessionEnd::Crashed(crash) => Going::Died(crash, rows.len().saturating_sub(1)),
            SessionEnd::InOrder => Going::InOrder,
        };
        let mut reaped = Reaped::default();
        self.take_away(rows, going, &mut reaped).await?;
        let mut writing = self.begin().await?;
        sqlx::query("DELETE FROM sessions WHERE id = $1").bind(session).execute(writing.connection()).await?;
        self.commit(writing).await?;
        Ok(reaped)
    }

    /// Takes tasks away, each in a transaction of its own. What is damaged is counted and keeps no others.
    ///
    /// # Errors
    /// The database was busy or full for one of them.
    async fn take_away(&self, rows: Vec<TaskRow>, going: Going<'_>, reaped: &mut Reaped) -> Result<(), EngineError> {
        let mut busy = Vec::new();
        for (kind, tenant, id, name, epoch) in rows {
            let subject = subject(SubjectKind::from_task_kind(&kind), &tenant, &id);
            let lease = Lease { task: TaskKey { subject: subject.clone(), name }, epoch };
            match self.take_away_one(&lease, going).await {
                Ok(true) => reaped.ended.push(subject),
                Ok(false) => reaped.requeued.push(subject),
                // Its worker reported meanwhile.
                Err(EngineError::Fenced) => {}
                Err(error @ (EngineError::Busy(_) | EngineError::Full(_))) => {
                    busy.push(error);
                    if busy.len() >= MAX_BUSY {
                        break;
                    }
                }
                Err(error) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, tenant, id, task = lease.task.name, "a task cannot be taken away from a worker that is gone");
                    reaped.failed += 1;
                }
            }
        }
        busy.pop().map_or(Ok(()), Err)
    }

    /// Answers whether the subject ended.
    async fn take_away_one(&self, lease: &Lease, going: Going<'_>) -> Result<bool, EngineError> {
        let mut writing = self.begin().await?;
        let mut held = hold_with_others(&mut writing, lease).await?;
        match going {
            Going::InOrder => self.give_back(&mut writing, &mut held, &Usage::default()).await?,
            Going::Died(crash, n_others) => {
                keep_last_words(&mut writing, &held, &crash.last_words).await?;
                match crash.is_out_of_memory {
                    true => self.starve(&mut writing, &mut held, crash, n_others).await?,
                    false => self.bury(&mut writing, &mut held, Blame::Task).await?,
                }
            }
            Going::WithService => self.bury(&mut writing, &mut held, Blame::Unknown).await?,
            Going::Silent(look) => {
                let blame = self.blame_silence(&mut writing, &held, &look).await?;
                self.bury(&mut writing, &mut held, blame).await?;
            }
        }
        let is_ended = held.document.is_final();
        self.commit(writing).await?;
        Ok(is_ended)
    }

    /// The attempt is lost with its worker.
    async fn bury(&self, writing: &mut Writing, held: &mut Held, blame: Blame) -> Result<(), EngineError> {
        let (history, verdict) = decide_death(&held.failed(), blame == Blame::Unknown, &self.rules.budgets);
        held.history = history;
        spend_lost(writing, held).await?;
        end_attempt(writing, held, "LOST", &Usage::default()).await?;
        self.follow(writing, held, verdict, "LOST", "its worker died, or gave no sign of life").await
    }

    /// The attempt ended with its worker's process, which its host had too little memory for.
    async fn starve(&self, writing: &mut Writing, held: &mut Held, crash: &Crash, n_others: usize) -> Result<(), EngineError> {
        let message = "its worker's process was ended, as its host had too little memory";
        let (cause, reason) = (FailureCause::HostMemory, String::new());
        let failed = FailedAttempt { cause, reason, message: message.to_owned(), damaged: Vec::new() };
        let peak_host_bytes = i64::try_from(crash.peak_host_bytes).unwrap_or(i64::MAX);
        let usage = Usage { peak_host_bytes, is_shared: n_others > 0, ..Usage::default() };
        let (history, verdict) = self.judge(writing, held, &failed, &usage).await?;
        held.history = history;
        spend_lost(writing, held).await?;
        end_attempt(writing, held, cause.as_str(), &usage).await?;
        self.follow(writing, held, verdict, cause.as_str(), message).await
    }

    /// Whether a task is to blame for the silence of who holds it.
    ///
    /// # Errors
    /// [`EngineError::Fenced`] if its lease was renewed meanwhile.
    async fn blame_silence(&self, writing: &mut Writing, held: &Held, look: &Look) -> Result<Blame, EngineError> {
        let until_ms: i64 =
            sqlx::query_scalar("SELECT lease_until_ms FROM tasks WHERE kind = $1 AND tenant = $2 AND subject = $3 AND ordinal = $4")
                .bind(held.subject.kind.task_kind())
                .bind(&held.subject.tenant)
                .bind(&held.subject.id)
                .bind(held.ordinal)
                .fetch_one(writing.connection())
                .await?;
        if until_ms >= look.now_ms {
            return Err(EngineError::Fenced);
        }
        // Not heard of since an outage: it may have gone with what was away.
        if until_ms <= look.grace_until_ms {
            return Ok(Blame::Unknown);
        }
        let session: Option<(i64, i64, i64)> = sqlx::query_as("SELECT is_local, opened_ms, seen_ms FROM sessions WHERE id = $1")
            .bind(held.session.clone().unwrap_or_default())
            .fetch_optional(writing.connection())
            .await?;
        let since_ms = writing.now_ms.saturating_sub(self.rules.lease_ms);
        Ok(match session {
            // Part of a server, which would have told if it had outlived it.
            Some((is_local, _, _)) if is_local != 0 => Blame::Unknown,
            // Whoever still gives signs of life did not die of it: it never heard of the task, or could not hand it in.
            Some((_, opened_ms, seen_ms)) if seen_ms > since_ms && seen_ms > opened_ms => Blame::Unknown,
            Some(_) | None => Blame::Task,
        })
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

    async fn forget_sessions(&self, look: &Look) -> Result<(), EngineError> {
        // While nobody listened, nobody could be heard.
        if look.is_in_grace() {
            return Ok(());
        }
        let before_ms = look.now_ms.saturating_sub(self.rules.lease_ms.saturating_mul(FORGET_AFTER_LEASES));
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
