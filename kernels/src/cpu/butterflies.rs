//! Butterflies of a transform: one stage joins two operands, a radix joins as many as its stages do.

use crate::vector::Vector;

/// What a butterfly joins.
pub(super) trait Operand: Copy {
    fn times(self, twiddle: Self) -> Self;
    fn plus_and_minus_product(self, other: Self, twiddle: Self) -> (Self, Self);
    fn sum_and_difference(self, other: Self) -> (Self, Self);
}

/// One vector.
#[derive(Clone, Copy)]
pub(super) struct One<V>(pub(super) V);

impl<V: Vector> Operand for One<V> {
    #[inline(always)]
    fn times(self, twiddle: Self) -> Self {
        Self(self.0 * twiddle.0)
    }

    #[inline(always)]
    fn plus_and_minus_product(self, other: Self, twiddle: Self) -> (Self, Self) {
        let (sum, difference) = self.0.plus_and_minus_product(other.0, twiddle.0);
        (Self(sum), Self(difference))
    }

    #[inline(always)]
    fn sum_and_difference(self, other: Self) -> (Self, Self) {
        let (sum, difference) = self.0.sum_and_difference(other.0);
        (Self(sum), Self(difference))
    }
}

/// Two vectors of different butterflies: a butterfly is a long chain of dependent instructions, and the four of one stage do not fill the
/// processor; eight do.
#[derive(Clone, Copy)]
pub(super) struct Two<V>(pub(super) V, pub(super) V);

impl<V: Vector> Operand for Two<V> {
    #[inline(always)]
    fn times(self, twiddle: Self) -> Self {
        Self(self.0 * twiddle.0, self.1 * twiddle.1)
    }

    #[inline(always)]
    fn plus_and_minus_product(self, other: Self, twiddle: Self) -> (Self, Self) {
        let (sum0, difference0) = self.0.plus_and_minus_product(other.0, twiddle.0);
        let (sum1, difference1) = self.1.plus_and_minus_product(other.1, twiddle.1);
        (Self(sum0, sum1), Self(difference0, difference1))
    }

    #[inline(always)]
    fn sum_and_difference(self, other: Self) -> (Self, Self) {
        let (sum0, difference0) = self.0.sum_and_difference(other.0);
        let (sum1, difference1) = self.1.sum_and_difference(other.1);
        (Self(sum0, sum1), Self(difference0, difference1))
    }
}

/// log₂ R stages on R vectors, given the T = R − 1 twiddles below their block.
///
/// A trait, not a closure: only functions marked `#[inline(always)]` are sure to be compiled with the vectors' features.
pub(super) trait Radix<const R: usize, const T: usize> {
    fn apply<V: Operand>(values: [V; R], twiddles: [V; T]) -> [V; R];
}

/// The two directions of a transform: butterflies, and the order of stages.
pub(super) trait Direction: Radix<8, 7> + Radix<4, 3> + Radix<2, 1> {
    const IS_FORWARD: bool;
}

/// Coefficients to values: `(a, b) → (a + c·b, a − c·b)`, far elements first.
pub(super) enum Forward {}

#[inline(always)]
fn split<V: Operand>(a: V, b: V, twiddle: V) -> (V, V) {
    a.plus_and_minus_product(b, twiddle)
}

impl Direction for Forward {
    const IS_FORWARD: bool = true;
}

impl Radix<8, 7> for Forward {
    #[inline(always)]
    fn apply<V: Operand>([a0, a1, a2, a3, a4, a5, a6, a7]: [V; 8], [t0, t1, t2, t3, t4, t5, t6]: [V; 7]) -> [V; 8] {
        let ((a0, a4), (a1, a5), (a2, a6), (a3, a7)) = (split(a0, a4, t0), split(a1, a5, t0), split(a2, a6, t0), split(a3, a7, t0));
        let ((a0, a2), (a1, a3), (a4, a6), (a5, a7)) = (split(a0, a2, t1), split(a1, a3, t1), split(a4, a6, t2), split(a5, a7, t2));
        let ((a0, a1), (a2, a3), (a4, a5), (a6, a7)) = (split(a0, a1, t3), split(a2, a3, t4), split(a4, a5, t5), split(a6, a7, t6));
        [a0, a1, a2, a3, a4, a5, a6, a7]
    }
}

impl Radix<4, 3> for Forward {
    #[inline(always)]
    fn apply<V: Operand>([a0, a1, a2, a3]: [V; 4], [t0, t1, t2]: [V; 3]) -> [V; 4] {
        let ((a0, a2), (a1, a3)) = (split(a0, a2, t0), split(a1, a3, t0));
        let ((a0, a1), (a2, a3)) = (split(a0, a1, t1), split(a2, a3, t2));
        [a0, a1, a2, a3]
    }
}

impl Radix<2, 1> for Forward {
    #[inline(always)]
    fn apply<V: Operand>([a0, a1]: [V; 2], [twiddle]: [V; 1]) -> [V; 2] {
        split(a0, a1, twiddle).into()
    }
}

/// Values to coefficients, twiddles inverted: `(u, v) → (u + v, (u − v)·c)`, near elements first.
pub(super) enum Inverse {}

#[inline(always)]
fn join<V: Operand>(u: V, v: V, twiddle: V) -> (V, V) {
    let (sum, difference) = u.sum_and_difference(v);
    (sum, difference.times(twiddle))
}

impl Direction for Inverse {
    const IS_FORWARD: bool = false;
}

impl Radix<8, 7> for Inverse {
    #[inline(always)]
    fn apply<V: Operand>([a0, a1, a2, a3, a4, a5, a6, a7]: [V; 8], [t0, t1, t2, t3, t4, t5, t6]: [V; 7]) -> [V; 8] {
        let ((a0, a1), (a2, a3), (a4, a5), (a6, a7)) = (join(a0, a1, t3), join(a2, a3, t4), join(a4, a5, t5), join(a6, a7, t6));
        let ((a0, a2), (a1, a3), (a4, a6), (a5, a7)) = (join(a0, a2, t1), join(a1, a3, t1), join(a4, a6, t2), join(a5, a7, t2));
        let ((a0, a4), (a1, a5), (a2, a6), (a3, a7)) = (join(a0, a4, t0), join(a1, a5, t0), join(a2, a6, t0), join(a3, a7, t0));
        [a0, a1, a2, a3, a4, a5, a6, a7]
    }
}

impl Radix<4, 3> for Inverse {
    #[inline(always)]
    fn apply<V: Operand>([a0, a1, a2, a3]: [V; 4], [t0, t1, t2]: [V; 3]) -> [V; 4] {
        let ((a0, a1), (a2, a3)) = (join(a0, a1, t1), join(a2, a3, t2));
        let ((a0, a2), (a1, a3)) = (join(a0, a2, t0), join(a1, a3, t0));
        [a0, a1, a2, a3]
    }
}

impl Radix<2, 1> for Inverse {
    #[inline(always)]
    fn apply<V: Operand>([a0, a1]: [V; 2], [twiddle]: [V; 1]) -> [V; 2] {
        join(a0, a1, twiddle).into()
    }
}

/// Vectors as operands.
#[inline(always)]
pub(super) fn once<V: Vector, const N: usize>(vectors: [V; N]) -> [One<V>; N] {
    let mut result = [One(V::ZEROS); N];
    for (result, vector) in result.iter_mut().zip(vectors) {
        *result = One(vector);
    }
    result
}

/// Vectors as operands, each in both places.
#[inline(always)]
pub(super) fn twice<V: Vector, const N: usize>(vectors: [V; N]) -> [Two<V>; N] {
    let mut result = [Two(V::ZEROS, V::ZEROS); N];
    for (result, vector) in result.iter_mut().zip(vectors) {
        *result = Two(vector, vector);
    }
    result
}

/// Operands as vectors.
#[inline(always)]
pub(super) fn ones<V: Vector, const N: usize>(operands: [One<V>; N]) -> [V; N] {
    let mut vectors = [V::ZEROS; N];
    for (vector, operand) in vectors.iter_mut().zip(operands) {
        *vector = operand.0;
    }
    vectors
}

/// Two lists of vectors as one list of operands.
#[inline(always)]
pub(super) fn paired<V: Vector, const N: usize>(first: [V; N], second: [V; N]) -> [Two<V>; N] {
    let mut pairs = [Two(V::ZEROS, V::ZEROS); N];
    for index in 0..N {
        pairs[index] = Two(first[index], second[index]);
    }
    pairs
}

/// The two lists of a list of operands.
#[inline(always)]
pub(super) fn unpaired<V: Vector, const N: usize>(pairs: [Two<V>; N]) -> ([V; N], [V; N]) {
    let (mut first, mut second) = ([V::ZEROS; N], [V::ZEROS; N]);
    for index in 0..N {
        (first[index], second[index]) = (pairs[index].0, pairs[index].1);
    }
    (first, second)
}
