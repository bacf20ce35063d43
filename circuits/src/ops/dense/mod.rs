//! Dense layer: `acc = W x + b`, `y = requantize(acc·M)` or `y = acc`.
//!
//! A Freivalds argument with powers of γ': `Σ_o γ'^o (acc_o − b_o − (W x)_o) = 0`, linear in |W| + |x| + |y|.
//! Output `o = q·C + c` uses weight column c in group q of m rows, so that `γ'^o = γ'^(C·q)·γ'^c` separates into X̂ and w~.

pub mod constraints;
#[cfg(feature = "prover")]
pub mod trace;
