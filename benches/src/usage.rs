//! Processor time and memory of this process, as Linux counts them. Elsewhere both read 0.

use std::time::Instant;

use crate::machine::{field, kibibytes, read};

/// Ticks a second of the times in `/proc/self/stat`: fixed on Linux.
const TICKS_A_SECOND: f64 = 100.0;

/// What a piece of work took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Usage {
    /// Wall time, in seconds.
    pub wall_s: f64,
    /// Processor time of all threads, in seconds.
    pub cpu_s: f64,
    /// Largest resident memory since [`reset_peak`], in bytes.
    pub peak_bytes: u64,
}

/// Runs `work` and tells what it took.
pub fn measure<T>(work: impl FnOnce() -> T) -> (T, Usage) {
    let meter = Meter::start();
    let result = work();
    (result, meter.stop())
}

/// Measures from [`Meter::start`] to [`Meter::stop`].
#[derive(Debug)]
pub struct Meter {
    began: Instant,
    cpu_s: f64,
}

impl Meter {
    /// Starts.
    pub fn start() -> Self {
        Self { began: Instant::now(), cpu_s: cpu_seconds() }
    }

    /// What it took since the start.
    pub fn stop(&self) -> Usage {
        Usage { wall_s: self.began.elapsed().as_secs_f64(), cpu_s: cpu_seconds() - self.cpu_s, peak_bytes: peak_bytes() }
    }
}

/// User and system time of all threads of this process.
pub fn cpu_seconds() -> f64 {
    cpu_seconds_of(std::process::id())
}

/// User and system time of all threads of a process; 0 if it is gone.
pub fn cpu_seconds_of(pid: u32) -> f64 {
    ticks(&read(&format!("/proc/{pid}/stat"))) as f64 / TICKS_A_SECOND
}

/// utime + stime. The name in parentheses may hold spaces: count from the last parenthesis, where field 3 begins.
fn ticks(stat: &str) -> u64 {
    let after_name = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields: Vec<u64> = after_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse().ok()).collect();
    fields.iter().sum()
}

/// Largest resident memory since the start of the process or the last [`reset_peak`], in bytes.
pub fn peak_bytes() -> u64 {
    kibibytes(&field(&read("/proc/self/status"), "VmHWM"))
}

/// Starts counting the peak anew; does nothing where the system does not allow it.
pub fn reset_peak() {
    // The peak then counts from the start of the process: larger, never smaller.
    let _ = std::fs::write("/proc/self/clear_refs", "5");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_ticks_after_a_name_with_spaces() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194304 100 0 0 0 250 50 0 0 20 0 4 0 100";
        assert_eq!(ticks(stat), 300);
        assert_eq!(ticks(""), 0);
    }

    #[test]
    fn work_takes_time_and_memory() {
        let (sum, usage) = measure(|| (0..1_000_000u64).map(std::hint::black_box).sum::<u64>());
        assert_eq!(sum, 499_999_500_000);
        assert!(usage.wall_s > 0.0 && usage.peak_bytes > 0, "{usage:?}");
    }
}
