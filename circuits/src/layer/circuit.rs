//! The verifier of a layer proof as a circuit: the steps of [`super::verifier`], over targets.

use plonky2::field::types::Field;
use plonky2::fri::proof::FriProofTarget;
use plonky2::fri::witness_util::set_fri_proof_target;
use plonky2::hash::hash_types::{HashOutTarget, MerkleCapTarget};
use plonky2::iop::ext_target::ExtensionTarget;
use plonky2::iop::target::Target;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use plonky2::util::reducing::ReducingFactorTarget;

use super::lengths::Lengths;
use super::proof::LayerProof;
use super::queries::Queries;
use super::shape::LayerShape;
use super::transcript::{self, CircuitTranscript, Header, link_circuit, star_point_circuit};
use super::verifier::opened_position;
use super::{scalars, theta};
use crate::air::{Cell, Domain, InCircuit, Leaves, Total};
use crate::field::{Builder, D, F, H, phi};
use crate::hash::{Tag, hash_circuit};
use crate::kind::Role;
use crate::rows::part;

type Ext = ExtensionTarget<D>;

/// Targets of one verified layer.
#[derive(Clone, Debug)]
pub struct LayerTargets {
    /// θ.
    pub theta: Vec<Target>,
    /// Index of the layer in its program.
    pub index: Target,
    /// `H(LayerKey; kind digest, θ)`, computed here.
    pub layer_key: HashOutTarget,
    /// Identity of the weights oracle, computed here.
    pub link_weights: HashOutTarget,
    /// Identity of the main oracle, computed here.
    pub link_main: HashOutTarget,
    /// γ'.
    pub gamma_prime: Ext,
    /// δ.
    pub delta: Ext,
    /// The layer's balance.
    pub balance: Ext,
    caps: [MerkleCapTarget; 4],
    openings: [Vec<Ext>; 5],
    fri: FriProofTarget<D>,
}

/// Adds the verification of one layer proof; the caller connects index, γ', δ and reads the rest.
pub fn verify_layer(builder: &mut Builder, shape: &LayerShape) -> LayerTargets {
    let config = &shape.fri.config;
    let proof_caps = [(); 4].map(|()| builder.add_virtual_cap(config.cap_height));
    let openings = shape.batch_lengths().map(|length| builder.add_virtual_extension_targets(length));
    let fri = builder.add_virtual_fri_proof(&shape.oracle_widths(), &shape.fri);
    let theta = builder.add_virtual_targets(theta::LENGTH);
    let link = |builder: &mut Builder, cap: &MerkleCapTarget, values: &[Ext]| {
        part(builder, "links", |builder| link_circuit(builder, shape.log_rows(), config.rate_bits, cap, values))
    };
    let mut targets = LayerTargets {
        index: builder.add_virtual_target(),
        layer_key: part(builder, "layer key", |builder| layer_key_circuit(builder, shape, &theta)),
        link_weights: link(builder, &proof_caps[0], &openings[3]),
        link_main: link(builder, &proof_caps[1], &openings[4]),
        gamma_prime: builder.add_virtual_extension_target(),
        delta: builder.add_virtual_extension_target(),
        balance: builder.add_virtual_extension_target(),
        theta,
        caps: proof_caps,
        openings,
        fri,
    };
    if shape.role == Role::Registration {
        let zero = builder.zero_extension();
        (targets.gamma_prime, targets.delta, targets.balance) = (zero, zero, zero);
    }
    constrain(builder, shape, &targets);
    targets
}

fn layer_key_circuit(builder: &mut Builder, shape: &LayerShape, theta: &[Target]) -> HashOutTarget {
    let mut elements: Vec<Target> = shape.kind_digest.elements.iter().map(|&element| builder.constant(element)).collect();
    elements.extend_from_slice(theta);
    hash_circuit(builder, Tag::LayerKey, &elements)
}

fn constrain(builder: &mut Builder, shape: &LayerShape, targets: &LayerTargets) {
    let header = Header {
        layer_key: targets.layer_key.elements,
        index: targets.index,
        link_weights: targets.link_weights.elements,
        link_main: targets.link_main.elements,
        gamma_prime: targets.gamma_prime,
        delta: targets.delta,
    };
    builder.push_context(log::Level::Debug, "transcript");
    let mut t = CircuitTranscript::new(builder);
    let alpha = transcript::after_main(&mut t, shape.role, &header);
    let [gamma, xi] = transcript::after_projected(&mut t, &targets.caps[2], targets.balance);
    let zeta = transcript::after_sums(&mut t, &targets.caps[3]);
    transcript::after_openings(&mut t, &targets.openings);
    let mut challenger = t.challenger;
    builder.pop_context();
    let global = [targets.gamma_prime, targets.delta, alpha];
    let challenges = part(builder, "derived challenges", |builder| scalars::derive_circuit(builder, shape, &targets.theta, global));
    let values = part(builder, "constraints", |builder| evaluate(builder, shape, targets, &challenges));
    part(builder, "quotients", |builder| {
        let at_zeta = AtZeta::new(builder, shape, zeta);
        connect_constraints(builder, shape, targets, &values, gamma, &at_zeta);
        connect_sums(builder, shape, targets, &values, xi, &at_zeta);
    });
    part(builder, "openings", |builder| verify_openings(builder, shape, targets, zeta, &mut challenger));
}

struct OpenedTargets<'a> {
    shape: &'a LayerShape,
    openings: &'a [Vec<Ext>; 5],
    theta: Vec<Ext>,
    challenges: &'a [Ext],
    combined: Ext,
}

impl Leaves<Ext> for OpenedTargets<'_> {
    fn cell(&self, cell: Cell) -> Ext {
        let (batch, position) = opened_position(self.shape, cell).expect("every cell of a system is opened");
        self.openings[batch][position]
    }

    fn parameter(&self, index: usize) -> Ext {
        self.theta[index]
    }

    fn challenge(&self, index: usize) -> Ext {
        self.challenges[index]
    }

    fn combined(&self) -> Ext {
        self.combined
    }
}

fn evaluate(builder: &mut Builder, shape: &LayerShape, targets: &LayerTargets, challenges: &[Ext]) -> Vec<Ext> {
    let weights = &targets.openings[0][..shape.system.combined_columns];
    // w~(ζ) = Σ_c γ'^c·W_c(ζ)
    let combined = ReducingFactorTarget::new(targets.gamma_prime).reduce(weights, builder);
    let theta = targets.theta.iter().map(|&scalar| builder.convert_to_ext(scalar)).collect();
    let leaves = OpenedTargets { shape, openings: &targets.openings, theta, challenges, combined };
    shape.system.arena.evaluate(&mut InCircuit { builder }, &leaves)
}

/// Quantities that depend on ζ alone.
struct AtZeta {
    zeta_n: Ext,
    z: Ext,
    lagrange_first: Ext,
    lagrange_last: Ext,
    from_last: Ext,
}

impl AtZeta {
    fn new(builder: &mut Builder, shape: &LayerShape, zeta: Ext) -> Self {
        let n_inverse = F::from_canonical_usize(shape.kind.rows()).inverse();
        let last_root = F::primitive_root_of_unity(shape.log_rows()).inverse();
        let zeta_n = builder.exp_power_of_2_extension(zeta, shape.log_rows());
        let z = builder.add_const_extension(zeta_n, -F::ONE);
        // An inverse exists only if ζ^n ≠ 1.
        builder.inverse_extension(z);
        let from_first = builder.add_const_extension(zeta, -F::ONE);
        let from_last = builder.add_const_extension(zeta, -last_root);
        let first = builder.div_extension(z, from_first);
        let last = builder.div_extension(z, from_last);
        let lagrange_first = builder.mul_const_extension(n_inverse, first);
        let lagrange_last = builder.mul_const_extension(n_inverse * last_root, last);
        Self { zeta_n, z, lagrange_first, lagrange_last, from_last }
    }
}

fn ext_pair(builder: &mut Builder, values: &[Ext]) -> Ext {
    let phi = builder.constant_extension(phi());
    builder.mul_add_extension(phi, values[1], values[0])
}

/// Opening of the K column of the sums oracle whose first F column is `first`.
fn sums_opening(builder: &mut Builder, targets: &LayerTargets, first: usize) -> Ext {
    let here = &targets.openings[0];
    let start = here.len() - crate::air::system::SUMS_WIDTH + first;
    ext_pair(builder, &here[start..])
}

fn connect_constraints(builder: &mut Builder, shape: &LayerShape, targets: &LayerTargets, values: &[Ext], gamma: Ext, at: &AtZeta) {
    let mut sum = builder.zero_extension();
    for constraint in &shape.system.constraints {
        let value = values[constraint.zero.0 as usize];
        let term = match constraint.domain {
            Domain::Every => value,
            Domain::First => builder.mul_extension(value, at.lagrange_first),
            Domain::Last => builder.mul_extension(value, at.lagrange_last),
            Domain::Step => builder.mul_extension(value, at.from_last),
        };
        sum = builder.mul_add_extension(sum, gamma, term);
    }
    let quotient_0 = sums_opening(builder, targets, 4);
    let quotient_1 = sums_opening(builder, targets, 6);
    let quotient = builder.mul_add_extension(at.zeta_n, quotient_1, quotient_0);
    let expected = builder.mul_extension(at.z, quotient);
    builder.connect_extension(sum, expected);
}

fn connect_sums(builder: &mut Builder, shape: &LayerShape, targets: &LayerTargets, values: &[Ext], xi: Ext, at: &AtZeta) {
    let mut summands = builder.zero_extension();
    let mut total = builder.zero_extension();
    for summand in shape.system.summands.iter().rev() {
        summands = builder.mul_add_extension(summands, xi, values[summand.value.0 as usize]);
        let one_total = match summand.total {
            Total::Zero => builder.zero_extension(),
            Total::Balance => targets.balance,
            Total::Parameter(index) => builder.convert_to_ext(targets.theta[index]),
        };
        total = builder.mul_add_extension(total, xi, one_total);
    }
    let sum = sums_opening(builder, targets, 0);
    let sum_quotient = sums_opening(builder, targets, 2);
    let sum_next = ext_pair(builder, &targets.openings[1][shape.system.next.len()..]);
    let n_inverse = F::from_canonical_usize(shape.kind.rows()).inverse();
    let mean = builder.mul_const_extension(n_inverse, total);
    let difference = builder.sub_extension(sum_next, sum);
    let difference = builder.sub_extension(difference, summands);
    let identity = builder.add_extension(difference, mean);
    let expected = builder.mul_extension(at.z, sum_quotient);
    builder.connect_extension(identity, expected);
}

fn verify_openings(
    builder: &mut Builder,
    shape: &LayerShape,
    targets: &LayerTargets,
    zeta: Ext,
    challenger: &mut plonky2::iop::challenger::RecursiveChallenger<F, H, D>,
) {
    let g = F::primitive_root_of_unity(shape.log_rows());
    let rotation = builder.convert_to_ext(targets.theta[theta::ROTATION]);
    let points = [
        zeta,
        builder.mul_const_extension(g, zeta),
        builder.mul_extension(zeta, rotation),
        star_point_circuit(builder, &targets.caps[0]),
        star_point_circuit(builder, &targets.caps[1]),
    ];
    let fri = &targets.fri;
    let challenges = part(builder, "transcript of FRI", |builder| {
        challenger.fri_challenges(builder, &fri.commit_phase_merkle_caps, &fri.final_poly, fri.pow_witness, &shape.fri.config)
    });
    let queries = Queries { shape, points, openings: &targets.openings, caps: &targets.caps, proof: fri, challenges: &challenges };
    queries.verify(builder).expect("the targets were made for this shape");
}

/// Assigns a layer proof to its targets. γ', δ, index follow from the node that contains the layer.
///
/// # Errors
/// A proof of another shape, or a target that is assigned twice: errors of the caller.
pub fn set_layer(witness: &mut PartialWitness<F>, targets: &LayerTargets, theta: &[F], proof: &LayerProof) -> anyhow::Result<()> {
    // plonky2 panics on lists of unequal lengths.
    let lengths = Lengths::of_targets(&targets.caps, &targets.openings, &targets.fri);
    if targets.theta.len() != theta.len() || lengths != Lengths::of_proof(proof) {
        anyhow::bail!("the layer proof has another shape than the circuit verifies");
    }
    for (&target, &value) in targets.theta.iter().zip(theta) {
        witness.set_target(target, value)?;
    }
    for (target, cap) in targets.caps.iter().zip(&proof.caps) {
        witness.set_cap_target(target, cap)?;
    }
    for (batch, values) in targets.openings.iter().zip(&proof.openings) {
        witness.set_extension_targets(batch, values)?;
    }
    set_fri_proof_target(witness, &targets.fri, &proof.fri)
}
