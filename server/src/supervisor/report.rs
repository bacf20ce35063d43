//! What a child has done, as it tells its supervisor.

use std::fmt;
use std::str::FromStr;

use zkinfer_circuits::backend::{Condition, DeviceMemory};

use super::words::NoWord;
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
    pub(super) fn after(self, earlier: Self) -> Self {
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

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::supervisor) fn report(n_ended: u64, memory: Option<DeviceMemory>) -> WorkReport {
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
}
