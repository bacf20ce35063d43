//! The numbers of the policy.

use thiserror::Error;

/// The numbers of the policy. Defaults are those of the committed simulation; the engine takes how many tasks share a device, and whether one waits for an
/// idle device, from its sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Tasks that share a device. Two or more hide the way to the server and back; more make each of them slower.
    pub tasks_per_device: u32,
    /// Tenants that have at most this many percent more for their share than the one that has least are served as if they had as little, if they have a
    /// task that need move nothing and it has none.
    pub share_slack_percent: u32,
    /// Waiting this long, in milliseconds, is worth one step of priority.
    pub aging_ms: u64,
    /// Priorities are taken as −span ..= span.
    pub priority_span: u16,
    /// A task waits this long, in milliseconds, before it joins others on a device: until then an idle device may take it.
    pub share_after_ms: u64,
    /// A task waits at most this long, in milliseconds, for a place where it need move nothing.
    pub patience_ms: u64,
    /// Waiting this long, in milliseconds, for a device with enough free memory begins to keep devices free.
    pub reserve_after_ms: u64,
    /// Each further step of this many milliseconds keeps twice as many devices free.
    pub reserve_step_ms: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            tasks_per_device: 3,
            share_slack_percent: 5,
            aging_ms: 20_000,
            priority_span: 9,
            share_after_ms: 25,
            patience_ms: 2_000,
            reserve_after_ms: 5_000,
            reserve_step_ms: 1_000,
        }
    }
}

/// Numbers with which tasks would starve.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum LimitsError {
    /// No task would be placed.
    #[error("tasks_per_device is 0; it must be at least 1")]
    NoTasks,
    /// No task would age.
    #[error("aging_ms is 0; it must be at least 1, such as 60000")]
    NoAging,
    /// Devices would not be kept free in steps.
    #[error("reserve_step_ms is 0; it must be at least 1, such as 1000")]
    NoReserveStep,
}

impl Limits {
    /// Whether every task is placed in the end.
    ///
    /// # Errors
    /// The first number with which it is not.
    pub fn check(&self) -> Result<(), LimitsError> {
        match self {
            Self { tasks_per_device: 0, .. } => Err(LimitsError::NoTasks),
            Self { aging_ms: 0, .. } => Err(LimitsError::NoAging),
            Self { reserve_step_ms: 0, .. } => Err(LimitsError::NoReserveStep),
            _ => Ok(()),
        }
    }

    /// What bounds overtaking within a tenant, in milliseconds: no task of a job that was created this much later, or more, comes first because of
    /// its priority, rank or weights.
    pub const fn overtaking_ms(&self) -> u64 {
        (2 * self.priority_span as u64 + 1) * self.aging_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_starve_tasks_are_refused_by_name() {
        assert_eq!(Limits::default().check(), Ok(()));
        assert_eq!(Limits { tasks_per_device: 0, ..Limits::default() }.check(), Err(LimitsError::NoTasks));
        assert_eq!(Limits { aging_ms: 0, ..Limits::default() }.check(), Err(LimitsError::NoAging));
        assert_eq!(Limits { reserve_step_ms: 0, ..Limits::default() }.check(), Err(LimitsError::NoReserveStep));
    }
}
