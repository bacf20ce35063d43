//! The registration of a model: its private constants are in range, proved once in zero knowledge.

use plonky2::field::types::Field;

use super::PipelineError;
use super::aggregation::{IdentifiedLayer, LayerAggregator, aggregate, stages};
use super::model::{CommittedLayer, CommittedModel};
use super::stage::{Observer, Stage, step};
use crate::backend::Backend;
use crate::encoding::digest_bytes;
use crate::field::K;
use crate::kind::{LayerKind, Role};
use crate::layer::LayerClaim;
use crate::layer::prover::{commit_linked, prove};
use crate::ops::trace::{registration_columns, weight_columns};
use crate::recursion::digest::{GlobalChallenges, registration_digest};
use crate::recursion::layers::{ProvedLayer, layer_shape};
use crate::recursion::outer::RegistrationWitness;
use crate::recursion::plan::{NodePlan, plan_registration};
use crate::recursion::prover::NodeProof;
use crate::recursion::verify::verify_registration;

/// Makes and verifies the registration proof of a committed model. The aggregator's store keeps what is the same for every salt.
///
/// # Errors
/// A constant out of its registered range, a failing backend, or cancellation.
pub fn register<B: Backend>(
    backend: &B,
    aggregator: &LayerAggregator,
    model: &CommittedModel<B>,
    observer: &dyn Observer,
) -> Result<Vec<u8>, PipelineError> {
    let kinds: Vec<_> = model.layers.iter().map(|layer| layer.spec.kind).collect();
    let plan = plan_registration(&kinds)?;
    let name = root_name(aggregator, model);
    let root = match aggregator.load_node(&name) {
        Some(root) => {
            pass(&plan, kinds.len(), observer)?;
            root
        }
        None => {
            let root = prove_root(backend, aggregator, model, &plan, observer)?;
            aggregator.save_node(&name, &root);
            root
        }
    };
    let witness =
        RegistrationWitness { parameters_id: aggregator.parameters().id(), model_salt: model.salt, boundary: model.boundary_digest };
    let proof = step(observer, Stage::Outer, 0, || Ok::<_, PipelineError>(aggregator.prove_registration(backend, &root, &witness)?))?;
    let digest = registration_digest(aggregator.parameters().id(), model.program_digest, model.commitment);
    step(observer, Stage::Verify, 0, || {
        verify_registration(aggregator.parameters(), digest, &proof).map_err(|error| PipelineError::SelfCheck(error.to_string()))
    })?;
    Ok(proof)
}

/// The node over all layers. It does not depend on the salt: a network registered again needs only the published proof.
fn prove_root<B: Backend>(
    backend: &B,
    aggregator: &LayerAggregator,
    model: &CommittedModel<B>,
    plan: &[NodePlan],
    observer: &dyn Observer,
) -> Result<NodeProof, PipelineError> {
    let mut proved = Vec::with_capacity(model.layers.len());
    for (index, layer) in model.layers.iter().enumerate() {
        proved.push(step(observer, Stage::Layer, index, || register_layer(backend, aggregator, layer, index))?);
    }
    aggregate(backend, aggregator, plan, &proved, None, GlobalChallenges::zero(), observer)
}

/// Name of the root node in the store: parameters, program and constants, which are all that it is about.
fn root_name<B: Backend>(aggregator: &LayerAggregator, model: &CommittedModel<B>) -> String {
    let mut hasher = blake3::Hasher::new();
    for digest in [aggregator.parameters().id(), model.program_digest, model.secret_chain] {
        hasher.update(&digest_bytes(digest));
    }
    format!("registration-{}", hasher.finalize().to_hex())
}

/// Reports the steps that a stored root makes needless.
fn pass(plan: &[NodePlan], n_layers: usize, observer: &dyn Observer) -> Result<(), PipelineError> {
    let [leaves, joins] = stages(plan);
    for (stage, n_steps) in [(Stage::Layer, n_layers), leaves, joins] {
        for index in 0..n_steps {
            step(observer, stage, index, || Ok::<_, PipelineError>(()))?;
        }
    }
    Ok(())
}

/// The stages of committing and registering a model of these layers, for [`Observer::plan`].
///
/// # Errors
/// A layer kind without circuit.
pub fn registration_stages(kinds: &[LayerKind]) -> Result<Vec<(Stage, usize)>, PipelineError> {
    let [leaves, joins] = stages(&plan_registration(kinds)?);
    Ok(vec![(Stage::Weights, kinds.len()), (Stage::Layer, kinds.len()), leaves, joins, (Stage::Outer, 1), (Stage::Verify, 1)])
}

fn register_layer<B: Backend>(
    backend: &B,
    aggregator: &LayerAggregator,
    layer: &CommittedLayer<B>,
    index: usize,
) -> Result<IdentifiedLayer, PipelineError> {
    let shape = layer_shape(layer.spec.kind, Role::Registration, aggregator.parameters().profile());
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
    Ok(IdentifiedLayer { identity: layer.identity(main.link), proved: ProvedLayer { theta: claim.theta, proof } })
}
