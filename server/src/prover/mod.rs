//! The seam between the service and the mathematics.
//!
//! The service knows nothing of fields or circuits: it hands bytes to a [`Prover`] on a thread of its own, and stores
//! the bytes that come back. Calls may take minutes; they report progress to a [`ProgressSink`] and ask it whether to
//! go on. For equal requests (seeds and salts included) all results but the outer proof are equal.

mod cache;
mod committed;
mod input;
mod kept;
pub mod local;
mod observer;
mod places;
mod steps;
pub mod store;

use std::fmt;
use std::time::Duration;

pub use cache::{CacheContents, CacheError, CacheFolder, Files};
use zeroize::Zeroizing;
pub use zkinfer_kernels::select_backend;

use crate::observe::DeviceReport;

/// Four field elements, each as eight bytes, little end first.
pub type DigestBytes = [u8; 32];

/// p = 2^64 − 2^32 + 1: the words of a [`DigestBytes`] are below it.
pub const FIELD_ORDER: u64 = 0xffff_ffff_0000_0001;

/// Whether all four words of `bytes` are below [`FIELD_ORDER`].
pub fn is_canonical(bytes: &DigestBytes) -> bool {
    bytes.chunks_exact(8).all(|word| word.try_into().is_ok_and(|word| u64::from_le_bytes(word) < FIELD_ORDER))
}

/// A stage that a call will go through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StagePlan {
    /// For example `layer`.
    pub name: &'static str,
    /// Steps, for example the number of layers.
    pub total: u32,
    /// Expected time of the whole stage; only the proportions matter.
    pub cost_ms: u64,
}

/// Something that happened to step `index` (from 0) of stage `name`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StageEvent {
    /// One of the planned names.
    pub name: &'static str,
    /// Which step.
    pub index: u32,
    /// Steps of the stage.
    pub total: u32,
    /// What happened to it.
    pub edge: StageEdge,
}

/// Begin or end of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StageEdge {
    /// The step starts.
    Begin,
    /// The step is finished.
    End,
}

/// Takes progress, and tells whether the work is still wanted. Never blocks.
pub trait ProgressSink: Sync {
    /// Announces the stages in order. Once, before the first event.
    fn plan(&self, stages: &[StagePlan]);

    /// Reports an event.
    ///
    /// # Errors
    /// [`Stopped`]: the work is not wanted any more; return as soon as possible.
    fn report(&self, event: StageEvent) -> Result<(), Stopped>;

    /// For long steps: asks without reporting.
    ///
    /// # Errors
    /// As [`ProgressSink::report`].
    fn check(&self) -> Result<(), Stopped>;

    /// Tells where the work was done, such as `cuda:0`, why not where it should have been (empty if it was there), and the most bytes of that device's own
    /// memory that were taken at a time while it was, by other work of this process as well; 0 if it has none, as the CPU.
    fn ran_on(&self, _device: &str, _fallback: &str, _peak_device_bytes: u64) {}
}

/// Cancelled, expired or shutting down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the work was stopped")]
pub struct Stopped;

/// What the statement's input commitment tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privacy {
    /// Salt zero: recomputable from the input.
    InputPublic,
    /// Salted.
    InputCommitted,
}

/// How the input bytes are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InputEncoding {
    /// `.npy`, float32 in real units or uint8 as is.
    Npy,
    /// One byte for each element.
    Uint8,
}

/// How a float network becomes integers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantization {
    /// One scale per output channel of the weights, or one for the whole tensor.
    pub per_channel: bool,
    /// `None`: from the smallest to the largest value seen. `Some(q)`: clipped to that percentile, `50 < q ≤ 100`.
    pub percentile: Option<f64>,
}

/// What to register.
pub struct RegisterRequest<'a> {
    /// ONNX file.
    pub source: &'a [u8],
    /// `.npy`, first axis the sample.
    pub calibration: Option<&'a [u8]>,
    /// Ignored for a network that is quantized already.
    pub quantization: Quantization,
    /// One of [`Prover::parameter_sets`].
    pub parameter_set: &'a str,
    /// Salt of the model commitment; zero if the weights are public. Canonical.
    pub salt: &'a DigestBytes,
    /// Seed of whatever else is random below the outer proof.
    pub seed: &'a [u8; 32],
}

/// What registration gives.
pub struct RegisteredModel {
    /// What proving needs and nobody else may see. Stored as an internal artifact.
    pub private: Zeroizing<Vec<u8>>,
    /// What a verifier needs: program, commitment, registration proof. Public.
    pub verifier_key: Vec<u8>,
    /// Quantization report, JSON. Public.
    pub report_json: Vec<u8>,
    /// Facts for the model's page.
    pub facts: ModelFacts,
    /// The steps of each proof, in an order in which each comes after those that it needs; the last is the one that gives the proof.
    pub steps: Vec<StepPlan>,
}

/// A step of a proof that a worker can do by itself, given the results of others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepPlan {
    /// Its name, such as `layer-0007`.
    pub name: String,
    /// What kind of step it is, such as `layer`.
    pub kind: &'static str,
    /// Places in the list of the steps whose results it reads.
    pub needs: Vec<u32>,
    /// Expected time on the CPU.
    pub estimated_ms: u64,
    /// Device memory that it needs, if it is done on a device.
    pub device_bytes: u64,
    /// Expected time beside the other, where the weights that it works with do not lie ready.
    pub load_ms: u64,
}

/// Results of other steps, by their names.
pub trait StepResults {
    /// The bytes that a step gave.
    fn result(&self, step: &str) -> Option<&[u8]>;
}

/// What a step gives.
pub enum StepOutput {
    /// Bytes for other steps; private.
    Internal(Zeroizing<Vec<u8>>),
    /// The proof: the step was the last.
    Proved(Box<ProvedJob>),
}

/// Name of the step that gives the proof.
pub const LAST_STEP: &str = "outer";

/// Facts about a registered model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFacts {
    /// Commitment to program and weights.
    pub model_commitment: DigestBytes,
    /// Digest of the public program.
    pub program_digest: DigestBytes,
    /// Digest of parameters and circuits.
    pub parameters_id: DigestBytes,
    /// Input tensors.
    pub inputs: Vec<TensorFacts>,
    /// Output tensors.
    pub outputs: Vec<TensorFacts>,
    /// Layers.
    pub layer_count: u32,
    /// Weights and biases.
    pub parameter_count: u64,
    /// One proof.
    pub unit_cost: Cost,
}

/// A tensor at the edge of the graph: `real = (integer − zero_point)·scale`.
#[derive(Debug, Clone, PartialEq)]
pub struct TensorFacts {
    /// Name in the ONNX graph.
    pub name: String,
    /// `uint8`, `int8` or `int64`.
    pub dtype: &'static str,
    /// Without the batch axis.
    pub shape: Vec<u64>,
    /// One, or one for each index of the last axis.
    pub scales: Vec<f64>,
    /// Integer that stands for zero.
    pub zero_point: i64,
}

/// What something is expected to take; 0 where it is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cost {
    /// Wall time.
    pub wall_time: Duration,
    /// Host memory.
    pub peak_host_bytes: u64,
    /// Device memory.
    pub peak_device_bytes: u64,
    /// Size of the outer proof.
    pub proof_bytes: u64,
    /// Proof steps.
    pub task_count: u32,
    /// Layers.
    pub layer_count: u32,
    /// Multiplications of the network.
    pub multiply_accumulates: u64,
}

/// A registered model as stored. Bytes are read only when asked for, so that an implementation that has the model in
/// its cache (by [`ModelMaterial::id`]) reads nothing.
pub trait ModelMaterial: Sync {
    /// Identifies the private material: its BLAKE3 hash.
    fn id(&self) -> DigestBytes;

    /// The bytes of [`RegisteredModel::private`].
    ///
    /// # Errors
    /// [`ProverError::Storage`].
    fn private(&self) -> Result<Zeroizing<Vec<u8>>, ProverError>;

    /// The bytes of [`RegisteredModel::verifier_key`].
    ///
    /// # Errors
    /// [`ProverError::Storage`].
    fn verifier_key(&self) -> Result<Vec<u8>, ProverError>;
}

/// What to prove.
pub struct ProveRequest<'a> {
    /// The input.
    pub input: &'a [u8],
    /// How to read it.
    pub encoding: InputEncoding,
    /// What the statement tells of it.
    pub privacy: Privacy,
    /// Salt of the input commitment; zero for [`Privacy::InputPublic`]. Canonical.
    pub input_salt: &'a DigestBytes,
    /// Context nonce of the statement. Canonical.
    pub nonce: &'a DigestBytes,
    /// Seed of whatever else is random below the outer proof.
    pub seed: &'a [u8; 32],
}

/// What proving gives.
pub struct ProvedJob {
    /// The outer proof, encoded.
    pub proof: Vec<u8>,
    /// The statement in its canonical bytes.
    pub statement: Vec<u8>,
    /// The same, readable.
    pub fields: StatementFields,
}

/// A readable statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementFields {
    /// Version of the format.
    pub version: u32,
    /// Digest of parameters and circuits.
    pub parameters_id: DigestBytes,
    /// Digest of the public program.
    pub program_digest: DigestBytes,
    /// Commitment to program and weights.
    pub model_commitment: DigestBytes,
    /// Commitment to the input.
    pub input_commitment: DigestBytes,
    /// The output tensors, one after another.
    pub output_values: Vec<i64>,
    /// Digest of the predicate; zero: none.
    pub predicate: DigestBytes,
    /// Context nonce.
    pub context_nonce: DigestBytes,
}

/// Who computes, and why it was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendInfo {
    /// For example `cpu (2 threads)`.
    pub name: String,
    /// For example `no CUDA device: libcuda.so was not found`.
    pub reason: String,
}

/// What is wrong with a request, as a stable reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// The network uses operators that are not supported.
    UnsupportedOp,
    /// The file is not a valid network, or cannot be quantized.
    ModelInvalid,
    /// Shapes do not fit.
    ShapeMismatch,
    /// A value is out of the range that was registered.
    RangeOverflow,
    /// The input cannot be read.
    InputCorrupt,
}

/// Why a call failed. Messages never hold inputs or weights.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProverError {
    /// The sink said so.
    #[error(transparent)]
    Stopped(#[from] Stopped),
    /// The caller's fault; another attempt gives the same.
    #[error("{message}")]
    Rejected {
        /// Stable reason.
        rejection: Rejection,
        /// For people: what and where.
        message: String,
    },
    /// The host's memory does not suffice.
    #[error("out of memory: {0}")]
    HostMemory(String),
    /// The device's memory does not suffice.
    #[error("out of device memory: {0}")]
    DeviceMemory(String),
    /// The device failed.
    #[error("the device failed: {0}")]
    DeviceLost(String),
    /// The proof just made does not verify.
    #[error("the proof just made does not verify: {0}")]
    ProofInvalid(String),
    /// Stored material cannot be read.
    #[error("stored material cannot be read: {0}")]
    Storage(String),
    /// What these tasks gave is missing or damaged.
    #[error("results of other tasks are missing or damaged: {}", .0.join(", "))]
    ResultsDamaged(Vec<String>),
    /// A bug.
    #[error("internal error: {0}")]
    Internal(String),
}

/// Why a proof was not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifyFailure {
    /// Stable, UPPER_SNAKE.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

impl fmt::Display for VerifyFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)
    }
}

/// The mathematics, as the service sees it. All methods may be called from several threads at once.
pub trait Prover: Send + Sync + 'static {
    /// Which backend computes.
    fn backend(&self) -> BackendInfo;

    /// The backends that share the work, in order, for those who watch over them.
    fn devices(&self) -> Vec<DeviceReport> {
        Vec::new()
    }

    /// Full names of the parameter sets offered, the default first, such as `goldilocks-poseidon-v1/default`.
    fn parameter_sets(&self) -> Vec<String>;

    /// Imports, quantizes, commits and makes the registration proof.
    ///
    /// # Errors
    /// See [`ProverError`].
    fn register(&self, request: &RegisterRequest<'_>, progress: &dyn ProgressSink) -> Result<RegisteredModel, ProverError>;

    /// Proves one inference. Whoever hands the proof on verifies it first, by [`Prover::verify`].
    ///
    /// # Errors
    /// See [`ProverError`].
    fn prove(&self, model: &dyn ModelMaterial, request: &ProveRequest<'_>, progress: &dyn ProgressSink) -> Result<ProvedJob, ProverError>;

    /// Does one step of a proof: one of [`RegisteredModel::steps`]. All but the last give the same bytes wherever they are done.
    ///
    /// # Errors
    /// See [`ProverError`].
    fn prove_step(
        &self,
        model: &dyn ModelMaterial,
        request: &ProveRequest<'_>,
        step: &str,
        results: &dyn StepResults,
        progress: &dyn ProgressSink,
    ) -> Result<StepOutput, ProverError>;

    /// Models that are held ready, by [`ModelMaterial::id`].
    fn cached_models(&self) -> Vec<DigestBytes> {
        Vec::new()
    }

    /// What was made with a model does not verify: nothing that is kept of it is to be believed.
    fn doubt(&self, _model: DigestBytes) {}

    /// Whether a device has failed, so that something slower computes in its stead from then on.
    fn is_degraded(&self) -> bool {
        false
    }

    /// Verifies as any client would: registration proof, statement, outer proof.
    ///
    /// # Errors
    /// The reason why the proof is not accepted.
    fn verify(&self, key: &[u8], statement: &[u8], proof: &[u8]) -> Result<(), VerifyFailure>;

    /// Decodes a statement.
    ///
    /// # Errors
    /// It is not the canonical encoding of a statement.
    fn decode_statement(&self, statement: &[u8]) -> Result<StatementFields, VerifyFailure>;

    /// The commitment to an input, as a statement about the model of `key` has it.
    ///
    /// # Errors
    /// A key, an input or a salt of which no statement can be.
    fn input_commitment(&self, key: &[u8], input: &[u8], encoding: InputEncoding, salt: &DigestBytes) -> Result<DigestBytes, ProverError>;

    /// What one proof of an unregistered network would cost.
    ///
    /// # Errors
    /// [`ProverError::Rejected`].
    fn estimate(&self, source: &[u8], parameter_set: &str) -> Result<Cost, ProverError>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_words_are_below_the_order() {
        let mut bytes = [0; 32];
        assert!(is_canonical(&bytes));
        bytes[24..].copy_from_slice(&(FIELD_ORDER - 1).to_le_bytes());
        assert!(is_canonical(&bytes));
        bytes[24..].copy_from_slice(&FIELD_ORDER.to_le_bytes());
        assert!(!is_canonical(&bytes));
        assert!(!is_canonical(&[0xff; 32]));
    }
}
