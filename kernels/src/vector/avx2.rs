//! Four elements in a 256-bit register.
//!
//! The functions at the end are compiled for the level's features and are safe within them; what enters them from elsewhere is unsafe, and
//! rests on one fact: [`Lanes`] is private, and is named only by [`enter`], which a [`Dispatch`] of this level guards, and by functions that
//! `enter` instantiates. So wherever a `Lanes` is computed on, the feature was detected.
//!
//! AVX2 compares 64-bit lanes as signed numbers only: `a < b` unsigned is `a − 2^63 < b − 2^63` signed, and x ⊕ 2^63 is x − 2^63.
#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::iter::{Product, Sum};
use std::mem::transmute;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

use plonky2::field::packed::PackedField;
use plonky2::field::types::Field;
use zkinfer_circuits::field::{F, ORDER};

use super::operators::lanewise_operators;
use super::{Dispatch, Kernel, Level, Vector};

const WIDTH: usize = 4;

/// Four elements. An array, not a register: slices of elements are cast to slices of vectors, whose alignment must be that of an element.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct Lanes([F; WIDTH]);

/// Runs a kernel with the features of this level.
#[inline]
pub(super) fn enter<K: Kernel>(dispatch: Dispatch, kernel: K) -> K::Output {
    #[target_feature(enable = "avx2")]
    fn with_features<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Lanes>()
    }
    assert_eq!(dispatch.level(), Level::Avx2, "this level was dispatched");
    // SAFETY: a dispatch is only made for a level whose feature, the one that `with_features` enables, was detected on this processor.
    unsafe { with_features(kernel) }
}

impl Lanes {
    #[inline(always)]
    fn register(self) -> __m256i {
        // SAFETY: both types are 32 bytes, and any bits are a value of either.
        unsafe { transmute::<Self, __m256i>(self) }
    }

    #[inline(always)]
    fn from_register(register: __m256i) -> Self {
        // SAFETY: both types are 32 bytes, and any bits are a value of either: an element may be represented by any word.
        unsafe { transmute::<__m256i, Self>(register) }
    }

    #[inline(always)]
    fn sum(self, other: Self) -> Self {
        // SAFETY: this level was detected; see the head of this file.
        Self::from_register(unsafe { add(self.register(), canonical(other.register())) })
    }

    #[inline(always)]
    fn difference(self, other: Self) -> Self {
        // SAFETY: this level was detected; see the head of this file.
        Self::from_register(unsafe { sub(self.register(), canonical(other.register())) })
    }

    #[inline(always)]
    fn product(self, other: Self) -> Self {
        // SAFETY: this level was detected; see the head of this file.
        Self::from_register(unsafe { mul(self.register(), other.register()) })
    }

    #[inline(always)]
    fn negated(self) -> Self {
        // SAFETY: this level was detected; see the head of this file.
        Self::from_register(unsafe { negate(self.register()) })
    }
}

lanewise_operators!(Lanes, 4);

// SAFETY: the width is a power of two, and the type is a transparent array of that many elements.
unsafe impl PackedField for Lanes {
    type Scalar = F;

    const WIDTH: usize = WIDTH;
    const ZEROS: Self = Self([F::ZERO; WIDTH]);
    const ONES: Self = Self([F::ONE; WIDTH]);

    #[inline(always)]
    fn from_slice(slice: &[F]) -> &Self {
        let array: &[F; WIDTH] = slice.try_into().expect("a vector has four lanes");
        // SAFETY: the type is a transparent wrapper of the array.
        unsafe { &*std::ptr::from_ref(array).cast() }
    }

    #[inline(always)]
    fn from_slice_mut(slice: &mut [F]) -> &mut Self {
        let array: &mut [F; WIDTH] = slice.try_into().expect("a vector has four lanes");
        // SAFETY: the type is a transparent wrapper of the array, borrowed for as long.
        unsafe { &mut *std::ptr::from_mut(array).cast() }
    }

    #[inline(always)]
    fn as_slice(&self) -> &[F] {
        &self.0
    }

    #[inline(always)]
    fn as_slice_mut(&mut self) -> &mut [F] {
        &mut self.0
    }

    #[inline(always)]
    fn interleave(&self, other: Self, block_len: usize) -> (Self, Self) {
        if block_len == WIDTH {
            return (*self, other);
        }
        assert!(matches!(block_len, 1 | 2), "a block divides the vector");
        // SAFETY: this level was detected; see the head of this file.
        let (a, b) = unsafe { interleave(self.register(), other.register(), block_len) };
        (Self::from_register(a), Self::from_register(b))
    }

    #[inline(always)]
    fn doubles(&self) -> Self {
        *self + *self
    }
}

impl Vector for Lanes {
    #[inline(always)]
    fn squared(self) -> Self {
        // SAFETY: this level was detected; see the head of this file.
        Self::from_register(unsafe { square(self.register()) })
    }

    #[inline(always)]
    fn canonical(self) -> Self {
        // SAFETY: this level was detected; see the head of this file.
        Self::from_register(unsafe { canonical(self.register()) })
    }

    #[inline(always)]
    fn sum_and_difference(self, other: Self) -> (Self, Self) {
        let other = other.canonical().register();
        // SAFETY: this level was detected; see the head of this file.
        let sum = unsafe { add(self.register(), other) };
        // SAFETY: as above.
        let difference = unsafe { sub(self.register(), other) };
        (Self::from_register(sum), Self::from_register(difference))
    }

    #[inline(always)]
    fn plus_and_minus_product(self, other: Self, factor: Self) -> (Self, Self) {
        self.sum_and_difference(other * factor)
    }

    type Factor = [__m256i; 4];
    type WideSum = [__m256i; 3];

    #[inline(always)]
    fn factor(self) -> Self::Factor {
        // SAFETY: this level was detected; see the head of this file.
        unsafe { factor(self.register()) }
    }

    #[inline(always)]
    fn no_products() -> Self::WideSum {
        [Self::ZEROS.register(); 3]
    }

    #[inline(always)]
    fn add_product(self, factor: &Self::Factor, sum: Self::WideSum) -> Self::WideSum {
        // SAFETY: this level was detected; see the head of this file.
        unsafe { add_product(self.register(), factor, sum) }
    }

    #[inline(always)]
    fn reduced(sum: Self::WideSum) -> Self {
        // SAFETY: this level was detected; see the head of this file.
        Self::from_register(unsafe { reduced(sum) })
    }
}

/// 2^64 mod p = 2^32 − 1; also the mask of the low half of a lane.
const EPSILON: i64 = u32::MAX as i64;

/// All bits of the lanes where a < b, unsigned.
#[inline]
#[target_feature(enable = "avx2")]
fn less(a: __m256i, b: __m256i) -> __m256i {
    let sign = _mm256_set1_epi64x(i64::MIN);
    _mm256_cmpgt_epi64(_mm256_xor_si256(b, sign), _mm256_xor_si256(a, sign))
}

/// A lane x ≥ p becomes x − p = x + ε − 2^64.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn canonical(x: __m256i) -> __m256i {
    let below = less(x, _mm256_set1_epi64x(ORDER as i64));
    _mm256_add_epi64(x, _mm256_andnot_si256(below, _mm256_set1_epi64x(EPSILON)))
}

/// The sum with y < p: after a carry out of 64 bits the rest is below p, and ε more does not carry again.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn add(x: __m256i, y: __m256i) -> __m256i {
    let sum = _mm256_add_epi64(x, y);
    _mm256_add_epi64(sum, _mm256_srli_epi64::<32>(less(sum, y)))
}

/// The difference with y < p: after a borrow the rest is above 2^64 − p > ε, and ε less does not borrow again.
#[inline]
#[target_feature(enable = "avx2")]
fn sub(x: __m256i, y: __m256i) -> __m256i {
    _mm256_sub_epi64(_mm256_sub_epi64(x, y), _mm256_srli_epi64::<32>(less(x, y)))
}

#[inline]
#[target_feature(enable = "avx2")]
fn negate(x: __m256i) -> __m256i {
    _mm256_sub_epi64(_mm256_set1_epi64x(ORDER as i64), canonical(x))
}

/// The high half of each lane in its low half; the high half is not cleared. A shuffle, because the shifter shares its port with multiplication.
#[inline]
#[target_feature(enable = "avx2")]
fn high_half(x: __m256i) -> __m256i {
    _mm256_castps_si256(_mm256_movehdup_ps(_mm256_castsi256_ps(x)))
}

/// `low + 2^64·high` modulo p: 2^64 ≡ ε and 2^96 ≡ −1, so it is `low − high_high + ε·high_low`.
#[inline]
#[target_feature(enable = "avx2")]
fn reduce(low: __m256i, high: __m256i) -> __m256i {
    let difference = sub(low, _mm256_srli_epi64::<32>(high));
    add(difference, _mm256_mul_epu32(high, _mm256_set1_epi64x(EPSILON)))
}

/// Lanewise products: four products of halves, each below 2^64 − 2^33 + 2, so that a half may be added without a carry.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn mul(x: __m256i, y: __m256i) -> __m256i {
    let (x_high, y_high) = (high_half(x), high_half(y));
    let low_low = _mm256_mul_epu32(x, y);
    let low_high = _mm256_mul_epu32(x, y_high);
    let high_low = _mm256_mul_epu32(x_high, y);
    let high_high = _mm256_mul_epu32(x_high, y_high);
    let first = _mm256_add_epi64(high_low, _mm256_srli_epi64::<32>(low_low));
    let second = _mm256_add_epi64(low_high, _mm256_and_si256(first, _mm256_set1_epi64x(EPSILON)));
    let high = _mm256_add_epi64(_mm256_add_epi64(high_high, _mm256_srli_epi64::<32>(first)), _mm256_srli_epi64::<32>(second));
    let low = _mm256_blend_epi32::<0b1010_1010>(low_low, _mm256_slli_epi64::<32>(second));
    reduce(low, high)
}

/// Lanewise squares; the middle product counts twice, so that everything beside it is shifted by 31 or 33 bits instead of 32.
#[inline]
#[target_feature(enable = "avx2")]
pub(crate) fn square(x: __m256i) -> __m256i {
    let x_high = high_half(x);
    let low_low = _mm256_mul_epu32(x, x);
    let middle = _mm256_mul_epu32(x, x_high);
    let high_high = _mm256_mul_epu32(x_high, x_high);
    let carried = _mm256_add_epi64(middle, _mm256_srli_epi64::<33>(low_low));
    let high = _mm256_add_epi64(high_high, _mm256_srli_epi64::<31>(carried));
    reduce(_mm256_add_epi64(low_low, _mm256_slli_epi64::<33>(middle)), high)
}

/// Blocks of 1 or 2 lanes: the even ones of both vectors, and the odd ones.
#[inline]
#[target_feature(enable = "avx2")]
fn interleave(a: __m256i, b: __m256i, block_len: usize) -> (__m256i, __m256i) {
    match block_len {
        1 => (_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b)),
        _ => (_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b)),
    }
}

/// A factor w as two of 64 bits, w and w·2^32 mod p, each followed by its high half.
#[inline]
#[target_feature(enable = "avx2")]
fn factor(w: __m256i) -> [__m256i; 4] {
    let shifted = reduce(_mm256_slli_epi64::<32>(w), _mm256_srli_epi64::<32>(w));
    [w, _mm256_srli_epi64::<32>(w), shifted, _mm256_srli_epi64::<32>(shifted)]
}

/// Adds `x·w = x_low·w + x_high·(2^32·w)`: the sum is `s_0 + 2^32·s_1 + 2^64·s_2`, to each of which a product adds at most four terms below 2^32.
#[inline]
#[target_feature(enable = "avx2")]
fn add_product(x: __m256i, factor: &[__m256i; 4], [s0, s1, s2]: [__m256i; 3]) -> [__m256i; 3] {
    let mask = _mm256_set1_epi64x(EPSILON);
    let high = high_half(x);
    let (low_w, low_top) = (_mm256_mul_epu32(x, factor[0]), _mm256_mul_epu32(x, factor[1]));
    let (high_w, high_top) = (_mm256_mul_epu32(high, factor[2]), _mm256_mul_epu32(high, factor[3]));
    let lows = |a, b| _mm256_add_epi64(_mm256_and_si256(a, mask), _mm256_and_si256(b, mask));
    let highs = |a, b| _mm256_add_epi64(_mm256_srli_epi64::<32>(a), _mm256_srli_epi64::<32>(b));
    [
        _mm256_add_epi64(s0, lows(low_w, high_w)),
        _mm256_add_epi64(s1, _mm256_add_epi64(highs(low_w, high_w), lows(low_top, high_top))),
        _mm256_add_epi64(s2, highs(low_top, high_top)),
    ]
}

/// `s_0 + 2^32·s_1 + 2^64·s_2` modulo p.
#[inline]
#[target_feature(enable = "avx2")]
fn reduced([s0, s1, s2]: [__m256i; 3]) -> __m256i {
    let middle = _mm256_add_epi64(s1, _mm256_srli_epi64::<32>(s0));
    let low = _mm256_blend_epi32::<0b1010_1010>(s0, _mm256_slli_epi64::<32>(middle));
    reduce(low, _mm256_add_epi64(s2, _mm256_srli_epi64::<32>(middle)))
}
