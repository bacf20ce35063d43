//! The sums oracle: the running sum S, its quotient, and the quotient of the constraints (`docs/PROTOCOL.md` §3).
//!
//! Quotients are computed on the coset of 2n points that begins every extension: no column is transformed for them.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use plonky2::field::types::Field;
use rayon::prelude::*;
use zkinfer_circuits::air::{ConstraintSystem, Domain, Node, Rotation};
use zkinfer_circuits::backend::{BackendError, Scalars, SumsChallenges};
use zkinfer_circuits::field::{F, K, limbs, scale};

use super::interpreter::{BlockOutput, Execution, Geometry, Order};
use super::oracle::{Oracle, extend, values_on_rows};
use super::program::{Column, Program, Sink};
use super::transform::{Coset, RootTables};
use crate::vector::{Kernel, Vector};

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
    let domain = tables.coset(log_rows, F::ONE);
    let inverse = domain.inverse();
    let sum_coefficients = running_sum(tables, inputs)?.map(|values| {
        let mut coefficients = vec![F::ZERO; n_rows];
        inverse.apply_from(&values, &mut coefficients);
        coefficients
    });
    let quotients = quotients(tables, inputs, &sum_coefficients)?;
    let quotient_domain = tables.coset(log_rows + 1, F::coset_shift());
    let whole = quotient_domain.inverse();
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
    let execution = Execution { program: &program, columns: &columns, geometry, n_points, dispatch: tables.dispatch() };
    let summands: Vec<BlockOutput> = execution.run(|_, outputs| outputs.first().cloned().unwrap_or_default());
    let step = scale(inputs.challenges.total, F::from_canonical_usize(n_points).inverse());
    let mut running = limbs(step).map(|step| (step, F::ZERO, Vec::with_capacity(n_points)));
    for block in &summands {
        for ((step, sum, running), values) in running.iter_mut().zip(block) {
            for &value in values {
                running.push(*sum);
                *sum += value - *step;
            }
        }
    }
    Ok(running.map(|(_, _, running)| running))
}

fn readable<'a>(inputs: &Inputs<'a>, oracle: usize) -> Result<&'a Oracle, BackendError> {
    let oracle = inputs.oracles.get(oracle);
    oracle.copied().ok_or_else(|| BackendError::Unsupported("a constraint reads the sums oracle".to_owned()))
}

pub(super) fn missing_combination() -> BackendError {
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
    Ok(Execution { program: &program, columns: &columns, geometry, n_points, dispatch: tables.dispatch() }.run(finish))
}

/// Values on the coset of 2n points, bit-reversed.
pub(super) fn on_quotient_coset(tables: &RootTables, log_rows: usize, limbs: &[Vec<F>; 2]) -> [Vec<F>; 2] {
    let cosets = tables.cosets(log_rows, 1, F::coset_shift());
    limbs.each_ref().map(|limb| extend(&[limb], &cosets, 1 << log_rows))
}

/// q_S and the constraints' quotient on the coset of 2n points, bit-reversed, by coordinate.
fn quotients(tables: &RootTables, inputs: &Inputs<'_>, sum_coefficients: &[Vec<F>; 2]) -> Result<[Vec<F>; 4], BackendError> {
    let log_rows = inputs.oracles[0].log_rows;
    let running = on_quotient_coset(tables, log_rows, sum_coefficients);
    let geometry = Geometry { log_rows, order: Order::BitReversed, period: inputs.scalars.period };
    let factors = Factors::new(&tables.cosets(log_rows, 1, F::coset_shift()), log_rows);
    let step = scale(inputs.challenges.total, F::from_canonical_usize(1 << log_rows).inverse());
    let blocks = interpret(tables, inputs, |first, outputs| {
        let length = outputs[SUMMANDS][0].len();
        let next = running.each_ref().map(|limb| {
            let mut next = vec![F::ZERO; length];
            geometry.gather(limb, first, Rotation::Next, &mut next);
            next
        });
        let here = running.each_ref().map(|limb| &limb[first..first + length]);
        let points = first..first + length;
        tables.dispatch().run(QuotientBlock { here, next: &next, outputs, factors: &factors, points, step, log_rows })
    })?;
    Ok([0, 1, 2, 3].map(|limb| blocks.iter().flat_map(|block| &block[limb]).copied().collect()))
}

/// q_S and the constraints' quotient over a block of points, by coordinate.
struct QuotientBlock<'a> {
    /// S at the points, and one row later.
    here: [&'a [F]; 2],
    next: &'a [Vec<F>; 2],
    /// Of the interpreter; an accumulator past the last one is zero.
    outputs: &'a [BlockOutput],
    factors: &'a Factors,
    points: Range<usize>,
    step: K,
    log_rows: usize,
}

impl Kernel for QuotientBlock<'_> {
    type Output = [Vec<F>; 4];

    #[inline(always)]
    fn run<V: Vector>(self) -> Self::Output {
        if self.points.len().is_multiple_of(V::WIDTH) { quotient_block::<V>(&self) } else { quotient_block::<F>(&self) }
    }
}

/// `(S(gX) − S − Σ ξ^k s_k + step)/Z`, and the sum over domains of the constraints' accumulator times the domain's factor, over Z.
#[inline(always)]
fn quotient_block<V: Vector>(block: &QuotientBlock<'_>) -> [Vec<F>; 4] {
    let length = block.points.len();
    let mut result = [(); 4].map(|()| vec![F::ZERO; length]);
    let inverse_z = V::from(block.factors.inverse_z[block.points.start >> block.log_rows]);
    let last_root = V::from(block.factors.last_root);
    let step = limbs(block.step);
    for lane in (0..length).step_by(V::WIDTH) {
        let point = block.points.start + lane;
        let [first, last] = [V::load(&block.factors.lagrange[0][point..]), V::load(&block.factors.lagrange[1][point..])];
        let domains = [first, last, V::load(&block.factors.points[point..]) - last_root];
        for limb in 0..2 {
            let summands = V::load(&block.outputs[SUMMANDS][limb][lane..]);
            let sum = V::load(&block.next[limb][lane..]) - V::load(&block.here[limb][lane..]) - summands + V::from(step[limb]);
            let mut accumulators = block.outputs[SUMMANDS + 1..].iter();
            let mut constraints = accumulators.next().map_or(V::ZEROS, |every| V::load(&every[limb][lane..]));
            for (accumulator, &factor) in accumulators.zip(&domains) {
                constraints += V::load(&accumulator[limb][lane..]) * factor;
            }
            (sum * inverse_z).store(&mut result[limb][lane..]);
            (constraints * inverse_z).store(&mut result[2 + limb][lane..]);
        }
    }
    result
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
    fn new(cosets: &[Arc<Coset>], log_rows: usize) -> Self {
        let points: Vec<F> = cosets.iter().flat_map(|coset| coset.points()).collect();
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
}
