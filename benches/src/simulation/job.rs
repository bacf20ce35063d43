//! Jobs: what is done of each, and what is known of its tasks.

use zkinfer_server::placement::retry::{History, Need};

/// A task: job and position in its network's graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct TaskRef {
    pub(super) job: u32,
    pub(super) task: u16,
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Waiting,
    Ready,
    Running,
    Done,
}

/// A place of an oracle: device and its life then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sibling {
    pub(super) device: u32,
    pub(super) life: u32,
}

/// A task of a job.
#[derive(Debug, Clone)]
pub(super) struct TaskState {
    pub(super) state: State,
    pub(super) waiting_on: u16,
    pub(super) ready_at_us: u64,
}

/// What a job that fails or runs out of memory has beside the others.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) history: History,
    pub(super) need: Need,
}

/// What is drawn for a job beforehand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nature {
    Plain,
    /// Its last task kills every process that runs it.
    Poisoned,
    /// A layer of it takes much memory.
    MuchMemory,
}

/// An inference.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) tenant: u8,
    pub(super) model: u16,
    pub(super) priority: i8,
    pub(super) nature: Nature,
    pub(super) is_over: bool,
    pub(super) has_started: bool,
    pub(super) n_left: u16,
    pub(super) created_us: u64,
    pub(super) level: i64,
    pub(super) tasks: Vec<TaskState>,
    /// Where each layer was committed.
    pub(super) siblings: Vec<Option<Sibling>>,
}
