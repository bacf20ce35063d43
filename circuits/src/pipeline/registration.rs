//! The registration of a model: its private constants are in range, proved once in zero knowledge.

use plonky2::field::types::Field;

use super::PipelineError;
use super::model::{CommittedLayer, CommittedModel};
use super::stage::{Observer, Stage, step};
use crate::backend::Backend;
use crate::field::K;
use crate::kind::Role;
use crate::layer::prover::{commit_linked, prove};
use crate::layer::{LayerClaim, LayerShape};
use crate::ops::trace::{registration_columns, weight_columns};
use crate::recursion::digest::{GlobalChallenges, registration_digest};
use crate::recursion::outer::RegistrationWitness;
use crate::recursion::prover::{Aggregator, ProvedLayer};
use crate::recursion::verify::verify_registration;

/// Makes and verifies the registration proof of a committed model.
///
/// # Errors
/// A constant out of its registered range, a failing backend, or cancellation.
pub fn register<B: Backend>(
    backend: &B,
    aggregator: &Aggregator,
    model: &CommittedModel<B>,
    observer: &dyn Observer,
) -> Result<Vec<u8>, PipelineError> {
    let kinds: Vec<_> = model.layers.iter().map(|layer| layer.spec.kind).collect();
    let plan = aggregator.plan_registration(&kinds)?;
    let mut proved = Vec::with_capacity(model.layers.len());
    for (index, layer) in model.layers.iter().enumerate() {
        proved.push(step(observer, Stage::Layer, index, || register_layer(backend, aggregator, layer, index))?);
    }
    let root = aggregator.aggregate(backend, &plan, &proved, None, GlobalChallenges::zero(), observer)?;
    let witness = RegistrationWitness {
        parameters_id: aggregator.parameters().id(),
        model_salt: model.salt,
        boundary: model.boundary_digest,
    };
    let proof = step(observer, Stage::Outer, 0, || Ok::<_, PipelineError>(aggregator.registration_outer(backend, &root, &witness)?))?;
    let digest = registration_digest(aggregator.parameters().id(), model.program_digest, model.commitment);
    verify_registration(aggregator.parameters(), digest, &proof).map_err(|error| PipelineError::SelfCheck(error.to_string()))?;
    Ok(proof)
}

/// The stages that [`register`] goes through, for [`Observer::plan`].
///
/// # Errors
/// A layer kind without circuit.
pub fn registration_stages<B: Backend>(aggregator: &Aggregator, model: &CommittedModel<B>) -> Result<Vec<(Stage, usize)>, PipelineError> {
    let kinds: Vec<_> = model.layers.iter().map(|layer| layer.spec.kind).collect();
    let leaves = aggregator.plan_registration(&kinds)?.len();
    Ok(vec![(Stage::Layer, kinds.len()), (Stage::Leaf, leaves), (Stage::Join, leaves - 1), (Stage::Outer, 1)])
}

fn register_layer<B: Backend>(
    backend: &B,
    aggregator: &Aggregator,
    layer: &CommittedLayer<B>,
    index: usize,
) -> Result<ProvedLayer, PipelineError> {
    let fri = aggregator.parameters().profile().layer_fri(layer.spec.kind.log_rows);
    let shape = LayerShape::new(layer.spec.kind, Role::Registration, &fri);
    let weights = weight_columns(&layer.spec, &layer.constants);
    let columns =
        registration_columns(&shape.system, &layer.spec, &weights).map_err(|source| PipelineError::Trace { layer: index, source })?;
    let main = commit_linked(backend, &shape, &columns)?;
    let claim = LayerClaim {
        theta: layer.theta.clone(),
        index,
        link_weights: layer.weights.link,
        link_main: main.link,
        gamma_prime: K::ZERO,
        delta: K::ZERO,
        balance: K::ZERO,
    };
    let proof = prove(backend, &shape, &claim, &layer.weights, &main)?;
    Ok(ProvedLayer { identity: layer.identity(main.link), claim, proof })
}
