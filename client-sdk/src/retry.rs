//! Repeats calls that may be repeated: reads, and creations that carry a request id. The rules are in docs/CLIENTS.md.

use std::time::Duration;

use tokio::time::Instant;

use crate::status::{ClientError, Refusal, RefusalKind};

/// How often and how fast a call is repeated while the service is unavailable.
///
/// Where the service says when another attempt makes sense, none is made earlier; if that does not fit [`Self::budget`] any more, the call fails
/// at once, with [`Refusal::retry_after`] in its error. Which errors are repeated: docs/CLIENTS.md.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all; 1: none is repeated.
    pub attempts: u32,
    /// Wait before the second attempt; doubles each time.
    pub first_wait: Duration,
    /// Longest wait that the service did not ask for.
    pub longest_wait: Duration,
    /// What may be spent on all waits of a call together, and on attempts that ran out of their time; of a transfer or a watch, since it last got on.
    pub budget: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        let (first_wait, longest_wait) = (Duration::from_millis(200), Duration::from_secs(5));
        Self { attempts: 6, first_wait, longest_wait, budget: Duration::from_secs(60) }
    }
}

impl RetryPolicy {
    /// Calls until it succeeds, fails for good, or attempts or budget are used up.
    ///
    /// # Errors
    /// The last attempt's.
    pub(crate) async fn run<T>(&self, mut call: impl AsyncFnMut() -> Result<T, ClientError>) -> Result<T, ClientError> {
        let mut repetition = Repetition::new(*self);
        loop {
            match call().await {
                Ok(value) => return Ok(value),
                Err(error) => repetition.pause(error).await?,
            };
        }
    }

    /// Wait after so many failures in a row, of which `refusal` is the last, and so much waiting; none: give up.
    ///
    /// What the service asks for is the least, of the own back-off a half: `share`, from 0 to 1, spreads the clients that failed at the same time.
    fn wait_after(&self, failures: u32, refusal: &Refusal, waited: Duration, share: f64) -> Option<Duration> {
        if failures >= self.attempts {
            return None;
        }
        let left = self.budget.saturating_sub(waited);
        let Some(asked) = refusal.retry_after else {
            let back_off = self.first_wait.saturating_mul(2u32.saturating_pow(failures.saturating_sub(1)));
            let half = back_off.min(self.longest_wait) / 2;
            return Some(half.saturating_add(half.mul_f64(share))).filter(|&wait| wait <= left);
        };
        // The spread is not worth giving up for.
        let spread = asked.saturating_add(asked.min(self.budget).mul_f64(share / 4.0));
        Some(spread.min(left)).filter(|_| asked <= left)
    }
}

/// The failures of one call in a row, and how long was waited after them.
#[derive(Debug)]
pub(crate) struct Repetition {
    policy: RetryPolicy,
    failures: u32,
    /// In vain.
    waited: Duration,
    /// When the attempt began that runs, or when it last got on.
    began: Instant,
}

impl Repetition {
    /// The first attempt begins.
    pub(crate) fn new(policy: RetryPolicy) -> Self {
        Self { policy, failures: 0, waited: Duration::ZERO, began: Instant::now() }
    }

    /// The call got on: what failed before counts no more.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.policy);
    }

    /// As [`Self::pause`], where no more than `left` may be waited.
    ///
    /// # Errors
    /// The same error, where another attempt has no sense.
    pub(crate) async fn pause_within(&mut self, error: ClientError, left: Duration) -> Result<ClientError, ClientError> {
        let budget = self.policy.budget;
        self.policy.budget = budget.min(self.waited.saturating_add(left));
        let paused = self.pause(error).await;
        self.policy.budget = budget;
        paused
    }

    /// Counts a failure that no error stands for; answers whether another attempt is due.
    pub(crate) fn fail(&mut self) -> bool {
        self.failures += 1;
        self.began = Instant::now();
        self.failures < self.policy.attempts
    }

    /// Counts a failure, and waits before the next attempt; answers the error, which that may heal.
    ///
    /// # Errors
    /// The same error, where another attempt has no sense.
    pub(crate) async fn pause(&mut self, error: ClientError) -> Result<ClientError, ClientError> {
        self.failures += 1;
        let Some(refusal) = error.transient() else { return Err(error) };
        if refusal.kind == RefusalKind::Deadline {
            self.waited = self.waited.saturating_add(self.began.elapsed());
        }
        let Some(wait) = self.policy.wait_after(self.failures, refusal, self.waited, random_share()) else { return Err(error) };
        tracing::debug!(%error, failures = self.failures, ?wait, "repeating a call");
        self.waited = self.waited.saturating_add(wait);
        tokio::time::sleep(wait).await;
        self.began = Instant::now();
        Ok(error)
    }
}

/// From 0 to 1.
fn random_share() -> f64 {
    // Without random bytes the clients come together: slower, not wrong.
    getrandom::u32().map_or(1.0, |random| f64::from(random) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::{Code, Status};
    use tonic_types::{ErrorDetails, StatusExt as _};

    const FAST: RetryPolicy = RetryPolicy {
        attempts: 3,
        first_wait: Duration::from_millis(1),
        longest_wait: Duration::from_millis(2),
        budget: Duration::from_secs(5),
    };

    fn asking(code: Code, delay: Duration) -> Status {
        let mut details = ErrorDetails::new();
        details.set_retry_info(Some(delay));
        Status::with_error_details(code, "not now", details)
    }

    /// How often a call is made that fails so, how long that took, and the error that is left.
    async fn attempts(error: impl Fn() -> Status) -> (u32, Duration, ClientError) {
        let (mut calls, start) = (0, std::time::Instant::now());
        let result: Result<(), _> = FAST
            .run(async || {
                calls += 1;
                Err(ClientError::from(error()))
            })
            .await;
        (calls, start.elapsed(), result.unwrap_err())
    }

    /// docs/CLIENTS.md, line by line: with RetryInfo or without.
    #[tokio::test]
    async fn repeats_only_what_may_succeed() {
        for (code, asked, bare) in [
            (Code::Unavailable, 3, 3),
            (Code::ResourceExhausted, 3, 1),
            (Code::Aborted, 3, 1),
            (Code::DeadlineExceeded, 3, 3),
            (Code::Cancelled, 1, 1),
            // A service's error has details, of which RetryInfo is one.
            (Code::Internal, 1, 3),
            (Code::Unknown, 1, 3),
            (Code::DataLoss, 1, 1),
            (Code::InvalidArgument, 1, 1),
            (Code::NotFound, 1, 1),
            (Code::FailedPrecondition, 1, 1),
            (Code::Unauthenticated, 1, 1),
        ] {
            assert_eq!(attempts(|| asking(code, Duration::ZERO)).await.0, asked, "{code:?}, with RetryInfo");
            assert_eq!(attempts(|| Status::new(code, "bare")).await.0, bare, "{code:?}, without");
        }
        let broken = || Status::from_error(std::io::Error::other("broken pipe").into());
        assert_eq!(attempts(broken).await.0, 3, "a connection that broke");
    }

    #[tokio::test]
    async fn attempts_that_ran_out_of_their_time_use_up_the_budget() {
        let expired = || ClientError::from(Status::deadline_exceeded("too long"));
        let mut repetition = Repetition::new(FAST);
        repetition.pause(expired()).await.unwrap();
        // As if the second had begun earlier.
        let began = |ago| Instant::now().checked_sub(ago).unwrap();
        repetition.began = began(FAST.budget / 2);
        repetition.pause(expired()).await.unwrap();
        assert!(repetition.waited >= FAST.budget / 2);
        let mut repetition = Repetition { began: began(FAST.budget), ..Repetition::new(FAST) };
        assert!(repetition.pause(expired()).await.is_err(), "nothing is left of it");
        let mut repetition = Repetition { began: began(FAST.budget), ..Repetition::new(FAST) };
        let away = ClientError::from(Status::unavailable("draining"));
        assert!(repetition.pause(away).await.is_ok(), "whatever else an attempt took was no wait");
    }

    #[tokio::test]
    async fn asks_again_no_earlier_than_the_service_wants() {
        let asked = Duration::from_millis(20);
        let (calls, took, _) = attempts(|| asking(Code::ResourceExhausted, asked)).await;
        assert!(calls == 3 && took >= 2 * asked, "{calls} calls in {took:?}");
    }

    #[tokio::test]
    async fn does_not_wait_in_vain() {
        for code in [Code::ResourceExhausted, Code::Unavailable, Code::Aborted] {
            let (calls, _, error) = attempts(|| asking(code, Duration::from_secs(30))).await;
            let ClientError::Refused(refusal) = error else { panic!("{error}") };
            assert_eq!((calls, refusal.retry_after), (1, Some(Duration::from_secs(30))));
            assert!(refusal.to_string().ends_with("; try again in 30 s"), "{refusal}");
        }
    }

    #[test]
    fn waits_double_up_to_the_longest_and_are_spread() {
        let refusal = Refusal::from(Status::unavailable(""));
        let policy = RetryPolicy { attempts: 9, ..RetryPolicy::default() };
        let wait = |failures, share| policy.wait_after(failures, &refusal, Duration::ZERO, share).map(|wait| wait.as_millis());
        let waits: Vec<_> = (1..9).filter_map(|failures| wait(failures, 1.0)).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3200, 5000, 5000, 5000]);
        assert_eq!((wait(1, 0.0), wait(2, 0.0), wait(9, 0.0)), (Some(100), Some(200), None));
        let endless = RetryPolicy { attempts: u32::MAX, first_wait: Duration::MAX, longest_wait: Duration::MAX, budget: Duration::MAX };
        assert!(endless.wait_after(1, &refusal, Duration::ZERO, 1.0) > Some(Duration::MAX / 4));
    }

    #[test]
    fn what_the_service_asks_for_is_kept_unless_it_does_not_fit_the_budget() {
        let wait = |asked_s: u64, waited_s: u64, share: f64| {
            let refusal = Refusal::from(asking(Code::Unavailable, Duration::from_secs(asked_s)));
            RetryPolicy::default().wait_after(1, &refusal, Duration::from_secs(waited_s), share).map(|wait| wait.as_millis())
        };
        assert_eq!((wait(2, 0, 0.0), wait(2, 0, 1.0)), (Some(2000), Some(2500)));
        assert_eq!((wait(30, 0, 1.0), wait(30, 30, 1.0), wait(30, 31, 0.0)), (Some(37_500), Some(30_000), None));
        assert_eq!((wait(61, 0, 0.0), wait(i64::MAX as u64, 0, 1.0)), (None, None));
    }
}
