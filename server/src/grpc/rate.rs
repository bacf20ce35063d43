//! How often a tenant may create something. A bucket for each tenant, refilled at a steady rate; the tenant is the authenticated one.

use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU32, Ordering};

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota};

use super::error::ApiError;
use crate::limits::Limits;

/// Full buckets are forgotten after this many calls, so that tenants of long ago take no memory.
const TIDY_EVERY: u32 = 1024;

/// The buckets.
pub(crate) struct CreateRate {
    buckets: DefaultKeyedRateLimiter<String>,
    clock: DefaultClock,
    n_calls: AtomicU32,
    description: String,
}

impl CreateRate {
    pub(crate) fn new(limits: &Limits) -> Self {
        // Both were checked to be above 0.
        let positive = |limit| NonZeroU32::new(limit).unwrap_or(NonZeroU32::MIN);
        let (rate, burst) = (positive(limits.creates_per_second), positive(limits.creates_burst));
        let quota = Quota::per_second(rate).allow_burst(burst);
        Self {
            buckets: DefaultKeyedRateLimiter::keyed(quota),
            clock: DefaultClock::default(),
            n_calls: AtomicU32::new(0),
            description: format!("{rate} creations a second, and {burst} at once"),
        }
    }

    /// Takes `n` creations out of a tenant's bucket, all or none. None counts as one: it costs a call. More than the bucket holds are never there at
    /// once, and are refused without a time to wait.
    pub(crate) fn take(&self, tenant: &str, n: usize) -> Result<(), ApiError> {
        if self.n_calls.fetch_add(1, Ordering::Relaxed) % TIDY_EVERY == TIDY_EVERY - 1 {
            self.buckets.retain_recent();
        }
        let n = NonZeroU32::new(u32::try_from(n).unwrap_or(u32::MAX)).unwrap_or(NonZeroU32::MIN);
        let wait = match self.buckets.check_key_n(&tenant.to_owned(), n) {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(refused)) => Some(refused.wait_time_from(self.clock.now())),
            Err(_above_the_burst) => None,
        };
        Err(ApiError::Exhausted {
            reason: "RATE_LIMITED",
            subject: format!("tenants/{tenant}"),
            message: format!("the tenant may make {}", self.description),
            retry: wait,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_has_its_burst_and_others_have_theirs() {
        let rate = CreateRate::new(&Limits { creates_per_second: 1, creates_burst: 3, ..Limits::default() });
        for _ in 0..3 {
            rate.take("a", 1).unwrap();
        }
        let Err(ApiError::Exhausted { reason: "RATE_LIMITED", retry: Some(wait), .. }) = rate.take("a", 1) else { panic!("refused") };
        assert!(wait.as_secs() <= 1 && !wait.is_zero(), "{wait:?}");
        rate.take("b", 1).unwrap();
    }

    #[test]
    fn a_batch_takes_as_many_as_it_has_jobs() {
        let rate = CreateRate::new(&Limits { creates_per_second: 1, creates_burst: 10, ..Limits::default() });
        rate.take("a", 6).unwrap();
        let Err(ApiError::Exhausted { retry: Some(wait), .. }) = rate.take("a", 6) else { panic!("refused") };
        assert!(wait.as_secs() <= 2 && !wait.is_zero(), "{wait:?}");
        rate.take("a", 4).unwrap();
        assert!(matches!(rate.take("b", 11), Err(ApiError::Exhausted { retry: None, .. })), "never at once");
        rate.take("b", 10).unwrap();
    }
}
