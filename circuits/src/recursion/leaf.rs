//! Leaf circuits: the layers of a fixed list of kinds, in order, and possibly the boundary.

use plonky2::field::types::Field;
use plonky2::hash::hash_types::HashOutTarget;
use plonky2::iop::target::Target;
use plonky2::iop::witness::PartialWitness;

use crate::field::{Builder, F};
use crate::hash::{Tag, hash_circuit};
use crate::kind::{LayerKind, Role};
use crate::recursion::boundary::BoundaryTargets;
use crate::recursion::gadgets::{Ext, zero_digest};
use crate::recursion::kinds::BoundaryKind;
use crate::recursion::public::{N_NODE_PUBLIC, NodeEnd, NodePublic};
use crate::rows::part;
use crate::security::Profile;

/// What a verified layer offers to the leaf that contains it.
#[derive(Clone, Copy, Debug)]
pub struct LayerSlot {
    /// The layer's position, connected by the leaf.
    pub index: Target,
    /// Kind and public scalars.
    pub layer_key: HashOutTarget,
    /// Identity of the weights oracle.
    pub link_weights: HashOutTarget,
    /// Identity of the main oracle.
    pub link_main: HashOutTarget,
    /// γ', connected by the leaf.
    pub gamma_prime: Ext,
    /// δ, connected by the leaf.
    pub delta: Ext,
    /// The layer's balance.
    pub balance: Ext,
}

/// Wires of a leaf.
pub(super) struct LeafTargets {
    pub(super) start: NodeEnd<Target>,
    pub(super) gamma_prime: Ext,
    pub(super) delta: Ext,
    pub(super) boundary: Option<BoundaryTargets>,
}

fn step_chain(builder: &mut Builder, tag: Tag, chain: [Target; 4], middle: &[Target], item: HashOutTarget) -> [Target; 4] {
    let list = [&chain[..], middle, &item.elements].concat();
    hash_circuit(builder, tag, &list).elements
}

/// The running values after one layer; the layer's index, γ' and δ are the leaf's.
fn step_layer(builder: &mut Builder, end: &NodeEnd<Target>, layer: &LayerSlot, challenges: (Ext, Ext)) -> NodeEnd<Target> {
    builder.connect(layer.index, end.index);
    builder.connect_extension(layer.gamma_prime, challenges.0);
    builder.connect_extension(layer.delta, challenges.1);
    NodeEnd {
        index: builder.add_const(end.index, F::ONE),
        public: step_chain(builder, Tag::PublicChain, end.public, &[end.index], layer.layer_key),
        secret: step_chain(builder, Tag::SecretChain, end.secret, &[], layer.link_weights),
        main: step_chain(builder, Tag::MainChain, end.main, &[], layer.link_main),
    }
}

fn virtual_end(builder: &mut Builder) -> NodeEnd<Target> {
    NodeEnd {
        index: builder.add_virtual_target(),
        public: builder.add_virtual_hash().elements,
        secret: builder.add_virtual_hash().elements,
        main: builder.add_virtual_hash().elements,
    }
}

/// Completes a leaf around layers that are verified already, and registers the node's public inputs.
pub(super) fn build_leaf(builder: &mut Builder, role: Role, layers: &[LayerSlot], boundary: Option<BoundaryKind>) -> LeafTargets {
    let start = virtual_end(builder);
    let (gamma_prime, delta) = (builder.add_virtual_extension_target(), builder.add_virtual_extension_target());
    let mut end = start;
    let mut balance = builder.zero_extension();
    for layer in layers {
        end = part(builder, "chains", |builder| step_layer(builder, &end, layer, (gamma_prime, delta)));
        balance = builder.add_extension(balance, layer.balance);
    }
    let boundary = boundary.map(|kind| BoundaryTargets::build(builder, kind, gamma_prime, delta));
    let none = zero_digest(builder);
    let payload = boundary.as_ref().map_or(none, |boundary| boundary.payload);
    if let Some(boundary) = &boundary {
        balance = builder.add_extension(balance, boundary.balance);
    }
    let public = NodePublic {
        kind: builder.constant(role_element(role)),
        start,
        end,
        gamma_prime: gamma_prime.0,
        delta: delta.0,
        balance: balance.0,
        has_boundary: builder.constant(F::from_bool(boundary.is_some())),
        payload: payload.elements,
        join_digest: none.elements,
    };
    register(builder, &public);
    LeafTargets { start, gamma_prime, delta, boundary }
}

/// The public input `kind` of a role.
pub(super) fn role_element(role: Role) -> F {
    match role {
        Role::Inference => F::ZERO,
        Role::Registration => F::ONE,
    }
}

/// Registers a node's public inputs.
pub(super) fn register(builder: &mut Builder, public: &NodePublic<Target>) {
    let list = public.to_vec();
    debug_assert_eq!(list.len(), N_NODE_PUBLIC);
    builder.register_public_inputs(&list);
}

/// `H(TAG_PROGRAM; layer count, public chain, boundary digest)`, and the like: digests after one number.
pub(super) fn hash_number_digests(builder: &mut Builder, tag: Tag, number: Target, digests: &[HashOutTarget]) -> HashOutTarget {
    let mut list = vec![number];
    list.extend(digests.iter().flat_map(|digest| digest.elements));
    hash_circuit(builder, tag, &list)
}

/// How layers are verified in circuit: the seam between the layer argument and the recursion.
pub trait LayerCircuit: Send + Sync + 'static {
    /// Wires of a layer proof.
    type Targets: Send + Sync;
    /// A layer proof with its public scalars.
    type Witness: Sync;

    /// Adds the verification of one layer of a kind.
    fn verify(builder: &mut Builder, kind: &LayerKind, role: Role, profile: &Profile) -> (LayerSlot, Self::Targets);

    /// Assigns a layer proof.
    ///
    /// # Errors
    /// A proof of another shape.
    fn set(witness: &mut PartialWitness<F>, targets: &Self::Targets, kind: &LayerKind, layer: &Self::Witness) -> anyhow::Result<()>;
}
