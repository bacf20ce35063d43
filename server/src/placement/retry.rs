//! What a failed attempt leads to: the one table of causes.
//!
//! | cause | counts against | then |
//! |---|---|---|
//! | INVALID_INPUT | – | the job fails at once |
//! | PROVER_ERROR, VERIFY_FAILED, TIMEOUT | task, 3 | again after a backoff |
//! | DEVICE_LOST, STORAGE, LEASE_LOST | infrastructure, 8 | again after a backoff |
//! | DEVICE_OOM, HOST_OOM | memory, 2 | again with a greater need, or on processors |
//! | any, and the session died of it | sessions killed, 2 | again, alone on a device; then POISONED |
//!
//! A budget is a number of failures: with the last of them the job fails, with the reason of that cause.

use super::reserve::mix;
use super::task::{Pool, Sharing};

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Cause {
    /// The caller's model or input cannot be proved.
    InvalidInput,
    /// The prover failed.
    ProverError,
    /// Host memory ran out.
    HostOom,
    /// Device memory ran out.
    DeviceOom,
    /// The device failed.
    DeviceLost,
    /// An artifact could not be read or written.
    Storage,
    /// The worker's own output did not verify.
    VerifyFailed,
    /// It ran longer than it may.
    Timeout,
    /// The worker did not renew its lease.
    LeaseLost,
}

/// The budget that a cause counts against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counter {
    None,
    Task,
    Infrastructure,
    Memory,
}

impl Cause {
    /// Every cause.
    pub const ALL: [Self; 9] = [
        Self::InvalidInput,
        Self::ProverError,
        Self::HostOom,
        Self::DeviceOom,
        Self::DeviceLost,
        Self::Storage,
        Self::VerifyFailed,
        Self::Timeout,
        Self::LeaseLost,
    ];

    /// Its stable name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::InvalidInput => "INVALID_INPUT",
            Self::ProverError => "PROVER_ERROR",
            Self::HostOom => "HOST_OOM",
            Self::DeviceOom => "DEVICE_OOM",
            Self::DeviceLost => "DEVICE_LOST",
            Self::Storage => "STORAGE",
            Self::VerifyFailed => "VERIFY_FAILED",
            Self::Timeout => "TIMEOUT",
            Self::LeaseLost => "LEASE_LOST",
        }
    }

    /// The reason of a job that fails of it. A worker may name a more exact one for INVALID_INPUT, such as SHAPE_MISMATCH.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::InvalidInput => "INPUT_CORRUPT",
            Self::ProverError => "INTERNAL",
            Self::HostOom => "HOST_MEMORY",
            Self::DeviceOom => "DEVICE_MEMORY",
            Self::DeviceLost | Self::LeaseLost => "DEVICE_LOST",
            Self::Storage => "STORAGE",
            Self::VerifyFailed => "PROOF_INVALID",
            Self::Timeout => "TASK_TIMEOUT",
        }
    }

    const fn counter(self) -> Counter {
        match self {
            Self::InvalidInput => Counter::None,
            Self::ProverError | Self::VerifyFailed | Self::Timeout => Counter::Task,
            Self::DeviceLost | Self::Storage | Self::LeaseLost => Counter::Infrastructure,
            Self::HostOom | Self::DeviceOom => Counter::Memory,
        }
    }
}

/// What became of the session that ran the attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Session {
    /// It goes on.
    Lives,
    /// It ended while the task ran, and no earlier session that this task killed was the same.
    Died,
}

/// A failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// Why.
    pub cause: Cause,
    /// What became of the session.
    pub session: Session,
    /// Most device memory that it took, as measured; 0 if unknown.
    pub peak_device_bytes: u64,
    /// Most host memory that it took, as measured; 0 if unknown.
    pub peak_host_bytes: u64,
}

/// Failures of a task so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct History {
    /// Counted against the task itself.
    pub task: u32,
    /// Counted against the infrastructure.
    pub infrastructure: u32,
    /// Out of memory.
    pub memory: u32,
    /// Different sessions that died while it ran.
    pub killed_sessions: u32,
}

/// What a task asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// Device memory.
    pub device_bytes: u64,
    /// Host memory.
    pub host_bytes: u64,
    /// Devices that may run it.
    pub pool: Pool,
    /// Whether it may run beside others.
    pub sharing: Sharing,
}

/// What there is: the largest of each, over all live workers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fleet {
    /// Memory of the largest GPU; 0 if there is none.
    pub device_bytes: u64,
    /// Memory of the largest worker that proves on processors; 0 if there is none.
    pub cpu_bytes: u64,
    /// Host memory of the largest worker.
    pub host_bytes: u64,
}

/// Failures that end a job, and waits between attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budgets {
    /// Of the task itself.
    pub task: u32,
    /// Of the infrastructure.
    pub infrastructure: u32,
    /// Out of memory.
    pub memory: u32,
    /// Sessions killed.
    pub killed_sessions: u32,
    /// Longest wait after the first failure, in milliseconds; it doubles with every further one.
    pub backoff_ms: u64,
    /// Longest wait at all, in milliseconds.
    pub backoff_max_ms: u64,
}

impl Default for Budgets {
    fn default() -> Self {
        Self { task: 3, infrastructure: 8, memory: 2, killed_sessions: 2, backoff_ms: 1_000, backoff_max_ms: 60_000 }
    }
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Back to the queue.
    Requeue {
        /// Not before this many milliseconds have passed.
        after_ms: u64,
        /// What it asks for from here on.
        need: Need,
        /// Failures, this one included.
        history: History,
    },
    /// The job fails.
    Fail {
        /// Stable, such as `POISONED`.
        reason: &'static str,
        /// Failures, this one included.
        history: History,
    },
}

/// Decides about a failed attempt. `seed` makes the wait: equal seeds, equal waits; use one that differs from task to task and attempt to attempt, so
/// that tasks that failed together do not come back together.
pub fn decide(failure: &Failure, history: &History, need: &Need, fleet: &Fleet, budgets: &Budgets, seed: u64) -> Verdict {
    let (history, count, budget) = counted(failure, history, budgets);
    if history.killed_sessions >= budgets.killed_sessions && failure.session == Session::Died {
        return Verdict::Fail { reason: "POISONED", history };
    }
    if count >= budget {
        return Verdict::Fail { reason: failure.cause.reason(), history };
    }
    let raised = match failure.cause {
        Cause::DeviceOom => more_device_memory(failure, need, fleet),
        Cause::HostOom => more_host_memory(failure, need, fleet),
        Cause::InvalidInput
        | Cause::ProverError
        | Cause::DeviceLost
        | Cause::Storage
        | Cause::VerifyFailed
        | Cause::Timeout
        | Cause::LeaseLost => Some(*need),
    };
    let Some(mut need) = raised else { return Verdict::Fail { reason: failure.cause.reason(), history } };
    if failure.session == Session::Died {
        need.sharing = Sharing::Alone;
    }
    Verdict::Requeue { after_ms: backoff_ms(count, budgets, seed), need, history }
}

/// The history with this failure, and how the budget that it counts against stands.
fn counted(failure: &Failure, history: &History, budgets: &Budgets) -> (History, u32, u32) {
    let mut history = *history;
    if failure.session == Session::Died {
        history.killed_sessions = history.killed_sessions.saturating_add(1);
    }
    let (count, budget) = match failure.cause.counter() {
        Counter::None => return (history, 0, 0),
        Counter::Task => (&mut history.task, budgets.task),
        Counter::Infrastructure => (&mut history.infrastructure, budgets.infrastructure),
        Counter::Memory => (&mut history.memory, budgets.memory),
    };
    *count = count.saturating_add(1);
    let count = *count;
    (history, count, budget)
}

/// Full jitter: anything between at once and `backoff · 2^(failures − 1)`, all equally likely.
fn backoff_ms(failures: u32, budgets: &Budgets, seed: u64) -> u64 {
    let doublings = failures.saturating_sub(1).min(32);
    let longest = budgets.backoff_ms.saturating_mul(1 << doublings).min(budgets.backoff_max_ms);
    mix(seed) % longest.saturating_add(1)
}

/// A quarter more than was measured, and than was asked for.
fn raised(peak_bytes: u64, need_bytes: u64) -> u64 {
    let base = peak_bytes.max(need_bytes);
    base.saturating_add(base / 4)
}

/// On a larger device, or on processors if they have more; else alone on the largest, if what was measured fits there; else nowhere.
fn more_device_memory(failure: &Failure, need: &Need, fleet: &Fleet) -> Option<Need> {
    let device_bytes = raised(failure.peak_device_bytes, need.device_bytes);
    let largest = match need.pool {
        Pool::Any => fleet.device_bytes.max(fleet.cpu_bytes),
        Pool::Cpu => fleet.cpu_bytes,
    };
    if device_bytes <= largest {
        return Some(Need { device_bytes, ..*need });
    }
    let peak = failure.peak_device_bytes.max(need.device_bytes);
    (peak < largest).then(|| Need { device_bytes: peak + (largest - peak) / 2, sharing: Sharing::Alone, ..*need })
}

fn more_host_memory(failure: &Failure, need: &Need, fleet: &Fleet) -> Option<Need> {
    let host_bytes = raised(failure.peak_host_bytes, need.host_bytes).min(fleet.host_bytes);
    // Nowhere is more than it asked for. One that has not asked yet and is not measured runs alone, which may be enough.
    (need.host_bytes < fleet.host_bytes).then_some(Need { host_bytes, sharing: Sharing::Alone, ..*need })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::config;
    use super::*;

    const GIB: u64 = 1 << 30;
    const NEED: Need = Need { device_bytes: GIB, host_bytes: GIB, pool: Pool::Any, sharing: Sharing::Shared };
    const FLEET: Fleet = Fleet { device_bytes: 24 * GIB, cpu_bytes: 0, host_bytes: 64 * GIB };

    fn failure(cause: Cause) -> Failure {
        Failure { cause, session: Session::Lives, peak_device_bytes: 4 * GIB, peak_host_bytes: 2 * GIB }
    }

    /// Fails again and again until the job does: how many attempts that took, and the reason.
    fn attempts(failure: &Failure, fleet: &Fleet) -> (u32, &'static str) {
        let (mut history, mut need) = (History::default(), NEED);
        for attempt in 1..100 {
            match decide(failure, &history, &need, fleet, &Budgets::default(), u64::from(attempt)) {
                Verdict::Requeue { history: so_far, need: next, .. } => (history, need) = (so_far, next),
                Verdict::Fail { reason, .. } => return (attempt, reason),
            }
        }
        panic!("a task that always fails is tried without end");
    }

    #[test]
    fn every_cause_ends_after_its_budget_with_its_reason() {
        let expected = [
            (Cause::InvalidInput, 1, "INPUT_CORRUPT"),
            (Cause::ProverError, 3, "INTERNAL"),
            (Cause::HostOom, 2, "HOST_MEMORY"),
            (Cause::DeviceOom, 2, "DEVICE_MEMORY"),
            (Cause::DeviceLost, 8, "DEVICE_LOST"),
            (Cause::Storage, 8, "STORAGE"),
            (Cause::VerifyFailed, 3, "PROOF_INVALID"),
            (Cause::Timeout, 3, "TASK_TIMEOUT"),
            (Cause::LeaseLost, 8, "DEVICE_LOST"),
        ];
        assert_eq!(expected.map(|(cause, ..)| cause), Cause::ALL);
        for (cause, n, reason) in expected {
            assert_eq!(attempts(&failure(cause), &FLEET), (n, reason), "{}", cause.name());
        }
    }

    #[test]
    fn who_kills_a_session_runs_alone_and_is_poisoned_after_the_second() {
        let killing = Failure { session: Session::Died, ..failure(Cause::DeviceLost) };
        assert_eq!(attempts(&killing, &FLEET), (2, "POISONED"));
        let Verdict::Requeue { need, history, .. } = decide(&killing, &History::default(), &NEED, &FLEET, &Budgets::default(), 1) else {
            panic!("a first death is no proof")
        };
        assert_eq!((need.sharing, history.killed_sessions), (Sharing::Alone, 1));
        // A later failure of another sort does not poison, whatever died before.
        let verdict = decide(&failure(Cause::Storage), &History { killed_sessions: 1, ..history }, &need, &FLEET, &Budgets::default(), 1);
        assert!(matches!(verdict, Verdict::Requeue { need: Need { sharing: Sharing::Alone, .. }, .. }), "{verdict:?}");
    }

    #[test]
    fn memory_is_raised_a_quarter_above_the_peak_then_moved_to_processors() {
        let need_after = |peak_device_bytes, fleet: &Fleet| {
            let failure = Failure { peak_device_bytes, ..failure(Cause::DeviceOom) };
            match decide(&failure, &History::default(), &NEED, fleet, &Budgets::default(), 1) {
                Verdict::Requeue { need, .. } => Some(need),
                Verdict::Fail { .. } => None,
            }
        };
        assert_eq!(need_after(8 * GIB, &FLEET), Some(Need { device_bytes: 10 * GIB, ..NEED }));
        assert_eq!(need_after(0, &FLEET), Some(Need { device_bytes: GIB + GIB / 4, ..NEED }));
        assert_eq!(need_after(22 * GIB, &FLEET), Some(Need { device_bytes: 23 * GIB, sharing: Sharing::Alone, ..NEED }));
        assert_eq!(need_after(24 * GIB, &FLEET), None);
        let with_cpus = Fleet { cpu_bytes: 256 * GIB, ..FLEET };
        assert_eq!(need_after(24 * GIB, &with_cpus), Some(Need { device_bytes: 30 * GIB, ..NEED }));
    }

    #[test]
    fn host_memory_is_raised_up_to_the_largest_worker() {
        let need_after = |peak_host_bytes| {
            let failure = Failure { peak_host_bytes, ..failure(Cause::HostOom) };
            decide(&failure, &History::default(), &NEED, &Fleet { host_bytes: 2 * GIB, ..FLEET }, &Budgets::default(), 1)
        };
        assert!(matches!(need_after(GIB), Verdict::Requeue { need: Need { host_bytes, .. }, .. } if host_bytes == GIB + GIB / 4));
        assert!(matches!(need_after(4 * GIB), Verdict::Requeue { need: Need { host_bytes, .. }, .. } if host_bytes == 2 * GIB));
        let unknown = Failure { peak_host_bytes: 0, ..failure(Cause::HostOom) };
        let verdict = decide(&unknown, &History::default(), &Need { host_bytes: 0, ..NEED }, &FLEET, &Budgets::default(), 1);
        let alone = Need { host_bytes: 0, sharing: Sharing::Alone, ..NEED };
        assert!(matches!(verdict, Verdict::Requeue { need, .. } if need == alone), "{verdict:?}");
        let failure = failure(Cause::HostOom);
        let fleet = Fleet { host_bytes: GIB, ..FLEET };
        let verdict = decide(&failure, &History::default(), &NEED, &fleet, &Budgets::default(), 1);
        assert!(matches!(verdict, Verdict::Fail { reason: "HOST_MEMORY", .. }), "{verdict:?}");
    }

    proptest! {
        #![proptest_config(config(500))]

        #[test]
        fn a_task_that_always_fails_ends_its_job(causes in prop::collection::vec((0_usize..9, any::<bool>()), 40), seed in any::<u64>()) {
            let (mut history, mut need, budgets) = (History::default(), NEED, Budgets::default());
            for (attempt, (cause, died)) in causes.into_iter().enumerate() {
                let session = if died { Session::Died } else { Session::Lives };
                let failure = Failure { session, ..failure(Cause::ALL[cause]) };
                let verdict = decide(&failure, &history, &need, &FLEET, &budgets, seed ^ attempt as u64);
                prop_assert_eq!(verdict, decide(&failure, &history, &need, &FLEET, &budgets, seed ^ attempt as u64));
                match verdict {
                    Verdict::Fail { .. } => return Ok(()),
                    Verdict::Requeue { after_ms, need: next, history: so_far } => {
                        prop_assert!(after_ms <= budgets.backoff_max_ms);
                        prop_assert!(next.device_bytes >= need.device_bytes && next.device_bytes <= FLEET.device_bytes);
                        (history, need) = (so_far, next);
                    }
                }
            }
            prop_assert!(false, "forty failures and no end");
        }

        #[test]
        fn waits_spread_over_the_whole_of_the_backoff(seed in any::<u64>(), failures in 1_u32..8) {
            let budgets = Budgets::default();
            let longest = (budgets.backoff_ms << (failures - 1)).min(budgets.backoff_max_ms);
            let waits: Vec<u64> = (0..64).map(|task| backoff_ms(failures, &budgets, seed.wrapping_add(task))).collect();
            prop_assert!(waits.iter().all(|&wait| wait <= longest));
            prop_assert!(waits.iter().any(|&wait| wait < longest / 4) && waits.iter().any(|&wait| wait > longest / 4 * 3));
        }
    }
}
