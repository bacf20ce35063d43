//! The prover's whole path, stage by stage: a compiled model is committed and registered once; each inference is evaluated, committed,
//! bound, proved layer by layer, aggregated, and verified before it is handed out.

pub mod aggregation;
pub mod inference;
pub mod model;
pub mod registration;
mod reopen;
pub mod secret;
pub mod stage;
mod steps;
pub mod tasks;

use crate::backend::BackendError;
use crate::ops::trace::TraceError;
use crate::program::ProgramError;
use crate::recursion::digest::SizeError;
use crate::recursion::plan::PlanError;
use crate::recursion::prover::ProveError;

pub use aggregation::LayerAggregator;
pub use inference::{InferenceRequest, ProvedInference, prove_inference, prove_inference_unverified};
pub use model::CommittedModel;
pub use registration::register;
pub use secret::ModelSecret;
pub use stage::{Cancelled, Observer, Stage, Unobserved};

/// Why a registration or an inference failed.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The caller stopped it.
    #[error(transparent)]
    Cancelled(#[from] Cancelled),
    /// The machine failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The program is not valid.
    #[error("the program is not valid: {0}")]
    Program(#[from] ProgramError),
    /// The input has another length than the program's.
    #[error("the input has {got} elements, the model takes {expected}")]
    InputLength {
        /// Elements of the program's input.
        expected: usize,
        /// Elements given.
        got: usize,
    },
    /// A value outside the range that the program states.
    #[error("layer {layer}: {source}")]
    Trace {
        /// Index of the layer.
        layer: usize,
        /// What does not fit.
        #[source]
        source: TraceError,
    },
    /// The sizes of the graph's input or output have no circuit.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// A recursion step failed.
    #[error(transparent)]
    Aggregate(#[from] ProveError),
    /// No circuits for the model's layers.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// The proof just made is refused: a fault of the machine, or a bug.
    #[error("the proof just made does not verify: {0}")]
    SelfCheck(String),
    /// The result of another task cannot be used.
    #[error(transparent)]
    Result(#[from] tasks::ResultError),
    /// Stored private material cannot be read.
    #[error("the stored model cannot be read: {0}")]
    Secret(String),
}
