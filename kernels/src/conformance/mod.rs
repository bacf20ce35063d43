//! The conformance suite: what every [`Backend`] must do exactly as [`Reference`] does.
//!
//! The backend under test runs beside the reference in a [`DualBackend`], which compares all that the host sees; sizes and values are awkward.

mod cached;
mod circuit;
mod gates;
mod oracles;
mod samples;
mod systems;

use zkinfer_circuits::backend::reference::Reference;
use zkinfer_circuits::backend::{Backend, BackendError};

use crate::dual::DualBackend;
use crate::inspect::Inspect;

/// The first case in which a backend does not conform.
#[derive(Debug, thiserror::Error)]
#[error("conformance case {case}")]
pub struct ConformanceError {
    /// The case.
    pub case: String,
    /// What happened.
    #[source]
    pub source: BackendError,
}

/// What a case does with the reference and the backend beside it.
type Run<B> = Box<dyn Fn(&DualBackend<Reference, B>) -> Result<(), BackendError>>;

/// A named case of the suite.
type Case<B> = (String, Run<B>);

/// Runs the whole suite.
///
/// # Errors
/// The first case in which `backend` differs from the reference.
pub fn check<B: Backend>(backend: B) -> Result<(), ConformanceError> {
    run(
        &DualBackend::new(Reference, backend),
        oracles::cases().into_iter().chain(cached::cases()).chain(systems::cases()).chain(circuit::cases()),
    )
}

/// Runs the part of the suite that is about circuits, which takes most of its time.
///
/// # Errors
/// As [`check`].
pub fn check_circuits<B: Backend>(backend: B) -> Result<(), ConformanceError> {
    run(&DualBackend::new(Reference, backend), circuit::cases().into_iter())
}

/// Runs the rest, which is about oracles and layers, and compares every buffer as well.
///
/// # Errors
/// As [`check`].
pub fn check_every_buffer<B: Inspect>(backend: B) -> Result<(), ConformanceError> {
    run(&DualBackend::of_every_buffer(Reference, backend), oracles::cases().into_iter().chain(cached::cases()).chain(systems::cases()))
}

/// Runs the rounds of one small layer and compares every buffer: a self-test for a device that is about to serve.
///
/// # Errors
/// As [`check`].
pub fn check_layer<B: Inspect>(backend: B) -> Result<(), ConformanceError> {
    run(&DualBackend::of_every_buffer(Reference, backend), systems::cases().into_iter().take(1))
}

/// Proves one small circuit: the other half of such a test.
///
/// # Errors
/// As [`check`].
pub fn check_circuit<B: Backend>(backend: B) -> Result<(), ConformanceError> {
    run(&DualBackend::new(Reference, backend), circuit::cases().into_iter().take(1))
}

/// Proves one circuit with rows of every gate of recursion: what is worth running under tools that slow a device down.
///
/// # Errors
/// As [`check`].
pub fn check_gates<B: Backend>(backend: B) -> Result<(), ConformanceError> {
    run(&DualBackend::new(Reference, backend), [circuit::gates_case()].into_iter())
}

fn run<B: Backend>(dual: &DualBackend<Reference, B>, cases: impl Iterator<Item = Case<B>>) -> Result<(), ConformanceError> {
    for (case, run) in cases {
        run(dual).map_err(|source| ConformanceError { case, source })?;
    }
    Ok(())
}

/// An error of the suite's own comparisons.
fn require(holds: bool, step: &'static str) -> Result<(), BackendError> {
    if holds {
        return Ok(());
    }
    Err(BackendError::Disagreement { step, first: "the suite".to_owned(), second: "the backend".to_owned() })
}
