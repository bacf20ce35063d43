//! The state of a challenger that is about to absorb one more element, found by inverting the permutation.
//!
//! plonky2's challenger keeps its state and its buffer to itself, but tells the state after the next permutation. The permutation is a
//! bijection: what it was applied to is the state wanted, with the absorbed element in it. Two absorbed elements show the place.

use plonky2::field::types::Field;
use plonky2::hash::poseidon::{N_PARTIAL_ROUNDS, PoseidonPermutation};
use plonky2::iop::challenger::Challenger;
use zkinfer_circuits::field::{F, H, ORDER};

use super::tables::{CIRCULANT, DIAGONAL, HALF_FULL, N_ROUNDS, WIDTH, circulant, round_constant};

/// What is permuted next once the challenger has observed one more element.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pending {
    /// The state; zero where the element goes.
    pub(crate) state: [F; WIDTH],
    /// Where the element goes.
    pub(crate) position: usize,
}

impl Pending {
    /// Of a challenger as it stands. Costs two inversions, some tens of microseconds.
    pub(crate) fn of(challenger: &Challenger<F, H>) -> Self {
        let inverse = Inverse::new();
        let before = |element: F| {
            let mut challenger = challenger.clone();
            challenger.observe_element(element);
            let after: PoseidonPermutation<F> = challenger.compact();
            let mut state = [F::ZERO; WIDTH];
            state.copy_from_slice(after.as_ref());
            inverse.apply(state)
        };
        let (with_zero, with_one) = (before(F::ZERO), before(F::ONE));
        let position = with_zero.iter().zip(&with_one).position(|(zero, one)| zero != one);
        Self { state: with_zero, position: position.expect("a bijection keeps different states different") }
    }
}

/// `x^SEVENTH_ROOT` is the number whose seventh power is x: 7·SEVENTH_ROOT = 1 modulo p − 1.
const SEVENTH_ROOT: u64 = {
    let mut multiple = 1;
    while multiple % 7 != 0 {
        multiple += (ORDER - 1) as u128;
    }
    (multiple / 7) as u64
};

/// The inverse permutation.
struct Inverse {
    matrix: [[F; WIDTH]; WIDTH],
}

impl Inverse {
    fn new() -> Self {
        let mut matrix = [[F::ZERO; WIDTH]; WIDTH];
        for (row, entries) in matrix.iter_mut().enumerate() {
            for (column, entry) in entries.iter_mut().enumerate() {
                *entry = F::from_canonical_u64(circulant(row, column));
            }
        }
        matrix[0][0] = F::from_canonical_u64(CIRCULANT[0] + DIAGONAL);
        Self { matrix: inverted(matrix) }
    }

    fn apply(&self, state: [F; WIDTH]) -> [F; WIDTH] {
        self.undo_rounds(state, N_ROUNDS)
    }

    /// The state that becomes `state` in the first `n` rounds.
    fn undo_rounds(&self, mut state: [F; WIDTH], n: usize) -> [F; WIDTH] {
        let partial = HALF_FULL..HALF_FULL + N_PARTIAL_ROUNDS;
        for round in (0..n).rev() {
            state = self.matrix.map(|row| row.iter().zip(&state).map(|(&entry, &element)| entry * element).sum());
            let n_boxes = if partial.contains(&round) { 1 } else { WIDTH };
            for element in &mut state[..n_boxes] {
                *element = element.exp_u64(SEVENTH_ROOT);
            }
            for (index, element) in state.iter_mut().enumerate() {
                *element -= F::from_canonical_u64(round_constant(round, index));
            }
        }
        state
    }
}

/// The state to permute so that `round` begins with `state`, constants not yet added.
#[cfg(test)]
pub(super) fn before_rounds(state: [F; WIDTH], round: usize) -> [F; WIDTH] {
    Inverse::new().undo_rounds(state, round)
}

/// The inverse of an invertible matrix, by Gauss and Jordan.
fn inverted(mut matrix: [[F; WIDTH]; WIDTH]) -> [[F; WIDTH]; WIDTH] {
    let mut inverse = [[F::ZERO; WIDTH]; WIDTH];
    for (index, row) in inverse.iter_mut().enumerate() {
        row[index] = F::ONE;
    }
    for pivot in 0..WIDTH {
        let row = (pivot..WIDTH).find(|&row| matrix[row][pivot] != F::ZERO).expect("the matrix is invertible");
        matrix.swap(pivot, row);
        inverse.swap(pivot, row);
        let factor = matrix[pivot][pivot].inverse();
        let scaled = [matrix[pivot].map(|entry| entry * factor), inverse[pivot].map(|entry| entry * factor)];
        for row in 0..WIDTH {
            let factor = matrix[row][pivot];
            for column in 0..WIDTH {
                matrix[row][column] -= factor * scaled[0][column];
                inverse[row][column] -= factor * scaled[1][column];
            }
        }
        [matrix[pivot], inverse[pivot]] = scaled;
    }
    inverse
}
