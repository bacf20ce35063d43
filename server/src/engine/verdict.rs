//! What becomes of a task after a failed attempt. The only table of causes, reasons and budgets; a pure function.

use std::time::Duration;

use zkinfer_proto::v1;

use super::{FailedAttempt, FailureCause};

/// Attempts at a task that fails by itself.
pub(super) const MAX_TASK_FAILURES: u32 = 3;
/// Attempts that what surrounds a task may spoil: devices, stores, workers that vanish.
pub(super) const MAX_INFRA_FAILURES: u32 = 8;
/// Attempts that memory may spoil.
pub(super) const MAX_MEMORY_FAILURES: u32 = 3;
/// Doublings of the wait before the next attempt.
const MAX_DOUBLINGS: u32 = 10;

/// How often a task has failed so far, by what was to blame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Failures {
    /// The task itself.
    pub(super) task: u32,
    /// What surrounds it.
    pub(super) infra: u32,
    /// Memory.
    pub(super) memory: u32,
    /// Workers that died with it.
    pub(super) deaths: u32,
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// Queue it again, not before this has passed.
    Retry { after: Duration },
    /// Fail its subject.
    Fail(v1::Failure),
}

impl FailureCause {
    /// As it is stored and told.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InvalidInput => "INVALID_INPUT",
            Self::Internal => "INTERNAL",
            Self::HostMemory => "HOST_MEMORY",
            Self::DeviceMemory => "DEVICE_MEMORY",
            Self::DeviceLost => "DEVICE_LOST",
            Self::Storage => "STORAGE",
            Self::VerifyFailed => "PROOF_INVALID",
            Self::Timeout => "TASK_TIMEOUT",
        }
    }
}

/// Decides after an attempt failed; answers with the failures as they are now. `attempts` counts all so far; `budget` bounds
/// each kind of failure from above, and `backoff` is the wait after the first.
pub(super) fn decide(failed: &FailedAttempt, before: Failures, attempts: u32, budget: u32, backoff: Duration) -> (Failures, Verdict) {
    let mut failures = before;
    let (count, limit) = match failed.cause {
        FailureCause::InvalidInput | FailureCause::Internal => (&mut failures.task, 1),
        FailureCause::VerifyFailed | FailureCause::Timeout => (&mut failures.task, MAX_TASK_FAILURES),
        FailureCause::HostMemory | FailureCause::DeviceMemory => (&mut failures.memory, MAX_MEMORY_FAILURES),
        FailureCause::DeviceLost | FailureCause::Storage => (&mut failures.infra, MAX_INFRA_FAILURES),
    };
    *count += 1;
    let may_pass = !matches!(failed.cause, FailureCause::InvalidInput | FailureCause::Internal);
    if may_pass && *count < limit.min(budget) {
        let after = backoff.saturating_mul(1 << (*count - 1).min(MAX_DOUBLINGS));
        return (failures, Verdict::Retry { after });
    }
    let reason = if failed.reason.is_empty() { failed.cause.as_str() } else { failed.reason.as_str() };
    // What went wrong inside is for the log only.
    let message = match failed.cause {
        FailureCause::Internal => "an internal error of the prover; the service's log has it",
        _ => failed.message.as_str(),
    };
    let failure = v1::Failure { reason: reason.into(), message: message.into(), retryable: may_pass, attempts, stage: String::new() };
    (failures, Verdict::Fail(failure))
}

/// Decides after a worker died, or gave no sign of life for the length of a lease; `limit` deaths are too many.
pub(super) fn decide_death(before: Failures, attempts: u32, limit: u32) -> (Failures, Verdict) {
    let failures = Failures { deaths: before.deaths + 1, ..before };
    if failures.deaths < limit {
        return (failures, Verdict::Retry { after: Duration::ZERO });
    }
    let message = format!("{} workers died, or went silent, while working on it", failures.deaths);
    let failure = v1::Failure { reason: "POISONED".into(), message, retryable: false, attempts, stage: String::new() };
    (failures, Verdict::Fail(failure))
}

/// Decides after the service itself died with a task of its own workers: whose fault that was is not known, so that more of it is borne.
pub(super) fn decide_service_death(before: Failures, attempts: u32, budget: u32) -> (Failures, Verdict) {
    let failures = Failures { infra: before.infra + 1, ..before };
    if failures.infra < MAX_INFRA_FAILURES.max(budget) {
        return (failures, Verdict::Retry { after: Duration::ZERO });
    }
    let message = format!("the service died {} times while working on it", failures.infra);
    let failure = v1::Failure { reason: "POISONED".into(), message, retryable: false, attempts, stage: String::new() };
    (failures, Verdict::Fail(failure))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn failed(cause: FailureCause) -> FailedAttempt {
        FailedAttempt { cause, reason: String::new(), message: "weights: 1, 2, 3".into() }
    }

    /// Fails until the subject fails; answers the waits and the failure.
    fn run(cause: FailureCause, budget: u32) -> (Vec<Duration>, v1::Failure) {
        let (mut failures, mut waits) = (Failures::default(), Vec::new());
        for attempts in 1.. {
            match decide(&failed(cause), failures, attempts, budget, SECOND) {
                (after, Verdict::Retry { after: wait }) => (failures, _) = (after, waits.push(wait)),
                (_, Verdict::Fail(failure)) => return (waits, failure),
            }
        }
        unreachable!("every budget ends")
    }

    #[test]
    fn what_may_pass_is_tried_again_with_growing_waits_until_its_budget_ends() {
        for (cause, limit) in [
            (FailureCause::DeviceLost, MAX_INFRA_FAILURES),
            (FailureCause::Storage, MAX_INFRA_FAILURES),
            (FailureCause::VerifyFailed, MAX_TASK_FAILURES),
            (FailureCause::Timeout, MAX_TASK_FAILURES),
            (FailureCause::DeviceMemory, MAX_MEMORY_FAILURES),
        ] {
            let (waits, failure) = run(cause, u32::MAX);
            let expected: Vec<Duration> = (0..limit - 1).map(|doublings| SECOND * (1 << doublings)).collect();
            assert_eq!(waits, expected, "{cause:?}");
            assert_eq!((failure.reason.as_str(), failure.attempts, failure.retryable), (cause.as_str(), limit, true));
        }
        assert_eq!(run(FailureCause::Storage, 2).0.len(), 1, "a smaller budget ends earlier");
    }

    #[test]
    fn the_callers_fault_fails_at_once_and_bugs_tell_nothing() {
        let (waits, failure) = run(FailureCause::Internal, 8);
        assert!(waits.is_empty());
        assert_eq!(failure.reason, "INTERNAL");
        assert!(!failure.message.contains("weights"));
        let rejected = FailedAttempt { reason: "SHAPE_MISMATCH".into(), ..failed(FailureCause::InvalidInput) };
        let (_, verdict) = decide(&rejected, Failures::default(), 1, 8, SECOND);
        let Verdict::Fail(failure) = verdict else { panic!("fails") };
        assert_eq!((failure.reason.as_str(), failure.retryable), ("SHAPE_MISMATCH", false));
    }

    #[test]
    fn failures_of_different_kinds_do_not_add_up() {
        let (failures, _) = decide(&failed(FailureCause::Timeout), Failures::default(), 1, 8, SECOND);
        let (failures, verdict) = decide(&failed(FailureCause::DeviceMemory), failures, 2, 8, SECOND);
        assert_eq!(verdict, Verdict::Retry { after: SECOND });
        assert_eq!(failures, Failures { task: 1, memory: 1, ..Failures::default() });
    }

    #[test]
    fn a_task_that_workers_die_of_is_given_up() {
        let (failures, verdict) = decide_death(Failures::default(), 1, 2);
        assert_eq!(verdict, Verdict::Retry { after: Duration::ZERO });
        let (_, verdict) = decide_death(failures, 2, 2);
        let Verdict::Fail(failure) = verdict else { panic!("fails") };
        assert_eq!((failure.reason.as_str(), failure.attempts), ("POISONED", 2));
    }

    #[test]
    fn more_deaths_of_the_service_are_borne() {
        let mut failures = Failures::default();
        for attempts in 1..MAX_INFRA_FAILURES {
            let (after, verdict) = decide_service_death(failures, attempts, 1);
            assert_eq!(verdict, Verdict::Retry { after: Duration::ZERO });
            failures = after;
        }
        let (_, verdict) = decide_service_death(failures, MAX_INFRA_FAILURES, 1);
        assert!(matches!(verdict, Verdict::Fail(failure) if failure.reason == "POISONED"));
    }
}
