//! Hashes of up to [`LANES`] messages at once: plonky2's sponge in overwrite mode, and its two-to-one compression.
//!
//! `hash_or_noop`: a message of at most four elements is its own digest.

use plonky2::field::types::{Field, PrimeField64};
use plonky2::hash::hash_types::NUM_HASH_OUT_ELTS;
use zkinfer_circuits::field::{Digest, F};

use super::{LANES, RATE, States};
use crate::vector::Dispatch;

/// Digests of the leaves `first …`, one for each of at most [`LANES`] `digests`, of a matrix that is stored by columns of `n_leaves`.
pub(crate) fn hash_columns(dispatch: Dispatch, columns: &[F], n_leaves: usize, first: usize, digests: &mut [Digest]) {
    let leaves = first..first + digests.len();
    if columns.len() <= NUM_HASH_OUT_ELTS * n_leaves {
        for (index, column) in columns.chunks_exact(n_leaves).enumerate() {
            for (digest, &value) in digests.iter_mut().zip(&column[leaves.clone()]) {
                digest.elements[index] = value;
            }
        }
        return;
    }
    let mut states = States::ZERO;
    for chunk in columns.chunks(RATE * n_leaves) {
        for (words, column) in states.words.iter_mut().zip(chunk.chunks_exact(n_leaves)) {
            for (word, value) in words.iter_mut().zip(&column[leaves.clone()]) {
                *word = value.to_noncanonical_u64();
            }
        }
        states.permute(dispatch, digests.len());
    }
    squeeze(&states, digests);
}

/// Digests of leaves of `length` consecutive elements, one for each of at most [`LANES`] `digests`.
pub(crate) fn hash_rows(dispatch: Dispatch, rows: &[F], length: usize, digests: &mut [Digest]) {
    if length <= NUM_HASH_OUT_ELTS {
        for (digest, row) in digests.iter_mut().zip(rows.chunks_exact(length)) {
            *digest = Digest::from_partial(row);
        }
        return;
    }
    let mut states = States::ZERO;
    for first in (0..length).step_by(RATE) {
        let absorbed = first..length.min(first + RATE);
        for (lane, row) in rows.chunks_exact(length).enumerate() {
            set_lane(&mut states, lane, 0, &row[absorbed.clone()]);
        }
        states.permute(dispatch, digests.len());
    }
    squeeze(&states, digests);
}

/// Digests of pairs of digests: at most [`LANES`] parents of twice as many children.
pub(crate) fn compress(dispatch: Dispatch, children: &[Digest], parents: &mut [Digest]) {
    let mut states = States::ZERO;
    for (lane, pair) in children.chunks_exact(2).enumerate() {
        set_lane(&mut states, lane, 0, &pair[0].elements);
        set_lane(&mut states, lane, NUM_HASH_OUT_ELTS, &pair[1].elements);
    }
    states.permute(dispatch, parents.len());
    squeeze(&states, parents);
}

/// Overwrites elements from `first` on of one state.
fn set_lane(states: &mut States, lane: usize, first: usize, elements: &[F]) {
    for (words, element) in states.words[first..].iter_mut().zip(elements) {
        words[lane] = element.to_noncanonical_u64();
    }
}

fn squeeze(states: &States, digests: &mut [Digest]) {
    assert!(digests.len() <= LANES, "at most {LANES} messages are hashed at once");
    for (lane, digest) in digests.iter_mut().enumerate() {
        for (element, words) in digest.elements.iter_mut().zip(&states.words) {
            *element = F::from_canonical_u64(words[lane]);
        }
    }
}
