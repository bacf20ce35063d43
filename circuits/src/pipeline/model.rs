//! A model whose weights are committed: what every inference of it starts from.

use super::reopen::reopen;
use super::stage::{Observer, Stage, step};
use super::{ModelSecret, PipelineError};
use crate::backend::{Backend, BackendError};
use crate::field::{Digest, F};
use crate::kind::Role;
use crate::layer::prover::{LinkedOracle, commit_linked, commit_shape};
use crate::layer::spec::layer_key;
use crate::layer::{LayerShape, LayerSpec};
use crate::ops::trace::{LayerConstants, weight_columns};
use crate::program::{Program, Wiring};
use crate::recursion::digest::{Chains, LayerIdentity, model_commitment, program_digest};
use crate::recursion::layers::layer_shape;
use crate::recursion::prover::CircuitStore;
use crate::recursion::salt::Salt;
use crate::security::{Profile, ProfileName};

/// A layer with its committed weights.
pub struct CommittedLayer<B: Backend> {
    /// Public description.
    pub spec: LayerSpec,
    /// θ.
    pub theta: Vec<F>,
    /// Private constants.
    pub constants: LayerConstants,
    /// The inference argument.
    pub shape: LayerShape,
    /// The weights oracle.
    pub weights: LinkedOracle<B>,
    /// Key of the layer.
    pub key: Digest,
}

/// A model, committed.
pub struct CommittedModel<B: Backend> {
    /// Profile of the parameters that it is committed under.
    pub profile: ProfileName,
    /// The public program.
    pub program: Program,
    /// Which tensors each layer reads.
    pub wiring: Wiring,
    /// Salt of the commitment.
    pub salt: Salt,
    /// The layers in order.
    pub layers: Vec<CommittedLayer<B>>,
    /// Digest of the boundary's shape.
    pub boundary_digest: Digest,
    /// Program digest.
    pub program_digest: Digest,
    /// Digest of the private constants' chain, without salt: equal for equal constants. Private.
    pub secret_chain: Digest,
    /// Model commitment.
    pub commitment: Digest,
}

impl<B: Backend> CommittedModel<B> {
    /// Commits the weights of every layer, or takes the committed oracles from `store`.
    ///
    /// # Errors
    /// An invalid program, a failing backend, or cancellation.
    pub fn commit(backend: &B, secret: ModelSecret, store: &dyn CircuitStore, observer: &dyn Observer) -> Result<Self, PipelineError> {
        let wiring = secret.program.check()?;
        let profile = Profile::new(secret.profile);
        let mut layers = Vec::with_capacity(secret.constants.len());
        for (index, (spec, constants)) in secret.program.layers.iter().zip(secret.constants).enumerate() {
            layers.push(step(observer, Stage::Weights, index, || commit_layer(backend, &profile, spec, constants, store))?);
        }
        let boundary_digest = secret.program.boundary.digest();
        let mut chains = Chains::start();
        for (index, layer) in layers.iter().enumerate() {
            chains = chains.after(index, &layer.identity(Digest::ZERO));
        }
        let program_digest = program_digest(layers.len(), chains.public, boundary_digest);
        let commitment = model_commitment(secret.salt.digest(), program_digest, chains.secret);
        Ok(Self {
            profile: secret.profile,
            program: secret.program,
            wiring,
            salt: secret.salt,
            layers,
            boundary_digest,
            program_digest,
            secret_chain: chains.secret,
            commitment,
        })
    }

    /// The names of the oracles of its weights in a store.
    pub fn oracle_names(&self) -> impl Iterator<Item = String> {
        self.layers.iter().map(|layer| oracle_name(&layer.shape, weight_columns(&layer.spec, &layer.constants).as_flat()))
    }
}

impl<B: Backend> CommittedLayer<B> {
    /// What the layer adds to the chains, given its main oracle's link.
    pub fn identity(&self, link_main: Digest) -> LayerIdentity {
        LayerIdentity { key: self.key, link_weights: self.weights.link, link_main }
    }
}

fn commit_layer<B: Backend>(
    backend: &B,
    profile: &Profile,
    spec: &LayerSpec,
    constants: LayerConstants,
    store: &dyn CircuitStore,
) -> Result<CommittedLayer<B>, PipelineError> {
    let shape = layer_shape(spec.kind, Role::Inference, profile);
    let columns = weight_columns(spec, &constants);
    let name = oracle_name(&shape, columns.as_flat());
    let unusable = |error: &BackendError| tracing::warn!(%error, "a cached oracle is computed again");
    let cached = store.load(&name).and_then(|bytes| reopen(backend, &shape, &columns, &bytes).inspect_err(unusable).ok());
    let weights = match cached {
        Some(weights) => weights,
        None => {
            let weights = commit_linked(backend, &shape, &columns)?;
            store.store(&name, &backend.save(&weights.oracle)?);
            weights
        }
    };
    let theta = spec.theta();
    let key = layer_key(shape.kind_digest, &theta);
    Ok(CommittedLayer { spec: spec.clone(), theta, constants, shape, weights, key })
}

/// Cache name: commitment shape, and a hash of the columns. The saved bytes say by themselves which backends can read them.
fn oracle_name(shape: &LayerShape, columns: &[F]) -> String {
    use plonky2::field::types::PrimeField64;
    let mut hasher = blake3::Hasher::new();
    for element in columns {
        hasher.update(&element.to_canonical_u64().to_le_bytes());
    }
    let commit = commit_shape(shape);
    let hash = hasher.finalize().to_hex();
    format!("weights-{}-{}-{}-{hash}", shape.log_rows(), commit.rate_bits, commit.cap_height)
}
