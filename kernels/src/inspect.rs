//! What lies inside a backend, read for comparison: every buffer as values in one order, whatever its layout.
//!
//! For tests and for commissioning a device ([`crate::DualBackend::of_every_buffer`]); no step of a proof needs it. Elements of K are two of F.

use plonky2::field::types::Field;
use plonky2::hash::merkle_tree::MerkleTree;
use zkinfer_circuits::backend::reference::Reference;
use zkinfer_circuits::backend::{Backend, BackendError};
use zkinfer_circuits::field::{F, H, limbs};

use crate::CpuBackend;
use crate::faulty::FaultyBackend;

/// A backend whose buffers can be read.
pub trait Inspect: Backend {
    /// Coefficients column after column; the extension column after column, in the order of leaves; digests level after level, from the leaves'
    /// to the cap.
    ///
    /// # Errors
    /// [`BackendError`], if reading fails.
    fn oracle_values(&self, oracle: &Self::Oracle) -> Result<Vec<F>, BackendError>;

    /// Coefficients of w~: first coordinates, then second.
    ///
    /// # Errors
    /// As [`Inspect::oracle_values`].
    fn combination_values(&self, combination: &Self::Combination) -> Result<Vec<F>, BackendError>;

    /// All coefficients, zeros included, then all values in the order of leaves; the coordinates of each side by side.
    ///
    /// # Errors
    /// As [`Inspect::oracle_values`].
    fn codeword_values(&self, codeword: &Self::Codeword) -> Result<Vec<F>, BackendError> {
        let coefficients = self.final_polynomial(codeword, 0)?;
        let log_size = coefficients.len().trailing_zeros() as usize;
        let mut values: Vec<F> = coefficients.into_iter().flat_map(limbs).collect();
        // A leaf of one point is short enough to be its own digest, and a cap of all leaves shows them.
        let leaves = self.fold_commit(codeword, 0, log_size)?;
        values.extend(self.fold_cap(&leaves).0.iter().flat_map(|digest| &digest.elements[..2]));
        Ok(values)
    }

    /// Leaf after leaf, the coordinates of a point side by side; then digests as in [`Inspect::oracle_values`].
    ///
    /// # Errors
    /// As [`Inspect::oracle_values`].
    fn fold_tree_values(&self, tree: &Self::FoldTree) -> Result<Vec<F>, BackendError>;
}

impl Inspect for CpuBackend {
    fn oracle_values(&self, oracle: &Self::Oracle) -> Result<Vec<F>, BackendError> {
        Ok([&oracle.coefficients[..], &oracle.extension[..], &oracle.tree.elements()[..]].concat())
    }

    fn combination_values(&self, combination: &Self::Combination) -> Result<Vec<F>, BackendError> {
        Ok(combination.0.concat())
    }

    fn fold_tree_values(&self, tree: &Self::FoldTree) -> Result<Vec<F>, BackendError> {
        Ok([&tree.leaves[..], &tree.tree.elements()[..]].concat())
    }
}

#[cfg(any(feature = "cuda", test))]
impl Inspect for crate::CudaBackend {
    fn oracle_values(&self, oracle: &Self::Oracle) -> Result<Vec<F>, BackendError> {
        self.read_oracle(oracle)
    }

    fn combination_values(&self, combination: &Self::Combination) -> Result<Vec<F>, BackendError> {
        self.read_combination(combination)
    }

    fn fold_tree_values(&self, tree: &Self::FoldTree) -> Result<Vec<F>, BackendError> {
        self.read_fold_tree(tree)
    }
}

impl<B: Inspect> Inspect for FaultyBackend<B> {
    fn oracle_values(&self, oracle: &Self::Oracle) -> Result<Vec<F>, BackendError> {
        self.inner().oracle_values(oracle)
    }

    fn combination_values(&self, combination: &Self::Combination) -> Result<Vec<F>, BackendError> {
        self.inner().combination_values(combination)
    }

    fn codeword_values(&self, codeword: &Self::Codeword) -> Result<Vec<F>, BackendError> {
        self.inner().codeword_values(codeword)
    }

    fn fold_tree_values(&self, tree: &Self::FoldTree) -> Result<Vec<F>, BackendError> {
        self.inner().fold_tree_values(tree)
    }
}

/// By what the reference shows of itself: its saved coefficients, and the answers to all queries.
impl Inspect for Reference {
    fn oracle_values(&self, oracle: &Self::Oracle) -> Result<Vec<F>, BackendError> {
        let words: Vec<u64> =
            self.save(oracle)?.chunks_exact(8).map(|bytes| u64::from_le_bytes(bytes.try_into().expect("8 bytes"))).collect();
        let [log_rows, rate_bits, _, n_columns, coefficients @ ..] = &words[..] else {
            return Err(BackendError::Damaged("the reference saved no header".to_owned()));
        };
        let mut values: Vec<F> = coefficients.iter().map(|&word| F::from_canonical_u64(word)).collect();
        let n_leaves = 1usize << (log_rows + rate_bits);
        let answers = self.query(oracle, &(0..n_leaves).collect::<Vec<_>>())?;
        for column in 0..*n_columns as usize {
            values.extend(answers.iter().map(|(row, _)| row[column]));
        }
        // Digest i of a level is the sibling of digest i ^ 1, on whose path every leaf below that one looks it up.
        let height = answers[0].1.siblings.len();
        for level in 0..height {
            let n_digests = n_leaves >> level;
            values.extend((0..n_digests).flat_map(|index| answers[(index ^ 1) << level].1.siblings[level].elements));
        }
        values.extend(self.cap(oracle).0.iter().flat_map(|digest| digest.elements));
        Ok(values)
    }

    fn combination_values(&self, combination: &Self::Combination) -> Result<Vec<F>, BackendError> {
        Ok(combination.iter().flat_map(|limb| limb.coeffs.iter().copied()).collect())
    }

    fn fold_tree_values(&self, tree: &MerkleTree<F, H>) -> Result<Vec<F>, BackendError> {
        let n_leaves = tree.leaves.len();
        let mut values = tree.leaves.concat();
        for level in 0..n_leaves.trailing_zeros() as usize - tree.cap.height() {
            values.extend((0..n_leaves >> level).flat_map(|index| tree.prove((index ^ 1) << level).siblings[level].elements));
        }
        values.extend(tree.cap.0.iter().flat_map(|digest| digest.elements));
        Ok(values)
    }
}
