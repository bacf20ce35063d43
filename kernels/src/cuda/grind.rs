//! Grinding on the device: the smallest nonce, block after block.
//!
//! plonky2's challenger does not show its state. It is recovered from two of its outputs: absorbing 0 and absorbing 1 gives two permuted states;
//! permuted back, they differ in the word that the nonce goes to, and agree in everything else that the permutation of a nonce reads.

use plonky2::field::types::{Field, PrimeField64};
use plonky2::hash::poseidon::{ALL_ROUND_CONSTANTS, HALF_N_FULL_ROUNDS, N_ROUNDS, Poseidon, SPONGE_WIDTH};
use plonky2::iop::challenger::Challenger;
use zkinfer_circuits::backend::BackendError;
use zkinfer_circuits::field::{F, H, ORDER};

use super::device::{Argument, Lane, Shape};

type State = [F; SPONGE_WIDTH];

/// Nonces of a launch, log₂: at least this many, and at most.
const LOG_BLOCK: std::ops::RangeInclusive<u32> = 10..=22;

/// The smallest nonce whose challenge has `bits` leading zeros.
pub(crate) fn grind(lane: Lane<'_>, challenger: &Challenger<F, H>, bits: u32) -> Result<u64, BackendError> {
    let none = || BackendError::Unsupported(format!("no nonce has a challenge with {bits} leading zeros"));
    let mask = u64::MAX.checked_shr(bits).map_or(u64::MAX, |low| !low);
    if bits > u64::BITS {
        return Err(none());
    }
    let (state, position) = prepared(challenger);
    let prepared = lane.upload(&state.map(|word| word.to_canonical_u64()))?;
    let mut best = lane.upload(&[u64::MAX])?;
    let block = 1u64 << (bits + 1).clamp(*LOG_BLOCK.start(), *LOG_BLOCK.end());
    let mut first = 0;
    while first < ORDER {
        let count = block.min(ORDER - first);
        let arguments = vec![
            Argument::In(prepared.view()),
            Argument::Out(best.view_mut()),
            Argument::Word(first),
            Argument::Word(mask),
            Argument::Count(count as u32),
            Argument::Count(position as u32),
        ];
        lane.launch("grind_nonces", Shape::of_items(count), arguments)?;
        let found = lane.download(&best.view())?[0];
        if found != u64::MAX {
            return Ok(found);
        }
        first += count;
    }
    Err(none())
}

/// The state whose permutation gives a nonce's challenge, and the word where the nonce goes.
fn prepared(challenger: &Challenger<F, H>) -> (State, usize) {
    let absorbed = |nonce: F| {
        let mut challenger = challenger.clone();
        challenger.observe_element(nonce);
        let mut state = [F::ZERO; SPONGE_WIDTH];
        state.copy_from_slice(challenger.compact().as_ref());
        permuted_back(state)
    };
    let (with_zero, with_one) = (absorbed(F::ZERO), absorbed(F::ONE));
    let position = with_zero.iter().zip(&with_one).position(|(a, b)| a != b);
    (with_zero, position.expect("a permutation keeps different states different"))
}

/// The inverse of Poseidon's permutation, round by round as it is defined.
fn permuted_back(mut state: State) -> State {
    let inverse = inverse_mds();
    let root = seventh_root();
    for round in (0..N_ROUNDS).rev() {
        state = std::array::from_fn(|row| inverse[row].iter().zip(&state).map(|(&factor, &word)| factor * word).sum());
        let is_partial = (HALF_N_FULL_ROUNDS..N_ROUNDS - HALF_N_FULL_ROUNDS).contains(&round);
        let n_boxes = if is_partial { 1 } else { SPONGE_WIDTH };
        state[..n_boxes].iter_mut().for_each(|word| *word = word.exp_u64(root));
        for (word, &constant) in state.iter_mut().zip(&ALL_ROUND_CONSTANTS[SPONGE_WIDTH * round..]) {
            *word -= F::from_canonical_u64(constant);
        }
    }
    state
}

/// 1/7 modulo p − 1: (k·(p − 1) + 1) / 7 for the k that makes it whole.
fn seventh_root() -> u64 {
    let order = u128::from(ORDER - 1);
    let multiple = (1..7).map(|k| k * order + 1).find(|multiple| multiple.is_multiple_of(7));
    (multiple.expect("7 does not divide p − 1") / 7) as u64
}

/// The inverse of the MDS matrix, by elimination.
fn inverse_mds() -> [State; SPONGE_WIDTH] {
    let mut left: [State; SPONGE_WIDTH] = std::array::from_fn(|row| {
        std::array::from_fn(|column| {
            let diagonal = if row == column { F::MDS_MATRIX_DIAG[row] } else { 0 };
            F::from_canonical_u64(F::MDS_MATRIX_CIRC[(column + SPONGE_WIDTH - row) % SPONGE_WIDTH] + diagonal)
        })
    });
    let mut right: [State; SPONGE_WIDTH] = std::array::from_fn(|row| std::array::from_fn(|column| F::from_bool(row == column)));
    for pivot in 0..SPONGE_WIDTH {
        let row = (pivot..SPONGE_WIDTH).find(|&row| left[row][pivot].is_nonzero()).expect("the matrix is invertible");
        left.swap(pivot, row);
        right.swap(pivot, row);
        let inverse = left[pivot][pivot].inverse();
        for matrix in [&mut left, &mut right] {
            matrix[pivot].iter_mut().for_each(|word| *word *= inverse);
        }
        let (left_pivot, right_pivot) = (left[pivot], right[pivot]);
        for row in (0..SPONGE_WIDTH).filter(|&row| row != pivot) {
            let factor = left[row][pivot];
            for column in 0..SPONGE_WIDTH {
                left[row][column] -= factor * left_pivot[column];
                right[row][column] -= factor * right_pivot[column];
            }
        }
    }
    right
}

#[cfg(test)]
mod tests {
    use plonky2::field::types::Sample;

    use super::*;

    #[test]
    fn permuting_back_undoes_the_permutation() {
        let state: State = F::rand_array();
        assert_eq!(permuted_back(F::poseidon(state)), state);
    }

    #[test]
    fn prepared_state_gives_the_challenge_of_any_nonce_at_any_filling() {
        for n_observed in 0..17 {
            let mut challenger = Challenger::<F, H>::new();
            challenger.observe_elements(&F::rand_vec(n_observed));
            let (mut state, position) = prepared(&challenger);
            assert_eq!(position, n_observed % 8);
            let nonce = F::rand();
            state[position] = nonce;
            challenger.observe_element(nonce);
            assert_eq!(F::poseidon(state)[7], challenger.get_challenge());
        }
    }
}
