//! The mathematics of zkinfer: from a trained model to one small recursive proof, and its verifier.
//!
//! `docs/PROTOCOL.md` gives every formula. No I/O, no clock, no network happens in this crate.

pub mod air;
#[cfg(feature = "prover")]
pub mod backend;
pub mod columns;
#[cfg(feature = "prover")]
pub mod compile;
pub mod encoding;
pub mod field;
pub mod gadgets;
pub mod hash;
pub mod input;
pub mod key;
pub mod kind;
pub mod layer;
#[cfg(feature = "prover")]
pub mod model;
pub mod npy;
pub mod ops;
#[cfg(feature = "prover")]
pub mod pipeline;
pub mod program;
pub mod recursion;
#[cfg(feature = "prover")]
pub(crate) mod rows;
pub mod security;
pub mod statement;
pub mod verify;
