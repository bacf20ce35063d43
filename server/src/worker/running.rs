//! The tasks that run in this process, and how to stop them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::engine::{Lease, Subject};

/// Why a running task is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Its job was cancelled or has expired: the engine knows how to end it.
    Ended,
    /// The worker shuts down: the task goes back to the queue.
    Release,
    /// Another worker has it, or it was settled already: nothing may be written.
    Fenced,
}

/// The flag of one running task. The first reason stays.
#[derive(Debug, Default)]
pub(super) struct StopFlag(AtomicU8);

impl StopFlag {
    pub(super) fn raise(&self, reason: StopReason) {
        let code = match reason {
            StopReason::Ended => 1,
            StopReason::Release => 2,
            StopReason::Fenced => 3,
        };
        // A lost race means that a reason is there already.
        let _ = self.0.compare_exchange(0, code, Ordering::AcqRel, Ordering::Acquire);
    }

    pub(super) fn reason(&self) -> Option<StopReason> {
        match self.0.load(Ordering::Acquire) {
            1 => Some(StopReason::Ended),
            2 => Some(StopReason::Release),
            3 => Some(StopReason::Fenced),
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Entry {
    flag: Arc<StopFlag>,
    session: String,
    started: Instant,
    is_shared: bool,
}

/// What was done so far.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkDone {
    /// Attempts that ended.
    pub n_ended: u64,
    /// Time of attempts, of those that run too; two at a time count twice.
    pub busy: Duration,
}

/// All running tasks.
#[derive(Debug, Default)]
pub struct Running {
    tasks: Mutex<HashMap<Lease, Entry>>,
    /// Of those that ended.
    done: Mutex<WorkDone>,
}

impl Running {
    /// Tells the tasks of a subject to stop, if they run here.
    pub fn stop(&self, subject: &Subject, reason: StopReason) {
        for (lease, entry) in &*self.lock() {
            if lease.task.subject == *subject {
                entry.flag.raise(reason);
            }
        }
    }

    /// Tells every task to stop.
    pub fn stop_all(&self, reason: StopReason) {
        for entry in self.lock().values() {
            entry.flag.raise(reason);
        }
    }

    pub(super) fn stop_lease(&self, lease: &Lease, reason: StopReason) {
        if let Some(entry) = self.lock().get(lease) {
            entry.flag.raise(reason);
        }
    }

    /// Tells every task of a session to stop.
    pub(super) fn stop_session(&self, session: &str, reason: StopReason) {
        for entry in self.lock().values().filter(|entry| entry.session == session) {
            entry.flag.raise(reason);
        }
    }

    /// What a session holds.
    pub(super) fn held(&self, session: &str) -> Vec<Lease> {
        self.lock().iter().filter(|(_, entry)| entry.session == session).map(|(lease, _)| lease.clone()).collect()
    }

    /// What has run for longer, and was not told to stop because of that.
    pub(super) fn older_than(&self, limit: Duration) -> Vec<Lease> {
        let tasks = self.lock();
        let is_late = |entry: &Entry| entry.started.elapsed() > limit && entry.flag.reason() != Some(StopReason::Fenced);
        tasks.iter().filter(|(_, entry)| is_late(entry)).map(|(lease, _)| lease.clone()).collect()
    }

    /// Whether something has run for longer, whatever it was told.
    pub(super) fn is_hung(&self, limit: Duration) -> bool {
        self.lock().values().any(|entry| entry.started.elapsed() > limit)
    }

    pub(super) fn enter(&self, lease: &Lease, session: &str) -> Arc<StopFlag> {
        let flag = Arc::new(StopFlag::default());
        let mut tasks = self.lock();
        for other in tasks.values_mut() {
            other.is_shared = true;
        }
        let entry = Entry { flag: flag.clone(), session: session.to_owned(), started: Instant::now(), is_shared: !tasks.is_empty() };
        tasks.insert(lease.clone(), entry);
        flag
    }

    /// Whether others ran, or run, at the same time.
    pub(super) fn is_shared(&self, lease: &Lease) -> bool {
        self.lock().get(lease).is_some_and(|entry| entry.is_shared)
    }

    pub(super) fn leave(&self, lease: &Lease) {
        let mut tasks = self.lock();
        let Some(entry) = tasks.remove(lease) else { return };
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.n_ended += 1;
        done.busy += entry.started.elapsed();
    }

    /// What was done so far.
    pub fn done(&self) -> WorkDone {
        // Both at once, so that no attempt is missing or there twice.
        let tasks = self.lock();
        let done = *self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let running: Duration = tasks.values().map(|entry| entry.started.elapsed()).sum();
        WorkDone { busy: done.busy + running, ..done }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Lease, Entry>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{SubjectKind, TaskKey};

    fn lease(job: &str, name: &str) -> Lease {
        let subject = Subject { kind: SubjectKind::Job, tenant: "a".into(), id: job.into() };
        Lease { task: TaskKey { subject, name: name.into() }, epoch: 1 }
    }

    #[test]
    fn a_task_that_ran_beside_others_is_told_from_one_that_was_always_alone() {
        let running = Running::default();
        let leases = [lease("1", "prove"), lease("2", "prove"), lease("3", "prove")];
        running.enter(&leases[0], "s");
        assert!(!running.is_shared(&leases[0]));
        running.enter(&leases[1], "s");
        running.leave(&leases[1]);
        assert!(running.is_shared(&leases[0]), "though it is alone again");
        running.leave(&leases[0]);
        running.enter(&leases[2], "s");
        assert!(!running.is_shared(&leases[2]));
    }

    #[test]
    fn tasks_are_stopped_by_subject_by_session_and_one_by_one_and_the_first_reason_stays() {
        let running = Running::default();
        let leases = [lease("1", "layer-0000"), lease("1", "layer-0001"), lease("2", "prove")];
        let flags: Vec<_> = leases.iter().zip(["s", "t", "t"]).map(|(lease, session)| running.enter(lease, session)).collect();
        let reasons = || flags.iter().map(|flag| flag.reason()).collect::<Vec<_>>();
        running.stop_lease(&leases[2], StopReason::Fenced);
        assert_eq!(reasons(), [None, None, Some(StopReason::Fenced)]);
        running.stop(&leases[0].task.subject, StopReason::Ended);
        running.stop_session("t", StopReason::Release);
        running.stop_all(StopReason::Release);
        assert_eq!(reasons(), [Some(StopReason::Ended), Some(StopReason::Ended), Some(StopReason::Fenced)]);
        assert_eq!(running.held("s"), leases[..1]);
        running.leave(&leases[0]);
        assert!(running.held("s").is_empty());
        running.leave(&leases[0]);
        assert_eq!(running.done().n_ended, 1, "each is counted once");
        assert_eq!(running.older_than(Duration::ZERO), [leases[1].clone()]);
        assert!(running.is_hung(Duration::ZERO) && !running.is_hung(Duration::from_secs(3600)));
    }
}
