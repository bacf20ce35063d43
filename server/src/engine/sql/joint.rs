//! Jobs that are created while others are being admitted share the next transaction. What cannot be admitted like that, because it was admitted before or
//! is refused, is then admitted alone: that tells why. If that fails for all, they come again, and at last each alone. Then a job may have been admitted
//! before without its client knowing; its id is its own, so what is there under it is this one.
//!
//! Others wait for those who are being admitted. So they wait only briefly for locks, and a database that does not answer is told of to all.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

use zkinfer_proto::name::ModelName;
use zkinfer_proto::v1;

use super::super::document::Document;
use super::super::{EngineError, NewJob, timestamp_ms};
use super::admission::{Admitted, CREATE_JOB, Dated, Prepared, ReadyModel, ready_model};
use super::group::shared;
use super::lines::Waits;
use super::{SqlEngine, Writing, idempotency, load};
use crate::together::{Asked, Together};

/// Admitted in one transaction.
const MAX_TOGETHER: usize = 32;

/// So often somebody comes with others, and at last alone.
const TRIES: usize = 2;

/// What becomes of a job.
#[derive(Debug)]
enum Answer {
    /// It is admitted or refused.
    Done(Result<Box<v1::Job>, EngineError>),
    /// It must be admitted alone, for which nobody waits.
    Alone,
}

/// A job that is to be admitted.
type Newcomer = Asked<Arc<Prepared>, Answer>;

/// Whose jobs are to be admitted.
#[derive(Debug)]
pub(super) struct Newcomers(Together<Arc<Prepared>, Answer>);

impl Newcomers {
    /// On the runtime that it is called on.
    pub(super) fn new() -> Self {
        Self(Together::of_at_most(MAX_TOGETHER))
    }
}

/// How a job fares among those who came with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Admitted {
        /// The same for all that were admitted together.
        created_ms: i64,
    },
    /// Its tenant may have room for some of them. They come one after another, so that none takes the room of another.
    InTurn,
    /// It was admitted before, perhaps, or is refused.
    Alone,
}

impl SqlEngine {
    pub(super) async fn insert_job(&self, new: NewJob) -> Result<v1::Job, EngineError> {
        let new = Arc::new(Prepared::new(new, &self.seal)?);
        for _ in 0..TRIES {
            match self.newcomers.0.ask(new.clone(), |asked| self.clone().admit(asked)).await {
                Some(Answer::Done(admitted)) => return admitted.map(|job| *job),
                Some(Answer::Alone) => break,
                None => {}
            }
        }
        self.admit_one(&new, Waits::Long).await
    }

    async fn admit(self, asked: Vec<Newcomer>) {
        let jobs: Vec<&Prepared> = asked.iter().map(|asked| asked.question.as_ref()).collect();
        let fates = match &jobs[..] {
            [_] => vec![Fate::InTurn],
            jobs => match self.admit_together(jobs).await {
                Ok(fates) => fates,
                Err(error) if error.is_contention() => return tracing::debug!(%error, "jobs that came together come again"),
                Err(error) if error.is_away() => return self.refuse_all(asked, &error),
                // One of them keeps the others out.
                Err(_) => vec![Fate::InTurn; jobs.len()],
            },
        };
        let mut in_turn = VecDeque::new();
        for (asked, fate) in asked.into_iter().zip(fates) {
            match fate {
                Fate::Admitted { created_ms } => {
                    let job = asked.question.at(created_ms).job;
                    // If nobody listens, it is as if the answer had been lost on its way.
                    drop(asked.answer(Answer::Done(Ok(Box::new(job)))));
                }
                Fate::Alone => drop(asked.answer(Answer::Alone)),
                Fate::InTurn => in_turn.push_back(asked),
            }
        }
        while let Some(asked) = in_turn.pop_front() {
            match self.admit_one(&asked.question, Waits::Briefly).await {
                Err(error) if error.is_contention() => return tracing::debug!(%error, "jobs that came together come again"),
                Err(error) if error.is_away() => return self.refuse_all([asked].into_iter().chain(in_turn).collect(), &error),
                admitted => drop(asked.answer(Answer::Done(admitted.map(Box::new)))),
            }
        }
    }

    /// Tells that the database is away, also those who wait: they would wait for it one group after another.
    fn refuse_all(&self, asked: Vec<Newcomer>, error: &EngineError) {
        for asked in asked.into_iter().chain(self.newcomers.0.take_all()) {
            drop(asked.answer(Answer::Done(Err(shared(error)))));
        }
    }

    /// Admits all that can be.
    async fn admit_together(&self, jobs: &[&Prepared]) -> Result<Vec<Fate>, EngineError> {
        let mut writing = self.begin_with(Waits::Briefly).await?;
        let mut fates = self.fates(&mut writing, jobs).await?;
        let is_admitted = Fate::Admitted { created_ms: writing.now_ms };
        let mut models: HashMap<&ModelName, ReadyModel> = HashMap::new();
        for (job, fate) in jobs.iter().zip(&mut fates) {
            if *fate != is_admitted || models.contains_key(&job.model) {
                continue;
            }
            match ready_model(&mut writing, &job.model).await {
                Ok(model) => drop(models.insert(&job.model, model)),
                Err(EngineError::ModelNotFound | EngineError::ModelNotReady(_)) => *fate = Fate::Alone,
                Err(error) => return Err(error),
            }
        }
        let dated: Vec<Dated<'_>> = jobs.iter().map(|job| job.at(writing.now_ms)).collect();
        let claims = dated.iter().zip(&fates).filter(|(_, fate)| **fate == is_admitted).filter_map(|(job, _)| job.claim());
        let claimed = idempotency::claim_new(&mut writing, CREATE_JOB, claims.collect()).await?;
        let mut admitted = Admitted::default();
        for (job, fate) in dated.iter().zip(&mut fates).filter(|(_, fate)| **fate == is_admitted) {
            match job.prepared.place().is_none_or(|place| claimed.contains(&place)) {
                true => admitted.push_job(job, &models[&job.prepared.model])?,
                false => *fate = Fate::Alone,
            }
        }
        admitted.write(&mut writing).await?;
        self.commit(writing).await?;
        Ok(fates)
    }

    /// For which of the jobs their tenants have room. Of two with one request id the second finds the first's answer later.
    async fn fates(&self, writing: &mut Writing, jobs: &[&Prepared]) -> Result<Vec<Fate>, EngineError> {
        // In one order: two who count several tenants' do not wait for each other.
        let mut wanted: BTreeMap<&str, i64> = BTreeMap::new();
        for job in jobs {
            *wanted.entry(job.subject.tenant.as_str()).or_default() += 1;
        }
        let mut full: BTreeSet<&str> = BTreeSet::new();
        for (tenant, n) in wanted {
            if self.room(writing, tenant, n).await?.free < n {
                full.insert(tenant);
            }
        }
        let mut places = BTreeSet::new();
        let mut is_new = |job: &Prepared| job.place().is_none_or(|place| places.insert(place));
        let created_ms = writing.now_ms;
        let mut fate = |job: &&Prepared| match (full.contains(job.subject.tenant.as_str()), is_new(job)) {
            (true, _) => Fate::InTurn,
            (false, true) => Fate::Admitted { created_ms },
            (false, false) => Fate::Alone,
        };
        Ok(jobs.iter().map(&mut fate).collect())
    }

    /// Admits a job that may have been admitted before.
    async fn admit_one(&self, new: &Prepared, waits: Waits) -> Result<v1::Job, EngineError> {
        match self.admit_alone(new, waits).await {
            Err(error @ (EngineError::AlreadyExists | EngineError::QuotaExceeded { .. })) => {
                // With a commit, since another's that is still on its way must be on disk before it is told of.
                let mut writing = self.begin_with(waits).await?;
                let known = load(writing.connection(), &new.subject).await?;
                self.commit(writing).await?;
                let created = known.as_ref().and_then(Document::created);
                created.map_or(Err(error), |created| Ok(new.at(timestamp_ms(created)).job))
            }
            admitted => admitted,
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::super::super::Operations as _;
    use super::*;
    use crate::limits::Limits;
    use crate::record_seal::RecordSeal;

    fn new_job(id: &str) -> Prepared {
        let job = v1::Job {
            name: format!("tenants/acme/jobs/{id}"),
            model: "tenants/acme/models/net".into(),
            state: v1::job::State::Queued.into(),
            ..Default::default()
        };
        Prepared::new(NewJob { job, input: None, input_salt: [1; 32].into(), seed: [2; 32].into(), key: None }, &RecordSeal::default())
            .unwrap()
    }

    /// What admitted it failed before it could tell.
    #[tokio::test]
    async fn a_job_that_is_there_is_told_of_and_needs_no_more_room() {
        let folder = tempfile::tempdir().unwrap();
        let engine = SqlEngine::open_sqlite(folder.path(), &Limits { queued_per_tenant: 1, ..Limits::default() }).await.unwrap();
        let model = v1::Model { name: "tenants/acme/models/net".into(), state: v1::model::State::Ready.into(), ..Default::default() };
        let mut writing = engine.begin().await.unwrap();
        sqlx::query(
            "INSERT INTO models(tenant, id, state, created_ms, last_seq, doc, salt, seed) VALUES ('acme', 'net', 2, 0, 1, $1, $2, $2)",
        )
        .bind(model.encode_to_vec())
        .bind(vec![0; 32])
        .execute(writing.connection())
        .await
        .unwrap();
        engine.commit(writing).await.unwrap();
        let [first, second] = ["0190c7a2-0000-7000-8000-000000000001", "0190c7a2-0000-7000-8000-000000000002"].map(new_job);
        engine.admit_alone(&first, Waits::Long).await.unwrap();
        assert_eq!(engine.admit_one(&first, Waits::Long).await.unwrap().name, first.job.name, "it has taken the only place");
        assert!(matches!(engine.admit_one(&second, Waits::Long).await, Err(EngineError::QuotaExceeded { limit: 1, .. })));
        let quota = v1::Quota { tenant: "tenants/acme".into(), share_milli: 1000, max_queued: 9, max_running: 0, paused: false };
        engine.set_quota("acme", quota).await.unwrap();
        assert_eq!(engine.admit_one(&first, Waits::Long).await.unwrap().name, first.job.name, "there is one of this id");
        assert_eq!(engine.queue().await.unwrap().ready, 1);
    }
}
