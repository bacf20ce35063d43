//! plonky2's Poseidon permutation (width 12, x^7, 8 full and 22 partial rounds) of many states at once, and the hashes made of it.
//!
//! All levels give the same words. [`scalar`] is plonky2's own code, and what the others are compared with.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod by_shifts;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod by_words;
mod inverse;
#[cfg(target_arch = "aarch64")]
mod neon;
mod scalar;
mod sponge;
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "other processors need a part of it, or nothing"))]
mod tables;
#[cfg(test)]
mod tests;

pub(crate) use inverse::Pending;
pub(crate) use sponge::{compress, hash_columns, hash_rows};

use crate::vector::{Dispatch, Level};
use tables::WIDTH;

/// Elements absorbed by one permutation.
pub(crate) const RATE: usize = plonky2::hash::poseidon::SPONGE_RATE;
/// States that are permuted together.
pub(crate) const LANES: usize = 32;

/// States side by side: `words[element][lane]`.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct States {
    /// Any representatives of the elements before [`permute`](Self::permute), canonical ones after it.
    pub(crate) words: [[u64; LANES]; WIDTH],
}

impl States {
    /// All elements zero.
    pub(crate) const ZERO: Self = Self { words: [[0; LANES]; WIDTH] };

    /// Permutes the first `n` states, at most [`LANES`], and possibly others. Cheapest per state when `n` is [`LANES`].
    pub(crate) fn permute(&mut self, dispatch: Dispatch, n: usize) {
        match dispatch.level() {
            Level::Portable => scalar::permute(self, n),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => neon::enter(dispatch, self, n),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::enter(dispatch, self, n),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::enter(dispatch, self, n),
            level => unreachable!("no dispatch is made for {level:?}, which this architecture lacks"),
        }
    }
}
