//! Merkle trees with plonky2's digests, stored level by level; leaves stay where they are.
//!
//! A leaf is hashed by Poseidon in overwrite mode, or copied if it has at most four elements (`Hasher::hash_or_noop`).

use plonky2::hash::merkle_proofs::MerkleProof;
use plonky2::hash::merkle_tree::MerkleCap;
use rayon::prelude::*;
use zkinfer_circuits::field::{Digest, F, H};

use crate::poseidon::{self, LANES, RATE};
use crate::vector::Dispatch;

/// Permutations worth a task of their own.
const TASK_PERMUTATIONS: usize = 512;

/// The digests of a tree.
#[derive(Debug)]
pub(crate) struct Tree {
    /// Level 0 holds the leaves' digests, the last level is the cap.
    levels: Vec<Vec<Digest>>,
}

impl Tree {
    /// The tree over leaves `(columns[0][i], columns[1][i], …)`, of columns that lie one after another in `columns`.
    pub(crate) fn from_columns(dispatch: Dispatch, columns: &[F], n_leaves: usize, cap_height: usize) -> Self {
        let mut digests = vec![Digest::ZERO; n_leaves];
        for_each_block(&mut digests, columns.len() / n_leaves, |first, digests| {
            poseidon::hash_columns(dispatch, columns, n_leaves, first, digests);
        });
        Self::from_leaf_digests(dispatch, digests, cap_height)
    }

    /// The tree over leaves of `leaf_length` consecutive elements.
    pub(crate) fn from_leaves(dispatch: Dispatch, leaves: &[F], leaf_length: usize, cap_height: usize) -> Self {
        let mut digests = vec![Digest::ZERO; leaves.len() / leaf_length];
        for_each_block(&mut digests, leaf_length, |first, digests| {
            let rows = &leaves[first * leaf_length..(first + digests.len()) * leaf_length];
            poseidon::hash_rows(dispatch, rows, leaf_length, digests);
        });
        Self::from_leaf_digests(dispatch, digests, cap_height)
    }

    fn from_leaf_digests(dispatch: Dispatch, digests: Vec<Digest>, cap_height: usize) -> Self {
        let cap_length = 1 << cap_height;
        let mut levels = vec![digests];
        while levels[levels.len() - 1].len() > cap_length {
            let children = &levels[levels.len() - 1];
            let mut parents = vec![Digest::ZERO; children.len() / 2];
            for_each_block(&mut parents, RATE, |first, parents| {
                poseidon::compress(dispatch, &children[2 * first..2 * (first + parents.len())], parents);
            });
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

    /// The elements of all digests, level after level.
    pub(crate) fn elements(&self) -> Vec<F> {
        self.levels.iter().flatten().flat_map(|digest| digest.elements).collect()
    }

    /// Changes a digest below the cap: what a faulty device may do.
    #[cfg(test)]
    pub(crate) fn change_digest(&mut self, change: impl Fn(&mut Digest)) {
        change(&mut self.levels[0][1]);
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

/// Calls `hash` with the index of the first digest and the digests of every block of [`LANES`], of messages of `length` elements: in
/// parallel, unless that costs more than it gains.
fn for_each_block(digests: &mut [Digest], length: usize, hash: impl Fn(usize, &mut [Digest]) + Sync) {
    let permutations_per_block = LANES * length.div_ceil(RATE);
    if digests.len() * length.div_ceil(RATE) < 2 * TASK_PERMUTATIONS {
        digests.chunks_mut(LANES).enumerate().for_each(|(block, digests)| hash(block * LANES, digests));
        return;
    }
    let blocks = digests.par_chunks_mut(LANES).enumerate().with_min_len(TASK_PERMUTATIONS.div_ceil(permutations_per_block));
    blocks.for_each(|(block, digests)| hash(block * LANES, digests));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::Level;
    use plonky2::field::types::{Field, Sample};
    use plonky2::hash::merkle_tree::MerkleTree;

    fn check_equal(tree: &Tree, expected: &MerkleTree<F, H>, case: &str) {
        assert_eq!(tree.cap(), expected.cap, "{case}");
        for leaf in 0..expected.leaves.len() {
            assert_eq!(tree.path(leaf).siblings, expected.prove(leaf).siblings, "{case}, leaf {leaf}");
        }
    }

    /// Rows of random elements, some of which are not canonical.
    fn rows(n_leaves: usize, width: usize) -> Vec<Vec<F>> {
        let mut rows: Vec<Vec<F>> = (0..n_leaves).map(|_| F::rand_vec(width)).collect();
        for (leaf, row) in rows.iter_mut().enumerate() {
            row[leaf % width] = F::from_noncanonical_u64(u64::MAX - leaf as u64);
        }
        rows
    }

    fn by_columns(rows: &[Vec<F>]) -> Vec<F> {
        (0..rows[0].len()).flat_map(|column| rows.iter().map(move |row| row[column])).collect()
    }

    #[test]
    fn trees_equal_plonky2s_at_every_width() {
        for level in Level::available() {
            let dispatch = Dispatch::new(level).expect("available");
            for width in (1..=20).chain([135, 257]) {
                let rows = rows(64, width);
                let expected = MerkleTree::new(rows.clone(), 2);
                let case = format!("{} width {width}", level.name());
                check_equal(&Tree::from_columns(dispatch, &by_columns(&rows), 64, 2), &expected, &case);
                check_equal(&Tree::from_leaves(dispatch, &rows.concat(), width, 2), &expected, &case);
            }
        }
    }

    #[test]
    fn trees_equal_plonky2s_at_every_size_and_cap() {
        for level in Level::available() {
            let dispatch = Dispatch::new(level).expect("available");
            for log_leaves in 0..=11 {
                let rows = rows(1 << log_leaves, 9);
                for cap_height in [0, log_leaves / 2, log_leaves] {
                    let expected = MerkleTree::new(rows.clone(), cap_height);
                    let case = format!("{} 2^{log_leaves} leaves, cap {cap_height}", level.name());
                    check_equal(&Tree::from_columns(dispatch, &by_columns(&rows), rows.len(), cap_height), &expected, &case);
                    check_equal(&Tree::from_leaves(dispatch, &rows.concat(), 9, cap_height), &expected, &case);
                }
            }
        }
    }

    #[test]
    fn a_tree_of_saved_levels_is_the_tree() {
        let tree = Tree::from_columns(Dispatch::detect(), &F::rand_vec(32 * 5), 32, 1);
        let again = Tree::from_levels(tree.levels().to_vec());
        assert_eq!((again.cap(), again.path(7).siblings), (tree.cap(), tree.path(7).siblings));
    }
}
