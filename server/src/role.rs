//! What a process of the service does.

/// What a process of the service does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    All,
    /// Answers calls, of clients and of workers; does no tasks and keeps no time.
    Api,
    /// Keeps time: deadlines, workers that went silent, what is old.
    Scheduler,
}

impl Role {
    pub(crate) fn has_workers(self) -> bool {
        self == Self::All
    }

    pub(crate) fn keeps_time(self) -> bool {
        matches!(self, Self::All | Self::Scheduler)
    }
}
