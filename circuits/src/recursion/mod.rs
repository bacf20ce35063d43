//! From layer proofs to one small zero-knowledge proof (`docs/PROTOCOL.md` §5 to §7).
//!
//! Every aggregation circuit is a *node*; all nodes share one shape, so that a join can verify any two of them. The outer circuits verify one
//! node and publish one digest. The verifier needs none of the circuits: it reads verifier data from the parameters file.

#[cfg(feature = "prover")]
pub mod boundary;
pub mod digest;
#[cfg(feature = "prover")]
mod gadgets;
#[cfg(feature = "prover")]
pub mod join;
pub mod kinds;
#[cfg(feature = "prover")]
pub mod layers;
#[cfg(feature = "prover")]
pub mod leaf;
#[cfg(feature = "prover")]
pub mod node;
#[cfg(feature = "prover")]
pub mod outer;
pub mod parameters;
pub mod plan;
pub mod proof;
#[cfg(feature = "prover")]
pub mod prover;
pub mod public;
pub mod registry;
pub mod salt;
pub mod serialize;
pub mod verify;
