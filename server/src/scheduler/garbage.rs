//! When the collector of artifacts sweeps.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::artifacts::Collector;

/// How often garbage is looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// Batches in one go, so that a lot of garbage does not keep the store busy without a pause.
const SWEEPS_IN_A_GO: usize = 20;

/// Sweeps until `draining`. A sweep that is broken off then is taken up later, by this process or another.
pub(super) async fn collect(collector: Collector, draining: CancellationToken) {
    let sweeping = async {
        loop {
            sweep(&collector).await;
            tokio::time::sleep(SWEEP_EVERY).await;
        }
    };
    tokio::select! {
        () = sweeping => {}
        () = draining.cancelled() => {}
    }
}

async fn sweep(collector: &Collector) {
    for _ in 0..SWEEPS_IN_A_GO {
        match collector.sweep().await {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot delete artifacts that nothing refers to");
                return;
            }
        }
    }
}
