//! Memory: what sessions have, and tasks that need more than any of them.
//!
//! A session's device memory is the most that it ever offered; its host's is what it told last. A task that is ready and needs more than each live session
//! has cannot be given to anybody: its job is told so once, and fails if that stays so for [`PATIENCE_LEASES`]. A session without a device holds any task,
//! as far as its host does: then it goes there, which the job is told too. While no session lives at all, or workers may be on their way back from an outage,
//! nothing is decided. What a task needs of its host is known once a worker ended for want of it.

use zkinfer_proto::v1;

use super::super::document::{Change, Document};
use super::super::{EngineError, Offer, Reaped, Subject, graph};
use super::outage::Look;
use super::spending::spend_running;
use super::stopping::cancel_all;
use super::too_large::TooLarge;
use super::{Locked, SqlEngine, Writing, apply, lock};

/// A task that nobody can hold waits for so many lengths of a lease.
const PATIENCE_LEASES: i64 = 20;
/// What is told of such a task.
const TOO_LARGE: &str = "TOO_LARGE";
/// The memory of a session without a device, and of a host that is not known.
const ANY: i64 = i64::MAX;

/// The largest live session, and the largest of those with a device.
const LARGEST: &str = "SELECT max(device_bytes), max(CASE WHEN device_bytes < 9223372036854775807 THEN device_bytes END) \
    FROM sessions WHERE device_bytes IS NOT NULL AND seen_ms >= $1";
/// The largest host of a live session that has so much device memory.
const LARGEST_HOST: &str = "SELECT max(coalesce(host_bytes, 9223372036854775807)) FROM sessions WHERE device_bytes >= $2 AND seen_ms >= $1";

/// What a session offers, as the columns hold it; what they do not hold is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offered {
    pub(super) device_bytes: Option<i64>,
    pub(super) host_bytes: Option<i64>,
}

impl Offered {
    pub(super) fn of(offer: &Offer) -> Self {
        let host_bytes = i64::try_from(offer.host_bytes).ok().filter(|&bytes| bytes < ANY);
        Self { device_bytes: Some(i64::try_from(offer.device_bytes).unwrap_or(ANY)), host_bytes }
    }

    /// Whether it is to be kept, where this is known.
    pub(super) fn is_news(self, known: Self) -> bool {
        known.device_bytes < self.device_bytes || known.host_bytes != self.host_bytes
    }
}

/// Keeps what a session offers, of device memory if that is more than before.
pub(super) async fn keep_offered(writing: &mut Writing, session: &str, offered: Offered) -> Result<(), EngineError> {
    sqlx::query(
        "UPDATE sessions SET device_bytes = CASE WHEN device_bytes > $1 THEN device_bytes ELSE $1 END, host_bytes = $2 WHERE id = $3",
    )
    .bind(offered.device_bytes)
    .bind(offered.host_bytes)
    .bind(session)
    .execute(writing.connection())
    .await?;
    Ok(())
}

/// The largest device of a live session, unless one without a device holds what no device can.
pub(super) async fn largest_device(writing: &mut Writing, lease_ms: i64) -> Result<Option<u64>, EngineError> {
    let since_ms = writing.now_ms.saturating_sub(lease_ms);
    let (largest, _): (Option<i64>, Option<i64>) = sqlx::query_as(LARGEST).bind(since_ms).fetch_one(writing.connection()).await?;
    Ok(known(largest))
}

/// The largest host of a live session that has so much device memory, unless that of one is not known.
pub(super) async fn largest_host(writing: &mut Writing, lease_ms: i64, device_bytes: u64) -> Result<Option<u64>, EngineError> {
    let since_ms = writing.now_ms.saturating_sub(lease_ms);
    let device_bytes = i64::try_from(device_bytes).unwrap_or(ANY);
    let largest = sqlx::query_scalar(LARGEST_HOST).bind(since_ms).bind(device_bytes).fetch_one(writing.connection()).await?;
    Ok(known(largest))
}

fn known(largest: Option<i64>) -> Option<u64> {
    largest.filter(|&bytes| bytes != ANY).and_then(|bytes| u64::try_from(bytes).ok())
}

/// Tells a job that its task is done on processors because no device can hold it, if that is so and was not told.
pub(super) async fn note_on_processors(
    writing: &mut Writing,
    subject: &Subject,
    document: &mut Document,
    (task, attempt): (&str, u32),
    (need_bytes, lease_ms): (u64, i64),
) -> Result<(), EngineError> {
    let need_bytes = i64::try_from(need_bytes).unwrap_or(ANY);
    let since_ms = writing.now_ms.saturating_sub(lease_ms);
    let (_, device): (Option<i64>, Option<i64>) = sqlx::query_as(LARGEST).bind(since_ms).fetch_one(writing.connection()).await?;
    let Some(largest) = device.filter(|&largest| largest < need_bytes) else { return Ok(()) };
    let message = format!("{}; it is done on processors", too_large(need_bytes, largest));
    note(writing, subject, document, (task, attempt), message).await
}

fn too_large(need_bytes: i64, largest: i64) -> String {
    format!("it needs {need_bytes} bytes of device memory, and the largest device of a worker has {largest}")
}

fn too_large_for_hosts(need_bytes: i64, largest: Option<u64>) -> String {
    let has = largest.map_or_else(String::new, |largest| format!("; the largest host of one whose device holds it has {largest}"));
    format!("it needs {need_bytes} bytes of its host's memory, and no worker that could do it has as much{has}")
}

async fn note(
    writing: &mut Writing,
    subject: &Subject,
    document: &mut Document,
    (task, attempt): (&str, u32),
    message: String,
) -> Result<(), EngineError> {
    // Once a job: its other tasks are as large.
    let is_told = match &*document {
        Document::Job(job) => job.notes.iter().any(|note| note.outcome == TOO_LARGE),
        Document::Model(_) => true,
    };
    if is_told {
        return Ok(());
    }
    let note = v1::TaskNote { task: task.to_owned(), attempt, outcome: TOO_LARGE.to_owned(), message };
    apply(writing, subject, document, Change::Noted(note)).await
}

impl SqlEngine {
    /// Keeps what a session tells that found nothing to do.
    pub(super) async fn keep_told_by_idle(&self, session: &str, offer: &Offer) -> Result<(), EngineError> {
        let mut writing = self.begin().await?;
        keep_offered(&mut writing, session, Offered::of(offer)).await?;
        self.holders.keep(writing.connection(), session, &offer.cached_models).await?;
        self.commit(writing).await
    }

    /// Looks for ready tasks that no session can hold.
    pub(super) async fn settle_too_large(&self, look: &Look, reaped: &mut Reaped) -> Result<(), EngineError> {
        if look.is_in_grace() {
            return Ok(());
        }
        let since_ms = look.now_ms.saturating_sub(self.rules.lease_ms);
        let (largest, _): (Option<i64>, Option<i64>) = sqlx::query_as(LARGEST).bind(since_ms).fetch_one(&self.readers).await?;
        let Some(largest) = largest else { return Ok(()) };
        let patience_ms = self.rules.lease_ms.saturating_mul(PATIENCE_LEASES);
        for task in self.too_large(since_ms, largest, look.now_ms.saturating_sub(patience_ms)).await? {
            match self.settle_one(&task, largest).await {
                Ok(true) => reaped.too_large.push(task.subject),
                Ok(false) => {}
                Err(error @ (EngineError::Busy(_) | EngineError::Full(_))) => return Err(error),
                Err(error) => {
                    let Subject { tenant, id, .. } = &task.subject;
                    tracing::error!(error = &error as &dyn std::error::Error, tenant, id, "a task that is too large is not settled");
                    reaped.failed += 1;
                }
            }
        }
        Ok(())
    }

    /// Answers whether something was told.
    async fn settle_one(&self, task: &TooLarge, largest: i64) -> Result<bool, EngineError> {
        let TooLarge { subject, name, .. } = task;
        let mut writing = self.begin().await?;
        let Some(Locked { mut document, .. }) = lock(&mut writing, subject).await? else { return Ok(false) };
        let (state, since) = match (task.since_ms, task.is_so) {
            (_, false) => ("READY", None),
            (None, true) => ("READY", Some(writing.now_ms)),
            (Some(since_ms), true) => ("FAILED", Some(since_ms)),
        };
        let changed = sqlx::query(
            "UPDATE tasks SET state = $1, too_large_ms = $2 \
             WHERE kind = $3 AND tenant = $4 AND subject = $5 AND ordinal = $6 AND epoch = $7 AND state = $8",
        )
        .bind(state)
        .bind(since)
        .bind(subject.kind.task_kind())
        .bind(&subject.tenant)
        .bind(&subject.id)
        .bind(task.ordinal)
        .bind(task.epoch)
        .bind("READY")
        .execute(writing.connection())
        .await?;
        // It was given to somebody meanwhile, or its job has ended.
        if changed.rows_affected() == 0 || document.is_final() {
            return Ok(false);
        }
        let attempts = u32::try_from(task.attempts).unwrap_or(u32::MAX);
        let (reason, why) = if task.device_bytes > largest {
            ("DEVICE_MEMORY", too_large(task.device_bytes, largest))
        } else {
            let largest = largest_host(&mut writing, self.rules.lease_ms, u64::try_from(task.device_bytes).unwrap_or(0)).await?;
            ("HOST_MEMORY", too_large_for_hosts(task.host_bytes, largest))
        };
        match (task.since_ms, since) {
            (_, None) => {}
            (None, Some(_)) => {
                let seconds = self.rules.lease_ms.saturating_mul(PATIENCE_LEASES) / 1000;
                let message = format!("{why}; it waits for a larger one for {seconds} s");
                note(&mut writing, subject, &mut document, (name, attempts), message).await?;
            }
            (Some(_), Some(_)) => {
                spend_running(&mut writing, subject, &mut document).await?;
                cancel_all(&mut writing, subject).await?;
                let failure = v1::Failure {
                    reason: reason.into(),
                    message: format!("the task {name} cannot be done: {why}"),
                    retryable: true,
                    attempts,
                    stage: if graph::is_whole(name) { String::new() } else { name.clone() },
                };
                apply(&mut writing, subject, &mut document, Change::Failed(failure)).await?;
            }
        }
        self.commit(writing).await?;
        Ok(since.is_some())
    }
}
