//! Repeats calls that may be repeated: reads, and creations that carry a request id.

use std::time::Duration;

use crate::status::{ClientError, Refusal};

/// How often and how fast a call is repeated while the service is unavailable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all; 1: none is repeated.
    pub attempts: u32,
    /// Wait before the second attempt; doubles each time.
    pub first_wait: Duration,
    /// Longest wait.
    pub longest_wait: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { attempts: 6, first_wait: Duration::from_millis(200), longest_wait: Duration::from_secs(5) }
    }
}

impl RetryPolicy {
    /// Wait before attempt `attempt` (from 2): what the service asked for, else the back-off; never more than [`Self::longest_wait`].
    pub(crate) fn wait(&self, attempt: u32, refusal: &Refusal) -> Duration {
        let back_off = self.first_wait.saturating_mul(2u32.saturating_pow(attempt.saturating_sub(2)));
        refusal.retry_after.unwrap_or(back_off).min(self.longest_wait)
    }

    /// Calls until it succeeds, fails for good, or the attempts are used up.
    ///
    /// # Errors
    /// The last attempt's.
    pub(crate) async fn run<T>(&self, mut call: impl AsyncFnMut() -> Result<T, ClientError>) -> Result<T, ClientError> {
        let mut attempt = 1;
        loop {
            let error = match call().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            attempt += 1;
            let Some(refusal) = error.transient().filter(|_| attempt <= self.attempts) else { return Err(error) };
            let wait = self.wait(attempt, refusal);
            tracing::debug!(%error, attempt, ?wait, "repeating a call");
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Status;

    const FAST: RetryPolicy = RetryPolicy { attempts: 3, first_wait: Duration::from_millis(1), longest_wait: Duration::from_millis(2) };

    async fn attempts(error: impl Fn() -> Status) -> u32 {
        let mut calls = 0;
        let result: Result<(), _> = FAST
            .run(async || {
                calls += 1;
                Err(ClientError::from(error()))
            })
            .await;
        assert!(result.is_err());
        calls
    }

    #[tokio::test]
    async fn repeats_only_what_may_succeed() {
        assert_eq!(attempts(|| Status::unavailable("draining")).await, 3);
        assert_eq!(attempts(|| Status::invalid_argument("wrong")).await, 1);
        assert_eq!(attempts(|| Status::internal("bug")).await, 1);
    }

    #[test]
    fn waits_double_up_to_the_longest() {
        let refusal = Refusal::from(Status::unavailable(""));
        let waits: Vec<u64> = (2..9).map(|n| RetryPolicy::default().wait(n, &refusal).as_millis() as u64).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 5000, 5000]);
    }
}
