//! The published proofs: one node, verified in zero knowledge, and one digest.
//!
//! One circuit serves all models. Its witness is a node proof and the digests that the statement hides or hashes; its only public input is
//! the statement digest (or the registration digest).

use plonky2::field::types::Field;
use plonky2::hash::hash_types::HashOutTarget;
use plonky2::iop::target::Target;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};

use crate::field::{Builder, Digest, F};
use crate::hash::{Tag, hash_circuit};
use crate::kind::Role;
use crate::recursion::digest::{Chains, PROTOCOL_VERSION};
use crate::recursion::gadgets::{ChildTargets, Proof, VerifierData, digest_of, hash_digests, zero_digest};
use crate::recursion::leaf::{hash_number_digests, role_element};
use crate::recursion::node::Common;
use crate::recursion::registry::RegistryPath;
use crate::recursion::salt::Salt;
use crate::security::Profile;

/// What an outer circuit is built for.
pub(super) struct OuterConstants<'a> {
    pub(super) profile: &'a Profile,
    pub(super) node_common: &'a Common,
    pub(super) registry_root: Digest,
    pub(super) join_digest: Digest,
}

/// Digests that an inference's outer proof takes besides its node.
#[derive(Clone, Copy, Debug)]
pub struct StatementWitness {
    /// Parameters id.
    pub parameters_id: Digest,
    /// Salt of the model commitment.
    pub model_salt: Salt,
    /// Boundary digest.
    pub boundary: Digest,
    /// Input commitment.
    pub input: Digest,
    /// Output commitment.
    pub output: Digest,
    /// The verifier's nonce.
    pub context_nonce: Digest,
}

/// Digests that a registration's outer proof takes besides its node.
#[derive(Clone, Copy, Debug)]
pub struct RegistrationWitness {
    /// Parameters id.
    pub parameters_id: Digest,
    /// Salt of the model commitment.
    pub model_salt: Salt,
    /// Boundary digest.
    pub boundary: Digest,
}

/// The root node, with the program and the model that its chains give.
struct Root {
    child: ChildTargets,
    parameters_id: HashOutTarget,
    model_salt: HashOutTarget,
    boundary: HashOutTarget,
    program: HashOutTarget,
    model: HashOutTarget,
}

fn connect_constant(builder: &mut Builder, target: Target, value: F) {
    let constant = builder.constant(value);
    builder.connect(target, constant);
}

impl Root {
    /// Verifies the node, fixes where it starts and what kind it is, and derives program digest and model commitment.
    fn build(builder: &mut Builder, constants: &OuterConstants, role: Role) -> Self {
        let join_digest = builder.constant_hash(constants.join_digest);
        let child = ChildTargets::verify(builder, constants.node_common, constants.registry_root, join_digest);
        let public = &child.public;
        connect_constant(builder, public.kind, role_element(role));
        connect_constant(builder, public.start.index, F::ZERO);
        let start = Chains::start();
        let starts = [(public.start.public, start.public), (public.start.secret, start.secret), (public.start.main, start.main)];
        for (target, value) in starts {
            let value = builder.constant_hash(value);
            builder.connect_hashes(digest_of(target), value);
        }
        connect_constant(builder, public.has_boundary, F::from_bool(role == Role::Inference));
        for &limb in &public.balance {
            connect_constant(builder, limb, F::ZERO);
        }
        let boundary = builder.add_virtual_hash();
        let model_salt = builder.add_virtual_hash();
        let chain = digest_of(public.end.public);
        let program = hash_number_digests(builder, Tag::Program, public.end.index, &[chain, boundary]);
        let model = hash_digests(builder, Tag::Model, &[model_salt, program, digest_of(public.end.secret)]);
        let parameters_id = builder.add_virtual_hash();
        Self { child, parameters_id, model_salt, boundary, program, model }
    }

    fn set(
        &self,
        witness: &mut PartialWitness<F>,
        node: (&Proof, &VerifierData, Option<&RegistryPath>),
        parameters_id: Digest,
        model_salt: Salt,
        boundary: Digest,
    ) -> anyhow::Result<()> {
        self.child.set(witness, node.0, node.1, node.2)?;
        witness.set_hash_target(self.parameters_id, parameters_id)?;
        witness.set_hash_target(self.model_salt, model_salt.digest())?;
        witness.set_hash_target(self.boundary, boundary)
    }
}

/// Wires of the outer circuit of inferences.
pub(super) struct OuterTargets {
    root: Root,
    input: HashOutTarget,
    output: HashOutTarget,
    context_nonce: HashOutTarget,
}

impl OuterTargets {
    /// Builds the outer circuit.
    pub(super) fn build(builder: &mut Builder, constants: &OuterConstants) -> Self {
        let root = Root::build(builder, constants, Role::Inference);
        let [input, output, context_nonce] = std::array::from_fn(|_| builder.add_virtual_hash());
        // No predicate exists in this version: a witness here would let a proof claim any.
        let predicate = zero_digest(builder);
        let public = root.child.public;
        let payload = hash_digests(builder, Tag::Payload, &[root.boundary, input, output]);
        builder.connect_hashes(digest_of(public.payload), payload);
        // (γ', δ) hash everything that the boundary and the layers committed.
        let before = [root.parameters_id, root.model, root.program, input, output];
        let mut list: Vec<Target> = before.iter().flat_map(|digest| digest.elements).collect();
        list.push(public.end.index);
        list.extend(public.end.main);
        let challenges = hash_circuit(builder, Tag::Global, &list);
        let published = [public.gamma_prime, public.delta].concat();
        for (&challenge, &target) in challenges.elements.iter().zip(&published) {
            builder.connect(challenge, target);
        }
        let version = builder.constant(F::from_canonical_u64(PROTOCOL_VERSION));
        let digests = [root.parameters_id, root.program, root.model, input, output, predicate, context_nonce];
        let statement = hash_number_digests(builder, Tag::Statement, version, &digests);
        builder.register_public_inputs(&statement.elements);
        Self { root, input, output, context_nonce }
    }

    /// Assigns the root node and the statement.
    pub(super) fn set(
        &self,
        witness: &mut PartialWitness<F>,
        node: (&Proof, &VerifierData, Option<&RegistryPath>),
        statement: &StatementWitness,
    ) -> anyhow::Result<()> {
        self.root.set(witness, node, statement.parameters_id, statement.model_salt, statement.boundary)?;
        let digests = [(self.input, statement.input), (self.output, statement.output), (self.context_nonce, statement.context_nonce)];
        digests.into_iter().try_for_each(|(target, value)| witness.set_hash_target(target, value))
    }
}

/// Wires of the outer circuit of registrations.
pub(super) struct RegistrationOuterTargets {
    root: Root,
}

impl RegistrationOuterTargets {
    /// Builds the registration's outer circuit.
    pub(super) fn build(builder: &mut Builder, constants: &OuterConstants) -> Self {
        let root = Root::build(builder, constants, Role::Registration);
        let public = root.child.public;
        for limb in [public.gamma_prime, public.delta].concat() {
            connect_constant(builder, limb, F::ZERO);
        }
        let digest = hash_digests(builder, Tag::Registration, &[root.parameters_id, root.program, root.model]);
        builder.register_public_inputs(&digest.elements);
        Self { root }
    }

    /// Assigns the root node and the model.
    pub(super) fn set(
        &self,
        witness: &mut PartialWitness<F>,
        node: (&Proof, &VerifierData, Option<&RegistryPath>),
        registration: &RegistrationWitness,
    ) -> anyhow::Result<()> {
        self.root.set(witness, node, registration.parameters_id, registration.model_salt, registration.boundary)
    }
}

/// A builder of an outer circuit.
pub(super) fn outer_builder(constants: &OuterConstants) -> Builder {
    Builder::new(constants.profile.outer_config())
}
