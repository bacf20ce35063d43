//! A layer proof: an internal artifact of the prover.

use plonky2::fri::proof::FriProof;
use plonky2::hash::merkle_tree::MerkleCap;

use crate::field::{D, Digest, F, H, K};

/// The proof of one layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerProof {
    /// Caps of weights, main, projected, sums.
    pub caps: [MerkleCap<F, H>; 4],
    /// The layer's balance in the ledger.
    pub balance: K,
    /// Openings of the five batches of [`super::shape::LayerShape::batches`].
    pub openings: [Vec<K>; 5],
    /// The FRI proof.
    pub fri: FriProof<F, H, D>,
}

/// What a layer proof is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerClaim {
    /// θ.
    pub theta: Vec<F>,
    /// Index of the layer in its program.
    pub index: usize,
    /// Identity of the weights oracle.
    pub link_weights: Digest,
    /// Identity of the main oracle.
    pub link_main: Digest,
    /// γ' (0 for a registration).
    pub gamma_prime: K,
    /// δ (0 for a registration).
    pub delta: K,
    /// The balance (0 for a registration).
    pub balance: K,
}
