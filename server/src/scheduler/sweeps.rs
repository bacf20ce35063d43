//! The rhythm of sweeps: some at a time, with a pause after it, so that much that is old does not keep the database busy for long; then a long rest.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How often it is looked whether there is something.
const SWEEP_EVERY: Duration = Duration::from_secs(600);
/// After some of it.
const PAUSE: Duration = Duration::from_secs(1);

/// Sweeps until `draining`; a sweep answers whether there is no more now. One that is broken off is taken up later, by this process or another.
pub(super) async fn keep_sweeping<F: Future<Output = bool>>(draining: CancellationToken, sweep: impl Fn() -> F) {
    let sweeping = async {
        loop {
            let is_all = sweep().await;
            tokio::time::sleep(if is_all { SWEEP_EVERY } else { PAUSE }).await;
        }
    };
    tokio::select! {
        () = sweeping => {}
        () = draining.cancelled() => {}
    }
}
