//! What children have done, as they tell their supervisor, for whoever asks the supervisor.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use zkinfer_circuits::backend::{Condition, DeviceMemory};

use super::words::{NoWord, Word};
use crate::observe::DeviceReport;

/// What a child has done since it started, and how its device is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WorkReport {
    /// Attempts at tasks that ended.
    pub n_ended: u64,
    /// Time of attempts, of those that run too, in milliseconds; two at a time count twice.
    pub busy_ms: u64,
    /// Its resident memory, in bytes; 0: not known.
    pub resident_bytes: u64,
    /// Its device.
    pub device: DeviceReport,
}

/// Numbers: attempts, milliseconds, bytes, running tasks, whether degraded, fallbacks by reason; then memory in use, at most so far and allowed, if it is known.
impl fmt::Display for WorkReport {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DeviceReport { jobs, is_degraded, condition } = self.device;
        let (of_memory, of_device) = (condition.n_fallbacks_memory, condition.n_fallbacks_device);
        let degraded = u8::from(is_degraded);
        write!(formatter, "{} {} {} {jobs} {degraded} {of_memory} {of_device}", self.n_ended, self.busy_ms, self.resident_bytes)?;
        match condition.memory {
            None => Ok(()),
            Some(memory) => write!(formatter, " {} {} {}", memory.used_bytes, memory.peak_bytes, memory.limit_bytes),
        }
    }
}

impl FromStr for WorkReport {
    type Err = NoWord;

    fn from_str(text: &str) -> Result<Self, NoWord> {
        let numbers: Vec<u64> = text.split(' ').map(str::parse).collect::<Result<_, _>>().map_err(|_| NoWord)?;
        let (&[n_ended, busy_ms, resident_bytes, jobs, degraded, n_fallbacks_memory, n_fallbacks_device], memory) =
            numbers.split_first_chunk::<7>().ok_or(NoWord)?;
        let memory = match *memory {
            [] => None,
            [used_bytes, peak_bytes, limit_bytes] => Some(DeviceMemory { used_bytes, peak_bytes, limit_bytes }),
            _ => return Err(NoWord),
        };
        let jobs = usize::try_from(jobs).map_err(|_| NoWord)?;
        let condition = Condition { memory, n_fallbacks_memory, n_fallbacks_device };
        Ok(Self { n_ended, busy_ms, resident_bytes, device: DeviceReport { jobs, is_degraded: degraded != 0, condition } })
    }
}

impl WorkReport {
    /// Together with what earlier processes for the same device did. What process and device are like is what the last one says.
    fn after(self, earlier: Self) -> Self {
        let (mut condition, before) = (self.device.condition, earlier.device.condition);
        condition.n_fallbacks_memory = condition.n_fallbacks_memory.saturating_add(before.n_fallbacks_memory);
        condition.n_fallbacks_device = condition.n_fallbacks_device.saturating_add(before.n_fallbacks_device);
        Self {
            n_ended: self.n_ended.saturating_add(earlier.n_ended),
            busy_ms: self.busy_ms.saturating_add(earlier.busy_ms),
            resident_bytes: self.resident_bytes,
            device: DeviceReport { condition, ..self.device },
        }
    }
}

/// A child as its supervisor knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChildState {
    /// Its process runs and has opened a session.
    pub has_session: bool,
    /// Processes that were started for it.
    pub n_starts: u64,
    /// What they did, all together.
    pub work: WorkReport,
    /// What those before this one did.
    earlier: WorkReport,
}

/// All children, by name. What a supervisor writes and others read.
#[derive(Debug, Default)]
pub struct Children(Mutex<BTreeMap<String, ChildState>>);

impl Children {
    /// As they are now.
    pub fn states(&self) -> BTreeMap<String, ChildState> {
        self.lock().clone()
    }

    pub(super) fn started(&self, name: &str) {
        let mut children = self.lock();
        let child = children.entry(name.to_owned()).or_default();
        child.n_starts += 1;
    }

    pub(super) fn heard(&self, name: &str, word: &Word) {
        let mut children = self.lock();
        let child = children.entry(name.to_owned()).or_default();
        match word {
            Word::Session(_) => child.has_session = true,
            Word::Beat => {}
            Word::Work(report) => child.work = report.after(child.earlier),
        }
    }

    pub(super) fn ended(&self, name: &str) {
        let mut children = self.lock();
        let child = children.entry(name.to_owned()).or_default();
        child.has_session = false;
        // Nothing runs, and nothing lies in any memory any more.
        child.work.resident_bytes = 0;
        child.work.device =
            DeviceReport { jobs: 0, condition: Condition { memory: None, ..child.work.device.condition }, ..child.work.device };
        child.earlier = child.work;
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, ChildState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(n_ended: u64, memory: Option<DeviceMemory>) -> WorkReport {
        let condition = Condition { memory, n_fallbacks_memory: 2, n_fallbacks_device: 3 };
        WorkReport { n_ended, busy_ms: 1500, resident_bytes: 4096, device: DeviceReport { jobs: 1, is_degraded: true, condition } }
    }

    #[test]
    fn reports_come_back_and_other_lines_do_not() {
        for memory in [None, Some(DeviceMemory { used_bytes: 1, peak_bytes: 2, limit_bytes: u64::MAX })] {
            let told = report(7, memory);
            assert_eq!(told.to_string().parse(), Ok(told));
        }
        for other in ["", "1 2 3 4 5 6", "1 2 3 4 5 6 7 8", "1 2 3 4 5 6 7 8 9 10 11", "1 2 3 4 5 6 -7", "1 2 3 4 5 6 x", "1  2 3 4 5 6 7"]
        {
            assert_eq!(other.parse::<WorkReport>(), Err(NoWord), "{other}");
        }
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
            let child = children.states()["cuda:0"];
            assert!(child.has_session && child.work.resident_bytes == 4096);
            children.ended("cuda:0");
        }
        let child = children.states()["cuda:0"];
        assert_eq!((child.has_session, child.n_starts, child.work.n_ended, child.work.busy_ms), (false, 2, 8, 3000));
        assert_eq!(child.work.resident_bytes, 0);
        let DeviceReport { jobs, condition, .. } = child.work.device;
        assert_eq!((jobs, condition), (0, Condition { memory: None, n_fallbacks_memory: 4, n_fallbacks_device: 6 }));
    }
}
