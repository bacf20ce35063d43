//! Facts about this process.

use std::path::Path;

use nix::sys::resource::{UsageWho, getrusage};

use crate::memory_group;

/// Resident memory, in bytes, where the system tells it.
pub fn resident_bytes() -> Option<i64> {
    memory("VmRSS:")
}

/// Largest resident memory so far, in bytes, where the system tells it.
pub fn peak_resident_bytes() -> Option<i64> {
    memory("VmHWM:")
}

/// Largest resident memory so far of a process that lives, in bytes, where the system tells it.
pub(crate) fn peak_resident_bytes_of(process: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    memory_of(&status, "VmHWM:").and_then(|bytes| u64::try_from(bytes).ok())
}

/// Largest resident memory of any one process that this one started and that has ended, in bytes; 0: none has, or the system does not tell.
pub(crate) fn peak_resident_bytes_of_ended() -> u64 {
    let kib = getrusage(UsageWho::RUSAGE_CHILDREN).map_or(0, |usage| usage.max_rss());
    u64::try_from(kib).unwrap_or(0).saturating_mul(1024)
}

/// The memory that this process may take, in bytes: all of the machine's, or the limit of its group. Others on the machine share it.
pub fn host_bytes() -> Option<u64> {
    memory_group::host_bytes(Path::new("/"))
}

fn memory(field: &str) -> Option<i64> {
    memory_of(&std::fs::read_to_string("/proc/self/status").ok()?, field)
}

/// Of proc(5): in kB, which are KiB.
pub(crate) fn memory_of(status: &str, field: &str) -> Option<i64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kib: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The groups whose files this process may read as a member, its own and the supplementary ones; none where the system does not tell.
pub fn groups() -> Vec<u32> {
    std::fs::read_to_string("/proc/self/status").map(|status| groups_of(&status)).unwrap_or_default()
}

/// Of proc(5): `Gid` has the real, effective, saved and file system's group.
fn groups_of(status: &str) -> Vec<u32> {
    let numbers = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().filter_map(|number| number.parse().ok()).collect::<Vec<u32>>()
    };
    numbers("Gid:").get(1).copied().into_iter().chain(numbers("Groups:")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_as_proc_writes_it() {
        assert_eq!(memory_of("Name:\tx\nVmHWM:\t    4096 kB\nVmRSS:\t    2048 kB\n", "VmRSS:"), Some(2 << 20));
        assert_eq!(memory_of("Name:\tx\n", "VmRSS:"), None);
        assert!(resident_bytes().is_some() && peak_resident_bytes().is_some());
    }

    #[test]
    fn groups_are_the_effective_and_the_supplementary_ones() {
        assert_eq!(groups_of("Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t10 2000 \n"), [6, 10, 2000]);
        assert_eq!(groups_of("Gid:\t5\t6\t7\t8\nGroups:\t\n"), [6]);
        assert_eq!(groups_of("Name:\tx\n"), [0; 0]);
    }
}
