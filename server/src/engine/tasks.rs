//! What workers and the engine hand to each other.

use zkinfer_proto::v1;

use super::{ArtifactFacts, Digest};
use crate::secret::Secret;

/// What a task works for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SubjectKind {
    /// A model's registration.
    Model,
    /// A job's proof.
    Job,
}

/// A model or a job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Subject {
    /// Which kind.
    pub kind: SubjectKind,
    /// Owner.
    pub tenant: String,
    /// Model id or job id.
    pub id: String,
}

/// A task of a subject.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TaskKey {
    /// What it works for.
    pub subject: Subject,
    /// Its name in the subject's graph, such as `register`, `prove` or `layer-0007`.
    pub name: String,
}

/// A task in the hands of a worker. Whoever holds an older epoch of it can change nothing any more.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Lease {
    /// The task.
    pub task: TaskKey,
    /// Rises each time the task is given to somebody, and when it is taken away.
    pub epoch: i64,
}

/// A leased task with all that is needed to do it.
#[derive(Debug)]
pub struct Leased {
    /// The task and its epoch.
    pub lease: Lease,
    /// From 1; a release gives it back.
    pub attempt: u32,
    /// The work.
    pub work: Work,
}

/// What a task does.
pub enum Work {
    /// Registers a model.
    Register {
        /// The model.
        model: Box<v1::Model>,
        /// Salt of its commitment.
        salt: Secret,
        /// Seed of the rest.
        seed: Secret,
    },
    /// Proves a job from its first step to its last.
    Prove(Box<ProofWork>),
    /// Does one step of a job's proof.
    Step {
        /// The job.
        proof: Box<ProofWork>,
        /// The results that the step reads, by the names of their tasks: internal artifacts of the job's tenant.
        results: Vec<(String, Digest)>,
    },
}

/// A job with what its proof needs.
pub struct ProofWork {
    /// The job.
    pub job: v1::Job,
    /// Its model.
    pub model: v1::Model,
    /// Internal artifact of the model.
    pub private_digest: Digest,
    /// Salt of the input commitment.
    pub input_salt: Secret,
    /// Seed of the rest.
    pub seed: Secret,
}

/// What a proof of a job must be of, for who checks it.
pub struct AskedProof {
    /// The job.
    pub job: v1::Job,
    /// Its model.
    pub model: v1::Model,
    /// Salt of the input commitment.
    pub input_salt: Secret,
}

impl Work {
    /// The trace that the job or the model was created in; empty if there is none.
    pub fn trace_parent(&self) -> &str {
        match self {
            Self::Register { model, .. } => &model.trace_parent,
            Self::Prove(proof) | Self::Step { proof, .. } => &proof.job.trace_parent,
        }
    }
}

impl std::fmt::Debug for Work {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Salts and seeds stay out of every log.
        match self {
            Self::Register { model, .. } => f.debug_tuple("Register").field(&model.name).finish(),
            Self::Prove(proof) => f.debug_tuple("Prove").field(&proof.job.name).finish(),
            Self::Step { proof, .. } => f.debug_tuple("Step").field(&proof.job.name).finish(),
        }
    }
}

/// A subject as it is at its end.
#[derive(Debug, Clone)]
pub enum Ended {
    /// READY or FAILED.
    Model(Box<v1::Model>),
    /// In one of its final states.
    Job(Box<v1::Job>),
}

/// What a task gave.
#[derive(Debug, Clone)]
pub enum Outcome {
    /// A registration, with its artifacts.
    Registered {
        /// What clients see.
        registered: Box<v1::RegisteredModel>,
        /// What proving needs: an internal artifact.
        private_digest: Digest,
        /// The tasks of each of its jobs.
        graph: v1::TaskGraph,
        /// All artifacts that it made.
        artifacts: Vec<ArtifactFacts>,
    },
    /// Bytes for other tasks of the job: an internal artifact.
    Result(ArtifactFacts),
    /// A job's result, with its artifacts.
    Proved {
        /// What clients see.
        result: Box<v1::JobResult>,
        /// All artifacts that it made.
        artifacts: Vec<ArtifactFacts>,
    },
}

impl Outcome {
    /// As it is told.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Registered { .. } => "a registration",
            Self::Result(_) => "a result for other tasks",
            Self::Proved { .. } => "a proof",
        }
    }

    /// The job's result, if that is what it gave.
    pub fn result(&self) -> Option<&v1::JobResult> {
        match self {
            Self::Proved { result, .. } => Some(result),
            Self::Registered { .. } | Self::Result(_) => None,
        }
    }
}

/// What an attempt took.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Usage {
    /// Where it ran, such as `cpu` or `cuda:0`.
    pub device: String,
    /// Why it ran elsewhere than it should have, such as a device that failed; empty if it did not.
    pub fallback: String,
    /// Largest resident memory of the process since its start; 0 if it cannot be told.
    pub peak_host_bytes: i64,
    /// Largest memory that the process had taken on the device meanwhile; 0 if it has none of its own, as the CPU.
    pub peak_device_bytes: i64,
    /// Other attempts ran in the process meanwhile: what it had taken is not this one's alone.
    pub is_shared: bool,
    /// How long each stage took.
    pub stage_times: Vec<v1::StageTime>,
}

/// Why an attempt failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedAttempt {
    /// The kind of failure, which decides what becomes of the task.
    pub cause: FailureCause,
    /// Stable reason for the client, such as `SHAPE_MISMATCH`; empty: the cause's own.
    pub reason: String,
    /// For people; never inputs, weights or salts.
    pub message: String,
    /// With [`FailureCause::Storage`]: names of the tasks whose results are missing or damaged. They are done again.
    pub damaged: Vec<String>,
}

/// Kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FailureCause {
    /// The caller's fault: another attempt gives the same.
    InvalidInput,
    /// A bug: another attempt gives the same.
    Internal,
    /// The host's memory did not suffice.
    HostMemory,
    /// The device's memory did not suffice.
    DeviceMemory,
    /// The device failed.
    DeviceLost,
    /// Stored bytes could not be read or written.
    Storage,
    /// The proof just made did not verify.
    VerifyFailed,
    /// It took too long.
    Timeout,
}

/// A worker that asks for tasks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewSession {
    /// Name for people, such as a pod's; no identity.
    pub worker: String,
    /// It is part of a server's process, or a child of it, and ends with it: it is dead when a process that has a database of its own starts again, and its
    /// silence is no fault of its tasks.
    pub is_local: bool,
    /// Its devices, for people.
    pub devices: Vec<String>,
}

/// How a session ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SessionEnd {
    /// In order: its tasks count no attempt.
    InOrder,
    /// Its process died: its tasks count an attempt.
    Crashed(Crash),
}

/// What is known of the death of a worker's process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Crash {
    /// The end of what it wrote to its standard error. For operators only: what a driver or a library writes there is not known, and the process may have
    /// worked for several tenants.
    pub last_words: String,
    /// It ended for want of host memory: that is the failure of its tasks, and none of them is to blame for a death.
    pub is_out_of_memory: bool,
    /// The most host memory that it had taken then, in bytes; 0: not known.
    pub peak_host_bytes: u64,
}

impl Crash {
    /// Most bytes of [`Self::last_words`].
    pub const MAX_LAST_WORDS_BYTES: usize = 4096;

    /// What a process wrote, as it is kept and shown: its end, without control characters but for line ends.
    pub fn readable(written: &[u8]) -> String {
        let mut text = String::from_utf8_lossy(written).into_owned();
        text.retain(|c| c == '\n' || !c.is_control());
        let start = text.ceil_char_boundary(text.len().saturating_sub(Self::MAX_LAST_WORDS_BYTES));
        text.split_off(start)
    }
}

/// A session's name, made by the engine.
pub type SessionId = String;

/// What a session can take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Tasks, at most.
    pub max_tasks: u32,
    /// Tasks that it works at, at a time; 0: not known.
    pub n_slots: u32,
    /// Memory of its device that its tasks may take, all together: what those that it holds are expected to take is not given again. The most that was
    /// offered is what the session can hold at all. `u64::MAX` for a host without devices, which pages nothing to one.
    pub device_bytes: u64,
    /// Memory of its host that it may take; what a task is known to need of it must fit. `u64::MAX`: not known.
    pub host_bytes: u64,
    /// Models that it holds ready, by their private digests: their tasks are preferred.
    pub cached_models: Vec<Digest>,
}

/// The answer to a sign of life.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renewal {
    /// No longer this session's: stop, and write nothing.
    pub lost: Vec<Lease>,
    /// No longer wanted: stop, and fail or release them.
    pub stop: Vec<Lease>,
}

/// What the reaper did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reaped {
    /// Subjects whose tasks wait again for a worker.
    pub requeued: Vec<Subject>,
    /// Subjects that ended: their tasks died with too many workers.
    pub ended: Vec<Subject>,
    /// Jobs that were told that no worker can hold a task of theirs, or failed because of it.
    pub too_large: Vec<Subject>,
    /// Tasks that could not be taken away, since what is stored of them is damaged; the log has them.
    pub failed: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_what_a_process_wrote_the_end_is_kept_without_what_would_change_a_page_or_cannot_be_stored() {
        assert_eq!(Crash::readable(b"one\x1b[31m\r\n\0two\xff\n"), "one[31m\ntwo\u{fffd}\n");
        let long = "\u{fffd}".repeat(Crash::MAX_LAST_WORDS_BYTES) + "end";
        let kept = Crash::readable(long.as_bytes());
        assert!(kept.len() <= Crash::MAX_LAST_WORDS_BYTES && kept.len() > Crash::MAX_LAST_WORDS_BYTES - 4 && kept.ends_with("end"));
    }
}
