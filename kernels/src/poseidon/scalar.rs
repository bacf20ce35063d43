//! The permutation by plonky2's own code, one state after another.

use plonky2::field::types::{Field, PrimeField64};
use plonky2::hash::poseidon::Poseidon;
use zkinfer_circuits::field::F;

use super::States;

/// Permutes the first `n` states.
pub(super) fn permute(states: &mut States, n: usize) {
    for lane in 0..n {
        let state = states.words.each_ref().map(|words| F::from_noncanonical_u64(words[lane]));
        for (words, element) in states.words.iter_mut().zip(F::poseidon(state)) {
            words[lane] = element.to_canonical_u64();
        }
    }
}
