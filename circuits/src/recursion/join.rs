//! The join: two nodes that follow each other become one.
//!
//! Its own verifier data cannot be a constant of itself: it publishes a digest J, demands J of children that are joins, and the outer
//! compares J with the true digest.

use plonky2::hash::hash_types::HashOutTarget;
use plonky2::iop::target::Target;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};

use crate::field::{Builder, Digest, F};
use crate::recursion::gadgets::{ChildTargets, Proof, VerifierData};
use crate::recursion::leaf::register;
use crate::recursion::node::Common;
use crate::recursion::public::{NodeEnd, NodePublic};
use crate::recursion::registry::RegistryPath;

/// Wires of the join.
pub(super) struct JoinTargets {
    left: ChildTargets,
    right: ChildTargets,
    join_digest: HashOutTarget,
}

fn connect_all(builder: &mut Builder, left: &[Target], right: &[Target]) {
    for (&a, &b) in left.iter().zip(right) {
        builder.connect(a, b);
    }
}

fn end_list(end: &NodeEnd<Target>) -> Vec<Target> {
    [&[end.index], &end.public[..], &end.secret, &end.main].concat()
}

fn add_each<const N: usize>(builder: &mut Builder, left: [Target; N], right: [Target; N]) -> [Target; N] {
    std::array::from_fn(|i| builder.add(left[i], right[i]))
}

impl JoinTargets {
    /// Builds the join over nodes of the common shape.
    pub(super) fn build(builder: &mut Builder, common: &Common, registry_root: Digest) -> Self {
        let join_digest = builder.add_virtual_hash();
        let left = ChildTargets::verify(builder, common, registry_root, join_digest);
        let right = ChildTargets::verify(builder, common, registry_root, join_digest);
        let (l, r) = (&left.public, &right.public);
        builder.connect(l.kind, r.kind);
        connect_all(builder, &end_list(&l.end), &end_list(&r.start));
        connect_all(builder, &l.gamma_prime, &r.gamma_prime);
        connect_all(builder, &l.delta, &r.delta);
        // At most one boundary: the sum of the flags is a bit.
        let has_boundary = builder.add(l.has_boundary, r.has_boundary);
        let excess = builder.mul_sub(has_boundary, has_boundary, has_boundary);
        builder.assert_zero(excess);
        let public = NodePublic {
            kind: l.kind,
            start: l.start,
            end: r.end,
            gamma_prime: l.gamma_prime,
            delta: l.delta,
            balance: add_each(builder, l.balance, r.balance),
            has_boundary,
            payload: add_each(builder, l.payload, r.payload),
            join_digest: join_digest.elements,
        };
        register(builder, &public);
        Self { left, right, join_digest }
    }

    /// Assigns the two children; a path is `None` for a child that is a join.
    pub(super) fn set(
        &self,
        witness: &mut PartialWitness<F>,
        children: [(&Proof, &VerifierData, Option<&RegistryPath>); 2],
        join_digest: Digest,
    ) -> anyhow::Result<()> {
        for (targets, (proof, verifier_data, path)) in [&self.left, &self.right].into_iter().zip(children) {
            targets.set(witness, proof, verifier_data, path)?;
        }
        witness.set_hash_target(self.join_digest, join_digest)
    }
}
