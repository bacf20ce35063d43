//! What a task gave is missing or damaged: who reads it says so, and the task is done again.
//!
//! `waiting_on` of a task that is WAITING counts the tasks that it needs and that are not DONE; who is READY needs none. A task that is RUNNING when
//! something that it needs is taken back goes on: it may have read it before. Its `waiting_on` then is no longer 0, which tells that what it says of damage
//! is older than what is there; and once it is not RUNNING any more, what it waits for is counted anew. Only those that are WAITING are counted down when a
//! task is done, so it does not matter which of its readers were done already.
//!
//! The references to the old result stay with the job, which gives them all back at its end: somebody may be reading it, and the new one, of the same
//! content, may be the same artifact.

use zkinfer_proto::v1;

use super::super::document::Change;
use super::super::{EngineError, Notice, Subject};
use super::held::{Held, lock_running};
use super::settle::graph_progress;
use super::{Writing, apply};

/// What is told of a task that is done again, and of the attempt that had done it.
const DAMAGED: &str = "DAMAGED";

/// A task that is done.
struct Maker {
    ordinal: i64,
    name: String,
    epoch: i64,
    attempts: u32,
}

/// Takes back what a reader could not read, after its attempt has ended. Tasks that it does not need, by itself or through others, that are not done, or
/// that were done again since the reader was given out are left alone, whatever it says.
pub(super) async fn make_again(writing: &mut Writing, held: &mut Held, damaged: &[String]) -> Result<(), EngineError> {
    if damaged.is_empty() || held.is_outdated {
        return Ok(());
    }
    let makers = done_makers(writing, held, damaged).await?;
    if makers.is_empty() {
        return Ok(());
    }
    for maker in &makers {
        take_back(writing, &held.subject, maker).await?;
    }
    wait_for_needs(writing, &held.subject).await?;
    for Maker { name, attempts, .. } in makers {
        let message = format!("what it gave is missing or damaged, as {} has found; it is done again", held.name);
        let note = v1::TaskNote { task: name, attempt: attempts, outcome: DAMAGED.to_owned(), message };
        apply(writing, &held.subject, &mut held.document, Change::Noted(note)).await?;
    }
    let progress = graph_progress(writing, held).await?;
    apply(writing, &held.subject, &mut held.document, Change::Progressed(progress)).await?;
    writing.changed.push(Notice::Ready);
    Ok(())
}

/// Of the named tasks, those that the reader needs, by itself or through others, and that are done.
async fn done_makers(writing: &mut Writing, held: &Held, names: &[String]) -> Result<Vec<Maker>, EngineError> {
    let rows: Vec<(i64, String, i64, i64)> = sqlx::query_as(
        "WITH RECURSIVE needed(ordinal) AS ( \
           SELECT needs FROM deps WHERE tenant = $1 AND job = $2 AND task = $3 \
           UNION SELECT deps.needs FROM needed JOIN deps ON deps.tenant = $1 AND deps.job = $2 AND deps.task = needed.ordinal) \
         SELECT tasks.ordinal, tasks.name, tasks.epoch, tasks.attempts FROM needed \
           JOIN tasks ON tasks.kind = 'PROVE' AND tasks.tenant = $1 AND tasks.subject = $2 AND tasks.ordinal = needed.ordinal \
         WHERE tasks.state = 'DONE' ORDER BY tasks.ordinal",
    )
    .bind(&held.subject.tenant)
    .bind(&held.subject.id)
    .bind(held.ordinal)
    .fetch_all(writing.connection())
    .await?;
    let maker = |(ordinal, name, epoch, attempts): (i64, String, i64, i64)| Maker {
        ordinal,
        name,
        epoch,
        attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
    };
    Ok(rows.into_iter().map(maker).filter(|maker| names.contains(&maker.name)).collect())
}

/// Makes a task that was done ready again, without a result. The attempt that gave it is told apart from those whose results count.
async fn take_back(writing: &mut Writing, job: &Subject, maker: &Maker) -> Result<(), EngineError> {
    sqlx::query(
        "UPDATE attempts SET outcome = $1 WHERE kind = 'PROVE' AND tenant = $2 AND subject = $3 AND ordinal = $4 AND epoch = $5 AND outcome = 'DONE'",
    )
    .bind(DAMAGED)
    .bind(&job.tenant)
    .bind(&job.id)
    .bind(maker.ordinal)
    .bind(maker.epoch)
    .execute(writing.connection())
    .await?;
    let now_ms = writing.now_ms;
    sqlx::query(
        "UPDATE tasks SET state = 'READY', epoch = epoch + 1, output = NULL, waiting_on = 0, not_before_ms = $1, too_large_ms = NULL \
         WHERE kind = 'PROVE' AND tenant = $2 AND subject = $3 AND ordinal = $4",
    )
    // From then on it waits.
    .bind(now_ms)
    .bind(&job.tenant)
    .bind(&job.id)
    .bind(maker.ordinal)
    .execute(writing.connection())
    .await?;
    Ok(())
}

/// Counts what each task of a job waits for, if it is not all done. Who is ready waits; who runs is left to find out, and is marked.
pub(super) async fn wait_for_needs(writing: &mut Writing, job: &Subject) -> Result<(), EngineError> {
    /// Of a task, those that it needs and that are not done.
    macro_rules! unmet {
        () => {
            "(SELECT count(*) FROM deps JOIN tasks AS need ON need.kind = 'PROVE' AND need.tenant = deps.tenant AND need.subject = deps.job \
               AND need.ordinal = deps.needs \
             WHERE deps.tenant = $1 AND deps.job = $2 AND deps.task = tasks.ordinal AND need.state <> 'DONE')"
        };
    }
    lock_running(writing, job).await?;
    sqlx::query(concat!(
        "UPDATE tasks SET waiting_on = ",
        unmet!(),
        ", state = CASE WHEN state = 'READY' THEN 'WAITING' ELSE state END, too_large_ms = NULL \
         WHERE kind = 'PROVE' AND tenant = $1 AND subject = $2 AND state IN ('WAITING', 'READY', 'RUNNING') AND ",
        unmet!(),
        " > 0"
    ))
    .bind(&job.tenant)
    .bind(&job.id)
    .execute(writing.connection())
    .await?;
    Ok(())
}
