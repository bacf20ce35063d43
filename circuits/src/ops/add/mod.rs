//! Elementwise addition with rescaling: `y = requantize(M₁·x₁ + M₂·x₂)`. One row per element.

pub mod constraints;
#[cfg(feature = "prover")]
pub mod trace;
