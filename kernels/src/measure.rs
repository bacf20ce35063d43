//! Parts of the CPU backend alone, to be measured.

use plonky2::hash::merkle_tree::MerkleCap;
use zkinfer_circuits::field::{F, H};

use crate::cpu::tree::Tree;
use crate::poseidon::{LANES, States};
use crate::vector::{Dispatch, Level, UnavailableLevel};

/// Many states of Poseidon, and the level that permutes them.
#[derive(Clone, Debug)]
pub struct Permutation {
    dispatch: Dispatch,
    states: States,
}

impl Permutation {
    /// Number of states.
    pub const LANES: usize = LANES;

    /// States of zeros.
    ///
    /// # Errors
    /// [`UnavailableLevel`] if this processor lacks it.
    pub fn new(level: Level) -> Result<Self, UnavailableLevel> {
        Ok(Self { dispatch: Dispatch::new(level)?, states: States::ZERO })
    }

    /// Permutes the first `n` states, at most [`Self::LANES`].
    pub fn permute(&mut self, n: usize) {
        self.states.permute(self.dispatch, n);
    }
}

/// The cap of the Merkle tree over the rows of a matrix that is stored by columns of `n_leaves`.
///
/// # Errors
/// [`UnavailableLevel`] if this processor lacks it.
pub fn merkle_cap(level: Level, columns: &[F], n_leaves: usize, cap_height: usize) -> Result<MerkleCap<F, H>, UnavailableLevel> {
    Ok(Tree::from_columns(Dispatch::new(level)?, columns, n_leaves, cap_height).cap())
}
