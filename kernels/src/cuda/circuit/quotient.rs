//! The quotients of a circuit's constraints on the device: a launch for each gate, one that finishes, and the transform back.
//!
//! Two α share the launches, and what is read and computed for them.

use plonky2::field::types::{Field, PrimeField64};
use zkinfer_circuits::backend::BackendError;
use zkinfer_circuits::field::F;

use super::Inputs;
use super::gates::DeviceGate;
use crate::circuit::filtered_gates;
use crate::cuda::lane::Lane;
use crate::cuda::launch::{Argument, Shape};
use crate::cuda::memory::{Buffer, Words};
use crate::cuda::oracle::Oracle;
use crate::cuda::sums::INVERSIONS_PER_THREAD;
use crate::cuda::transform::{interpolate_coset, points};

/// α whose sums one launch computes.
const TOGETHER: usize = 2;

/// Coefficients of the quotients, α by α, each cut into polynomials of the circuit's degree.
pub(super) fn chunks(lane: Lane<'_>, fixed: &Oracle, inputs: &Inputs<'_>) -> Result<Buffer, BackendError> {
    let common = &inputs.circuit.common;
    let log_points = inputs.wires.log_rows + inputs.factor_bits()?;
    let (n_points, length) = (1usize << log_points, common.quotient_degree());
    let n_alphas = inputs.alphas.len();
    let mut quotients = quotients(lane, fixed, inputs, log_points)?;
    let mut coefficients = lane.allocate(n_alphas * length)?;
    interpolate_coset(lane, quotients.part_mut(0, n_alphas * n_points), log_points, F::coset_shift())?;
    for alpha in 0..n_alphas {
        let first = alpha * n_points;
        let beyond = lane.download(&quotients.part(first + length, n_points - length))?;
        if beyond.iter().any(|&word| word != 0) {
            return Err(Inputs::indivisible());
        }
        lane.copy(&quotients.part(first, length), coefficients.part_mut(alpha * length, length))?;
    }
    Ok(coefficients)
}

/// The quotients at the points, α by α; an odd number of them is followed by a column that means nothing.
fn quotients(lane: Lane<'_>, fixed: &Oracle, inputs: &Inputs<'_>, log_points: usize) -> Result<Buffer, BackendError> {
    let n_points = 1usize << log_points;
    let n_pairs = inputs.alphas.len().div_ceil(TOGETHER);
    let mut sums = lane.allocate(TOGETHER * n_pairs * n_points)?;
    lane.zero(sums.view_mut())?;
    let weights = lane.upload(&weights(inputs))?;
    let n_weights = TOGETHER * n_terms(inputs);
    let gates = Gates::upload(lane, inputs)?;
    let permutation = Permutation::new(lane, inputs, log_points)?;
    for pair in 0..n_pairs {
        let of_pair = |first: usize| weights.part(pair * n_weights + TOGETHER * first, n_weights - TOGETHER * first);
        let first = pair * TOGETHER * n_points;
        for gate in 0..gates.kernels.len() {
            let mut arguments = vec![Argument::In(inputs.wires.extension()), Argument::In(fixed.extension())];
            arguments.extend([Argument::In(gates.table(gate)), Argument::In(of_pair(n_first_terms(inputs)))]);
            arguments.push(Argument::Out(sums.part_mut(first, TOGETHER * n_points)));
            arguments.extend([n_points, inputs.wires.log_leaves()].map(|count| Argument::Count(count as u32)));
            lane.launch(gates.kernels[gate], Shape::of_items(n_points as u64), arguments)?;
        }
        let sigmas = inputs.circuit.common.sigmas_range().start << inputs.wires.log_leaves();
        let mut arguments = vec![Argument::In(inputs.wires.extension()), Argument::In(fixed.extension().slice(sigmas..))];
        arguments.push(Argument::In(inputs.products.extension()));
        arguments.extend([&permutation.points, &permutation.lagrange, &permutation.table].map(|buffer| Argument::In(buffer.view())));
        arguments.extend([Argument::In(of_pair(0)), Argument::Out(sums.part_mut(first, TOGETHER * n_points))]);
        arguments.extend(permutation.counts.map(|count| Argument::Count(count as u32)));
        lane.launch("quotient_finish", Shape::of_items(n_points as u64), arguments)?;
    }
    Ok(sums)
}

/// Terms before those of gates: one for each challenge, then the checks of the partial products.
fn n_first_terms(inputs: &Inputs<'_>) -> usize {
    inputs.alphas.len() * (2 + inputs.circuit.common.num_partial_products)
}

fn n_terms(inputs: &Inputs<'_>) -> usize {
    n_first_terms(inputs) + inputs.circuit.common.num_gate_constraints
}

/// The powers of the α, pair by pair, the powers of a pair side by side; zero where there is no second.
fn weights(inputs: &Inputs<'_>) -> Vec<u64> {
    let mut weights = Vec::new();
    for pair in inputs.alphas.chunks(TOGETHER) {
        let mut powers = [F::ONE, if pair.len() == TOGETHER { F::ONE } else { F::ZERO }];
        for _ in 0..n_terms(inputs) {
            weights.extend(powers.map(|power| power.to_canonical_u64()));
            for (power, &alpha) in powers.iter_mut().zip(pair) {
                *power *= alpha;
            }
        }
    }
    weights
}

/// The gates that have constraints, and their tables one after another.
struct Gates {
    kernels: Vec<&'static str>,
    tables: Buffer,
    /// Where each table begins; then where the last one ends.
    begins: Vec<usize>,
}

impl Gates {
    fn upload(lane: Lane<'_>, inputs: &Inputs<'_>) -> Result<Self, BackendError> {
        let (filtered, n_selectors) = filtered_gates(inputs.circuit)?;
        let first_constant = n_selectors + inputs.circuit.common.num_lookup_selectors;
        let (mut kernels, mut words, mut begins) = (Vec::new(), Vec::new(), vec![0]);
        for filtered in &filtered {
            let gate = DeviceGate::of(filtered.gate).map_err(|unknown| BackendError::Unsupported(unknown.to_string()))?;
            if let Some(gate) = gate {
                kernels.push(gate.kernel);
                words.extend(gate.table(filtered, first_constant, &inputs.public_inputs_hash));
                begins.push(words.len());
            }
        }
        Ok(Self { kernels, tables: lane.upload(&words)?, begins })
    }

    fn table(&self, gate: usize) -> Words<'_> {
        self.tables.part(self.begins[gate], self.begins[gate + 1] - self.begins[gate])
    }
}

/// What the kernel `quotient_finish` reads besides the oracles.
struct Permutation {
    points: Buffer,
    /// 1 / (n·(x − 1)) = L_0 / Z.
    lagrange: Buffer,
    /// β and γ of each challenge, k of each routed wire, 1/Z on each coset of the rows.
    table: Buffer,
    /// In the order of the kernel's parameters.
    counts: [usize; 7],
}

impl Permutation {
    fn new(lane: Lane<'_>, inputs: &Inputs<'_>, log_points: usize) -> Result<Self, BackendError> {
        let common = &inputs.circuit.common;
        let (log_rows, log_leaves, n_points) = (inputs.wires.log_rows, inputs.wires.log_leaves(), 1usize << log_points);
        let mut xs = lane.allocate(n_points)?;
        points(lane, xs.view_mut(), log_points, F::coset_shift())?;
        let mut lagrange = lane.allocate(n_points)?;
        let mut arguments = vec![Argument::In(xs.view()), Argument::Out(lagrange.view_mut())];
        let scale = F::inverse_2exp(log_rows);
        arguments.extend([F::ONE, scale, scale].map(|value| Argument::Word(value.to_canonical_u64())));
        arguments.push(Argument::Count(n_points as u32));
        lane.launch("lagrange_factors", Shape::of_items((n_points as u64).div_ceil(INVERSIONS_PER_THREAD)), arguments)?;
        let n_routed = common.config.num_routed_wires;
        let mut table: Vec<F> = Vec::new();
        for (&beta, &gamma) in inputs.permutation.betas.iter().zip(&inputs.permutation.gammas) {
            table.extend([beta, gamma]);
        }
        table.extend(&common.k_is[..n_routed]);
        table.extend(inverse_z(log_rows, log_points));
        let table = lane.upload(&table.iter().map(PrimeField64::to_canonical_u64).collect::<Vec<_>>())?;
        let sizes = [inputs.alphas.len(), common.num_partial_products, common.quotient_degree_factor, n_routed];
        let [n_challenges, n_partial, chunk_length, n_routed] = sizes;
        let counts = [n_challenges, n_partial, chunk_length, n_routed, log_rows, log_leaves, n_points];
        Ok(Self { points: xs, lagrange, table, counts })
    }
}

/// 1/Z on each coset of the 2^log_rows rows, in the order of leaves.
fn inverse_z(log_rows: usize, log_points: usize) -> Vec<F> {
    let root = F::primitive_root_of_unity(log_points);
    let n_cosets = 1usize << (log_points - log_rows);
    let start = |coset: usize| F::coset_shift() * root.exp_u64(crate::cpu::transform::reverse_bits(coset, log_points - log_rows) as u64);
    let z: Vec<F> = (0..n_cosets).map(|coset| start(coset).exp_power_of_2(log_rows) - F::ONE).collect();
    F::batch_multiplicative_inverse(&z)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::transform::RootTables;
    use crate::vector::Dispatch;

    #[test]
    fn z_is_constant_on_the_cosets_of_the_rows() {
        for (log_rows, log_points) in [(2, 5), (4, 4), (3, 4)] {
            let points = RootTables::new(Dispatch::detect()).coset(log_points, F::coset_shift()).points();
            let inverses = inverse_z(log_rows, log_points);
            for (position, x) in points.into_iter().enumerate() {
                assert_eq!((x.exp_power_of_2(log_rows) - F::ONE) * inverses[position >> log_rows], F::ONE);
            }
        }
    }
}
