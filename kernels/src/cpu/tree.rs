//! Merkle trees with plonky2's digests, stored level by level; leaves stay where they are.
//!
//! A leaf is hashed by Poseidon in overwrite mode, or copied if it has at most four elements (`Hasher::hash_or_noop`).

use plonky2::hash::hash_types::NUM_HASH_OUT_ELTS;
use plonky2::hash::hashing::PlonkyPermutation;
use plonky2::hash::merkle_proofs::MerkleProof;
use plonky2::hash::merkle_tree::MerkleCap;
use plonky2::hash::poseidon::PoseidonPermutation;
use rayon::prelude::*;
use zkinfer_circuits::field::{Digest, F, H};

use crate::vector::Dispatch;

type Permutation = PoseidonPermutation<F>;

/// Elements absorbed by one permutation.
const RATE: usize = 8;
/// Leaves hashed by one task.
const BLOCK_LEAVES: usize = 64;

/// The digests of a tree.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Level 0 holds the leaves' digests, the last level is the cap.
    levels: Vec<Vec<Digest>>,
}

impl Tree {
    /// The tree over leaves `(columns[0][i], columns[1][i], …)`, of columns that lie one after another in `columns`.
    pub(crate) fn from_columns(_dispatch: Dispatch, columns: &[F], n_leaves: usize, cap_height: usize) -> Self {
        let mut digests = vec![Digest::ZERO; n_leaves];
        digests.par_chunks_mut(BLOCK_LEAVES).enumerate().for_each(|(block, digests)| {
            hash_column_block(columns, n_leaves, block * BLOCK_LEAVES, digests);
        });
        Self::from_leaf_digests(digests, cap_height)
    }

    /// The tree over leaves of `leaf_length` consecutive elements.
    pub(crate) fn from_leaves(_dispatch: Dispatch, leaves: &[F], leaf_length: usize, cap_height: usize) -> Self {
        let digests = leaves.par_chunks(leaf_length).with_min_len(BLOCK_LEAVES).map(hash_leaf).collect();
        Self::from_leaf_digests(digests, cap_height)
    }

    fn from_leaf_digests(digests: Vec<Digest>, cap_height: usize) -> Self {
        let cap_length = 1 << cap_height;
        let mut levels = vec![digests];
        while levels[levels.len() - 1].len() > cap_length {
            let children = &levels[levels.len() - 1];
            let parents = children.par_chunks_exact(2).with_min_len(BLOCK_LEAVES).map(|pair| compress(pair[0], pair[1])).collect();
            levels.push(parents);
        }
        Self { levels }
    }

    /// A tree whose digests are known; levels halve from `n_leaves` to the cap.
    pub(crate) fn from_levels(levels: Vec<Vec<Digest>>) -> Self {
        Self { levels }
    }

    pub(crate) fn levels(&self) -> &[Vec<Digest>] {
        &self.levels
    }

    pub(crate) fn cap(&self) -> MerkleCap<F, H> {
        MerkleCap(self.levels[self.levels.len() - 1].clone())
    }

    /// The siblings from a leaf up to the cap; `leaf` is less than the number of leaves.
    pub(crate) fn path(&self, leaf: usize) -> MerkleProof<F, H> {
        let below_cap = &self.levels[..self.levels.len() - 1];
        let siblings = below_cap.iter().enumerate().map(|(height, level)| level[(leaf >> height) ^ 1]).collect();
        MerkleProof { siblings }
    }
}

fn squeeze(state: &Permutation) -> Digest {
    let mut digest = Digest::ZERO;
    digest.elements.copy_from_slice(&state.squeeze()[..NUM_HASH_OUT_ELTS]);
    digest
}

fn hash_leaf(leaf: &[F]) -> Digest {
    if leaf.len() <= NUM_HASH_OUT_ELTS {
        return Digest::from_partial(leaf);
    }
    let mut state = Permutation::default();
    for chunk in leaf.chunks(RATE) {
        state.set_from_slice(chunk, 0);
        state.permute();
    }
    squeeze(&state)
}

/// Digests of leaves `first …` of a matrix by columns: every column is read in runs.
fn hash_column_block(columns: &[F], n_leaves: usize, first: usize, digests: &mut [Digest]) {
    let leaf_range = first..first + digests.len();
    let n_columns = columns.len() / n_leaves;
    if n_columns <= NUM_HASH_OUT_ELTS {
        for (index, column) in columns.chunks_exact(n_leaves).enumerate() {
            for (digest, &value) in digests.iter_mut().zip(&column[leaf_range.clone()]) {
                digest.elements[index] = value;
            }
        }
        return;
    }
    let mut states = [Permutation::default(); BLOCK_LEAVES];
    let states = &mut states[..digests.len()];
    for chunk in columns.chunks(RATE * n_leaves) {
        for (index, column) in chunk.chunks_exact(n_leaves).enumerate() {
            for (state, &value) in states.iter_mut().zip(&column[leaf_range.clone()]) {
                state.set_elt(value, index);
            }
        }
        states.iter_mut().for_each(Permutation::permute);
    }
    for (digest, state) in digests.iter_mut().zip(states) {
        *digest = squeeze(state);
    }
}

fn compress(left: Digest, right: Digest) -> Digest {
    let mut state = Permutation::default();
    state.set_from_slice(&left.elements, 0);
    state.set_from_slice(&right.elements, NUM_HASH_OUT_ELTS);
    state.permute();
    squeeze(&state)
}
