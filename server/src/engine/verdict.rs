//! What becomes of a task after a failed attempt: [`crate::placement::retry`] decides, and here its decision becomes what is stored and told.

use std::time::Duration;

use zkinfer_proto::v1;

use super::{FailedAttempt, FailureCause};
use crate::placement::retry::{self, Budgets, Cause, Failure, Fleet, History, Need, Session};
use crate::placement::{Pool, Sharing};

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// Queue it again, not before this has passed, with these needs of memory.
    Retry { after: Duration, device_bytes: u64, host_bytes: u64 },
    /// Fail its subject.
    Fail(v1::Failure),
}

/// A task that failed, as far as it matters.
#[derive(Debug, Clone, Copy)]
pub(super) struct Failed<'a> {
    pub(super) history: History,
    /// All attempts so far.
    pub(super) attempts: u32,
    /// What it asks for.
    pub(super) device_bytes: u64,
    pub(super) host_bytes: u64,
    /// Most device memory that it alone took; 0 if unknown.
    pub(super) peak_device_bytes: u64,
    /// The same of its host.
    pub(super) peak_host_bytes: u64,
    /// The largest device that there is; `None` if that is not asked for, or processors take what no device can hold.
    pub(super) largest_device_bytes: Option<u64>,
    /// The largest host of a worker whose device holds it; `None` if that is not asked for, or not known of one.
    pub(super) largest_host_bytes: Option<u64>,
    /// Its name and epoch: they make the wait.
    pub(super) name: &'a str,
    pub(super) epoch: i64,
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

    fn cause(self) -> Option<Cause> {
        Some(match self {
            // A bug: another attempt gives the same.
            Self::Internal => return None,
            Self::InvalidInput => Cause::InvalidInput,
            Self::HostMemory => Cause::HostOom,
            Self::DeviceMemory => Cause::DeviceOom,
            Self::DeviceLost => Cause::DeviceLost,
            Self::Storage => Cause::Storage,
            Self::VerifyFailed => Cause::VerifyFailed,
            Self::Timeout => Cause::Timeout,
        })
    }
}

/// The budgets: those of the table, or smaller ones by the service's limits.
pub(super) fn budgets(attempts: u32, deaths: u32, backoff: Duration) -> Budgets {
    let table = Budgets::default();
    Budgets {
        task: table.task.min(attempts),
        infrastructure: table.infrastructure.min(attempts),
        memory: table.memory.min(attempts),
        killed_sessions: deaths,
        backoff_ms: u64::try_from(backoff.as_millis()).unwrap_or(u64::MAX),
        ..table
    }
}

/// Decides after an attempt failed.
pub(super) fn decide(attempt: &FailedAttempt, failed: &Failed<'_>, budgets: &Budgets) -> (History, Verdict) {
    let may_pass = !matches!(attempt.cause, FailureCause::InvalidInput | FailureCause::Internal);
    let reason = if attempt.reason.is_empty() { attempt.cause.as_str() } else { attempt.reason.as_str() };
    // What went wrong inside is for the log only.
    let message = match attempt.cause {
        FailureCause::Internal => "an internal error of the prover; the service's log has it",
        _ => attempt.message.as_str(),
    };
    let failure = v1::Failure {
        reason: reason.into(),
        message: message.into(),
        retryable: may_pass,
        attempts: failed.attempts,
        stage: String::new(),
    };
    match attempt.cause.cause() {
        Some(cause) => ask(failed, cause, Session::Lives, budgets, failure),
        None => (failed.history, Verdict::Fail(failure)),
    }
}

/// Decides after a worker died, or gave no sign of life for the length of a lease. `with_service`: the service itself died with a task of its own
/// workers, and whose fault that was is not known, so that more of it is borne.
pub(super) fn decide_death(failed: &Failed<'_>, with_service: bool, budgets: &Budgets) -> (History, Verdict) {
    let session = if with_service { Session::Lives } else { Session::Died };
    // Nobody's death is held against it whose cause is not known: then it was not the job's fault, and may be tried again.
    let (reason, message) = match with_service {
        true => (FailureCause::DeviceLost.as_str(), "the service ended, or lost its workers, too often while they worked on it"),
        false => ("POISONED", "its workers died, or went silent, while working on it"),
    };
    let failure = v1::Failure {
        reason: reason.into(),
        message: message.into(),
        retryable: with_service,
        attempts: failed.attempts,
        stage: String::new(),
    };
    // Deaths have a budget of their own; that of the surroundings must not end it earlier.
    let infrastructure = if with_service { Budgets::default().infrastructure } else { u32::MAX };
    let (history, verdict) = ask(failed, Cause::LeaseLost, session, &Budgets { infrastructure, ..*budgets }, failure);
    // Whoever takes it next is another.
    let at_once = |verdict| match verdict {
        Verdict::Retry { device_bytes, host_bytes, .. } => Verdict::Retry { after: Duration::ZERO, device_bytes, host_bytes },
        fail @ Verdict::Fail(_) => fail,
    };
    (history, at_once(verdict))
}

fn ask(failed: &Failed<'_>, cause: Cause, session: Session, budgets: &Budgets, told: v1::Failure) -> (History, Verdict) {
    let &Failed { device_bytes, host_bytes, peak_device_bytes, peak_host_bytes, .. } = failed;
    let need = Need { device_bytes, host_bytes, pool: Pool::Any, sharing: Sharing::Shared };
    let failure = Failure { cause, session, peak_device_bytes, peak_host_bytes };
    // A need that fits nowhere is no reason to fail yet: a larger device may come, and the wait for it has an end of its own.
    let most_bytes = device_bytes.max(peak_device_bytes);
    let device_bytes = failed.largest_device_bytes.filter(|&largest| most_bytes < largest).unwrap_or(u64::MAX);
    let fleet = Fleet { device_bytes, cpu_bytes: 0, host_bytes: failed.largest_host_bytes.unwrap_or(u64::MAX) };
    match retry::decide(&failure, &failed.history, &need, &fleet, budgets, seed(failed)) {
        retry::Verdict::Requeue { after_ms, need, history } => {
            let retry =
                Verdict::Retry { after: Duration::from_millis(after_ms), device_bytes: need.device_bytes, host_bytes: need.host_bytes };
            (history, retry)
        }
        retry::Verdict::Fail { history, .. } => (history, Verdict::Fail(told)),
    }
}

/// Differs from task to task and attempt to attempt.
fn seed(failed: &Failed<'_>) -> u64 {
    let name = failed.name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    name ^ failed.epoch.unsigned_abs().wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn attempt(cause: FailureCause) -> FailedAttempt {
        FailedAttempt { cause, reason: String::new(), message: "weights: 1, 2, 3".into(), damaged: Vec::new() }
    }

    fn failed(history: History, attempts: u32) -> Failed<'static> {
        Failed {
            history,
            attempts,
            device_bytes: 100,
            host_bytes: 0,
            peak_device_bytes: 200,
            peak_host_bytes: 400,
            largest_device_bytes: None,
            largest_host_bytes: None,
            name: "layer-0001",
            epoch: i64::from(attempts),
        }
    }

    /// Fails until the subject fails; answers the failure.
    fn run(cause: FailureCause, budgets: &Budgets) -> v1::Failure {
        let mut history = History::default();
        for attempts in 1.. {
            match decide(&attempt(cause), &failed(history, attempts), budgets) {
                (after, Verdict::Retry { after: wait, .. }) => {
                    assert!(wait <= SECOND * (1 << (attempts - 1)));
                    history = after;
                }
                (_, Verdict::Fail(failure)) => return failure,
            }
        }
        unreachable!("every budget ends")
    }

    #[test]
    fn what_may_pass_is_tried_again_until_its_budget_ends() {
        let usual = budgets(u32::MAX, 2, SECOND);
        for (cause, limit) in [
            (FailureCause::DeviceLost, usual.infrastructure),
            (FailureCause::Storage, usual.infrastructure),
            (FailureCause::VerifyFailed, usual.task),
            (FailureCause::Timeout, usual.task),
            (FailureCause::DeviceMemory, usual.memory),
            (FailureCause::HostMemory, usual.memory),
        ] {
            let failure = run(cause, &usual);
            assert_eq!((failure.reason.as_str(), failure.attempts, failure.retryable), (cause.as_str(), limit, true));
        }
        assert_eq!(run(FailureCause::Storage, &budgets(2, 2, SECOND)).attempts, 2, "a smaller limit ends it earlier");
    }

    #[test]
    fn a_task_that_ran_out_of_memory_asks_for_more_than_it_took() {
        let asked_on = |largest_device_bytes| {
            let failed = Failed { largest_device_bytes, ..failed(History::default(), 1) };
            match decide(&attempt(FailureCause::DeviceMemory), &failed, &budgets(8, 2, SECOND)) {
                (_, Verdict::Retry { device_bytes, .. }) => device_bytes,
                (_, Verdict::Fail(failure)) => panic!("{failure:?}"),
            }
        };
        assert_eq!([None, Some(1000), Some(250)].map(asked_on), [250; 3]);
        assert_eq!(asked_on(Some(220)), 210, "the largest device holds what it took");
        assert_eq!(asked_on(Some(200)), 250, "it does not: a larger one may come");
    }

    #[test]
    fn a_task_that_its_host_had_no_memory_for_asks_for_more_and_at_most_for_the_largest() {
        let asked = |peak_host_bytes, largest_host_bytes| {
            let failed = Failed { peak_host_bytes, largest_host_bytes, ..failed(History::default(), 1) };
            match decide(&attempt(FailureCause::HostMemory), &failed, &budgets(8, 2, SECOND)) {
                (history, Verdict::Retry { device_bytes, host_bytes, .. }) => (device_bytes, host_bytes, history.memory),
                (_, Verdict::Fail(failure)) => panic!("{failure:?}"),
            }
        };
        assert_eq!(asked(400, None), (100, 500, 1));
        assert_eq!(asked(400, Some(450)), (100, 450, 1));
        assert_eq!(asked(0, Some(450)), (100, 0, 1), "what it took is not known: alone, anywhere");
    }

    #[test]
    fn the_callers_fault_fails_at_once_and_bugs_tell_nothing() {
        let usual = budgets(8, 2, SECOND);
        let failure = run(FailureCause::Internal, &usual);
        assert_eq!((failure.reason.as_str(), failure.attempts), ("INTERNAL", 1));
        assert!(!failure.message.contains("weights"));
        let rejected = FailedAttempt { reason: "SHAPE_MISMATCH".into(), ..attempt(FailureCause::InvalidInput) };
        let (_, verdict) = decide(&rejected, &failed(History::default(), 1), &usual);
        let Verdict::Fail(failure) = verdict else { panic!("fails") };
        assert_eq!((failure.reason.as_str(), failure.retryable), ("SHAPE_MISMATCH", false));
    }

    #[test]
    fn a_task_that_workers_die_of_is_given_up_and_more_deaths_of_the_service_are_borne() {
        let usual = budgets(1, 2, SECOND);
        let (history, verdict) = decide_death(&failed(History::default(), 1), false, &usual);
        assert_eq!(verdict, Verdict::Retry { after: Duration::ZERO, device_bytes: 100, host_bytes: 0 });
        let (_, verdict) = decide_death(&failed(history, 2), false, &usual);
        let Verdict::Fail(failure) = verdict else { panic!("fails") };
        assert_eq!((failure.reason.as_str(), failure.attempts), ("POISONED", 2));
        let mut history = History::default();
        for attempts in 1..Budgets::default().infrastructure {
            let (after, verdict) = decide_death(&failed(history, attempts), true, &usual);
            assert!(matches!(verdict, Verdict::Retry { .. }));
            history = after;
        }
        let (_, verdict) = decide_death(&failed(history, 8), true, &usual);
        let Verdict::Fail(failure) = verdict else { panic!("fails") };
        assert_eq!((failure.reason.as_str(), failure.retryable), ("DEVICE_LOST", true));
    }
}
