//! The tasks that run in this process, and how to stop them.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::engine::Subject;

/// Why a running task is told to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// Its job was cancelled or has expired: the engine knows how to end it.
    Ended,
    /// The service shuts down: the task goes back to the queue.
    Release,
    /// Another worker has it: nothing may be written.
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

/// All running tasks.
#[derive(Debug, Default)]
pub struct Running {
    flags: Mutex<HashMap<Subject, Arc<StopFlag>>>,
}

impl Running {
    /// Tells a subject's task to stop, if it runs here.
    pub fn stop(&self, subject: &Subject, reason: StopReason) {
        if let Some(flag) = self.lock().get(subject) {
            flag.raise(reason);
        }
    }

    /// Tells every task to stop.
    pub fn stop_all(&self, reason: StopReason) {
        for flag in self.lock().values() {
            flag.raise(reason);
        }
    }

    pub(super) fn enter(&self, subject: &Subject) -> Arc<StopFlag> {
        let flag = Arc::new(StopFlag::default());
        self.lock().insert(subject.clone(), flag.clone());
        flag
    }

    pub(super) fn leave(&self, subject: &Subject) {
        self.lock().remove(subject);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Subject, Arc<StopFlag>>> {
        self.flags.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
