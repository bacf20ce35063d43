//! The stages of a registration and of an inference, as the caller sees them pass.

/// A stage; most have several steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Committing the weights of layers, or loading them from the cache.
    Weights,
    /// Evaluating the network.
    Witness,
    /// Committing the tensors of layers (round 1).
    Commit,
    /// Deriving γ' and δ from all commitments.
    Bind,
    /// Proving layers.
    Layer,
    /// Verifying layer proofs in leaf circuits.
    Leaf,
    /// Joining nodes.
    Join,
    /// The published proof.
    Outer,
    /// Verifying it.
    Verify,
}

impl Stage {
    /// Stable name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Witness => "witness",
            Self::Commit => "commit",
            Self::Bind => "bind",
            Self::Layer => "layer",
            Self::Leaf => "leaf",
            Self::Join => "join",
            Self::Outer => "outer",
            Self::Verify => "verify",
        }
    }
}

/// The number of steps of each stage, in order.
pub type StagePlan = Vec<(Stage, usize)>;

/// The caller does not want the work any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the work was cancelled")]
pub struct Cancelled;

/// Follows the work and may stop it between steps. Never blocks.
pub trait Observer: Sync {
    /// All stages, before the first step.
    fn plan(&self, stages: &[(Stage, usize)]);
    /// A step begins.
    ///
    /// # Errors
    /// [`Cancelled`] to stop here.
    fn begin(&self, stage: Stage, step: usize) -> Result<(), Cancelled>;
    /// A step ended.
    fn end(&self, stage: Stage, step: usize);
}

/// Follows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl Observer for Unobserved {
    fn plan(&self, _: &[(Stage, usize)]) {}

    fn begin(&self, _: Stage, _: usize) -> Result<(), Cancelled> {
        Ok(())
    }

    fn end(&self, _: Stage, _: usize) {}
}

/// The span of a step, under its stage's name.
pub(super) fn span(stage: &'static str, index: usize) -> tracing::Span {
    tracing::info_span!("stage", otel.name = stage, stage, step = index)
}

/// Runs one step between its two notices.
pub(super) fn step<T, E: From<Cancelled>>(
    observer: &dyn Observer,
    stage: Stage,
    index: usize,
    work: impl FnOnce() -> Result<T, E>,
) -> Result<T, E> {
    let _span = span(stage.name(), index).entered();
    observer.begin(stage, index)?;
    let result = work()?;
    observer.end(stage, index);
    Ok(result)
}
