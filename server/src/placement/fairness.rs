//! Fair shares: the next task is of the tenant that has least for its share.
//!
//! What a tenant has is what runs, `running / share`. Long and short tasks count alike, since a long one is counted for longer: equal occupancy at all
//! times is equal time. Of tenants that have equally little, the one that was given a task longest ago comes first, so that none of n waits for more than
//! n − 1 tasks of equals.

use std::cmp::Ordering;
use std::num::NonZeroU32;

/// What a tenant has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantLoad {
    /// Leased tasks, in the whole cluster.
    pub running: u64,
    /// Its weight: twice the share, twice the tasks.
    pub share: NonZeroU32,
    /// When it was last given a task, in milliseconds since 1970; 0 if never.
    pub last_leased_ms: u64,
}

impl TenantLoad {
    /// Less is served first.
    pub fn compare(&self, other: &Self) -> Ordering {
        let (mine, others) =
            (u128::from(self.running) * u128::from(other.share.get()), u128::from(other.running) * u128::from(self.share.get()));
        mine.cmp(&others).then(self.last_leased_ms.cmp(&other.last_leased_ms))
    }

    /// Whether it has less for its share than another.
    pub(super) fn has_less(&self, other: &Self) -> bool {
        u128::from(self.running) * u128::from(other.share.get()) < u128::from(other.running) * u128::from(self.share.get())
    }

    /// Whether it has at most its part of all that runs: what it would have if all tenants wanted more.
    pub(super) fn is_within_guarantee(&self, loads: &[Self]) -> bool {
        let running: u128 = loads.iter().map(|load| u128::from(load.running)).sum();
        let shares: u128 = loads.iter().map(|load| u128::from(load.share.get())).sum();
        u128::from(self.running) * shares <= running * u128::from(self.share.get())
    }

    /// Whether it has at most so many percent more for its share than another. Nobody is close to who has nothing, so that the latter is not passed over.
    pub(super) fn is_close(&self, least: &Self, slack_percent: u32) -> bool {
        let (mine, others) =
            (u128::from(self.running) * u128::from(least.share.get()), u128::from(least.running) * u128::from(self.share.get()));
        others > 0 && mine * 100 <= others * (100 + u128::from(slack_percent))
    }

    /// After it was given one more in this call.
    pub(super) fn served(&mut self) {
        self.running = self.running.saturating_add(1);
        self.last_leased_ms = u64::MAX;
    }
}
