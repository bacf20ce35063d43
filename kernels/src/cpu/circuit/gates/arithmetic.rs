//! Gates of weighted products and sums, in F and in K.

use super::extension::Pair;
use super::{Output, Row};
use crate::vector::Vector;

/// `out − (c_0·x·y + c_1·z)`; wires x, y, z, out.
#[inline(always)]
pub(super) fn arithmetic<V: Vector>(row: &Row<'_>, n_operations: usize, output: &mut Output<'_, V>) {
    let (c0, c1): (V, V) = (row.constant(0), row.constant(1));
    for first in (0..4 * n_operations).step_by(4) {
        let (x, y, z): (V, V, V) = (row.wire(first), row.wire(first + 1), row.wire(first + 2));
        output.push(row.wire::<V>(first + 3) - (x * y * c0 + z * c1));
    }
}

/// `out − (c_0·x·y + c_1·z)` in K; wires x, y, z, out.
#[inline(always)]
pub(super) fn arithmetic_extension<V: Vector>(row: &Row<'_>, n_operations: usize, output: &mut Output<'_, V>) {
    let (c0, c1): (V, V) = (row.constant(0), row.constant(1));
    for first in (0..8 * n_operations).step_by(8) {
        let (x, y, z) = (Pair::wires(row, first), Pair::wires(row, first + 2), Pair::wires(row, first + 4));
        let value = x.mul(y).scale(c0).add(z.scale(c1));
        Pair::wires(row, first + 6).sub(value).push_to(output);
    }
}

/// `out − c_0·x·y` in K; wires x, y, out.
#[inline(always)]
pub(super) fn mul_extension<V: Vector>(row: &Row<'_>, n_operations: usize, output: &mut Output<'_, V>) {
    let c0: V = row.constant(0);
    for first in (0..6 * n_operations).step_by(6) {
        let (x, y) = (Pair::wires(row, first), Pair::wires(row, first + 2));
        Pair::wires(row, first + 4).sub(x.mul(y).scale(c0)).push_to(output);
    }
}
