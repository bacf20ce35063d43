//! The aggregation prover: leaf, join and outer proofs, with circuits built lazily and kept in memory and in a store.

mod aggregator;
mod circuits;
mod saved;
mod seal;
mod store;
#[cfg(test)]
mod tests;

pub use aggregator::{Aggregator, LeafJob, NodeProof, ProveError};
pub use circuits::{CircuitError, build_parameters};
pub use store::{CircuitStore, NoStore};
