//! Numbers of this process, from `/proc`; what the system does not tell is left out.

use std::time::Duration;

/// What the system says.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct ProcessFacts {
    pub(super) cpu: Option<Duration>,
    pub(super) open_fds: Option<u64>,
}

/// Clock ticks of a second in `/proc/PID/stat`: fixed at 100 on every architecture that this runs on.
const TICKS_PER_SECOND: u64 = 100;

/// Looks.
pub(super) fn facts() -> ProcessFacts {
    let read = |file: &str| std::fs::read_to_string(file).ok();
    ProcessFacts {
        cpu: read("/proc/self/stat").as_deref().and_then(cpu_time),
        open_fds: std::fs::read_dir("/proc/self/fd").ok().map(|entries| entries.count() as u64),
    }
}

/// Fields 14 and 15 of proc(5), user and system ticks. Field 2, the name, may hold spaces and parentheses: fields are counted from its end.
fn cpu_time(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11);
    let (user, system): (u64, u64) = (ticks.next()?.parse().ok()?, ticks.next()?.parse().ok()?);
    Some(Duration::from_millis(user.checked_add(system)?.checked_mul(1000 / TICKS_PER_SECOND)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_proc_writes() {
        let stat = "7 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(cpu_time(stat), Some(Duration::from_secs(2)));
        assert_eq!(cpu_time("7 (a"), None);
        assert_eq!(cpu_time("7 (a) S 1"), None);
    }
}
