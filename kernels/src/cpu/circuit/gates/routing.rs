//! Gates that tie wires to constants, to limbs, to entries of a list.

use plonky2::field::types::Field;
use plonky2::gates::random_access::RandomAccessGate;
use zkinfer_circuits::field::{D, F};

use super::{Output, Row};
use crate::vector::Vector;

/// `w_i − h_i` for the four elements of the public inputs' hash.
#[inline(always)]
pub(super) fn public_input<V: Vector>(row: &Row<'_>, output: &mut Output<'_, V>) {
    for (wire, &element) in row.block.public_inputs_hash.elements.iter().enumerate() {
        output.push(row.wire::<V>(wire) - V::from(element));
    }
}

/// `c_i − w_i`.
#[inline(always)]
pub(super) fn constant<V: Vector>(row: &Row<'_>, n_constants: usize, output: &mut Output<'_, V>) {
    for index in 0..n_constants {
        output.push(row.constant::<V>(index) - row.wire::<V>(index));
    }
}

/// `Σ_i base^i·l_i − w_0`, and `Π_{v < base} (l_i − v)` for each limb; the limbs are the wires after w_0.
#[inline(always)]
pub(super) fn limbs<V: Vector>(row: &Row<'_>, base: usize, n_limbs: usize, output: &mut Output<'_, V>) {
    let mut sum = V::from(F::ZERO);
    for index in (1..=n_limbs).rev() {
        for _ in 0..base.trailing_zeros() {
            sum += sum;
        }
        sum += row.wire::<V>(index);
    }
    output.push(sum - row.wire::<V>(0));
    for index in 1..=n_limbs {
        let limb: V = row.wire(index);
        let mut product = limb;
        for value in 1..base {
            product *= limb - V::from(F::from_canonical_usize(value));
        }
        output.push(product);
    }
}

/// Longest list, as a power of two, that is folded here.
pub(super) const MAX_ACCESS_BITS: usize = 6;

/// The sizes of a random-access gate.
pub(in super::super) struct RandomAccess {
    bits: usize,
    n_copies: usize,
    n_extra_constants: usize,
}

impl RandomAccess {
    pub(super) fn new(gate: &RandomAccessGate<F, D>) -> Self {
        Self { bits: gate.bits, n_copies: gate.num_copies, n_extra_constants: gate.num_extra_constants }
    }

    /// For each copy: the index's bits are bits, they make up the index, and they select the claimed element. Then the constants.
    ///
    /// Wires of a copy: index, claimed element, list. After all copies: the constants; then each copy's bits, least significant first.
    #[inline(always)]
    pub(super) fn evaluate<V: Vector>(&self, row: &Row<'_>, output: &mut Output<'_, V>) {
        let length = 1 << self.bits;
        let constants = self.n_copies * (2 + length);
        let mut list = [V::from(F::ZERO); 1 << MAX_ACCESS_BITS];
        for copy in 0..self.n_copies {
            let first = copy * (2 + length);
            let bits = constants + self.n_extra_constants + copy * self.bits;
            let mut index = V::from(F::ZERO);
            for bit in (0..self.bits).rev() {
                index = index + index + row.wire::<V>(bits + bit);
            }
            for bit in 0..self.bits {
                let bit: V = row.wire(bits + bit);
                output.push(bit.squared() - bit);
            }
            output.push(index - row.wire::<V>(first));
            for (entry, wire) in list[..length].iter_mut().zip(first + 2..) {
                *entry = row.wire(wire);
            }
            for bit in 0..self.bits {
                let chosen: V = row.wire(bits + bit);
                for pair in 0..length >> (bit + 1) {
                    let (even, odd) = (list[2 * pair], list[2 * pair + 1]);
                    list[pair] = even + chosen * (odd - even);
                }
            }
            output.push(list[0] - row.wire::<V>(first + 1));
        }
        for index in 0..self.n_extra_constants {
            output.push(row.constant::<V>(index) - row.wire::<V>(constants + index));
        }
    }
}
