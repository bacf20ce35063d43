//! The proof of one layer: transcript, prover, native verifier, in-circuit verifier.

#[cfg(feature = "prover")]
pub mod circuit;
#[cfg(feature = "prover")]
pub mod encoding;
mod lengths;
pub mod proof;
#[cfg(feature = "prover")]
pub mod prover;
#[cfg(feature = "prover")]
pub(crate) mod queries;
pub mod scalars;
pub mod shape;
pub mod spec;
pub mod theta;
pub mod transcript;
pub mod verifier;

pub use proof::{LayerClaim, LayerProof};
pub use shape::LayerShape;
pub use spec::{LayerSpec, OutputRule, SpecError};
pub use verifier::{LayerVerifyError, verify};
