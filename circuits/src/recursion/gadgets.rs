//! Small circuit pieces shared by leaf, boundary, join and outer.

use plonky2::field::types::Field;
use plonky2::hash::hash_types::HashOutTarget;
use plonky2::iop::ext_target::ExtensionTarget;
use plonky2::iop::target::{BoolTarget, Target};
use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use plonky2::plonk::circuit_data::{VerifierCircuitTarget, VerifierOnlyCircuitData};
use plonky2::plonk::proof::{ProofWithPublicInputs, ProofWithPublicInputsTarget};

use crate::field::{Builder, C, D, Digest, F};
use crate::hash::{Tag, hash_circuit};
use crate::recursion::node::Common;
use crate::recursion::public::NodePublic;
use crate::recursion::registry::{REGISTRY_DEPTH, RegistryPath};

pub(super) type Ext = ExtensionTarget<D>;
/// A node proof with the identity of its circuit.
pub(super) type Proof = ProofWithPublicInputs<F, C, D>;
pub(super) type VerifierData = VerifierOnlyCircuitData<C, D>;

/// Four targets as a digest.
pub(super) fn digest_of(elements: [Target; 4]) -> HashOutTarget {
    HashOutTarget { elements }
}

/// `H(tag; concatenation of digests)`.
pub(super) fn hash_digests(builder: &mut Builder, tag: Tag, digests: &[HashOutTarget]) -> HashOutTarget {
    let elements: Vec<Target> = digests.iter().flat_map(|digest| digest.elements).collect();
    hash_circuit(builder, tag, &elements)
}

/// `if condition { a } else { b }`, elementwise.
pub(super) fn select_digest(builder: &mut Builder, condition: BoolTarget, a: HashOutTarget, b: HashOutTarget) -> HashOutTarget {
    let elements = std::array::from_fn(|i| builder.select(condition, a.elements[i], b.elements[i]));
    HashOutTarget { elements }
}

/// `condition · digest`.
pub(super) fn masked_digest(builder: &mut Builder, condition: BoolTarget, digest: HashOutTarget) -> HashOutTarget {
    HashOutTarget { elements: digest.elements.map(|element| builder.mul(condition.target, element)) }
}

/// A node proof inside a circuit, verified, with the proof that its circuit is allowed.
pub(super) struct ChildTargets {
    proof: ProofWithPublicInputsTarget<D>,
    verifier_data: VerifierCircuitTarget,
    is_join: BoolTarget,
    slot_bits: [BoolTarget; REGISTRY_DEPTH],
    siblings: [HashOutTarget; REGISTRY_DEPTH],
    /// The node's public inputs.
    pub(super) public: NodePublic<Target>,
}

/// `H(TAG_VD; circuit_digest, constants_sigmas_cap)` of the very targets that the proof is verified with.
fn verifier_data_digest(builder: &mut Builder, verifier_data: &VerifierCircuitTarget) -> HashOutTarget {
    let mut digests = vec![verifier_data.circuit_digest];
    digests.extend(&verifier_data.constants_sigmas_cap.0);
    hash_digests(builder, Tag::VerifierData, &digests)
}

impl ChildTargets {
    /// Verifies a node proof in circuit, and demands that its circuit is a leaf of the registry, or the join `join_digest` with the
    /// child publishing that same digest.
    pub(super) fn verify(builder: &mut Builder, common: &Common, registry_root: Digest, join_digest: HashOutTarget) -> Self {
        let proof = builder.add_virtual_proof_with_pis(common);
        let verifier_data = builder.add_virtual_verifier_data(common.config.fri_config.cap_height);
        builder.verify_proof::<C>(&proof, &verifier_data, common);
        let public = NodePublic::from_slice(&proof.public_inputs).expect("a node's common data fix its public inputs");

        let identity = verifier_data_digest(builder, &verifier_data);
        let is_join = builder.add_virtual_bool_target_safe();
        let slot_bits = std::array::from_fn(|_| builder.add_virtual_bool_target_safe());
        let siblings = std::array::from_fn(|_| builder.add_virtual_hash());
        let leaf_root = registry_root_of(builder, identity, &slot_bits, &siblings);

        // Leaf: the path leads to the registry's root. Join: the identity is the demanded digest.
        let root = builder.constant_hash(registry_root);
        let got = select_digest(builder, is_join, identity, leaf_root);
        let demanded = select_digest(builder, is_join, join_digest, root);
        builder.connect_hashes(got, demanded);
        // A join publishes the digest that it demanded of its own joins; a leaf publishes 0.
        let published = masked_digest(builder, is_join, join_digest);
        builder.connect_hashes(digest_of(public.join_digest), published);
        Self { proof, verifier_data, is_join, slot_bits, siblings, public }
    }

    /// Assigns a child: `path` is `None` for a join.
    pub(super) fn set(
        &self,
        witness: &mut PartialWitness<F>,
        proof: &Proof,
        verifier_data: &VerifierData,
        path: Option<&RegistryPath>,
    ) -> anyhow::Result<()> {
        witness.set_proof_with_pis_target(&self.proof, proof)?;
        witness.set_verifier_data_target(&self.verifier_data, verifier_data)?;
        witness.set_bool_target(self.is_join, path.is_none())?;
        let path = path.copied().unwrap_or(RegistryPath::unused());
        for (level, (&bit, &sibling)) in self.slot_bits.iter().zip(&self.siblings).enumerate() {
            witness.set_bool_target(bit, (path.index >> level) & 1 == 1)?;
            witness.set_hash_target(sibling, path.siblings[level])?;
        }
        Ok(())
    }
}

fn registry_root_of(
    builder: &mut Builder,
    identity: HashOutTarget,
    slot_bits: &[BoolTarget; REGISTRY_DEPTH],
    siblings: &[HashOutTarget; REGISTRY_DEPTH],
) -> HashOutTarget {
    let mut node = hash_digests(builder, Tag::RegistryLeaf, &[identity]);
    for (&bit, &sibling) in slot_bits.iter().zip(siblings) {
        let left = select_digest(builder, bit, sibling, node);
        // left + right = node + sibling, element by element.
        let right = HashOutTarget {
            elements: std::array::from_fn(|i| {
                let sum = builder.add(node.elements[i], sibling.elements[i]);
                builder.sub(sum, left.elements[i])
            }),
        };
        node = hash_digests(builder, Tag::RegistryNode, &[left, right]);
    }
    node
}

/// A number as a sum of `n_bits` bits, so that it is below 2^n_bits; little end first.
pub(super) fn bits_of(builder: &mut Builder, number: Target, n_bits: usize) -> Vec<BoolTarget> {
    builder.split_le(number, n_bits)
}

/// `base^exponent` in K, the exponent given by its bits, little end first.
pub(super) fn power_from_bits(builder: &mut Builder, base: Ext, bits: &[BoolTarget]) -> Ext {
    let one = builder.one_extension();
    let mut power = one;
    for &bit in bits.iter().rev() {
        power = builder.mul_extension(power, power);
        let factor = builder.select_ext(bit, base, one);
        power = builder.mul_extension(power, factor);
    }
    power
}

/// A constant 0 digest.
pub(super) fn zero_digest(builder: &mut Builder) -> HashOutTarget {
    builder.constant_hash(Digest { elements: [F::ZERO; 4] })
}
