//! What is simulated: the cluster, the tenants, the faults.

use serde::{Deserialize, Serialize};
use zkinfer_server::placement::Limits;

/// Microseconds.
pub(super) const SECOND: u64 = 1_000_000;

/// A cluster and its work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Devices.
    pub devices: usize,
    /// Inferences.
    pub jobs: usize,
    /// Of all chance.
    pub seed: u64,
    /// Work that arrives on average, in percent of what all devices can do.
    pub load_percent: u64,
    /// From the end of a task to the server's next answer, in microseconds.
    pub round_trip_us: u64,
    /// Devices of one worker; they fall together when it is killed.
    pub devices_per_worker: usize,
    /// Mean time between failures of a device, in seconds.
    pub device_fails_every_s: u64,
    /// Mean time between kills of a worker, in seconds.
    pub worker_killed_every_s: u64,
    /// One task of so many fails of itself, once.
    pub task_fails_once_in: u64,
    /// One inference of so many kills every device's process that runs it.
    pub poisoned_once_in: u64,
    /// One long inference of so many takes much more memory than was estimated.
    pub memory_once_in: u64,
}

impl Settings {
    /// A thousand devices and a million jobs.
    pub fn large() -> Self {
        Self {
            devices: 1_000,
            jobs: 1_000_000,
            seed: 4,
            load_percent: 95,
            round_trip_us: 20_000,
            devices_per_worker: 8,
            device_fails_every_s: 36_000,
            worker_killed_every_s: 18_000,
            task_fails_once_in: 100_000,
            poisoned_once_in: 50_000,
            memory_once_in: 200,
        }
    }

    /// The same in small, for a test.
    pub fn small() -> Self {
        Self { devices: 100, jobs: 20_000, poisoned_once_in: 5_000, ..Self::large() }
    }

    /// What to type to simulate this.
    pub(super) fn command(&self) -> String {
        let mut command = "cargo run --release -p zkinfer-benches --bin zkinfer-simulate".to_owned();
        let (size, default) = if self.devices == Self::small().devices { (" --small", Self::small()) } else { ("", Self::large()) };
        let seed = if self.seed == default.seed { String::new() } else { format!(" --seed {}", self.seed) };
        let load = if self.load_percent == default.load_percent { String::new() } else { format!(" --load-percent {}", self.load_percent) };
        let arguments = [size, &seed, &load].concat();
        if !arguments.is_empty() {
            command = command + " --" + &arguments;
        }
        command
    }

    /// The policy: the defaults (docs/SCHEDULING.md says where the service departs from them).
    pub(super) fn limits() -> Limits {
        Limits::default()
    }
}

/// A tenant.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tenant {
    pub(super) name: &'static str,
    pub(super) share: u32,
    /// Of the work that arrives, in percent.
    pub(super) work_percent: u64,
    /// Of its jobs, in thousandths, by network.
    pub(super) mix: [u64; 4],
    /// It sends for `on_s` of every `period_s` seconds, faster by so much; all the time if they are equal.
    pub(super) on_s: u64,
    pub(super) period_s: u64,
    /// Priorities of its jobs are drawn from these.
    pub(super) priorities: &'static [i32],
}

/// Some send evenly and some in bursts, some more than their share and some less; one has long jobs only.
pub(super) const TENANTS: [Tenant; 8] = [
    tenant("even-8", 8, 28, [890, 85, 20, 5], 60, 60, &[0]),
    tenant("even-4", 4, 14, [890, 85, 20, 5], 60, 60, &[0, 0, 0, 5]),
    tenant("bursts-4", 4, 16, [890, 85, 20, 5], 60, 240, &[0]),
    tenant("bursts-2", 2, 9, [890, 85, 20, 5], 30, 300, &[0, 3, -3]),
    tenant("greedy-1", 1, 14, [920, 60, 15, 5], 120, 360, &[9]),
    tenant("long-2", 2, 10, [0, 0, 700, 300], 60, 60, &[0]),
    tenant("short-1", 1, 6, [1_000, 0, 0, 0], 10, 200, &[-9, 0, 9]),
    tenant("small-1", 1, 3, [890, 85, 20, 5], 60, 60, &[0]),
];

const fn tenant(
    name: &'static str,
    share: u32,
    work_percent: u64,
    mix: [u64; 4],
    on_s: u64,
    period_s: u64,
    priorities: &'static [i32],
) -> Tenant {
    Tenant { name, share, work_percent, mix, on_s, period_s, priorities }
}

/// Memory of the devices, in GiB: of ten, three are slices of 10, four have 24, three have 80.
pub(super) const MEMORY_GIB: [u64; 10] = [10, 24, 80, 24, 10, 24, 80, 24, 10, 80];
/// What a task takes that takes much more memory than was estimated.
pub(super) const MUCH_MEMORY_BYTES: u64 = 14 << 30;
/// A device whose process died is back after this long.
pub(super) const PROCESS_BACK_US: u64 = 5 * SECOND;
/// A device that failed is back after this long.
pub(super) const DEVICE_BACK_US: u64 = 300 * SECOND;
/// A worker that was killed is back after this long.
pub(super) const WORKER_BACK_US: u64 = 60 * SECOND;
/// Leases end this long after a worker was killed, at most; at least two thirds of it.
pub(super) const LEASE_US: u64 = 30 * SECOND;
