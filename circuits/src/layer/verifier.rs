//! The native verifier of a layer proof.

use plonky2::field::types::Field;
use plonky2::fri::structure::{FriOpeningBatch, FriOpenings};
use plonky2::fri::verifier::verify_fri_proof;
use plonky2::iop::challenger::Challenger;
use starky::constraint_consumer::ConstraintConsumer;

use super::lengths::Lengths;
use super::proof::{LayerClaim, LayerProof};
use super::shape::LayerShape;
use super::spec::layer_key;
use super::transcript::{self, Header, link, star_point};
use super::{scalars, theta};
use crate::air::{Cell, Domain, Leaves, Native, OracleId, Rotation};
use crate::field::{C, D, F, H, K, lift, scale};
use crate::kind::Role;

/// Why a layer proof is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayerVerifyError {
    /// A list of the proof or claim has the wrong length.
    #[error("{part} has length {got}, expected {expected}")]
    Shape {
        /// The list.
        part: &'static str,
        /// Its length.
        got: usize,
        /// What it must be.
        expected: usize,
    },
    /// The oracle is not the one of the claim.
    #[error("the {oracle:?} oracle is not the one that the claim links to")]
    Link {
        /// The oracle.
        oracle: OracleId,
    },
    /// The balance is not the claimed one.
    #[error("the proof's balance is not the claimed one")]
    Balance,
    /// A registration is about no tensors: its γ', δ and balance are 0.
    #[error("a registration has {0} other than 0")]
    RegistrationScalar(&'static str),
    /// ζ lies on the rows.
    #[error("the evaluation point lies in the table's rows")]
    PointInTable,
    /// The batched constraints do not vanish.
    #[error("the constraints do not vanish on the table")]
    Constraints,
    /// The running sum does not have its totals.
    #[error("the running sum does not have the claimed totals")]
    Sums,
    /// FRI or Merkle paths fail.
    #[error("the polynomial commitments do not open as claimed: {0}")]
    Fri(String),
}

pub(super) fn check_length(part: &'static str, got: usize, expected: usize) -> Result<(), LayerVerifyError> {
    if got == expected { Ok(()) } else { Err(LayerVerifyError::Shape { part, got, expected }) }
}

/// Openings as the arena's leaves.
struct Opened<'a> {
    shape: &'a LayerShape,
    openings: &'a [Vec<K>; 5],
    theta: &'a [F],
    challenges: &'a [K],
    combined: K,
}

impl Leaves<K> for Opened<'_> {
    fn cell(&self, cell: Cell) -> K {
        opened_position(self.shape, cell)
            .and_then(|(batch, position)| self.openings[batch].get(position).copied())
            .expect("every cell of a system is opened, and lengths were checked")
    }

    fn parameter(&self, index: usize) -> K {
        lift(self.theta[index])
    }

    fn challenge(&self, index: usize) -> K {
        self.challenges[index]
    }

    fn combined(&self) -> K {
        self.combined
    }
}

/// Batch and position at which a cell is opened.
pub fn opened_position(shape: &LayerShape, cell: Cell) -> Option<(usize, usize)> {
    let widths = shape.oracle_widths();
    match cell.rotation {
        Rotation::Here => Some((0, widths[..cell.oracle as usize].iter().sum::<usize>() + cell.column)),
        Rotation::Next => shape.system.next.iter().position(|&c| c == cell).map(|position| (1, position)),
        Rotation::Period => shape.system.period.iter().position(|&c| c == cell).map(|position| (2, position)),
    }
}

fn check_shapes(shape: &LayerShape, claim: &LayerClaim, proof: &LayerProof) -> Result<(), LayerVerifyError> {
    check_length("theta", claim.theta.len(), theta::LENGTH)?;
    if shape.role == Role::Registration {
        let scalars = [("gamma_prime", claim.gamma_prime), ("delta", claim.delta), ("balance", claim.balance)];
        if let Some((name, _)) = scalars.iter().find(|(_, value)| *value != K::ZERO) {
            return Err(LayerVerifyError::RegistrationScalar(name));
        }
    }
    Lengths::of_proof(proof).check(shape)
}

/// Verifies a layer proof.
///
/// # Errors
/// [`LayerVerifyError`], whatever the proof's bytes are.
pub fn verify(shape: &LayerShape, claim: &LayerClaim, proof: &LayerProof) -> Result<(), LayerVerifyError> {
    check_shapes(shape, claim, proof)?;
    let [weights_cap, main_cap, projected_cap, sums_cap] = &proof.caps;
    let [here, next, _, weights_star, main_star] = &proof.openings;
    let rate_bits = shape.fri.config.rate_bits;
    if link(shape.log_rows(), rate_bits, weights_cap, weights_star) != claim.link_weights {
        return Err(LayerVerifyError::Link { oracle: OracleId::Weights });
    }
    if link(shape.log_rows(), rate_bits, main_cap, main_star) != claim.link_main {
        return Err(LayerVerifyError::Link { oracle: OracleId::Main });
    }
    if claim.balance != proof.balance {
        return Err(LayerVerifyError::Balance);
    }
    let mut challenger = Challenger::<F, H>::new();
    let alpha = transcript::after_main(&mut challenger, shape.role, &header(shape, claim));
    let [gamma, xi] = transcript::after_projected(&mut challenger, projected_cap, proof.balance);
    let zeta = transcript::after_sums(&mut challenger, sums_cap);
    transcript::after_openings(&mut challenger, &proof.openings);
    let z = zeta.exp_power_of_2(shape.log_rows()) - K::ONE;
    if z == K::ZERO {
        return Err(LayerVerifyError::PointInTable);
    }
    let challenges = scalars::derive(&shape.kind, shape.role, &claim.theta, claim.gamma_prime, claim.delta, alpha);
    let weights = &here[..shape.system.combined_columns];
    let combined = weights.iter().rev().fold(K::ZERO, |sum, &w| sum * claim.gamma_prime + w);
    let leaves = Opened { shape, openings: &proof.openings, theta: &claim.theta, challenges: &challenges, combined };
    let values = shape.system.arena.evaluate(&mut Native, &leaves);
    let [sum, sum_quotient, quotient_0, quotient_1] = sums_openings(here);
    // Σ_k γ^(N−1−k)·c_k(ζ) = Z(ζ)·(q_0 + ζ^n·q_1)
    let constraints = batched_constraints(shape, &values, gamma, zeta, z);
    if constraints != z * (quotient_0 + (z + K::ONE) * quotient_1) {
        return Err(LayerVerifyError::Constraints);
    }
    // S(gζ) − S(ζ) − Σ_k ξ^k·s_k(ζ) + (Σ_k ξ^k·T_k)/n = Z(ζ)·q_S
    let summands = shape.system.summands.iter().rev().fold(K::ZERO, |total, s| total * xi + values[s.value.0 as usize]);
    let total = scalars::batched_total(&shape.system, &claim.theta, proof.balance, xi);
    let sum_next = ext_pair(&next[shape.system.next.len()..]);
    let n_inverse = F::from_canonical_usize(shape.kind.rows()).inverse();
    if sum_next - sum - summands + scale(total, n_inverse) != z * sum_quotient {
        return Err(LayerVerifyError::Sums);
    }
    verify_openings(shape, claim, proof, zeta, &mut challenger)
}

fn ext_pair(values: &[K]) -> K {
    values[0] + crate::field::phi() * values[1]
}

fn sums_openings(here: &[K]) -> [K; 4] {
    let sums = &here[here.len() - crate::air::system::SUMS_WIDTH..];
    [0, 2, 4, 6].map(|first| ext_pair(&sums[first..]))
}

/// The header of the transcript of a claim.
pub fn header(shape: &LayerShape, claim: &LayerClaim) -> Header<F, K> {
    Header {
        layer_key: layer_key(shape.kind_digest, &claim.theta).elements,
        index: F::from_canonical_usize(claim.index),
        link_weights: claim.link_weights.elements,
        link_main: claim.link_main.elements,
        gamma_prime: claim.gamma_prime,
        delta: claim.delta,
    }
}

fn batched_constraints(shape: &LayerShape, values: &[K], gamma: K, zeta: K, z: K) -> K {
    let n_inverse = F::from_canonical_usize(shape.kind.rows()).inverse();
    let last_root = F::primitive_root_of_unity(shape.log_rows()).inverse();
    // L_i(ζ) = g^i·Z(ζ) / (n·(ζ − g^i))
    let lagrange = |root: F| scale(z * (zeta - lift(root)).inverse(), n_inverse * root);
    let mut consumer = ConstraintConsumer::<K>::new(vec![gamma], zeta - lift(last_root), lagrange(F::ONE), lagrange(last_root));
    for constraint in &shape.system.constraints {
        let value = values[constraint.zero.0 as usize];
        match constraint.domain {
            Domain::Every => consumer.constraint(value),
            Domain::First => consumer.constraint_first_row(value),
            Domain::Last => consumer.constraint_last_row(value),
            Domain::Step => consumer.constraint_transition(value),
        }
    }
    consumer.accumulators()[0]
}

/// The points of the five batches.
pub fn points(shape: &LayerShape, claim_theta: &[F], caps: [&plonky2::hash::merkle_tree::MerkleCap<F, H>; 2], zeta: K) -> [K; 5] {
    let g = F::primitive_root_of_unity(shape.log_rows());
    let rotation = claim_theta[theta::ROTATION];
    [zeta, scale(zeta, g), scale(zeta, rotation), star_point(caps[0]), star_point(caps[1])]
}

fn verify_openings(
    shape: &LayerShape,
    claim: &LayerClaim,
    proof: &LayerProof,
    zeta: K,
    challenger: &mut Challenger<F, H>,
) -> Result<(), LayerVerifyError> {
    let points = points(shape, &claim.theta, [&proof.caps[0], &proof.caps[1]], zeta);
    let instance = shape.instance(points);
    let batches = proof.openings.iter().filter(|batch| !batch.is_empty());
    let openings = FriOpenings { batches: batches.map(|values| FriOpeningBatch { values: values.clone() }).collect() };
    let challenges = challenger.fri_challenges::<C, D>(
        &proof.fri.commit_phase_merkle_caps,
        &proof.fri.final_poly,
        proof.fri.pow_witness,
        shape.log_rows(),
        &shape.fri.config,
        None,
        None,
    );
    verify_fri_proof::<F, C, D>(&instance, &openings, &challenges, &proof.caps, &proof.fri, &shape.fri)
        .map_err(|error| LayerVerifyError::Fri(error.to_string()))
}
