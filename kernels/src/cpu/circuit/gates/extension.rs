//! Vectors of elements of K, and the gates that reduce coefficients by powers of an element of K.

use plonky2::field::types::Field;
use zkinfer_circuits::field::F;

use super::{Output, Row};
use crate::vector::Vector;

/// `c0 + φ·c1` in every lane.
#[derive(Clone, Copy)]
pub(super) struct Pair<V> {
    pub(super) c0: V,
    pub(super) c1: V,
}

/// 7·x, φ² = 7.
#[inline(always)]
fn seven<V: Vector>(x: V) -> V {
    let twice = x + x;
    let fourfold = twice + twice;
    fourfold + fourfold - x
}

impl<V: Vector> Pair<V> {
    /// The wires `first` and `first + 1`.
    #[inline(always)]
    pub(super) fn wires(row: &Row<'_>, first: usize) -> Self {
        Self { c0: row.wire(first), c1: row.wire(first + 1) }
    }

    #[inline(always)]
    pub(super) fn add(self, other: Self) -> Self {
        Self { c0: self.c0 + other.c0, c1: self.c1 + other.c1 }
    }

    #[inline(always)]
    pub(super) fn sub(self, other: Self) -> Self {
        Self { c0: self.c0 - other.c0, c1: self.c1 - other.c1 }
    }

    #[inline(always)]
    pub(super) fn mul(self, other: Self) -> Self {
        self.mul_prepared(other, seven(other.c1))
    }

    /// The product with an element whose c1, times seven, is given.
    #[inline(always)]
    pub(super) fn mul_prepared(self, other: Self, seven_c1: V) -> Self {
        Self { c0: self.c0 * other.c0 + self.c1 * seven_c1, c1: self.c0 * other.c1 + self.c1 * other.c0 }
    }

    #[inline(always)]
    pub(super) fn scale(self, factor: V) -> Self {
        Self { c0: self.c0 * factor, c1: self.c1 * factor }
    }

    #[inline(always)]
    pub(super) fn scale_by(self, factor: F) -> Self {
        self.scale(V::from(factor))
    }

    #[inline(always)]
    pub(super) fn one() -> Self {
        Self { c0: V::from(F::ONE), c1: V::from(F::ZERO) }
    }

    #[inline(always)]
    pub(super) fn zero() -> Self {
        Self { c0: V::from(F::ZERO), c1: V::from(F::ZERO) }
    }

    #[inline(always)]
    pub(super) fn push_to(self, output: &mut Output<'_, V>) {
        output.push(self.c0);
        output.push(self.c1);
    }
}

/// Wires of both gates: output, α, old accumulator; then coefficients, then all accumulators but the last, which is the output.
const ALPHA: usize = 2;
const OLD_ACCUMULATOR: usize = 4;
const COEFFICIENTS: usize = 6;

/// `acc·α + c_i − acc'` for coefficients in F.
#[inline(always)]
pub(super) fn reducing<V: Vector>(row: &Row<'_>, n_coefficients: usize, output: &mut Output<'_, V>) {
    let alpha: Pair<V> = Pair::wires(row, ALPHA);
    let seven_c1 = seven(alpha.c1);
    let mut accumulator = Pair::wires(row, OLD_ACCUMULATOR);
    for i in 0..n_coefficients {
        let next = Pair::wires(row, accumulator_wire(COEFFICIENTS + n_coefficients, i, n_coefficients));
        let mut value = accumulator.mul_prepared(alpha, seven_c1);
        value.c0 += row.wire::<V>(COEFFICIENTS + i);
        value.sub(next).push_to(output);
        accumulator = next;
    }
}

/// `acc·α + c_i − acc'` for coefficients in K.
#[inline(always)]
pub(super) fn reducing_extension<V: Vector>(row: &Row<'_>, n_coefficients: usize, output: &mut Output<'_, V>) {
    let alpha: Pair<V> = Pair::wires(row, ALPHA);
    let seven_c1 = seven(alpha.c1);
    let mut accumulator = Pair::wires(row, OLD_ACCUMULATOR);
    for i in 0..n_coefficients {
        let next = Pair::wires(row, accumulator_wire(COEFFICIENTS + 2 * n_coefficients, i, n_coefficients));
        let coefficient = Pair::wires(row, COEFFICIENTS + 2 * i);
        accumulator.mul_prepared(alpha, seven_c1).add(coefficient).sub(next).push_to(output);
        accumulator = next;
    }
}

#[inline(always)]
fn accumulator_wire(first: usize, index: usize, n_coefficients: usize) -> usize {
    if index + 1 == n_coefficients { 0 } else { first + 2 * index }
}
