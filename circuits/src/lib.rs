//! The mathematics of zkinfer: from a trained model to one small recursive proof, and its verifier.
//!
//! `docs/PROTOCOL.md` gives every formula. No I/O, no clock, no network happens in this crate.

pub mod field;
pub mod hash;
pub mod kind;
pub mod recursion;
pub mod security;
