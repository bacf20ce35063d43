//! When the collector of artifacts sweeps.

use tokio_util::sync::CancellationToken;

use super::sweeps::keep_sweeping;
use crate::artifacts::Collector;

/// Batches in one go, so that a lot of garbage does not keep the store busy without a pause.
const SWEEPS_IN_A_GO: usize = 20;

/// Sweeps until `draining`.
pub(super) async fn collect(collector: Collector, draining: CancellationToken) {
    keep_sweeping(draining, || sweep(&collector)).await;
}

/// Answers whether there is no more now, or no use in going on.
async fn sweep(collector: &Collector) -> bool {
    for _ in 0..SWEEPS_IN_A_GO {
        match collector.sweep().await {
            // A part of a batch: what becomes garbage one by one is left for the next time, or all that is kept would be read again and again.
            Ok(n_deleted) if n_deleted < Collector::BATCH as usize => return true,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot delete artifacts that nothing refers to");
                return true;
            }
        }
    }
    false
}
