//! A task that is ready, as far as placing it matters.

/// A task's identity, and the last tie-breaker of every order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskKey {
    /// The job's UUID as a number; of version 7, so that a later job is greater.
    pub job: u128,
    /// Position in the job's graph.
    pub number: u32,
}

/// What a task does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TaskKind {
    /// Registers a model.
    Register,
    /// A whole inference: small models are one task.
    Prove,
    /// Evaluates the network.
    Witness,
    /// Commits a layer's tensors.
    Commit,
    /// Derives the shared challenges.
    Bind,
    /// Proves a layer.
    Layer,
    /// Verifies layer proofs in a circuit.
    Leaf,
    /// Joins two nodes.
    Join,
    /// Makes the published proof.
    Outer,
}

impl TaskKind {
    /// Every kind.
    pub const ALL: [Self; 9] =
        [Self::Register, Self::Prove, Self::Witness, Self::Commit, Self::Bind, Self::Layer, Self::Leaf, Self::Join, Self::Outer];

    /// Its stable name: what a task's name begins with.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Prove => "prove",
            Self::Witness => "witness",
            Self::Commit => "commit",
            Self::Bind => "bind",
            Self::Layer => "layer",
            Self::Leaf => "leaf",
            Self::Join => "join",
            Self::Outer => "outer",
        }
    }

    /// The kind of that name.
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// Kinds that a session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KindSet(u16);

impl KindSet {
    /// Every kind.
    pub const ALL: Self = Self((1 << TaskKind::ALL.len()) - 1);

    /// These kinds.
    pub fn of(kinds: &[TaskKind]) -> Self {
        Self(kinds.iter().fold(0, |bits, &kind| bits | 1 << kind as u16))
    }

    /// Whether it holds a kind.
    pub const fn contains(self, kind: TaskKind) -> bool {
        self.0 >> kind as u16 & 1 == 1
    }
}

/// What must lie on a device before a task can run: the committed weights of a model, or of one layer of a model that is spread over devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightsKey(pub [u8; 32]);

/// A device, by the UUID that its driver gives it; a host without devices by its worker's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceId(pub u128);

/// Devices that may run a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pool {
    /// All of them.
    Any,
    /// Only processors: the task needs more memory than any GPU has.
    Cpu,
}

/// Whether a task may run beside others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sharing {
    /// Yes.
    Shared,
    /// A session died while it ran: it runs alone, so that a second death tells the guilty task from its neighbours.
    Alone,
}

/// A ready task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Identity.
    pub key: TaskKey,
    /// Whose it is: position in the list of loads. A task whose position is not in the list is not chosen.
    pub tenant: usize,
    /// What it does.
    pub kind: TaskKind,
    /// Milliseconds from its start to its job's end if nothing waits: itself and the longest path behind it.
    pub rank_ms: u64,
    /// The job's; more is sooner.
    pub priority: i32,
    /// When the job was created, in milliseconds since 1970.
    pub job_created_ms: u64,
    /// What it takes where nothing has to be moved.
    pub estimated_ms: u64,
    /// Device memory, all that it touches included.
    pub need_device_bytes: u64,
    /// Host memory.
    pub need_host_bytes: u64,
    /// Devices that may run it.
    pub pool: Pool,
    /// Whether it may run beside others.
    pub sharing: Sharing,
    /// The weights that it works with.
    pub weights: Option<WeightsKey>,
    /// How many healthy devices hold these weights, the asking ones included.
    pub n_holders: u32,
    /// Where the oracle that it opens was committed, while that device is there.
    pub sibling: Option<DeviceId>,
    /// What it takes longer elsewhere: loading the weights, committing the oracle again.
    pub move_ms: u64,
    /// Since it became ready, or its backoff ended.
    pub waiting_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_read_back_by_name_and_sets_hold_what_they_were_made_of() {
        for kind in TaskKind::ALL {
            assert_eq!(TaskKind::of_name(kind.name()), Some(kind));
            assert!(KindSet::ALL.contains(kind));
            assert_eq!(KindSet::of(&[TaskKind::Layer, TaskKind::Bind]).contains(kind), matches!(kind, TaskKind::Layer | TaskKind::Bind));
        }
        assert_eq!(TaskKind::of_name("layer-0001"), None);
    }
}
