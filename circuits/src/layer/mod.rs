//! The proof of one layer: transcript, prover, native verifier, in-circuit verifier.

pub mod spec;
pub mod theta;
