//! The registry: the Merkle tree over the verifier-data digests of all allowed leaf circuits.
//!
//! Leaves, inner nodes and empty slots have tags of their own; the depth is fixed, so a path is 6 siblings and the slot's bits.

use plonky2::field::types::Field;
use thiserror::Error;

use crate::field::{Digest, F};
use crate::hash::{Tag, hash};

/// Levels of the tree.
pub const REGISTRY_DEPTH: usize = 6;
/// Slots of the tree.
pub const REGISTRY_SLOTS: usize = 1 << REGISTRY_DEPTH;

/// The tree could not be built, or has no such leaf.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RegistryError {
    /// More leaves than slots.
    #[error("{got} leaf circuits do not fit the registry's {REGISTRY_SLOTS} slots; raise REGISTRY_DEPTH")]
    TooManyLeaves {
        /// Leaves given.
        got: usize,
    },
    /// A circuit twice.
    #[error("leaf circuits {first} and {second} are identical; remove one from the list of leaf kinds")]
    Duplicate {
        /// Its slot.
        first: usize,
        /// The same circuit again.
        second: usize,
    },
    /// A slot without leaf.
    #[error("the registry has no leaf circuit number {index}, only {n_leaves}")]
    NoSuchLeaf {
        /// Slot asked for.
        index: usize,
        /// Leaves in the registry.
        n_leaves: usize,
    },
}

/// The tree, all levels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registry {
    leaves: Vec<Digest>,
    /// levels\[0\] the slots, levels\[REGISTRY_DEPTH\] the root.
    levels: Vec<Vec<Digest>>,
}

fn leaf_digest(verifier_data: Digest) -> Digest {
    hash(Tag::RegistryLeaf, &verifier_data.elements)
}

fn node_digest(left: Digest, right: Digest) -> Digest {
    hash(Tag::RegistryNode, &[left.elements, right.elements].concat())
}

impl Registry {
    /// The registry of these verifier-data digests, in slot order.
    ///
    /// # Errors
    /// More leaves than slots, or a circuit given twice.
    pub fn new(leaves: Vec<Digest>) -> Result<Self, RegistryError> {
        if leaves.len() > REGISTRY_SLOTS {
            return Err(RegistryError::TooManyLeaves { got: leaves.len() });
        }
        for (second, leaf) in leaves.iter().enumerate() {
            if let Some(first) = leaves.iter().take(second).position(|other| other == leaf) {
                return Err(RegistryError::Duplicate { first, second });
            }
        }
        let mut slots: Vec<Digest> = leaves.iter().map(|&leaf| leaf_digest(leaf)).collect();
        slots.resize(REGISTRY_SLOTS, hash(Tag::RegistryEmpty, &[]));
        let mut levels = vec![slots];
        for level in 0..REGISTRY_DEPTH {
            let below = &levels[level];
            levels.push(below.chunks_exact(2).map(|pair| node_digest(pair[0], pair[1])).collect());
        }
        Ok(Self { leaves, levels })
    }

    /// The root: a constant of the join and outer circuits.
    pub fn root(&self) -> Digest {
        self.levels[REGISTRY_DEPTH][0]
    }

    /// Verifier-data digests of the leaf circuits, in slot order.
    pub fn leaves(&self) -> &[Digest] {
        &self.leaves
    }

    /// The membership path of leaf circuit `index`.
    ///
    /// # Errors
    /// A slot without leaf.
    pub fn path(&self, index: usize) -> Result<RegistryPath, RegistryError> {
        if index >= self.leaves.len() {
            return Err(RegistryError::NoSuchLeaf { index, n_leaves: self.leaves.len() });
        }
        let siblings = std::array::from_fn(|level| self.levels[level][(index >> level) ^ 1]);
        Ok(RegistryPath { index, siblings })
    }
}

/// A membership path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegistryPath {
    /// The slot.
    pub index: usize,
    /// Siblings from the slot's level upwards.
    pub siblings: [Digest; REGISTRY_DEPTH],
}

impl RegistryPath {
    /// A path to nowhere, for a child that is a join and needs none.
    pub fn unused() -> Self {
        Self { index: 0, siblings: [Digest { elements: [F::ZERO; 4] }; REGISTRY_DEPTH] }
    }

    /// The root that the path gives for a circuit.
    pub fn root(&self, verifier_data: Digest) -> Digest {
        let start = leaf_digest(verifier_data);
        self.siblings.iter().enumerate().fold(start, |node, (level, &sibling)| match (self.index >> level) & 1 {
            0 => node_digest(node, sibling),
            _ => node_digest(sibling, node),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(value: u64) -> Digest {
        Digest { elements: [F::from_canonical_u64(value); 4] }
    }

    #[test]
    fn paths_lead_to_the_root_and_only_from_their_leaf() {
        let registry = Registry::new((0..5).map(digest).collect()).unwrap();
        for index in 0..5 {
            let path = registry.path(index).unwrap();
            assert_eq!(path.root(digest(index as u64)), registry.root());
            assert_ne!(path.root(digest(77)), registry.root());
        }
    }

    #[test]
    fn refuses_duplicates_overflow_and_empty_slots() {
        let error = Registry::new(vec![digest(1), digest(2), digest(1)]).unwrap_err();
        assert_eq!(error, RegistryError::Duplicate { first: 0, second: 2 });
        let error = Registry::new((0..65).map(digest).collect()).unwrap_err();
        assert_eq!(error, RegistryError::TooManyLeaves { got: 65 });
        let registry = Registry::new(vec![digest(1)]).unwrap();
        assert_eq!(registry.path(1).unwrap_err(), RegistryError::NoSuchLeaf { index: 1, n_leaves: 1 });
    }

    #[test]
    fn a_node_is_not_a_leaf() {
        let registry = Registry::new(vec![digest(1)]).unwrap();
        let nested = Registry::new(vec![registry.root()]).unwrap();
        assert_ne!(nested.root(), registry.root());
    }
}
