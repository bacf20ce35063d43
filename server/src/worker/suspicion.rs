//! Whether a device computes wrongly: what it made did not verify, for different tasks in a row.

use std::sync::{Mutex, PoisonError};

use crate::engine::TaskKey;

/// What is held against a device.
#[derive(Debug, Default)]
pub(super) struct Suspicion(Mutex<Option<TaskKey>>);

impl Suspicion {
    /// Told after every attempt whether its output was refused by the worker's own verification. Answers whether the device is to be tested before
    /// it gets another task: one refused task may be at fault itself (what it read may be wrong), two different ones without a good one between
    /// them are not.
    pub(super) fn after(&self, task: &TaskKey, is_refused: bool) -> bool {
        let mut before = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_refused {
            *before = None;
            return false;
        }
        match before.as_ref() {
            Some(other) => other != task,
            None => {
                *before = Some(task.clone());
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Subject, SubjectKind};

    fn task(name: &str) -> TaskKey {
        TaskKey { subject: Subject { kind: SubjectKind::Job, tenant: "t".into(), id: "j".into() }, name: name.into() }
    }

    #[test]
    fn two_different_tasks_without_a_good_one_between_them() {
        let suspicion = Suspicion::default();
        assert!(!suspicion.after(&task("layer-0000"), true));
        assert!(!suspicion.after(&task("layer-0000"), true), "the task may be at fault");
        assert!(suspicion.after(&task("layer-0001"), true));
        assert!(!suspicion.after(&task("layer-0002"), false));
        assert!(!suspicion.after(&task("layer-0001"), true), "a good one came between");
        assert!(suspicion.after(&task("layer-0000"), true));
    }
}
