//! Facts about this process.

/// Largest resident memory so far, in bytes, where the system tells it.
pub fn peak_resident_bytes() -> Option<i64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
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
    fn groups_are_the_effective_and_the_supplementary_ones() {
        assert_eq!(groups_of("Uid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t10 2000 \n"), [6, 10, 2000]);
        assert_eq!(groups_of("Gid:\t5\t6\t7\t8\nGroups:\t\n"), [6]);
        assert_eq!(groups_of("Name:\tx\n"), [0; 0]);
    }
}
