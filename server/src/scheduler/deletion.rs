//! When jobs that ended long ago are deleted.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::sweeps::keep_sweeping;
use crate::engine::Engine;

/// Jobs of a sweep.
const JOBS_AT_ONCE: u32 = 1000;

/// Deletes jobs that ended longer ago than `age`, until `draining`.
pub(super) async fn delete_old_jobs(engine: Arc<dyn Engine>, age: Duration, draining: CancellationToken) {
    keep_sweeping(draining, || sweep(&*engine, age)).await;
}

/// Deletes some; answers whether there are no more now.
async fn sweep(engine: &dyn Engine, age: Duration) -> bool {
    match engine.delete_ended(age, JOBS_AT_ONCE).await {
        Ok(0) => true,
        Ok(n_jobs) => {
            tracing::info!(n_jobs, "deleted jobs that ended long ago");
            n_jobs < u64::from(JOBS_AT_ONCE)
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot delete jobs that ended long ago");
            true
        }
    }
}
