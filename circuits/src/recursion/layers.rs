//! The layer argument as the leaves use it.

use plonky2::iop::witness::{PartialWitness, WitnessWrite};

use crate::field::{Builder, F};
use crate::kind::{LayerKind, Role};
use crate::layer::circuit::{LayerTargets, set_layer, verify_layer};
use crate::layer::{LayerProof, LayerShape};
use crate::recursion::leaf::{LayerCircuit, LayerSlot};
use crate::security::Profile;

/// A layer proof with the θ that it is about.
#[derive(Clone, Debug)]
pub struct ProvedLayer {
    /// Public scalars.
    pub theta: Vec<F>,
    /// The proof.
    pub proof: LayerProof,
}

/// The shape of a layer under a profile: one definition for provers, verifiers and leaves.
pub fn layer_shape(kind: LayerKind, role: Role, profile: &Profile) -> LayerShape {
    LayerShape::new(kind, role, &profile.layer_fri(kind.log_rows))
}

/// Adds the verification of one layer of a shape.
pub(super) fn verify_shape(builder: &mut Builder, shape: &LayerShape) -> (LayerSlot, LayerTargets) {
    let targets = verify_layer(builder, shape);
    let slot = LayerSlot {
        index: targets.index,
        layer_key: targets.layer_key,
        link_weights: targets.link_weights,
        link_main: targets.link_main,
        gamma_prime: targets.gamma_prime,
        delta: targets.delta,
        balance: targets.balance,
    };
    (slot, targets)
}

/// The layers of `crate::layer`.
#[derive(Clone, Copy, Debug)]
pub struct StarkLayers;

impl LayerCircuit for StarkLayers {
    type Targets = LayerTargets;
    type Witness = ProvedLayer;

    fn verify(builder: &mut Builder, kind: &LayerKind, role: Role, profile: &Profile) -> (LayerSlot, LayerTargets) {
        verify_shape(builder, &layer_shape(*kind, role, profile))
    }

    fn set(witness: &mut PartialWitness<F>, targets: &LayerTargets, _: &LayerKind, layer: &ProvedLayer) -> anyhow::Result<()> {
        witness.set_extension_target(targets.balance, layer.proof.balance)?;
        set_layer(witness, targets, &layer.theta, &layer.proof)
    }
}
