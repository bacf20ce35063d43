//! Calls of a source that is away for a while are made again and again.

use std::time::Duration;

use super::source::{SourceError, SourceFuture};

/// The first pause; each next one is twice as long,
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// up to this: who waits must notice soon that the source is back, or that nobody waits any more.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Calls until the source is available, or `is_over` after a call. To be dropped by those who wait only for some time.
///
/// # Errors
/// Those of the last call.
pub(crate) async fn again<'a, T>(call: impl Fn() -> SourceFuture<'a, T>, is_over: impl Fn() -> bool) -> Result<T, SourceError> {
    let mut pause = FIRST_PAUSE;
    loop {
        match call().await {
            Err(SourceError::Unavailable(reason)) if !is_over() => tracing::warn!(reason, "not available; it is tried again"),
            answer => return answer,
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
