//! When old request ids and uploads are forgotten.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::sweeps::keep_sweeping;
use crate::artifacts::Uploads;
use crate::engine::Engine;

/// Of each, in one transaction.
const PAGE: u32 = 5000;

/// Forgets what is older than `age`, until `draining`. Beside the rest: much that is old, or a slow disk, must not keep deadlines and workers waiting.
pub(super) async fn forget_old(engine: Arc<dyn Engine>, uploads: Uploads, age: Duration, draining: CancellationToken) {
    keep_sweeping(draining, || sweep(&*engine, &uploads, age)).await;
}

/// Forgets a page; answers whether there is no more now.
async fn sweep(engine: &dyn Engine, uploads: &Uploads, age: Duration) -> bool {
    match engine.forget_older(age, PAGE).await {
        Ok(forgotten) => {
            uploads.remove_files(&forgotten.uploads).await;
            forgotten.is_all
        }
        Err(error) => {
            tracing::warn!(error = &error as &dyn std::error::Error, "cannot forget old request ids and uploads");
            true
        }
    }
}
