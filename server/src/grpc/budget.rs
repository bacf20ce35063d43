//! Memory for stored bytes: who needs them whole takes what they need of a budget first, and waits if there is not enough.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::{ApiError, TOO_MANY_COMPUTATIONS};

/// Bytes that are given out at once.
const UNIT_BYTES: u64 = 64 << 10;

/// A number of bytes that many share. They get them in the order in which they ask.
pub(crate) struct ByteBudget {
    total_bytes: u64,
    units: Arc<Semaphore>,
    waiting: Semaphore,
}

impl ByteBudget {
    /// `total_bytes` for all; so many may wait.
    pub(crate) fn new(total_bytes: u64, max_waiting: usize) -> Self {
        Self { total_bytes, units: Arc::new(Semaphore::new(units(total_bytes) as usize)), waiting: Semaphore::new(max_waiting) }
    }

    /// Takes `size_bytes`, at most all that there are, until the answer is dropped. Ask once for everything: who holds some and waits for more may wait
    /// for ever.
    ///
    /// # Errors
    /// Too many wait.
    pub(crate) async fn take(&self, size_bytes: u64) -> Result<OwnedSemaphorePermit, ApiError> {
        let too_many = || ApiError::Exhausted {
            reason: TOO_MANY_COMPUTATIONS,
            subject: "memory".into(),
            message: "too many wait for memory".into(),
            retry: Some(std::time::Duration::from_secs(1)),
        };
        let _waiting = self.waiting.try_acquire().map_err(|_| too_many())?;
        let wanted = units(size_bytes.min(self.total_bytes));
        // It is never closed.
        self.units.clone().acquire_many_owned(wanted).await.map_err(|_| too_many())
    }
}

fn units(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(UNIT_BYTES)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bytes_are_given_out_once_and_those_who_wait_are_counted() {
        let budget = Arc::new(ByteBudget::new(10 * UNIT_BYTES, 1));
        let first = budget.take(9 * UNIT_BYTES + 1).await.unwrap();
        let waiting = tokio::spawn({
            let budget = budget.clone();
            async move { budget.take(1).await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(matches!(budget.take(1).await, Err(ApiError::Exhausted { reason: "TOO_MANY_COMPUTATIONS", .. })));
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap().unwrap();
        // More than there is does not wait for ever.
        drop(budget.take(u64::MAX).await.unwrap());
        drop(budget.take(0).await.unwrap());
    }
}
