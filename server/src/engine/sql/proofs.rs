//! Proofs of whole jobs, most of what workers hand in. Those that come while others are being written share the next transaction: one statement a table,
//! however many there are. Who cannot be written like that comes alone, which tells why: its task is another's by now or in another's hands, its job was
//! told to stop, or something that it refers to is gone.

use std::sync::Arc;

use zkinfer_proto::v1;

use super::super::document::Change;
use super::super::{ArtifactFacts, Ended, EngineError, Lease, Notice, Outcome, SubjectKind, Usage, graph};
use super::admission::EVENTS;
use super::artifact_records::record_and_require;
use super::garbage::{REFERENCES, Referrer, reference_rows};
use super::group::shared;
use super::held::{Held, hold_those_that_are_free};
use super::lines::Waits;
use super::many::{Many, Part, Value, row};
use super::spending::spend;
use super::{SqlEngine, Writing};
use crate::artifacts::ArtifactId;
use crate::together::{Asked, Together};

/// Written in one transaction.
const MAX_TOGETHER: usize = 16;

/// A job's proof, handed in.
#[derive(Debug)]
struct Proof {
    lease: Lease,
    result: Box<v1::JobResult>,
    artifacts: Vec<ArtifactFacts>,
    usage: Usage,
}

/// What becomes of a proof.
#[derive(Debug)]
enum Answer {
    /// It is written, or the database is away.
    Done(Result<Option<Ended>, EngineError>),
    /// It must be written alone, for which nobody waits.
    Alone,
}

/// Whose proofs are to be written.
#[derive(Debug)]
pub(super) struct Provers(Together<Arc<Proof>, Answer>);

impl Provers {
    /// On the runtime that it is called on.
    pub(super) fn new() -> Self {
        Self(Together::of_at_most(MAX_TOGETHER))
    }
}

impl SqlEngine {
    pub(super) async fn complete_task(&self, lease: &Lease, outcome: Outcome, usage: Usage) -> Result<Option<Ended>, EngineError> {
        let is_of_job = lease.task.subject.kind == SubjectKind::Job && graph::is_whole(&lease.task.name);
        match outcome {
            // A fallback is told of before the result is.
            Outcome::Proved { result, artifacts } if is_of_job && usage.fallback.is_empty() => {
                self.keep_proof(Proof { lease: lease.clone(), result, artifacts, usage }).await
            }
            outcome => self.complete_alone(lease, outcome, &usage).await,
        }
    }

    async fn keep_proof(&self, proof: Proof) -> Result<Option<Ended>, EngineError> {
        let proof = Arc::new(proof);
        match self.provers.0.ask(proof.clone(), |asked| self.clone().keep_proofs(asked)).await {
            Some(Answer::Done(kept)) => kept,
            Some(Answer::Alone) | None => {
                let outcome = Outcome::Proved { result: proof.result.clone(), artifacts: proof.artifacts.clone() };
                self.complete_alone(&proof.lease, outcome, &proof.usage).await
            }
        }
    }

    async fn keep_proofs(self, asked: Vec<Asked<Arc<Proof>, Answer>>) {
        let proofs: Vec<&Proof> = asked.iter().map(|asked| asked.question.as_ref()).collect();
        let answers: Vec<Answer> = match self.keep_together(&proofs).await {
            Ok(kept) => kept.into_iter().map(|ended| ended.map_or(Answer::Alone, |ended| Answer::Done(Ok(Some(ended))))).collect(),
            // Also to those who wait: they would wait for it one group after another.
            Err(error) if error.is_away() => {
                let all = asked.into_iter().chain(self.provers.0.take_all());
                return all.for_each(|asked| drop(asked.answer(Answer::Done(Err(shared(&error))))));
            }
            Err(error) => {
                match &error {
                    EngineError::ArtifactGone | EngineError::Busy(_) => {
                        tracing::debug!(%error, "proofs that came together are written one by one");
                    }
                    error => tracing::warn!(%error, "proofs that came together cannot be written so, and are written one by one"),
                }
                proofs.iter().map(|_| Answer::Alone).collect()
            }
        };
        for (asked, answer) in asked.into_iter().zip(answers) {
            // If nobody listens, it is as if the answer had been lost on its way.
            drop(asked.answer(answer));
        }
    }

    /// Writes all that can be; answers the jobs that have ended.
    async fn keep_together(&self, proofs: &[&Proof]) -> Result<Vec<Option<Ended>>, EngineError> {
        let mut writing = self.begin_with(Waits::Briefly).await?;
        let leases: Vec<&Lease> = proofs.iter().map(|proof| &proof.lease).collect();
        let mut held = hold_those_that_are_free(&mut writing, &leases).await?;
        let mut kept = Kept::default();
        let mut ended = Vec::with_capacity(proofs.len());
        for proof in proofs {
            // Of one that was handed in twice, the second finds what the first has done.
            ended.push(match held.remove(&proof.lease).filter(|held| held.stop.is_none()) {
                Some(held) => self.keep(&mut writing, &mut kept, proof, held).await?,
                None => None,
            });
        }
        kept.write(&mut writing).await?;
        self.commit(writing).await?;
        Ok(ended)
    }

    /// Adds the rows of a proof; answers its job as it is then.
    async fn keep(&self, writing: &mut Writing, kept: &mut Kept, proof: &Proof, mut held: Held) -> Result<Option<Ended>, EngineError> {
        spend(writing, &mut held, &proof.usage, Some(&proof.result)).await?;
        let (referred, required) = self.artifacts_of_proof(writing, &held, &proof.result, &proof.artifacts).await?;
        let body = held.document.apply(Change::Proved(proof.result.clone()), writing.now_ms);
        kept.push(&held, proof, &referred, body, writing.now_ms);
        kept.required.extend(required);
        writing.changed.push(Notice::Changed(held.subject.clone()));
        Ok(held.document.into_ended())
    }
}

/// What proofs leave behind: their artifacts, and the rows of each table. A job of one task has no results of tasks whose references would end with it.
#[derive(Default)]
struct Kept {
    records: Vec<ArtifactFacts>,
    required: Vec<ArtifactId>,
    references: Vec<Vec<Value>>,
    tasks: Vec<Vec<Value>>,
    attempts: Vec<Vec<Value>>,
    results: Vec<Vec<Value>>,
    jobs: Vec<Vec<Value>>,
    events: Vec<Vec<Value>>,
    outbox: Vec<Vec<Value>>,
}

impl Kept {
    fn push(&mut self, held: &Held, proof: &Proof, referred: &[ArtifactId], body: Vec<u8>, now_ms: i64) {
        let Held { subject, ordinal, epoch, document, .. } = held;
        let (tenant, id, sequence) = (&subject.tenant, &subject.id, document.last_sequence());
        self.records.extend_from_slice(&proof.artifacts);
        self.references.extend(reference_rows(subject, Referrer::Document, referred));
        self.tasks.push(row![tenant, id, *ordinal]);
        self.attempts.push(row![now_ms, &proof.usage.device, tenant, id, *ordinal, *epoch]);
        self.results.push(row![tenant, id, &proof.result.proof_artifact, now_ms]);
        self.jobs.push(row![i64::from(document.state()), sequence, document.encode(), tenant, id]);
        self.events.push(row![subject.kind.task_kind(), tenant, id, sequence, body]);
        self.outbox.push(row![id, sequence, now_ms, tenant]);
    }

    async fn write(self, writing: &mut Writing) -> Result<(), EngineError> {
        record_and_require(writing, &self.records, &self.required).await?;
        let tables = [
            (REFERENCES, self.references),
            (END_TASKS, self.tasks),
            (END_ATTEMPTS, self.attempts),
            (RESULTS, self.results),
            (END_JOBS, self.jobs),
            (EVENTS, self.events),
            (OUTBOX, self.outbox),
        ];
        let parts: Vec<Part> = tables.into_iter().filter_map(|(table, rows)| table.part(rows)).collect();
        writing.execute_together(&parts).await
    }
}

const END_TASKS: Many = Many::new(
    "UPDATE tasks SET state = 'DONE', session = NULL FROM (VALUES ",
    "(?, ?, ?)",
    ") AS given WHERE tasks.kind = 'PROVE' AND tasks.tenant = given.column1 AND tasks.subject = given.column2 AND tasks.ordinal = given.column3",
)
.kept_for_one_row();
const END_ATTEMPTS: Many = Many::new(
    "UPDATE attempts SET ended_ms = given.column1, outcome = 'DONE', device = given.column2 FROM (VALUES ",
    "(?, ?, ?, ?, ?, ?)",
    ") AS given WHERE attempts.kind = 'PROVE' AND attempts.tenant = given.column3 AND attempts.subject = given.column4 \
       AND attempts.ordinal = given.column5 AND attempts.epoch = given.column6",
)
.kept_for_one_row();
/// The one result of each job. A second one breaks the key.
const RESULTS: Many = Many::new("INSERT INTO results(tenant, job, proof, published_ms) VALUES ", "(?, ?, ?, ?)", "");
/// At the end of a job its secrets are erased.
const END_JOBS: Many = Many::new(
    "UPDATE jobs SET state = given.column1, last_seq = given.column2, doc = given.column3, input_salt = NULL, seed = NULL FROM (VALUES ",
    "(?, ?, ?, ?, ?)",
    ") AS given WHERE jobs.tenant = given.column4 AND jobs.id = given.column5",
)
.kept_for_one_row();
const OUTBOX: Many = Many::new(
    "INSERT INTO outbox(tenant, webhook, job, seq, not_before_ms) \
       SELECT webhooks.tenant, webhooks.id, given.column1, given.column2, given.column3 FROM (VALUES ",
    "(?, ?, ?, ?)",
    ") AS given JOIN webhooks ON webhooks.tenant = given.column4",
)
.kept_for_one_row();
