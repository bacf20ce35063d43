//! The permutation with NEON: batches of 2 states, by [`super::by_words`]; a state alone is permuted by plonky2's own code.
//!
//! Counted in the machine code (rustc 1.96), as executed: 10,635 instructions a state for many states, 22,743 for one batch; plonky2's code, some
//! of it written for NEON, takes 15,214 for one state. Counts, not timings.

use std::arch::aarch64::*;

use super::by_shifts::matrix_by_shifts;
use super::by_words::{Limbs, Pair, TABLES, TOGETHER, permutation_by_words};
use super::tables::{Constant, Frequencies, HALF_FULL, LOG_DIAGONAL, WIDTH, X};
use super::{LANES, States, scalar};
use crate::vector::neon::{add as add_words, canonical, mul, square};
use crate::vector::{Dispatch, Level};

type V = uint64x2_t;

/// States in one batch.
const BATCH: usize = 2;

// One instruction each.

#[inline]
#[target_feature(enable = "neon")]
fn all(word: u64) -> V {
    vdupq_n_u64(word)
}

#[inline]
#[target_feature(enable = "neon")]
fn add(a: V, b: V) -> V {
    vaddq_u64(a, b)
}

#[inline]
#[target_feature(enable = "neon")]
fn sub(a: V, b: V) -> V {
    vsubq_u64(a, b)
}

#[inline]
#[target_feature(enable = "neon")]
fn left<const BITS: u32>(a: V) -> V {
    vshlq_u64(a, vdupq_n_s64(i64::from(BITS)))
}

#[inline]
#[target_feature(enable = "neon")]
fn low_half(a: V) -> V {
    vandq_u64(a, all(X - 1))
}

#[inline]
#[target_feature(enable = "neon")]
fn high_half(a: V) -> V {
    vshrq_n_u64::<32>(a)
}

/// `low + (X − 1)·⌊high/X⌋`.
#[inline]
#[target_feature(enable = "neon")]
fn add_carry(low: V, high: V) -> V {
    vmlal_u32(low, vshrn_n_u64::<32>(high), vdup_n_u32(u32::MAX))
}

#[inline]
#[target_feature(enable = "neon")]
fn load(words: &[u64; BATCH]) -> V {
    // SAFETY: the reference is good for 16 bytes, and the load demands the alignment of a word.
    #[allow(unsafe_code)]
    unsafe {
        vld1q_u64(words.as_ptr())
    }
}

#[inline]
#[target_feature(enable = "neon")]
fn store(x: V, words: &mut [u64; BATCH]) {
    // SAFETY: the reference is good for 16 bytes, and the store demands the alignment of a word.
    #[allow(unsafe_code)]
    unsafe {
        vst1q_u64(words.as_mut_ptr(), x);
    }
}

matrix_by_shifts!("neon");
permutation_by_words!("neon");

/// Permutes at least the first `n` states, at most [`LANES`].
pub(super) fn enter(dispatch: Dispatch, states: &mut States, n: usize) {
    assert_eq!(dispatch.level(), Level::Neon, "this level was dispatched");
    if n == 1 {
        return scalar::permute(states, n);
    }
    // SAFETY: a dispatch is only made for a level whose feature, the one that `permute` enables, was detected.
    #[allow(unsafe_code)]
    unsafe {
        permute(states, n);
    }
}
