//! The quotient of a circuit's constraints by Z, one polynomial for each challenge α.
//!
//! `Σ_k α^k v_k`, v: `L_0·(Z − 1)` for each challenge; the partial products' checks, challenge by challenge; the gates' constraints.

use plonky2::field::types::Field;
use plonky2::plonk::vars::EvaluationVarsBaseBatch;
use rayon::prelude::*;
use zkinfer_circuits::backend::{BackendError, Circuit};
use zkinfer_circuits::field::{Digest, F};

use super::PermutationChallenges;
use super::selectors::Selectors;
use crate::cpu::interpreter::{Geometry, Order};
use crate::cpu::oracle::Oracle;
use crate::cpu::transform::RootTables;
use crate::cpu::wide::WideSum;
use zkinfer_circuits::air::Rotation;

/// Points whose constraints are evaluated together.
const BLOCK_POINTS: usize = 32;

/// What the quotients are computed from.
pub(super) struct Inputs<'a> {
    pub(super) circuit: &'a Circuit,
    pub(super) wires: &'a Oracle,
    pub(super) products: &'a Oracle,
    pub(super) permutation: &'a PermutationChallenges,
    pub(super) alphas: &'a [F],
    pub(super) public_inputs_hash: Digest,
}

/// Coefficients of the quotients, each cut into polynomials of the circuit's degree.
pub(super) fn chunks(tables: &RootTables, inputs: &Inputs<'_>) -> Result<Vec<F>, BackendError> {
    let common = &inputs.circuit.common;
    let factor_bits = common.quotient_degree_factor.next_power_of_two().trailing_zeros() as usize;
    if factor_bits > inputs.wires.shape.rate_bits {
        return Err(BackendError::Unsupported("a circuit whose constraints' degree exceeds its rate".to_owned()));
    }
    let log_rows = inputs.wires.log_rows;
    let coset = tables.coset(log_rows + factor_bits, F::coset_shift());
    let evaluator = Evaluator::new(inputs, coset.points())?;
    let n_points = evaluator.points.len();
    let block_points = BLOCK_POINTS.min(n_points);
    let blocks: Vec<Vec<F>> = (0..n_points / block_points).into_par_iter().map(|block| evaluator.block(block * block_points)).collect();
    let inverse = coset.inverse();
    let mut quotients: Vec<Vec<F>> = (0..inputs.alphas.len())
        .map(|challenge| {
            let of_challenge = challenge * block_points..(challenge + 1) * block_points;
            blocks.iter().flat_map(|block| &block[of_challenge.clone()]).copied().collect()
        })
        .collect();
    quotients.par_iter_mut().for_each(|values| inverse.apply(values));
    let length = common.quotient_degree();
    if quotients.iter().any(|quotient| quotient[length..].iter().any(Field::is_nonzero)) {
        return Err(BackendError::Witness("the constraints are not divisible by Z".to_owned()));
    }
    Ok(quotients.iter().flat_map(|quotient| &quotient[..length]).copied().collect())
}

/// Evaluates the batched constraints, divided by Z, over blocks of points in the order of leaves.
struct Evaluator<'a> {
    inputs: &'a Inputs<'a>,
    selectors: Selectors,
    geometry: Geometry,
    points: Vec<F>,
    /// L_0 at each point.
    lagrange: Vec<F>,
    /// 1/Z on each coset of the rows.
    inverse_z: Vec<F>,
    /// Powers of each α, as many as there are terms.
    powers: Vec<Vec<F>>,
}

impl<'a> Evaluator<'a> {
    fn new(inputs: &'a Inputs<'a>, points: Vec<F>) -> Result<Self, BackendError> {
        let common = &inputs.circuit.common;
        let log_rows = inputs.wires.log_rows;
        let z: Vec<F> = points.iter().step_by(1 << log_rows).map(|x| x.exp_power_of_2(log_rows) - F::ONE).collect();
        let n_rows = F::from_canonical_usize(1 << log_rows);
        let lagrange = points
            .par_chunks(1 << log_rows)
            .zip(&z)
            .flat_map_iter(|(points, &z)| {
                let denominators: Vec<F> = points.iter().map(|&x| n_rows * (x - F::ONE)).collect();
                F::batch_multiplicative_inverse(&denominators).into_iter().map(move |inverse| inverse * z)
            })
            .collect();
        let n_terms = inputs.alphas.len() * (2 + common.num_partial_products) + common.num_gate_constraints;
        let powers = inputs.alphas.iter().map(|alpha| alpha.powers().take(n_terms).collect()).collect();
        Ok(Self {
            inputs,
            selectors: Selectors::of(inputs.circuit)?,
            geometry: Geometry { log_rows, order: Order::BitReversed, period: 1 },
            lagrange,
            inverse_z: F::batch_multiplicative_inverse(&z),
            points,
            powers,
        })
    }

    /// The quotients at the points of a block: those of the first α, then those of the next.
    fn block(&self, first: usize) -> Vec<F> {
        let n_points = BLOCK_POINTS.min(self.points.len());
        let mut sums = Sums { powers: &self.powers, sums: vec![WideSum::default(); n_points * self.powers.len()], n_terms: 0, n_points };
        let constants_sigmas = self.constants_sigmas(first, n_points);
        let wires = block_of(self.inputs.wires, first, n_points);
        let products = block_of(self.inputs.products, first, n_points);
        self.first_rows(first, &products, &mut sums);
        self.partial_products(first, &constants_sigmas, &wires, &products, &mut sums);
        self.gates(&constants_sigmas, &wires, &mut sums);
        let inverse_z = self.inverse_z[first >> self.geometry.log_rows];
        sums.sums.into_iter().map(|sum| sum.reduce() * inverse_z).collect()
    }

    /// Constants, then sigmas, by columns.
    fn constants_sigmas(&self, first: usize, n_points: usize) -> Vec<F> {
        let leaves = &self.inputs.circuit.prover_only.constants_sigmas_commitment.merkle_tree.leaves[first..first + n_points];
        (0..leaves[0].len()).flat_map(|column| leaves.iter().map(move |leaf| leaf[column])).collect()
    }

    fn first_rows(&self, first: usize, products: &[F], sums: &mut Sums<'_>) {
        for z in products.chunks_exact(sums.n_points).take(self.inputs.alphas.len()) {
            sums.add(z.iter().zip(&self.lagrange[first..]).map(|(&z, &lagrange)| lagrange * (z - F::ONE)));
        }
    }

    /// `previous·Π (w + β·k·x + γ) − next·Π (w + β·σ + γ)` for each chunk of wires.
    fn partial_products(&self, first: usize, constants_sigmas: &[F], wires: &[F], products: &[F], sums: &mut Sums<'_>) {
        let (common, n_points) = (&self.inputs.circuit.common, sums.n_points);
        let n_routed = common.config.num_routed_wires;
        let column = |values: &[F], index: usize| -> Vec<F> { values[index * n_points..(index + 1) * n_points].to_vec() };
        let sigmas = &constants_sigmas[common.sigmas_range().start * n_points..];
        for (challenge, (&beta, &gamma)) in self.inputs.permutation.betas.iter().zip(&self.inputs.permutation.gammas).enumerate() {
            let mut previous = column(products, challenge);
            let next_z: Vec<F> = (first..first + n_points)
                .map(|point| self.inputs.products.extension(challenge)[self.geometry.rotated(point, Rotation::Next)])
                .collect();
            let first_partial = self.inputs.alphas.len() + challenge * common.num_partial_products;
            for (chunk, start) in (0..n_routed).step_by(common.quotient_degree_factor).enumerate() {
                let next = if chunk < common.num_partial_products { column(products, first_partial + chunk) } else { next_z.clone() };
                let (mut numerators, mut denominators) = (previous, next.clone());
                for wire in start..(start + common.quotient_degree_factor).min(n_routed) {
                    let scale = beta * common.k_is[wire];
                    let values = &wires[wire * n_points..(wire + 1) * n_points];
                    let sigmas = &sigmas[wire * n_points..(wire + 1) * n_points];
                    for (k, (&value, &sigma)) in values.iter().zip(sigmas).enumerate() {
                        let shifted = value + gamma;
                        numerators[k] *= shifted + scale * self.points[first + k];
                        denominators[k] *= shifted + beta * sigma;
                    }
                }
                sums.add(numerators.iter().zip(&denominators).map(|(&numerator, &denominator)| numerator - denominator));
                previous = next;
            }
        }
    }

    fn gates(&self, constants_sigmas: &[F], wires: &[F], sums: &mut Sums<'_>) {
        let (common, n_points) = (&self.inputs.circuit.common, sums.n_points);
        let constants = &constants_sigmas[..common.constants_range().end * n_points];
        let variables = EvaluationVarsBaseBatch::new(n_points, constants, wires, &self.inputs.public_inputs_hash);
        let mut constraints = vec![F::ZERO; common.num_gate_constraints * n_points];
        for (index, gate) in common.gates.iter().enumerate() {
            let (selector, group) = self.selectors.of_gate(index);
            let n_selectors = self.selectors.n_selectors();
            let values = gate.0.eval_filtered_base_batch(variables, index, selector, group, n_selectors, common.num_lookup_selectors);
            constraints.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
        }
        for constraint in constraints.chunks_exact(n_points) {
            sums.add(constraint.iter().copied());
        }
    }
}

/// Columns of an oracle at the points of a block, one after another.
fn block_of(oracle: &Oracle, first: usize, n_points: usize) -> Vec<F> {
    (0..oracle.n_columns()).flat_map(|column| &oracle.extension(column)[first..first + n_points]).copied().collect()
}

/// `Σ_k α^k v_k` at every point of a block, for every α.
struct Sums<'a> {
    powers: &'a [Vec<F>],
    /// Those of the first α, then those of the next.
    sums: Vec<WideSum>,
    n_terms: usize,
    n_points: usize,
}

impl Sums<'_> {
    /// Adds the next term, given at every point.
    fn add(&mut self, term: impl Iterator<Item = F> + Clone) {
        for (powers, sums) in self.powers.iter().zip(self.sums.chunks_exact_mut(self.n_points)) {
            let power = powers[self.n_terms];
            sums.iter_mut().zip(term.clone()).for_each(|(sum, value)| sum.add_product(value, power));
        }
        self.n_terms += 1;
    }
}
