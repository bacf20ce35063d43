//! One inference, from input bytes to a verified statement.

use super::PipelineError;
use super::aggregation::{IdentifiedLayer, LayerAggregator, aggregate, stages};
use super::model::CommittedModel;
use super::stage::{Observer, Stage, step};
use super::steps::Inference;
use crate::backend::Backend;
use crate::layer::prover::LinkedOracle;
use crate::recursion::salt::Salt;
use crate::statement::{ContextNonce, Statement};

/// What to prove.
#[derive(Clone, Copy, Debug)]
pub struct InferenceRequest<'a> {
    /// One byte an element.
    pub input: &'a [u8],
    /// Salt of the input commitment; [`Salt::NONE`] publishes the input.
    pub input_salt: Salt,
    /// The verifier's nonce.
    pub nonce: ContextNonce,
}

/// What an inference gives.
#[derive(Clone, Debug)]
pub struct ProvedInference {
    /// The readable statement.
    pub statement: Statement,
    /// The published proof.
    pub proof: Vec<u8>,
}

/// Proves one inference and verifies the result.
///
/// # Errors
/// An input of another length or out of range, a failing backend, cancellation, or a proof that does not verify.
pub fn prove_inference<B: Backend>(
    backend: &B,
    aggregator: &LayerAggregator,
    model: &CommittedModel<B>,
    request: &InferenceRequest<'_>,
    observer: &dyn Observer,
) -> Result<ProvedInference, PipelineError> {
    let inference = Inference::new(backend, aggregator, model, *request)?;
    let proved = prove(&inference, observer)?;
    inference.verify(&proved)?;
    Ok(proved)
}

/// Proves one inference for somebody who verifies the result from its bytes, as its receiver will: a failing device may have made it wrong.
///
/// # Errors
/// An input of another length or out of range, a failing backend, or cancellation.
pub fn prove_inference_unverified<B: Backend>(
    backend: &B,
    aggregator: &LayerAggregator,
    model: &CommittedModel<B>,
    request: &InferenceRequest<'_>,
    observer: &dyn Observer,
) -> Result<ProvedInference, PipelineError> {
    prove(&Inference::new(backend, aggregator, model, *request)?, observer)
}

fn prove<B: Backend>(inference: &Inference<'_, B>, observer: &dyn Observer) -> Result<ProvedInference, PipelineError> {
    let Inference { backend, aggregator, model, .. } = *inference;
    let n_layers = model.layers.len();
    let [leaves, joins] = stages(&inference.plan);
    observer.plan(&[
        (Stage::Witness, 1),
        (Stage::Commit, n_layers),
        (Stage::Bind, 1),
        (Stage::Layer, n_layers),
        leaves,
        joins,
        (Stage::Outer, 1),
    ]);
    let (tensors, columns) = step(observer, Stage::Witness, 0, || inference.evaluate())?;
    let commit = |(index, columns)| step(observer, Stage::Commit, index, || inference.commit(columns, index));
    let mains = columns.iter().enumerate().map(commit).collect::<Result<Vec<LinkedOracle<B>>, PipelineError>>()?;
    drop(columns);
    let links = mains.iter().map(|main| main.link).collect();
    let bound = step(observer, Stage::Bind, 0, || inference.bind(&tensors, links))?;
    let mut layers = Vec::with_capacity(n_layers);
    for (index, main) in mains.into_iter().enumerate() {
        let proved = step(observer, Stage::Layer, index, || inference.prove_layer(&tensors, &bound, index, &main))?;
        layers.push(IdentifiedLayer { identity: model.layers[index].identity(main.link), proved });
    }
    let boundary = inference.boundary(&tensors);
    let root = aggregate(backend, aggregator, &inference.plan, &layers, Some(&boundary), bound.challenges, observer)?;
    step(observer, Stage::Outer, 0, || inference.outer(&tensors, &bound, &root))
}
