//! The sums oracle on the device: the running sum S, its quotient, and the quotient of the constraints (`docs/PROTOCOL.md` §3).

use plonky2::field::types::{Field, PrimeField64};
use zkinfer_circuits::air::ConstraintSystem;
use zkinfer_circuits::backend::{BackendError, Scalars, SumsChallenges};
use zkinfer_circuits::field::{F, K, scale};

use super::lane::Lane;
use super::launch::{Argument, Shape};
use super::memory::{Buffer, Words};
use super::oracle::Oracle;
use super::polynomial::{Recurrence, Walk, words};
use super::program::{Domain, N_ARRAYS, Place, run};
use super::project::{columns_on_rows, readable};
use super::transform::{extend, interpolate, interpolate_coset, points};
use crate::cpu::program::{Column, Program};
use crate::cpu::sums::{constraint_sinks, summand_sinks};

/// Points that one thread inverts.
pub(crate) const INVERSIONS_PER_THREAD: u64 = 8;
/// The array of w~ in the quotients' program; the oracles come before it.
const COMBINED: usize = 3;

/// Everything that the sums round reads.
pub(crate) struct Inputs<'a> {
    pub(crate) system: &'a ConstraintSystem,
    pub(crate) scalars: Scalars<'a>,
    pub(crate) challenges: SumsChallenges,
    pub(crate) oracles: [&'a Oracle; 3],
    /// w~ by coordinate, in coefficient form.
    pub(crate) combination: Option<&'a Buffer>,
}

impl<'a> Inputs<'a> {
    fn log_rows(&self) -> usize {
        self.oracles[0].log_rows
    }

    /// total / n.
    fn step(&self) -> K {
        scale(self.challenges.total, F::from_canonical_usize(1 << self.log_rows()).inverse())
    }

    fn check(&self) -> Result<(), BackendError> {
        if self.oracles.iter().any(|oracle| oracle.log_rows != self.log_rows() || oracle.shape.rate_bits == 0) {
            return Err(BackendError::Unsupported("the sums round needs oracles of equal rows and a rate of at least two".to_owned()));
        }
        Ok(())
    }

    fn oracle(&self, oracle: usize) -> Result<&'a Oracle, BackendError> {
        let oracle = self.oracles.get(oracle).copied();
        oracle.ok_or_else(|| BackendError::Unsupported("a constraint reads the sums oracle".to_owned()))
    }

    fn combined(&self) -> Result<&'a Buffer, BackendError> {
        self.combination.ok_or_else(|| BackendError::Unsupported("the system reads w~, but no combination of weights was given".to_owned()))
    }
}

/// Coefficients of S, q_S, q_0, q_1: eight columns.
pub(crate) fn sums(lane: Lane<'_>, inputs: &Inputs<'_>) -> Result<Buffer, BackendError> {
    inputs.check()?;
    let log_rows = inputs.log_rows();
    let n_rows = 1usize << log_rows;
    let mut result = lane.allocate(8 * n_rows)?;
    let running = running_sum(lane, inputs)?;
    interpolate(lane, running.view(), result.part_mut(0, 2 * n_rows), log_rows)?;
    drop(running);
    let mut quotients = quotients(lane, inputs, result.part(0, 2 * n_rows))?;
    interpolate_coset(lane, quotients.view_mut(), log_rows + 1, F::coset_shift())?;
    // Lower halves of both quotients, then the upper half of the constraints'; q_S has no upper half.
    for (target, source) in [0, 2, 4, 6, 5, 7].into_iter().enumerate() {
        lane.copy(&quotients.part(source * n_rows, n_rows), result.part_mut((2 + target) * n_rows, n_rows))?;
    }
    Ok(result)
}

/// S on G in natural order: 0 on row 0, then the sum of `Σ_k ξ^k s_k − total/n` over the rows before.
fn running_sum(lane: Lane<'_>, inputs: &Inputs<'_>) -> Result<Buffer, BackendError> {
    let log_rows = inputs.log_rows();
    let n_rows = 1usize << log_rows;
    let program = Program::compile(&inputs.system.arena, inputs.scalars, &summand_sinks(inputs.system, inputs.challenges.xi));
    let (values, places) = columns_on_rows(lane, &program.columns, log_rows, |first, n_columns| match first {
        Column::Oracle(oracle, column) => readable(inputs.oracle(oracle as usize)?, column, n_columns),
        Column::Combined(limb) => Ok(inputs.combined()?.part(limb * n_rows, n_columns * n_rows)),
    })?;
    let mut arrays = [const { None }; N_ARRAYS];
    arrays[0] = Some(values.view());
    let domain = Domain { log_rows, period: inputs.scalars.period, n_cosets: 1, is_natural: true };
    let mut sum = run(lane, &program, &places, arrays, domain)?;
    if program.n_outputs == 0 {
        // Nothing is summed: only the steps count.
        sum = lane.allocate(2 * n_rows)?;
        lane.zero(sum.view_mut())?;
    }
    Recurrence { ratio: K::ONE, offset: -inputs.step(), walk: Walk::Up }.run(lane, sum.view_mut())?;
    Ok(sum)
}

/// q_S and the constraints' quotient on the coset of 2n points, bit-reversed, by coordinate.
fn quotients(lane: Lane<'_>, inputs: &Inputs<'_>, sum: Words<'_>) -> Result<Buffer, BackendError> {
    let log_rows = inputs.log_rows();
    let n_points = 2usize << log_rows;
    let mut running = lane.allocate(2 * n_points)?;
    extend(lane, Argument::In(sum), running.view_mut(), log_rows, 1, F::coset_shift())?;
    let (sums, n_outputs) = interpret(lane, inputs)?;
    let factors = Factors::new(lane, log_rows)?;
    let mut quotients = lane.allocate(4 * n_points)?;
    let mut arguments = vec![Argument::In(sums.view()), Argument::In(running.view()), Argument::In(factors.columns.view())];
    arguments.push(Argument::Out(quotients.view_mut()));
    arguments.extend(words(inputs.step()).map(Argument::Word));
    let [z0, z1] = factors.inverse_z;
    arguments.extend([factors.last_root, z0, z1].map(|value| Argument::Word(value.to_canonical_u64())));
    arguments.extend([n_outputs, log_rows].map(|count| Argument::Count(count as u32)));
    lane.launch("finish_quotients", Shape::of_items(n_points as u64), arguments)?;
    Ok(quotients)
}

/// `Σ_k ξ^k s_k` and the batched constraints of each domain on the coset of 2n points, and how many outputs there are.
fn interpret(lane: Lane<'_>, inputs: &Inputs<'_>) -> Result<(Buffer, usize), BackendError> {
    let log_rows = inputs.log_rows();
    let n_points = 2usize << log_rows;
    let mut sinks = summand_sinks(inputs.system, inputs.challenges.xi);
    sinks.extend(constraint_sinks(inputs.system, inputs.challenges.gamma));
    let program = Program::compile(&inputs.system.arena, inputs.scalars, &sinks);
    let combined = match inputs.combination {
        None => None,
        Some(limbs) => {
            let mut values = lane.allocate(2 * n_points)?;
            extend(lane, Argument::In(limbs.part(0, 2 << log_rows)), values.view_mut(), log_rows, 1, F::coset_shift())?;
            Some(values)
        }
    };
    let mut places = Vec::new();
    for &column in &program.columns {
        places.push(match column {
            // The coset of 2n points begins every extension.
            Column::Oracle(oracle, column) => {
                let source = inputs.oracle(oracle as usize)?;
                readable(source, column, 1)?;
                Place { array: oracle as usize, offset: column << source.log_leaves() }
            }
            Column::Combined(limb) => {
                inputs.combined()?;
                Place { array: COMBINED, offset: limb * n_points }
            }
        });
    }
    let [weights, main, projected] = inputs.oracles.map(|oracle| Some(oracle.extension()));
    let arrays = [weights, main, projected, combined.as_ref().map(Buffer::view)];
    let domain = Domain { log_rows, period: inputs.scalars.period, n_cosets: 2, is_natural: false };
    Ok((run(lane, &program, &places, arrays, domain)?, program.n_outputs))
}

/// Factors of the domains and 1/Z on the coset of 2n points.
struct Factors {
    /// The points, L_0, L_(n−1).
    columns: Buffer,
    last_root: F,
    /// 1/Z on either half: Z is constant on a coset of G.
    inverse_z: [F; 2],
}

impl Factors {
    fn new(lane: Lane<'_>, log_rows: usize) -> Result<Self, BackendError> {
        let n_points = 2usize << log_rows;
        let last_root = F::primitive_root_of_unity(log_rows).inverse();
        // The halves are 7·G and 7·w·G, w of order 2n.
        let starts = [F::coset_shift(), F::coset_shift() * F::primitive_root_of_unity(log_rows + 1)];
        let z = starts.map(|start| start.exp_power_of_2(log_rows) - F::ONE);
        let mut columns = lane.allocate(3 * n_points)?;
        points(lane, columns.part_mut(0, n_points), log_rows + 1, F::coset_shift())?;
        for (index, root) in [F::ONE, last_root].into_iter().enumerate() {
            let mut view = columns.view_mut();
            let (before, mut rest) = view.split_at_mut((1 + index) * n_points);
            // L_root = root·Z / (n·(X − root))
            let scales = z.map(|z| root * z * F::inverse_2exp(log_rows));
            let mut arguments = vec![Argument::In(before.as_view().slice(..n_points)), Argument::Out(rest.slice_mut(..n_points))];
            arguments.extend([root, scales[0], scales[1]].map(|value| Argument::Word(value.to_canonical_u64())));
            arguments.push(Argument::Count(n_points as u32));
            lane.launch("lagrange_factors", Shape::of_items((n_points as u64).div_ceil(INVERSIONS_PER_THREAD)), arguments)?;
        }
        Ok(Self { columns, last_root, inverse_z: z.map(|z| z.inverse()) })
    }
}
