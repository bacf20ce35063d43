//! Whether jobs would be admitted, before their inputs are stored: who may only create jobs must not fill the store with inputs of jobs that are refused.
//!
//! Far from the limit, and for a model that was just seen to be ready, that asks the database nothing. The transaction that admits decides.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use prost::Message as _;
use zkinfer_proto::name::ModelName;
use zkinfer_proto::v1;

use super::super::{EngineError, RequestKey};
use super::SqlEngine;
use super::admission::in_batch;

/// Models that are remembered; with more, all are forgotten.
const MAX_KNOWN: usize = 10_000;

/// So long it is believed that a model which was seen is still there.
const BELIEVED: Duration = Duration::from_secs(10);

/// Models that were seen to be ready, and when. They stay so until they are deleted.
#[derive(Debug, Default)]
pub(super) struct ReadyModels(Mutex<HashMap<ModelName, Instant>>);

impl SqlEngine {
    pub(super) async fn foresee_jobs(&self, tenant: &str, models: &[ModelName], key: Option<&RequestKey>) -> Result<(), EngineError> {
        match self.look_ahead(tenant, models).await {
            // It is told its first answer, whatever has changed since.
            Err(EngineError::InBatch { .. }) if self.was_answered(tenant, key).await? => Ok(()),
            foreseen => foreseen,
        }
    }

    async fn look_ahead(&self, tenant: &str, models: &[ModelName]) -> Result<(), EngineError> {
        let room = self.likely_room(tenant, models.len() as i64).await?;
        for (index, model) in models.iter().enumerate() {
            if index as i64 >= room.free {
                return Err(in_batch(index, room.exceeded()));
            }
            self.check_ready(model, index).await?;
        }
        Ok(())
    }

    async fn check_ready(&self, name: &ModelName, index: usize) -> Result<(), EngineError> {
        let seen = self.ready_models.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied();
        if seen.is_some_and(|at| at.elapsed() < BELIEVED) {
            return Ok(());
        }
        let document: Option<Vec<u8>> = sqlx::query_scalar("SELECT doc FROM models WHERE tenant = $1 AND id = $2")
            .bind(&name.tenant)
            .bind(&name.model_id)
            .fetch_optional(&self.readers)
            .await?;
        let document = document.ok_or_else(|| in_batch(index, EngineError::ModelNotFound))?;
        let state = v1::Model::decode(document.as_slice()).map_err(EngineError::Damaged)?.state();
        if state != v1::model::State::Ready {
            return Err(in_batch(index, EngineError::ModelNotReady(state)));
        }
        let mut known = self.ready_models.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(name.clone(), Instant::now());
        Ok(())
    }

    /// Whether the same request was answered.
    async fn was_answered(&self, tenant: &str, key: Option<&RequestKey>) -> Result<bool, EngineError> {
        let Some(key) = key else { return Ok(false) };
        let answered: Option<i64> = sqlx::query_scalar(
            "SELECT created_ms FROM idempotency WHERE tenant = $1 AND method IN ('CreateJob', 'BatchCreateJobs') AND request_id = $2 \
               AND request_hash = $3",
        )
        .bind(tenant)
        .bind(&key.request_id)
        .bind(key.request_hash.to_vec())
        .fetch_optional(&self.readers)
        .await?;
        Ok(answered.is_some())
    }
}
