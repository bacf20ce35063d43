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

    /// Takes one creation out of a tenant's bucket.
    pub(crate) fn take(&self, tenant: &str) -> Result<(), ApiError> {
        if self.n_calls.fetch_add(1, Ordering::Relaxed) % TIDY_EVERY == TIDY_EVERY - 1 {
            self.buckets.retain_recent();
        }
        self.buckets.check_key(&tenant.to_owned()).map_err(|refused| ApiError::Exhausted {
            reason: "RATE_LIMITED",
            subject: format!("tenants/{tenant}"),
            message: format!("the tenant may make {}", self.description),
            retry: Some(refused.wait_time_from(self.clock.now())),
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
            rate.take("a").unwrap();
        }
        let Err(ApiError::Exhausted { reason: "RATE_LIMITED", retry: Some(wait), .. }) = rate.take("a") else { panic!("refused") };
        assert!(wait.as_secs() <= 1 && !wait.is_zero(), "{wait:?}");
        rate.take("b").unwrap();
    }
}
