//! What a supervisor knows of its children and their devices, for whoever asks it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use zkinfer_circuits::backend::Condition;

use super::ChildSpec;
use super::report::WorkReport;
use super::words::Word;
use crate::observe::DeviceReport;
use crate::prover::BackendInfo;

/// A child, or a device that was given none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChildState {
    /// For people, such as `cuda:0 (NVIDIA H100)`.
    pub title: String,
    /// A supervisor keeps a process for it; else its device was passed over from the start.
    pub is_kept: bool,
    /// Its process runs and has opened a session.
    pub has_session: bool,
    /// Processes that were started for it.
    pub n_starts: u64,
    /// What they did, all together.
    pub work: WorkReport,
    /// Whether the driver's management library watches its device; `None`: it is the CPU.
    pub is_watched: Option<bool>,
    /// Why nothing is started on its device any more, if nothing is.
    pub cordoned: Option<String>,
    /// What those before this one did.
    earlier: WorkReport,
}

/// How a process of a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Death {
    /// Its device failed, or is suspected to compute wrongly.
    DeviceGivenUp,
    /// Anything else, which tells nothing of the device.
    Other,
}

/// All children, by name. What a supervisor writes and others read.
#[derive(Debug, Default)]
pub struct Children(Mutex<BTreeMap<String, ChildState>>);

impl Children {
    /// As they are now.
    pub fn states(&self) -> BTreeMap<String, ChildState> {
        self.lock().clone()
    }

    /// Nothing is ever started on this device: it failed its test.
    pub fn pass_over(&self, name: &str, title: &str, reason: &str) {
        let passed_over =
            ChildState { title: title.to_owned(), is_watched: Some(false), cordoned: Some(reason.to_owned()), ..ChildState::default() };
        self.lock().insert(name.to_owned(), passed_over);
    }

    /// Who computes, in place of the process that keeps the children, and which devices do not; `None` if there are no children.
    pub(crate) fn backend(&self) -> Option<BackendInfo> {
        let states = self.states();
        let kept: Vec<&ChildState> = states.values().filter(|child| child.is_kept).collect();
        if kept.is_empty() {
            return None;
        }
        let able: Vec<&str> = kept.iter().filter(|child| child.cordoned.is_none()).map(|child| child.title.as_str()).collect();
        let name = if able.is_empty() { "no device".to_owned() } else { able.join(" and ") };
        let mut reason = "a process of its own computes on each device".to_owned();
        for child in states.values() {
            if let Some(cause) = &child.cordoned {
                reason += &format!("; {} is not used: {cause}", child.title);
            }
        }
        Some(BackendInfo { name, reason })
    }

    /// Why nobody computes any more, if every child's device is cordoned.
    pub(crate) fn none_left(&self) -> Option<String> {
        let states = self.states();
        let kept: Vec<&ChildState> = states.values().filter(|child| child.is_kept).collect();
        let causes = kept.iter().map(|child| child.cordoned.as_ref().map(|cause| format!("{}: {cause}", child.title)));
        let causes: Vec<String> = causes.collect::<Option<_>>()?;
        (!causes.is_empty()).then(|| causes.join("; "))
    }

    /// Known from now on, whether its process can be started or not.
    pub(super) fn keep(&self, spec: &ChildSpec) {
        self.change(&spec.name, |child| {
            child.title.clone_from(&spec.title);
            child.is_kept = true;
            child.is_watched = spec.ordinal.map(|_| false);
        });
    }

    pub(super) fn started(&self, name: &str) {
        self.change(name, |child| child.n_starts += 1);
    }

    pub(super) fn heard(&self, name: &str, word: &Word) {
        self.change(name, |child| match word {
            Word::Session(_) => child.has_session = true,
            Word::Beat => {}
            Word::Work(report) => child.work = report.after(child.earlier),
        });
    }

    pub(super) fn ended(&self, name: &str, death: Death) {
        self.change(name, |child| {
            child.has_session = false;
            // Nothing runs, and nothing lies in any memory any more.
            child.work.resident_bytes = 0;
            let DeviceReport { is_degraded, condition, .. } = child.work.device;
            // A process may end before it could say so. Until the next one reports the device is not back.
            let is_degraded = is_degraded || death == Death::DeviceGivenUp;
            child.work.device = DeviceReport { jobs: 0, is_degraded, condition: Condition { memory: None, ..condition } };
            child.earlier = child.work;
        });
    }

    pub(super) fn watched(&self, name: &str, is_watched: bool) {
        self.change(name, |child| child.is_watched = Some(is_watched));
    }

    pub(super) fn cordon(&self, name: &str, reason: &str) {
        self.change(name, |child| child.cordoned = Some(reason.to_owned()));
    }

    fn change(&self, name: &str, change: impl FnOnce(&mut ChildState)) {
        change(self.lock().entry(name.to_owned()).or_default());
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, ChildState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use zkinfer_circuits::backend::DeviceMemory;

    use super::super::report::tests::report;
    use super::*;

    fn spec(ordinal: Option<usize>) -> ChildSpec {
        let name = ordinal.map_or("cpu".to_owned(), |ordinal| format!("cuda:{ordinal}"));
        ChildSpec { title: format!("{name} (A)"), name, ordinal, command: Arc::new(|| tokio::process::Command::new("false")) }
    }

    #[test]
    fn what_the_dead_have_done_is_not_forgotten() {
        let children = Children::default();
        for n_ended in [5, 3] {
            children.started("cuda:0");
            children.heard("cuda:0", &Word::Session("s".into()));
            // Each report is the whole of one process.
            for n_ended in 0..=n_ended {
                children.heard("cuda:0", &Word::Work(report(n_ended, Some(DeviceMemory::default()))));
            }
            let child = &children.states()["cuda:0"];
            assert!(child.has_session && child.work.resident_bytes == 4096);
            children.ended("cuda:0", Death::Other);
        }
        let child = &children.states()["cuda:0"];
        assert_eq!((child.has_session, child.n_starts, child.work.n_ended, child.work.busy_ms), (false, 2, 8, 3000));
        assert_eq!(child.work.resident_bytes, 0);
        let DeviceReport { jobs, condition, .. } = child.work.device;
        assert_eq!((jobs, condition), (0, Condition { memory: None, n_fallbacks_memory: 4, n_fallbacks_device: 6 }));
    }

    #[test]
    fn a_device_that_was_given_up_is_so_until_another_process_says_otherwise() {
        let children = Children::default();
        let is_degraded = || children.states()["cuda:0"].work.device.is_degraded;
        children.keep(&spec(Some(0)));
        children.ended("cuda:0", Death::Other);
        assert!(!is_degraded());
        children.ended("cuda:0", Death::DeviceGivenUp);
        children.ended("cuda:0", Death::Other);
        assert!(is_degraded(), "a process that did not come up proves nothing");
        children.heard("cuda:0", &Word::Work(WorkReport::default()));
        assert!(!is_degraded());
    }

    #[test]
    fn who_computes_is_told_with_what_does_not() {
        let children = Children::default();
        assert_eq!((children.backend(), children.none_left()), (None, None));
        children.pass_over("cuda:2", "cuda:2 (B)", "out of memory");
        assert_eq!((children.backend(), children.none_left()), (None, None), "the process computes itself");
        [0, 1].into_iter().for_each(|ordinal| children.keep(&spec(Some(ordinal))));
        let BackendInfo { name, reason } = children.backend().unwrap();
        assert_eq!(name, "cuda:0 (A) and cuda:1 (A)");
        assert_eq!(reason, "a process of its own computes on each device; cuda:2 (B) is not used: out of memory");
        children.cordon("cuda:1", "Xid 79");
        assert_eq!(children.backend().unwrap().name, "cuda:0 (A)");
        assert_eq!(children.none_left(), None);
        children.cordon("cuda:0", "Xid 48");
        assert_eq!(children.backend().unwrap().name, "no device");
        assert_eq!(children.none_left().unwrap(), "cuda:0 (A): Xid 48; cuda:1 (A): Xid 79");
    }

    #[test]
    fn only_devices_are_watched() {
        let children = Children::default();
        [None, Some(0)].into_iter().for_each(|ordinal| children.keep(&spec(ordinal)));
        children.watched("cuda:0", true);
        let states = children.states();
        assert_eq!((states["cpu"].is_watched, states["cuda:0"].is_watched), (None, Some(true)));
    }
}
