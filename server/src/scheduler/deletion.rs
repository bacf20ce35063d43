//! When jobs that ended long ago are deleted.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::engine::Engine;

/// How often such jobs are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// Jobs of a sweep, and a pause after it: many old jobs must not keep the database busy for long.
const JOBS_AT_ONCE: u32 = 1000;
const PAUSE: Duration = Duration::from_secs(1);

/// Deletes jobs that ended longer ago than `age`, until `draining`. A page that is broken off then is taken up later, by this process or another.
pub(super) async fn delete_old_jobs(engine: Arc<dyn Engine>, age: Duration, draining: CancellationToken) {
    let deleting = async {
        loop {
            let is_all = sweep(&*engine, age).await;
            tokio::time::sleep(if is_all { SWEEP_EVERY } else { PAUSE }).await;
        }
    };
    tokio::select! {
        () = deleting => {}
        () = draining.cancelled() => {}
    }
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
