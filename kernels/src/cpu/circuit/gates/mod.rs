//! The constraints of plonky2's gates on vectors of points.
//!
//! The constraints, their order and the wires are those of plonky2 1.1.0, which evaluates most of these gates one point at a time; each of the
//! evaluators here is tested equal to its gate's own. A gate that is not among them is evaluated by plonky2.

mod arithmetic;
mod extension;
mod interpolation;
mod poseidon;
mod routing;
#[cfg(test)]
mod tests;

use plonky2::gates::arithmetic_base::ArithmeticGate;
use plonky2::gates::arithmetic_extension::ArithmeticExtensionGate;
use plonky2::gates::base_sum::BaseSumGate;
use plonky2::gates::constant::ConstantGate;
use plonky2::gates::coset_interpolation::CosetInterpolationGate;
use plonky2::gates::gate::{Gate, GateRef};
use plonky2::gates::multiplication_extension::MulExtensionGate;
use plonky2::gates::noop::NoopGate;
use plonky2::gates::poseidon::PoseidonGate;
use plonky2::gates::poseidon_mds::PoseidonMdsGate;
use plonky2::gates::public_input::PublicInputGate;
use plonky2::gates::random_access::RandomAccessGate;
use plonky2::gates::reducing::ReducingGate;
use plonky2::gates::reducing_extension::ReducingExtensionGate;
use plonky2::plonk::vars::EvaluationVarsBaseBatch;
use zkinfer_circuits::field::{D, Digest, F};

use self::interpolation::Interpolation;
use self::routing::{MAX_ACCESS_BITS, RandomAccess};
use crate::vector::Vector;

/// Wires and constants of a block of points, column after column.
#[derive(Clone, Copy)]
pub(super) struct Block<'a> {
    pub(super) wires: &'a [F],
    /// Without the selectors.
    pub(super) constants: &'a [F],
    pub(super) public_inputs_hash: &'a Digest,
    pub(super) n_points: usize,
}

impl<'a> Block<'a> {
    /// The points from `first` on, as many as a vector has lanes.
    #[inline(always)]
    pub(super) fn row(self, first: usize) -> Row<'a> {
        Row { block: self, first }
    }

    fn variables(&self) -> EvaluationVarsBaseBatch<'a, F> {
        EvaluationVarsBaseBatch::new(self.n_points, self.constants, self.wires, self.public_inputs_hash)
    }
}

/// Consecutive points of a block, the lanes of a vector.
#[derive(Clone, Copy)]
pub(super) struct Row<'a> {
    block: Block<'a>,
    first: usize,
}

impl Row<'_> {
    #[inline(always)]
    fn wire<V: Vector>(&self, index: usize) -> V {
        V::load(&self.block.wires[index * self.block.n_points + self.first..])
    }

    #[inline(always)]
    fn constant<V: Vector>(&self, index: usize) -> V {
        V::load(&self.block.constants[index * self.block.n_points + self.first..])
    }
}

/// Where the terms of one vector of points are written, in order; those of the block's other vectors lie between them.
pub(super) struct Output<'a, V> {
    values: &'a mut [V],
    next: usize,
    n_vectors: usize,
}

impl<'a, V: Vector> Output<'a, V> {
    /// Term k of vector v of `n_vectors` is `values[k·n_vectors + v]`.
    #[inline(always)]
    pub(super) fn new(values: &'a mut [V], vector: usize, n_vectors: usize) -> Self {
        Self { values, next: vector, n_vectors }
    }

    #[inline(always)]
    pub(super) fn push(&mut self, value: V) {
        self.values[self.next] = value;
        self.next += self.n_vectors;
    }
}

/// A gate, by what is known about it.
pub(super) enum Evaluator {
    Noop,
    PublicInput,
    /// Number of constants.
    Constant(usize),
    /// Number of operations.
    Arithmetic(usize),
    /// Number of operations.
    ArithmeticExtension(usize),
    /// Number of operations.
    MulExtension(usize),
    /// Base and number of limbs.
    Limbs(usize, usize),
    RandomAccess(RandomAccess),
    /// Number of coefficients in F.
    Reducing(usize),
    /// Number of coefficients in K.
    ReducingExtension(usize),
    Interpolation(Interpolation),
    Poseidon,
    PoseidonMds,
    /// plonky2's own evaluation.
    Other(GateRef<F, D>),
}

impl Evaluator {
    /// The evaluator of a gate.
    pub(super) fn of(gate: &GateRef<F, D>) -> Self {
        let any = gate.0.as_any();
        if any.is::<NoopGate>() {
            Self::Noop
        } else if any.is::<PublicInputGate>() {
            Self::PublicInput
        } else if any.is::<PoseidonGate<F, D>>() {
            Self::Poseidon
        } else if any.is::<PoseidonMdsGate<F, D>>() {
            Self::PoseidonMds
        } else if let Some(gate) = any.downcast_ref::<ConstantGate>() {
            Self::Constant(Gate::<F, D>::num_constants(gate))
        } else if let Some(gate) = any.downcast_ref::<ArithmeticGate>() {
            Self::Arithmetic(gate.num_ops)
        } else if let Some(gate) = any.downcast_ref::<ArithmeticExtensionGate<D>>() {
            Self::ArithmeticExtension(gate.num_ops)
        } else if let Some(gate) = any.downcast_ref::<MulExtensionGate<D>>() {
            Self::MulExtension(gate.num_ops)
        } else if let Some(gate) = any.downcast_ref::<BaseSumGate<2>>() {
            Self::Limbs(2, gate.num_limbs)
        } else if let Some(gate) = any.downcast_ref::<BaseSumGate<4>>() {
            Self::Limbs(4, gate.num_limbs)
        } else if let Some(gate) = any.downcast_ref::<ReducingGate<D>>() {
            Self::Reducing(gate.num_coeffs)
        } else if let Some(gate) = any.downcast_ref::<ReducingExtensionGate<D>>() {
            Self::ReducingExtension(gate.num_coeffs)
        } else if let Some(gate) = any.downcast_ref::<CosetInterpolationGate<F, D>>() {
            Self::Interpolation(Interpolation::new(gate))
        } else {
            match any.downcast_ref::<RandomAccessGate<F, D>>() {
                Some(gate) if gate.bits <= MAX_ACCESS_BITS => Self::RandomAccess(RandomAccess::new(gate)),
                _ => Self::Other(gate.clone()),
            }
        }
    }

    /// Writes the constraints at a row. For [`Self::Other`] they are given: [`Self::evaluate_block`].
    #[inline(always)]
    pub(super) fn evaluate<V: Vector>(&self, row: &Row<'_>, given: &[F], output: &mut Output<'_, V>) {
        match self {
            Self::Noop => {}
            Self::PublicInput => routing::public_input(row, output),
            Self::Constant(n_constants) => routing::constant(row, *n_constants, output),
            Self::Arithmetic(n_operations) => arithmetic::arithmetic(row, *n_operations, output),
            Self::ArithmeticExtension(n_operations) => arithmetic::arithmetic_extension(row, *n_operations, output),
            Self::MulExtension(n_operations) => arithmetic::mul_extension(row, *n_operations, output),
            Self::Limbs(base, n_limbs) => routing::limbs(row, *base, *n_limbs, output),
            Self::RandomAccess(gate) => gate.evaluate(row, output),
            Self::Reducing(n_coefficients) => extension::reducing(row, *n_coefficients, output),
            Self::ReducingExtension(n_coefficients) => extension::reducing_extension(row, *n_coefficients, output),
            Self::Interpolation(gate) => gate.evaluate(row, output),
            Self::Poseidon => poseidon::permutation(row, output),
            Self::PoseidonMds => poseidon::mds_gate(row, output),
            Self::Other(_) => {
                for constraint in given.chunks_exact(row.block.n_points) {
                    output.push(V::load(&constraint[row.first..]));
                }
            }
        }
    }

    /// What plonky2 has to evaluate, at all points of the block, constraint after constraint.
    pub(super) fn evaluate_block(&self, block: &Block<'_>) -> Vec<F> {
        match self {
            Self::Other(gate) => gate.0.eval_unfiltered_base_batch(block.variables()),
            _ => Vec::new(),
        }
    }
}
