//! The order of a tenant's tasks: level, then whether something must be moved, then rank, then age, then key.
//!
//! A level is `clamp(priority) − ⌊created / aging⌋`: a number that never changes, so that an index of the database sorts by it, and yet jobs age: who
//! is created `aging_ms` later has one level less. Hence no job overtakes another that was created `(2 span + 1) aging_ms` earlier
//! (docs/SCHEDULING.md, "Starvation").

use std::cmp::Reverse;

use super::limits::Limits;
use super::task::{Candidate, TaskKey};

/// The level of a job: the higher, the sooner. What the database's index of ready tasks sorts by first.
pub fn level(priority: i32, job_created_ms: u64, limits: &Limits) -> i64 {
    let span = i32::from(limits.priority_span);
    let age_steps = job_created_ms / limits.aging_ms.max(1);
    i64::from(priority.clamp(-span, span)).saturating_sub(i64::try_from(age_steps).unwrap_or(i64::MAX))
}

/// Least first. Who need move nothing comes first within a level, and only there: a cached model is worth at most `aging_ms` of age.
pub(super) type Order = (Reverse<i64>, bool, Reverse<u64>, u64, TaskKey);

pub(super) fn order(candidate: &Candidate, moved_ms: u64, limits: &Limits) -> Order {
    let level = level(candidate.priority, candidate.job_created_ms, limits);
    (Reverse(level), moved_ms > 0, Reverse(candidate.rank_ms), candidate.job_created_ms, candidate.key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::config;
    use super::*;

    proptest! {
        #![proptest_config(config(500))]

        #[test]
        fn nobody_overtakes_who_came_the_bound_earlier(
            first in any::<i32>(), second in any::<i32>(), created in 0_u64..1 << 45, later in 0_u64..1 << 30
        ) {
            let limits = Limits::default();
            let after = created + limits.overtaking_ms() + later;
            prop_assert!(level(first, created, &limits) > level(second, after, &limits));
        }
    }

    #[test]
    fn a_step_of_priority_is_worth_one_step_of_age() {
        let limits = Limits::default();
        assert_eq!(level(0, 0, &limits), level(1, limits.aging_ms, &limits));
        assert_eq!(level(i32::MAX, 0, &limits), i64::from(limits.priority_span));
        assert_eq!(level(i32::MIN, 0, &limits), -i64::from(limits.priority_span));
    }
}
