//! The permutation with AVX2: batches of 4 states, by [`super::by_words`].

use std::arch::x86_64::*;

use super::by_shifts::matrix_by_shifts;
use super::by_words::{Limbs, Pair, TABLES, TOGETHER, permutation_by_words};
use super::tables::{Constant, Frequencies, HALF_FULL, LOG_DIAGONAL, WIDTH, X};
use super::{LANES, States};
use crate::vector::avx2::{add as add_words, canonical, mul, square};
use crate::vector::{Dispatch, Level};

type V = __m256i;

/// States in one batch.
const BATCH: usize = 4;

// One instruction each.

#[inline]
#[target_feature(enable = "avx2")]
fn all(word: u64) -> V {
    _mm256_set1_epi64x(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx2")]
fn add(a: V, b: V) -> V {
    _mm256_add_epi64(a, b)
}

#[inline]
#[target_feature(enable = "avx2")]
fn sub(a: V, b: V) -> V {
    _mm256_sub_epi64(a, b)
}

#[inline]
#[target_feature(enable = "avx2")]
fn left<const BITS: u32>(a: V) -> V {
    _mm256_sll_epi64(a, _mm_cvtsi32_si128(BITS as i32))
}

#[inline]
#[target_feature(enable = "avx2")]
fn low_half(a: V) -> V {
    _mm256_and_si256(a, all(X - 1))
}

#[inline]
#[target_feature(enable = "avx2")]
fn high_half(a: V) -> V {
    _mm256_srli_epi64::<32>(a)
}

/// `low + (X − 1)·⌊high/X⌋`.
#[inline]
#[target_feature(enable = "avx2")]
fn add_carry(low: V, high: V) -> V {
    let carry = high_half(high);
    add(low, sub(left::<32>(carry), carry))
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(words: &[u64; BATCH]) -> V {
    // SAFETY: the reference is good for 32 bytes, and the load demands no alignment.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_loadu_si256(words.as_ptr().cast())
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(x: V, words: &mut [u64; BATCH]) {
    // SAFETY: the reference is good for 32 bytes, and the store demands no alignment.
    #[allow(unsafe_code)]
    unsafe {
        _mm256_storeu_si256(words.as_mut_ptr().cast(), x);
    }
}

matrix_by_shifts!("avx2");
permutation_by_words!("avx2");

/// Permutes at least the first `n` states, at most [`LANES`].
pub(super) fn enter(dispatch: Dispatch, states: &mut States, n: usize) {
    assert_eq!(dispatch.level(), Level::Avx2, "this level was dispatched");
    // SAFETY: a dispatch is only made for a level whose feature, the one that `permute` enables, was detected.
    #[allow(unsafe_code)]
    unsafe {
        permute(states, n);
    }
}
