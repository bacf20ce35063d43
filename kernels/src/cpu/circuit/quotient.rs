//! The quotient of a circuit's constraints by Z, one polynomial for each challenge α.
//!
//! `Σ_k α^k v_k`, v: `L_0·(Z − 1)` for each challenge; the partial products' checks, challenge by challenge; the gates' constraints, each gate's
//! times its filter, so that a gate costs one product by its filter and α. Blocks of points are copied together: what all gates read
//! of a block stays in the first-level cache.

use plonky2::field::types::Field;
use rayon::prelude::*;
use zkinfer_circuits::air::Rotation;
use zkinfer_circuits::backend::BackendError;
use zkinfer_circuits::field::F;

use super::gates::{Block, Evaluator, Output};
use crate::circuit::{FilteredGate, QuotientInputs, filtered_gates};
use crate::cpu::interpreter::{Geometry, Order};
use crate::cpu::oracle::Oracle;
use crate::cpu::transform::RootTables;
use crate::vector::{Kernel, MAX_PRODUCTS, Vector};

/// Points whose constraints are evaluated together.
const BLOCK_POINTS: usize = 32;

type Inputs<'a> = QuotientInputs<'a, Oracle>;

/// Coefficients of the quotients, each cut into polynomials of the circuit's degree.
pub(super) fn chunks(tables: &RootTables, inputs: &Inputs<'_>) -> Result<Vec<F>, BackendError> {
    let common = &inputs.circuit.common;
    let factor_bits = inputs.factor_bits()?;
    let log_rows = inputs.wires.log_rows;
    // With a rate lower than the quotient's, the points of this coset are the first leaves.
    let coset = tables.coset(log_rows + factor_bits, F::coset_shift());
    let domain = QuotientDomain::new(inputs, coset.points())?;
    let blocks: Vec<Vec<F>> = (0..domain.points.len() / domain.block_points)
        .into_par_iter()
        .map(|block| tables.dispatch().run(BlockKernel { domain: &domain, first: block * domain.block_points }))
        .collect();
    let inverse = coset.inverse();
    let mut quotients: Vec<Vec<F>> = (0..inputs.alphas.len())
        .map(|challenge| {
            let of_challenge = challenge * domain.block_points..(challenge + 1) * domain.block_points;
            blocks.iter().flat_map(|block| &block[of_challenge.clone()]).copied().collect()
        })
        .collect();
    quotients.par_iter_mut().for_each(|values| inverse.apply(values));
    let length = common.quotient_degree();
    if quotients.iter().any(|quotient| quotient[length..].iter().any(Field::is_nonzero)) {
        return Err(Inputs::indivisible());
    }
    Ok(quotients.iter().flat_map(|quotient| &quotient[..length]).copied().collect())
}

/// A gate, and what switches it.
struct Gate {
    evaluator: Evaluator,
    n_constraints: usize,
    selector: usize,
    others: Vec<F>,
}

/// The points, in the order of leaves, and what does not depend on them.
struct QuotientDomain<'a> {
    inputs: &'a Inputs<'a>,
    gates: Vec<Gate>,
    n_selectors: usize,
    geometry: Geometry,
    points: Vec<F>,
    block_points: usize,
    /// L_0 at each point.
    lagrange: Vec<F>,
    /// 1/Z on each coset of the rows.
    inverse_z: Vec<F>,
    /// Powers of each α, as many as there are terms.
    powers: Vec<Vec<F>>,
    /// The longest list of terms that are written before they are summed.
    max_terms: usize,
}

impl<'a> QuotientDomain<'a> {
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
        let n_first_terms = inputs.alphas.len() * (2 + common.num_partial_products);
        let n_terms = n_first_terms + common.num_gate_constraints;
        let (gates, n_selectors) = filtered_gates(inputs.circuit)?;
        let gates = gates.into_iter().map(|FilteredGate { gate, selector, others }| {
            let n_constraints = gate.0.num_constraints();
            Gate { evaluator: Evaluator::of(gate), n_constraints, selector, others }
        });
        Ok(Self {
            inputs,
            gates: gates.collect(),
            n_selectors,
            geometry: Geometry { log_rows, order: Order::BitReversed, period: 1 },
            lagrange,
            inverse_z: F::batch_multiplicative_inverse(&z),
            // Of one coset, so that Z is constant on a block.
            block_points: BLOCK_POINTS.min(1 << log_rows),
            points,
            powers: inputs.alphas.iter().map(|alpha| alpha.powers().take(n_terms).collect()).collect(),
            max_terms: n_first_terms.max(common.num_gate_constraints),
        })
    }

    /// Columns of an oracle at the points of a block, one after another.
    fn columns(&self, oracle: &Oracle, first: usize) -> Vec<F> {
        let mut block = Vec::with_capacity(oracle.n_columns() * self.block_points);
        for column in 0..oracle.n_columns() {
            block.extend_from_slice(&oracle.extension(column)[first..first + self.block_points]);
        }
        block
    }

    /// Constants, then sigmas, by columns.
    fn constants_sigmas(&self, first: usize) -> Vec<F> {
        let leaves = &self.inputs.circuit.prover_only.constants_sigmas_commitment.merkle_tree.leaves;
        let leaves = &leaves[first..first + self.block_points];
        // Leaves lie apart in memory: copied whole, many are fetched at once; transposing then misses no cache.
        let width = leaves[0].len();
        let mut rows = Vec::with_capacity(width * self.block_points);
        for leaf in leaves {
            rows.extend_from_slice(leaf);
        }
        let mut block = vec![F::ZERO; rows.len()];
        for (column, values) in block.chunks_exact_mut(self.block_points).enumerate() {
            for (row, value) in rows.chunks_exact(width).zip(values) {
                *value = row[column];
            }
        }
        block
    }

    /// Each Z on the next row.
    fn next_zs(&self, first: usize) -> Vec<F> {
        let zs = (0..self.inputs.alphas.len()).map(|challenge| self.inputs.products.extension(challenge));
        let positions = first..first + self.block_points;
        zs.flat_map(|z| positions.clone().map(|position| z[self.geometry.rotated(position, Rotation::Next)])).collect()
    }
}

/// The quotients at the points of a block: those of the first α, then those of the next.
struct BlockKernel<'a> {
    domain: &'a QuotientDomain<'a>,
    first: usize,
}

impl Kernel for BlockKernel<'_> {
    type Output = Vec<F>;

    #[inline(always)]
    fn run<V: Vector>(self) -> Vec<F> {
        if self.domain.block_points.is_multiple_of(V::WIDTH) { self.evaluate::<V>() } else { self.evaluate::<F>() }
    }
}

/// The columns of a block.
struct BlockColumns<'a> {
    constants_sigmas: Vec<F>,
    wires: Vec<F>,
    products: Vec<F>,
    next_zs: Vec<F>,
    points: &'a [F],
    lagrange: &'a [F],
    n_points: usize,
}

impl BlockColumns<'_> {
    #[inline(always)]
    fn load<V: Vector>(&self, columns: &[F], column: usize, at: usize) -> V {
        V::load(&columns[column * self.n_points + at..])
    }
}

impl BlockKernel<'_> {
    #[inline(always)]
    fn evaluate<V: Vector>(self) -> Vec<F> {
        let domain = self.domain;
        let n_points = domain.block_points;
        let columns = BlockColumns {
            constants_sigmas: domain.constants_sigmas(self.first),
            wires: domain.columns(domain.inputs.wires, self.first),
            products: domain.columns(domain.inputs.products, self.first),
            next_zs: domain.next_zs(self.first),
            points: &domain.points[self.first..],
            lagrange: &domain.lagrange[self.first..],
            n_points,
        };
        let n_alphas = domain.powers.len();
        let n_vectors = n_points / V::WIDTH;
        let mut sums = vec![V::ZEROS; n_alphas * n_vectors];
        let mut terms = vec![V::ZEROS; domain.max_terms * n_vectors];
        for vector in 0..n_vectors {
            self.permutation_terms(&columns, vector * V::WIDTH, &mut Output::new(&mut terms, vector, n_vectors));
        }
        let n_terms = n_alphas * (2 + domain.inputs.circuit.common.num_partial_products);
        let factors = vec![V::ONES; n_vectors];
        add_powers(&mut sums, &terms[..n_terms * n_vectors], &domain.powers, 0, &factors);
        self.gates(&columns, &mut terms, &mut sums);
        let inverse_z = V::from(domain.inverse_z[self.first >> domain.geometry.log_rows]);
        let mut quotients = vec![F::ZERO; n_alphas * n_points];
        for (vector, &sum) in sums.iter().enumerate() {
            (sum * inverse_z).store(&mut quotients[vector * V::WIDTH..]);
        }
        quotients
    }

    /// `L_0·(Z − 1)`; then `previous·Π (w + β·k·x + γ) − next·Π (w + β·σ + γ)` for each chunk of wires.
    #[inline(always)]
    fn permutation_terms<V: Vector>(&self, columns: &BlockColumns<'_>, at: usize, output: &mut Output<'_, V>) {
        let inputs = self.domain.inputs;
        let common = &inputs.circuit.common;
        let (n_challenges, n_partial, chunk_length) = (inputs.alphas.len(), common.num_partial_products, common.quotient_degree_factor);
        let (x, lagrange): (V, V) = (V::load(&columns.points[at..]), V::load(&columns.lagrange[at..]));
        for challenge in 0..n_challenges {
            let z: V = columns.load(&columns.products, challenge, at);
            output.push(lagrange * (z - V::from(F::ONE)));
        }
        for challenge in 0..n_challenges {
            let (beta, gamma) = (V::from(inputs.permutation.betas[challenge]), V::from(inputs.permutation.gammas[challenge]));
            let beta_x = beta * x;
            let mut previous: V = columns.load(&columns.products, challenge, at);
            for chunk in 0..=n_partial {
                let next: V = if chunk < n_partial {
                    columns.load(&columns.products, n_challenges + challenge * n_partial + chunk, at)
                } else {
                    columns.load(&columns.next_zs, challenge, at)
                };
                let (mut numerator, mut denominator) = (previous, next);
                for wire in chunk * chunk_length..((chunk + 1) * chunk_length).min(common.config.num_routed_wires) {
                    let shifted = columns.load::<V>(&columns.wires, wire, at) + gamma;
                    let sigma: V = columns.load(&columns.constants_sigmas, common.sigmas_range().start + wire, at);
                    numerator *= shifted + beta_x * V::from(common.k_is[wire]);
                    denominator *= shifted + beta * sigma;
                }
                output.push(numerator - denominator);
                previous = next;
            }
        }
    }

    #[inline(always)]
    fn gates<V: Vector>(&self, columns: &BlockColumns<'_>, terms: &mut [V], sums: &mut [V]) {
        let domain = self.domain;
        let common = &domain.inputs.circuit.common;
        let first_term = domain.powers.len() * (2 + common.num_partial_products);
        let constants = (domain.n_selectors + common.num_lookup_selectors)..common.constants_range().end;
        let block = Block {
            wires: &columns.wires,
            constants: &columns.constants_sigmas[constants.start * columns.n_points..constants.end * columns.n_points],
            public_inputs_hash: &domain.inputs.public_inputs_hash,
            n_points: columns.n_points,
        };
        let n_vectors = columns.n_points / V::WIDTH;
        let mut filters = vec![V::ONES; n_vectors];
        for gate in &domain.gates {
            let given = gate.evaluator.evaluate_block(&block);
            for (vector, filter) in filters.iter_mut().enumerate() {
                let at = vector * V::WIDTH;
                gate.evaluator.evaluate(&block.row(at), &given, &mut Output::new(terms, vector, n_vectors));
                let selector: V = columns.load(&columns.constants_sigmas, gate.selector, at);
                *filter = V::ONES;
                for &other in &gate.others {
                    *filter *= V::from(other) - selector;
                }
            }
            add_powers(sums, &terms[..gate.n_constraints * n_vectors], &domain.powers, first_term, &filters);
        }
    }
}

/// Vectors of points whose sums are taken together, so that a power of α is prepared once for them.
const TOGETHER: usize = 4;

/// Adds `factor·Σ_k α^(first + k)·v_k` to the sum of every α and vector; sums are those of all vectors for the first α, then for the next.
#[inline(always)]
fn add_powers<V: Vector>(sums: &mut [V], terms: &[V], powers: &[Vec<F>], first: usize, factors: &[V]) {
    let n_vectors = factors.len();
    for (sums, powers) in sums.chunks_exact_mut(n_vectors).zip(powers) {
        for (terms, powers) in terms.chunks(MAX_PRODUCTS * n_vectors).zip(powers[first..].chunks(MAX_PRODUCTS)) {
            if n_vectors.is_multiple_of(TOGETHER) {
                add_products::<V, TOGETHER>(sums, terms, powers, factors);
            } else {
                add_products::<V, 1>(sums, terms, powers, factors);
            }
        }
    }
}

#[inline(always)]
fn add_products<V: Vector, const N: usize>(sums: &mut [V], terms: &[V], powers: &[F], factors: &[V]) {
    let n_vectors = factors.len();
    for vector in (0..n_vectors).step_by(N) {
        let mut totals = [V::no_products(); N];
        for (terms, &power) in terms.chunks_exact(n_vectors).zip(powers) {
            let power = V::from(power).factor();
            for (total, &term) in totals.iter_mut().zip(&terms[vector..vector + N]) {
                *total = term.add_product(&power, *total);
            }
        }
        for (index, &total) in (vector..).zip(&totals) {
            sums[index] += V::reduced(total) * factors[index];
        }
    }
}
