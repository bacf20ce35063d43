//! Whether a child died because its host has too little memory, and how much it had taken.

use std::collections::HashMap;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::memory_group::MemoryGroup;
use crate::process::{peak_resident_bytes_of, peak_resident_bytes_of_ended};

const SIGABRT: i32 = 6;
const SIGKILL: i32 = 9;
/// What Rust writes when it has no memory for so many bytes, before and after their number.
const NO_MEMORY: (&str, &str) = ("memory allocation of ", " bytes failed");
/// The same of C++, which does not say for how many.
const NO_MEMORY_OF_CPP: &str = "std::bad_alloc";

/// What the children of a supervisor share.
#[derive(Debug)]
pub(super) struct HostMemory {
    root: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Kills of a group's processes that are the death of a child, or were before the first child was seen there: what is counted beyond is another's.
    claimed: HashMap<MemoryGroup, u64>,
    /// The most that a process that has ended had taken.
    peak_of_ended: u64,
}

/// One child, as long as it lives.
#[derive(Debug, Default)]
pub(super) struct ChildMemory {
    group: Option<MemoryGroup>,
    peak_bytes: u64,
}

/// How a child ended for want of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Starved {
    /// The most that it had taken, and what it asked for in vain; 0: not known.
    pub(super) peak_bytes: u64,
}

impl HostMemory {
    pub(super) fn new() -> Self {
        Self::over(Path::new("/"))
    }

    fn over(root: &Path) -> Self {
        let state = State { peak_of_ended: peak_resident_bytes_of_ended(), ..State::default() };
        Self { root: root.to_owned(), state: Mutex::new(state) }
    }

    /// Looks at a child that lives; to be called now and then.
    pub(super) fn look(&self, child: &mut ChildMemory, process: u32) {
        // One that has ended and was not waited for has no memory, and need not be in its group any more.
        let Some(peak_bytes) = peak_resident_bytes_of(process) else { return };
        child.peak_bytes = child.peak_bytes.max(peak_bytes);
        self.enter(child, MemoryGroup::of(&process.to_string(), &self.root));
    }

    fn enter(&self, child: &mut ChildMemory, group: Option<MemoryGroup>) {
        if child.group == group {
            return;
        }
        if let Some((group, n_killed)) = group.as_ref().and_then(|group| Some((group, group.n_killed()?))) {
            self.lock().claimed.entry(group.clone()).or_insert(n_killed);
        }
        child.group = group;
    }

    /// Whether a child that has ended, and was not killed by its supervisor, ended for want of memory.
    pub(super) fn judge(&self, child: &ChildMemory, status: ExitStatus, last_words: &str) -> Option<Starved> {
        let asked_bytes = match status.signal() {
            Some(SIGKILL) if self.claim(child) => 0,
            Some(SIGABRT) => failed_allocation(last_words)?,
            _ => return None,
        };
        Some(Starved { peak_bytes: self.peak_of(child).saturating_add(asked_bytes) })
    }

    /// The system ends who takes too much, and counts that; so does no other who kills.
    fn claim(&self, child: &ChildMemory) -> bool {
        let Some((group, n_killed)) = child.group.as_ref().and_then(|group| Some((group, group.n_killed()?))) else { return false };
        let mut state = self.lock();
        let claimed = state.claimed.entry(group.clone()).or_insert(n_killed);
        let is_new = n_killed > *claimed;
        *claimed += u64::from(is_new);
        is_new
    }

    /// What was seen last, or, if that is more than any before it had, what the system says of the dead.
    fn peak_of(&self, child: &ChildMemory) -> u64 {
        let mut state = self.lock();
        let peak_bytes = peak_resident_bytes_of_ended();
        let is_its_own = peak_bytes > state.peak_of_ended;
        state.peak_of_ended = state.peak_of_ended.max(peak_bytes);
        if is_its_own { child.peak_bytes.max(peak_bytes) } else { child.peak_bytes }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// For how many bytes there was no memory, if that is what a process said before it aborted; 0: it did not say how many.
fn failed_allocation(last_words: &str) -> Option<u64> {
    let of_rust = |line: &str| line.split_once(NO_MEMORY.0)?.1.split_once(NO_MEMORY.1)?.0.parse().ok();
    last_words.lines().rev().find_map(|line| of_rust(line).or_else(|| line.contains(NO_MEMORY_OF_CPP).then_some(0)))
}

#[cfg(test)]
mod tests {
    use super::super::super::memory_group::tests::{system, write};
    use super::*;

    const EVENTS: &str = "sys/fs/cgroup/a/memory.events";

    fn killed_by(signal: i32) -> ExitStatus {
        ExitStatus::from_raw(signal)
    }

    /// A system in which three children are in one group, of which two processes were ended before.
    fn three() -> (tempfile::TempDir, HostMemory, [ChildMemory; 3]) {
        let root = system(&[
            ("proc/7/cgroup", "0::/a\n"),
            ("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"),
            (EVENTS, "oom 2\noom_kill 2\n"),
        ]);
        let host = HostMemory::over(root.path());
        let mut children = <[ChildMemory; 3]>::default();
        for child in &mut children {
            host.enter(child, MemoryGroup::of("7", root.path()));
            child.peak_bytes = 10;
        }
        (root, host, children)
    }

    #[test]
    fn a_kill_that_the_system_counts_is_one_childs_and_no_other_kill_is() {
        let (root, host, [first, second, third]) = three();
        assert_eq!(host.judge(&first, killed_by(SIGKILL), ""), None, "somebody killed it");
        write(root.path(), EVENTS, "oom 3\noom_kill 3\n");
        assert_eq!(host.judge(&first, killed_by(11), ""), None, "it crashed by itself");
        assert_eq!(host.judge(&first, ExitStatus::from_raw(0), ""), None);
        let starved = host.judge(&first, killed_by(SIGKILL), "").unwrap();
        assert!(starved.peak_bytes >= 10);
        assert_eq!(host.judge(&second, killed_by(SIGKILL), ""), None, "that kill was the first's");
        write(root.path(), EVENTS, "oom 4\noom_kill 5\n");
        assert!(host.judge(&second, killed_by(SIGKILL), "").is_some());
        assert!(host.judge(&third, killed_by(SIGKILL), "").is_some());
        std::fs::remove_file(root.path().join(EVENTS)).unwrap();
        assert_eq!(host.judge(&third, killed_by(SIGKILL), ""), None, "nothing is counted there");
        assert_eq!(host.judge(&ChildMemory::default(), killed_by(SIGKILL), ""), None, "its group was never seen");
    }

    #[test]
    fn who_aborts_for_want_of_memory_says_so() {
        let (_root, host, [child, ..]) = three();
        let words = "a line\nmemory allocation of 1000 bytes failed\nanother\n";
        assert!(host.judge(&child, killed_by(SIGABRT), words).unwrap().peak_bytes >= 1010);
        assert_eq!(host.judge(&child, killed_by(SIGABRT), "unspecified launch failure\n"), None);
        assert_eq!(host.judge(&child, killed_by(11), words), None);
        assert_eq!(failed_allocation("terminate called after throwing an instance of 'std::bad_alloc'\n"), Some(0));
        assert_eq!(failed_allocation("memory allocation of many bytes failed"), None);
    }
}
