//! Jobs that are created while others are being admitted share the next transaction. What cannot be admitted like that, because it was admitted before or
//! is refused, is then admitted alone: that tells why. If whoever admits for the others is dropped or fails, each is admitted alone too, unless it is there.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use zkinfer_proto::name::ModelName;
use zkinfer_proto::v1;

use super::super::{EngineError, NewJob};
use super::admission::{Admitted, CREATE_JOB, Prepared, ReadyModel, ready_model};
use super::{SqlEngine, Writing, idempotency, load};
use crate::together::{Asked, Together};

/// Admitted in one transaction.
const MAX_TOGETHER: usize = 32;

/// A job that is to be admitted, and what becomes of it.
type Newcomer = Asked<Arc<Prepared>, Result<v1::Job, EngineError>>;

/// Whose jobs are to be admitted.
#[derive(Debug)]
pub(super) struct Newcomers(Together<Arc<Prepared>, Result<v1::Job, EngineError>>);

impl Default for Newcomers {
    fn default() -> Self {
        Self(Together::of_at_most(MAX_TOGETHER))
    }
}

impl SqlEngine {
    pub(super) async fn insert_job(&self, new: NewJob) -> Result<v1::Job, EngineError> {
        let new = Arc::new(Prepared::new(new)?);
        match self.newcomers.0.ask(new.clone(), |asked| self.admit(asked)).await {
            Some(admitted) => admitted,
            None => self.admit_again(&new).await,
        }
    }

    async fn admit(&self, mut asked: Vec<Newcomer>) {
        if asked.len() == 1
            && let Some(only) = asked.pop()
        {
            let admitted = self.admit_alone(&only.question).await;
            // Nobody listens: it is there, or it is not, as if the answer had been lost.
            drop(only.answer(admitted));
            return;
        }
        let jobs: Vec<&Prepared> = asked.iter().map(|asked| asked.question.as_ref()).collect();
        let admitted = match self.admit_together(&jobs).await {
            Ok(admitted) => admitted,
            // Nobody need wait here for a database that does not answer.
            Err(error) if is_down(&error) => return tracing::debug!(%error, "each job is admitted alone"),
            // One of them keeps the others out.
            Err(_) => vec![false; jobs.len()],
        };
        let mut others = Vec::new();
        for (asked, is_admitted) in asked.into_iter().zip(admitted) {
            match is_admitted {
                true => {
                    let job = asked.question.job.clone();
                    drop(asked.answer(Ok(job)));
                }
                false => others.push(asked),
            }
        }
        // One after another, so that none takes the room of another.
        for asked in others {
            let admitted = self.admit_alone(&asked.question).await;
            let is_down = admitted.as_ref().is_err_and(is_down);
            drop(asked.answer(admitted));
            if is_down {
                return;
            }
        }
    }

    /// Admits all that can be; answers which.
    async fn admit_together(&self, jobs: &[&Prepared]) -> Result<Vec<bool>, EngineError> {
        let mut writing = self.begin().await?;
        let mut fits = self.fitting(&mut writing, jobs).await?;
        let mut models: HashMap<&ModelName, ReadyModel> = HashMap::new();
        for (job, fits) in jobs.iter().zip(&mut fits) {
            if !*fits || models.contains_key(&job.model) {
                continue;
            }
            match ready_model(&mut writing, &job.model).await {
                Ok(model) => drop(models.insert(&job.model, model)),
                Err(EngineError::ModelNotFound | EngineError::ModelNotReady(_)) => *fits = false,
                Err(error) => return Err(error),
            }
        }
        let claims = jobs.iter().zip(&fits).filter(|(_, fits)| **fits).filter_map(|(job, _)| job.claim());
        let claimed = idempotency::claim_new(&mut writing, CREATE_JOB, claims.collect()).await?;
        let mut admitted = Admitted::default();
        for (job, fits) in jobs.iter().zip(&mut fits) {
            *fits = *fits && job.place().is_none_or(|place| claimed.contains(&place));
            if *fits {
                admitted.push_job(job, &models[&job.model])?;
            }
        }
        admitted.write(&mut writing).await?;
        self.commit(writing).await?;
        Ok(fits)
    }

    /// For which of the jobs their tenants have room. Of two with one request id only the first is taken.
    async fn fitting(&self, writing: &mut Writing, jobs: &[&Prepared]) -> Result<Vec<bool>, EngineError> {
        let mut wanted: HashMap<&str, i64> = HashMap::new();
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
        Ok(jobs.iter().map(|job| !full.contains(job.subject.tenant.as_str()) && is_new(job)).collect())
    }

    /// Admits a job that somebody else may have admitted. Its id is its own, so what is there under it is this one.
    async fn admit_again(&self, new: &Prepared) -> Result<v1::Job, EngineError> {
        if load(&mut *self.readers.acquire().await?, &new.subject).await?.is_some() {
            return Ok(new.job.clone());
        }
        match self.admit_alone(new).await {
            // Its transaction was still on its way.
            Err(EngineError::AlreadyExists) => Ok(new.job.clone()),
            admitted => admitted,
        }
    }
}

fn is_down(error: &EngineError) -> bool {
    matches!(error, EngineError::Busy(_) | EngineError::Full(_) | EngineError::Database(_))
}
