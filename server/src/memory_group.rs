//! The group of processes whose memory the system counts together, and may limit: a control group, of version 1 or 2 (cgroups(7)). What the group may take,
//! and how many of its processes the system has ended because there was no memory left.

use std::fs::read_to_string;
use std::path::{Path, PathBuf};

use crate::process::memory_of;

/// A limit of version 1 that is none: the largest number of whole pages.
const NO_LIMIT: u64 = 1 << 60;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Version {
    One,
    Two,
}

/// A group, by where the system shows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct MemoryGroup {
    folder: PathBuf,
    /// Where its hierarchy begins.
    top: PathBuf,
    version: Version,
    /// Of the file system: `/` but in tests.
    root: PathBuf,
}

impl MemoryGroup {
    /// That of a process, by its number or `self`; none if the system tells none.
    pub(crate) fn of(process: &str, root: &Path) -> Option<Self> {
        let groups = read_to_string(root.join("proc").join(process).join("cgroup")).ok()?;
        let (version, path) = path_of(&groups)?;
        let mounts = read_to_string(root.join("proc/self/mountinfo")).ok()?;
        let (within, place) = mounts.lines().find_map(|line| mount_of(line, version))?;
        let top = root.join(place.trim_start_matches('/'));
        // What is mounted may be a part of the hierarchy: a container's own.
        let relative = path.strip_prefix(within).unwrap_or(path).trim_start_matches('/');
        let folder = Some(top.join(relative)).filter(|folder| folder.is_dir()).unwrap_or_else(|| top.clone());
        Some(Self { folder, top, version, root: root.to_owned() })
    }

    /// How many of its processes the system has ended for want of memory so far; none if it does not tell.
    pub(crate) fn n_killed(&self) -> Option<u64> {
        let name = match self.version {
            Version::One => "memory.oom_control",
            Version::Two => "memory.events",
        };
        let told = read_to_string(self.folder.join(name)).ok().and_then(|text| number_after(&text, "oom_kill"));
        // The topmost group has no such file: those of the whole system.
        told.or_else(|| number_after(&read_to_string(self.root.join("proc/vmstat")).ok()?, "oom_kill"))
    }

    /// What its processes may take, all together: the least limit of it and of those that it is part of. None: there is no limit.
    fn limit_bytes(&self) -> Option<u64> {
        let name = match self.version {
            Version::One => "memory.limit_in_bytes",
            Version::Two => "memory.max",
        };
        let groups = self.folder.ancestors().take_while(|folder| folder.starts_with(&self.top));
        let limits = groups.filter_map(|folder| read_to_string(folder.join(name)).ok()?.trim().parse().ok());
        limits.min().filter(|&limit: &u64| limit < NO_LIMIT)
    }
}

/// The memory that a process may take: all of the machine's, or its group's limit. None where the system tells neither.
pub(crate) fn host_bytes(root: &Path) -> Option<u64> {
    let of_machine = read_to_string(root.join("proc/meminfo")).ok().and_then(|text| memory_of(&text, "MemTotal:"));
    let of_machine = of_machine.and_then(|bytes| u64::try_from(bytes).ok());
    let of_group = MemoryGroup::of("self", root).and_then(|group| group.limit_bytes());
    of_machine.into_iter().chain(of_group).min()
}

/// Lines such as `4:memory:/a` of version 1, `0::/a` of version 2. Where both are used, memory is counted by the first.
fn path_of(groups: &str) -> Option<(Version, &str)> {
    let lines = || groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':'));
    let mut of_memory = lines().filter(|(controllers, _)| controllers.split(',').any(|name| name == "memory"));
    let of_all = || lines().find(|(controllers, _)| controllers.is_empty()).map(|(_, path)| (Version::Two, path));
    of_memory.next().map(|(_, path)| (Version::One, path)).or_else(of_all)
}

/// Of a line of proc_pid_mountinfo(5): which part of the hierarchy is mounted, and where.
fn mount_of(line: &str, version: Version) -> Option<(&str, &str)> {
    let (mount, kind) = line.split_once(" - ")?;
    let mut kind = kind.split(' ');
    let (name, options) = (kind.next()?, kind.nth(1).unwrap_or_default());
    let is_it = match version {
        Version::One => name == "cgroup" && options.split(',').any(|option| option == "memory"),
        Version::Two => name == "cgroup2",
    };
    let mut fields = mount.split(' ').skip(3);
    is_it.then_some((fields.next()?, fields.next()?))
}

/// Of lines such as `oom_kill 3`.
fn number_after(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A file system in which a process is in a group.
    pub(crate) fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        files.iter().for_each(|(path, text)| write(root.path(), path, text));
        root
    }

    pub(crate) fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    const TWO: [(&str, &str); 8] = [
        ("proc/self/cgroup", "0::/pods/a/b\n"),
        (
            "proc/self/mountinfo",
            "22 1 0:5 / /proc rw - proc proc rw\n30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw\n",
        ),
        ("proc/meminfo", "MemTotal:       8192 kB\nMemFree:        1024 kB\n"),
        ("proc/vmstat", "nr_free_pages 5\noom_kill 9\n"),
        ("sys/fs/cgroup/pods/a/b/memory.events", "low 0\nhigh 0\nmax 40\noom 3\noom_kill 2\noom_group_kill 0\n"),
        ("sys/fs/cgroup/pods/a/b/memory.max", "max\n"),
        ("sys/fs/cgroup/pods/a/memory.max", "4194304\n"),
        ("sys/fs/cgroup/pods/memory.max", "6291456\n"),
    ];

    #[test]
    fn a_group_of_version_2_is_found_with_its_kills_and_the_least_limit_above_it() {
        let root = system(&TWO);
        let group = MemoryGroup::of("self", root.path()).unwrap();
        assert_eq!(group.n_killed(), Some(2));
        assert_eq!(host_bytes(root.path()), Some(4 << 20));
        write(root.path(), "sys/fs/cgroup/pods/a/memory.max", "max\n");
        write(root.path(), "sys/fs/cgroup/pods/memory.max", "max\n");
        assert_eq!(host_bytes(root.path()), Some(8 << 20), "the machine's");
        // A container that is shown its own group as the topmost.
        write(root.path(), "proc/self/cgroup", "0::/\n");
        let group = MemoryGroup::of("self", root.path()).unwrap();
        assert_eq!(group.n_killed(), Some(9), "the system's, since the topmost group counts none");
        write(root.path(), "sys/fs/cgroup/memory.events", "oom_kill 4\n");
        write(root.path(), "sys/fs/cgroup/memory.max", "1048576\n");
        assert_eq!((group.n_killed(), host_bytes(root.path())), (Some(4), Some(1 << 20)));
    }

    #[test]
    fn a_group_of_version_1_is_found_also_where_a_container_is_shown_its_own_part() {
        let mounts = "30 23 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      31 23 0:27 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
        let root = system(&[
            ("proc/self/cgroup", "5:cpu:/x\n4:memory:/docker/abc\n0::/y\n"),
            ("proc/7/cgroup", "4:memory:/docker/abc/child\n"),
            ("proc/self/mountinfo", mounts),
            ("sys/fs/cgroup/memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/child/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"),
        ]);
        let n_killed = |process: &str| MemoryGroup::of(process, root.path()).unwrap().n_killed();
        assert_eq!((n_killed("self"), n_killed("7")), (Some(1), Some(5)));
        assert_eq!(host_bytes(root.path()), None, "nothing tells of a limit");
        write(root.path(), "sys/fs/cgroup/memory/memory.limit_in_bytes", "2097152\n");
        assert_eq!(host_bytes(root.path()), Some(2 << 20));
    }

    #[test]
    fn where_nothing_is_told_nothing_is_known() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!((MemoryGroup::of("self", root.path()), host_bytes(root.path())), (None, None));
        let root = system(&[("proc/self/cgroup", "nonsense\n"), ("proc/self/mountinfo", "also\n")]);
        assert_eq!(MemoryGroup::of("self", root.path()), None);
        assert!(host_bytes(Path::new("/")).is_some(), "this machine has memory");
    }
}
