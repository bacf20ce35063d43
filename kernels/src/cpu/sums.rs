//! The sums oracle: the running sum S, its quotient, and the quotient of the constraints (`docs/PROTOCOL.md` §3).
//!
//! Quotients are computed on the coset of 2n points that begins every extension: no column is transformed for them.

use std::borrow::Cow;

use plonky2::field::types::Field;
use rayon::prelude::*;
use zkinfer_circuits::air::{ConstraintSystem, Domain, Node, Rotation};
use zkinfer_circuits::backend::{BackendError, Scalars, SumsChallenges};
use zkinfer_circuits::field::{F, K, ext, limbs, scale};

use super::interpreter::{BlockOutput, Execution, Geometry, Order};
use super::oracle::{Oracle, extend, values_on_rows};
use super::program::{Column, Program, Sink};
use super::transform::{Coset, RootTables};
use super::wide::split;

/// Accumulator of the summands; those of the constraints follow, one for each domain.
const SUMMANDS: usize = 0;
const DOMAINS: [Domain; 4] = [Domain::Every, Domain::First, Domain::Last, Domain::Step];

/// Everything that the sums round reads.
pub(crate) struct Inputs<'a> {
    pub(crate) system: &'a ConstraintSystem,
    pub(crate) scalars: Scalars<'a>,
    pub(crate) challenges: SumsChallenges,
    pub(crate) oracles: [&'a Oracle; 3],
    /// w~ by coordinate, in coefficient form.
    pub(crate) combination: Option<&'a [Vec<F>; 2]>,
}

/// Coefficients of S, q_S, q_0, q_1, column after column.
pub(crate) fn sums(tables: &RootTables, inputs: &Inputs<'_>) -> Result<Vec<F>, BackendError> {
    let log_rows = inputs.oracles[0].log_rows;
    let n_rows = 1 << log_rows;
    if inputs.oracles.iter().any(|oracle| oracle.log_rows != log_rows || oracle.shape.rate_bits == 0) {
        return Err(BackendError::Unsupported("the sums round needs oracles of equal rows and a rate of at least two".to_owned()));
    }
    let inverse = tables.coset(log_rows, F::ONE).inverse();
    let sum_coefficients = running_sum(tables, inputs)?.map(|values| {
        let mut coefficients = super::transform::reversed(&values);
        inverse.apply(&mut coefficients);
        coefficients
    });
    let quotients = quotients(tables, inputs, &sum_coefficients)?;
    let whole = tables.coset(log_rows + 1, F::coset_shift()).inverse();
    let [s0, s1, q0, q1] = {
        let mut limbs = quotients;
        limbs.par_iter_mut().for_each(|values| whole.apply(values));
        limbs
    };
    let [c0, c1] = sum_coefficients;
    let parts = [&c0[..], &c1, &s0[..n_rows], &s1[..n_rows], &q0[..n_rows], &q1[..n_rows], &q0[n_rows..], &q1[n_rows..]];
    Ok(parts.concat())
}

/// `Σ_k ξ^k s_k` as sinks of an accumulator.
pub(crate) fn summand_sinks(system: &ConstraintSystem, xi: K) -> Vec<(Node, Sink)> {
    let sink = |weight| Sink::Accumulate { accumulator: SUMMANDS, weight };
    system.summands.iter().zip(xi.powers()).map(|(summand, weight)| (summand.value, sink(weight))).collect()
}

/// `Σ_k γ^(N−1−k) c_k`, an accumulator for each domain.
pub(crate) fn constraint_sinks(system: &ConstraintSystem, gamma: K) -> Vec<(Node, Sink)> {
    let backwards = system.constraints.iter().rev().zip(gamma.powers());
    let sinks = backwards.map(|(constraint, weight)| {
        let domain = DOMAINS.iter().position(|&domain| domain == constraint.domain).expect("all domains are listed");
        (constraint.zero, Sink::Accumulate { accumulator: SUMMANDS + 1 + domain, weight })
    });
    sinks.collect()
}

/// S on G, by coordinate: 0 on row 0, then the sum of `Σ_k ξ^k s_k − total/n` over the rows before.
fn running_sum(tables: &RootTables, inputs: &Inputs<'_>) -> Result<[Vec<F>; 2], BackendError> {
    let n_points = inputs.oracles[0].n_rows();
    let program = Program::compile(&inputs.system.arena, inputs.scalars, &summand_sinks(inputs.system, inputs.challenges.xi));
    let combined = inputs.combination.map(|limbs| limbs.each_ref().map(|limb| values_on_rows(tables, limb)));
    let values: Vec<Cow<'_, [F]>> = program
        .columns
        .par_iter()
        .map(|&column| match column {
            Column::Oracle(oracle, index) => readable(inputs, oracle as usize).map(|oracle| oracle.row_values(tables, index)),
            Column::Combined(limb) => combined.as_ref().map(|limbs| Cow::Borrowed(&limbs[limb][..])).ok_or_else(missing_combination),
        })
        .collect::<Result<_, _>>()?;
    let columns: Vec<&[F]> = values.iter().map(|column| &**column).collect();
    let geometry = Geometry { log_rows: inputs.oracles[0].log_rows, order: Order::Natural, period: inputs.scalars.period };
    let execution = Execution { program: &program, columns: &columns, geometry, n_points };
    let summands: Vec<BlockOutput> = execution.run(|_, outputs| outputs.first().cloned().unwrap_or_default());
    let step = scale(inputs.challenges.total, F::from_canonical_usize(n_points).inverse());
    let mut sum = K::ZERO;
    let mut running = Vec::with_capacity(n_points);
    for [c0, c1] in &summands {
        for (&c0, &c1) in c0.iter().zip(c1) {
            running.push(sum);
            sum += ext(c0, c1) - step;
        }
    }
    Ok(split(&running))
}

fn readable<'a>(inputs: &Inputs<'a>, oracle: usize) -> Result<&'a Oracle, BackendError> {
    let oracle = inputs.oracles.get(oracle);
    oracle.copied().ok_or_else(|| BackendError::Unsupported("a constraint reads the sums oracle".to_owned()))
}

fn missing_combination() -> BackendError {
    BackendError::Unsupported("the system reads w~, but no combination of weights was given".to_owned())
}

/// The batched sums at every point of the coset of 2n points, block after block: `Σ_k ξ^k s_k`, then the constraints of each domain.
///
/// This is the interpreter alone: `finish` turns a block's sums into its result, given its first point.
pub(crate) fn interpret<T: Send>(
    tables: &RootTables,
    inputs: &Inputs<'_>,
    finish: impl Fn(usize, &[BlockOutput]) -> T + Sync,
) -> Result<Vec<T>, BackendError> {
    let log_rows = inputs.oracles[0].log_rows;
    let n_points = 2 << log_rows;
    let mut sinks = summand_sinks(inputs.system, inputs.challenges.xi);
    sinks.extend(constraint_sinks(inputs.system, inputs.challenges.gamma));
    let program = Program::compile(&inputs.system.arena, inputs.scalars, &sinks);
    let combined = inputs.combination.map(|limbs| on_quotient_coset(tables, log_rows, limbs));
    let columns: Vec<&[F]> = program
        .columns
        .iter()
        .map(|&column| match column {
            Column::Oracle(oracle, index) => readable(inputs, oracle as usize).map(|oracle| &oracle.extension(index)[..n_points]),
            Column::Combined(limb) => combined.as_ref().map(|limbs| &limbs[limb][..]).ok_or_else(missing_combination),
        })
        .collect::<Result<_, _>>()?;
    let geometry = Geometry { log_rows, order: Order::BitReversed, period: inputs.scalars.period };
    Ok(Execution { program: &program, columns: &columns, geometry, n_points }.run(finish))
}

/// Values on the coset of 2n points, bit-reversed.
fn on_quotient_coset(tables: &RootTables, log_rows: usize, limbs: &[Vec<F>; 2]) -> [Vec<F>; 2] {
    let cosets = tables.cosets(log_rows, 1, F::coset_shift());
    limbs.each_ref().map(|limb| extend(&[limb], &cosets, 1 << log_rows))
}

/// q_S and the constraints' quotient on the coset of 2n points, bit-reversed, by coordinate.
fn quotients(tables: &RootTables, inputs: &Inputs<'_>, sum_coefficients: &[Vec<F>; 2]) -> Result<[Vec<F>; 4], BackendError> {
    let log_rows = inputs.oracles[0].log_rows;
    let running = on_quotient_coset(tables, log_rows, sum_coefficients);
    let running_at = |point: usize| ext(running[0][point], running[1][point]);
    let geometry = Geometry { log_rows, order: Order::BitReversed, period: inputs.scalars.period };
    let factors = Factors::new(&tables.cosets(log_rows, 1, F::coset_shift()), log_rows);
    let step = scale(inputs.challenges.total, F::from_canonical_usize(1 << log_rows).inverse());
    let blocks = interpret(tables, inputs, |first, outputs| {
        let mut result: [Vec<F>; 4] = Default::default();
        let inverse_z = factors.inverse_z[first >> log_rows];
        for (offset, point) in (first..).take(outputs[SUMMANDS][0].len()).enumerate() {
            let at = |output: usize| outputs.get(output).map_or(K::ZERO, |[c0, c1]| ext(c0[offset], c1[offset]));
            let sum = running_at(geometry.rotated(point, Rotation::Next)) - running_at(point) - at(SUMMANDS) + step;
            let constraints = factors.of_domains(point).into_iter().enumerate().skip(1);
            let constraints = constraints.fold(at(SUMMANDS + 1), |sum, (domain, factor)| sum + scale(at(SUMMANDS + 1 + domain), factor));
            for (quotient, value) in result.chunks_exact_mut(2).zip([sum, constraints]) {
                for (limb, value) in quotient.iter_mut().zip(limbs(scale(value, inverse_z))) {
                    limb.push(value);
                }
            }
        }
        result
    })?;
    Ok([0, 1, 2, 3].map(|limb| blocks.iter().flat_map(|block| &block[limb]).copied().collect()))
}

/// Factors of the domains and 1/Z on the coset of 2n points.
struct Factors {
    points: Vec<F>,
    /// L_0 and L_(n−1).
    lagrange: [Vec<F>; 2],
    last_root: F,
    /// 1/Z on either half: Z is constant on a coset of G.
    inverse_z: [F; 2],
}

impl Factors {
    fn new(cosets: &[Coset], log_rows: usize) -> Self {
        let points: Vec<F> = cosets.iter().flat_map(Coset::points).collect();
        let last_root = F::primitive_root_of_unity(log_rows).inverse();
        let n_rows = F::from_canonical_usize(1 << log_rows);
        let z = [points[0], points[1 << log_rows]].map(|x| x.exp_power_of_2(log_rows) - F::ONE);
        // L_root = root·Z / (n·(X − root))
        let lagrange = [F::ONE, last_root].map(|root| {
            let scale = z.map(|z| root * z * n_rows.inverse());
            let chunks = points.par_chunks(1 << log_rows).zip(scale).flat_map_iter(|(points, scale)| {
                let denominators: Vec<F> = points.iter().map(|&x| x - root).collect();
                F::batch_multiplicative_inverse(&denominators).into_iter().map(move |inverse| inverse * scale)
            });
            chunks.collect()
        });
        Self { points, lagrange, last_root, inverse_z: z.map(|z| z.inverse()) }
    }

    /// In the order of [`DOMAINS`].
    fn of_domains(&self, point: usize) -> [F; 4] {
        [F::ONE, self.lagrange[0][point], self.lagrange[1][point], self.points[point] - self.last_root]
    }
}
