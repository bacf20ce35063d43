//! One folding: the queried value is among the 16 (2^arity) of its coset, and the coset's interpolant at β is the next value.

use plonky2::field::types::Field;
use plonky2::gates::coset_interpolation::CosetInterpolationGate;
use plonky2::iop::ext_target::ExtensionTarget;
use plonky2::iop::target::{BoolTarget, Target};
use plonky2::util::reverse_index_bits_in_place;

use super::{Ext, index};
use crate::field::{Builder, D, F};

/// Degree of the quotients of all our circuits, over the trace's.
const QUOTIENT_DEGREE: usize = 8;
// Routed wires of plonky2's gate, in its order: shift of the coset, values, point, value at the point.
const SHIFT: usize = 0;
const VALUES: usize = 1;

/// plonky2's interpolation over a coset of 2^arity_bits points, at the degree that its own FRI verifier takes: the least that needs no more
/// intermediate values than [`QUOTIENT_DEGREE`] does. Its constructor for that is private.
pub(crate) fn interpolation_gate(arity_bits: usize) -> CosetInterpolationGate<F, D> {
    let last = (1 << arity_bits) - 2;
    let n_intermediates = last / (QUOTIENT_DEGREE - 1);
    let mut gate = CosetInterpolationGate::new(arity_bits);
    gate.degree = last / (n_intermediates + 1) + 2;
    gate
}

/// The first point of the coset of x, the low bits of whose index are `bits`.
pub(super) fn coset_start(builder: &mut Builder, x: Target, bits: &[BoolTarget]) -> Target {
    index::walk(builder, x, F::primitive_root_of_unity(bits.len()).inverse(), bits)
}

/// Checks that `value` is number `bits` of `evals`, and gives the value of their interpolant at β.
pub(super) fn fold(builder: &mut Builder, bits: &[BoolTarget], evals: &[Ext], value: Ext, coset_start: Target, beta: Ext) -> Ext {
    let position = builder.le_sum(bits.iter());
    let claimed = builder.random_access_extension(position, evals.to_vec());
    builder.connect_extension(claimed, value);
    interpolate(builder, bits.len(), coset_start, evals, beta)
}

fn interpolate(builder: &mut Builder, arity_bits: usize, coset_start: Target, evals: &[Ext], beta: Ext) -> Ext {
    // Leaves hold a coset in bit-reversed order, the gate takes it in the order of powers.
    let mut in_order = evals.to_vec();
    reverse_index_bits_in_place(&mut in_order);
    let row = builder.add_gate(interpolation_gate(arity_bits), vec![]);
    let wires = |first: usize| ExtensionTarget([Target::wire(row, first), Target::wire(row, first + 1)]);
    builder.connect(coset_start, Target::wire(row, SHIFT));
    for (number, &value) in in_order.iter().enumerate() {
        builder.connect_extension(value, wires(VALUES + D * number));
    }
    let point = VALUES + D * evals.len();
    builder.connect_extension(beta, wires(point));
    wires(point + D)
}
