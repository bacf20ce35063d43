//! Eight elements in a 512-bit register.
//!
//! The functions at the end are compiled for the level's features and are safe within them; what enters them from elsewhere is unsafe, and
//! rests on one fact: [`Lanes`] is private, and is named only by [`enter`], which a [`Dispatch`] of this level guards, and by functions that
//! `enter` instantiates. So wherever a `Lanes` is computed on, the features were detected.
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

const WIDTH: usize = 8;

/// Eight elements. An array, not a register: slices of elements are cast to slices of vectors, whose alignment must be that of an element.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct Lanes([F; WIDTH]);

/// Runs a kernel with the features of this level.
#[inline]
pub(super) fn enter<K: Kernel>(dispatch: Dispatch, kernel: K) -> K::Output {
    #[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
    fn with_features<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Lanes>()
    }
    assert_eq!(dispatch.level(), Level::Avx512, "this level was dispatched");
    // SAFETY: a dispatch is only made for a level whose features, those that `with_features` enables, were detected on this processor.
    unsafe { with_features(kernel) }
}

impl Lanes {
    #[inline(always)]
    fn register(self) -> __m512i {
        // SAFETY: both types are 64 bytes, and any bits are a value of either.
        unsafe { transmute::<Self, __m512i>(self) }
    }

    #[inline(always)]
    fn from_register(register: __m512i) -> Self {
        // SAFETY: both types are 64 bytes, and any bits are a value of either: an element may be represented by any word.
        unsafe { transmute::<__m512i, Self>(register) }
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

lanewise_operators!(Lanes, 8);

// SAFETY: the width is a power of two, and the type is a transparent array of that many elements.
unsafe impl PackedField for Lanes {
    type Scalar = F;

    const WIDTH: usize = WIDTH;
    const ZEROS: Self = Self([F::ZERO; WIDTH]);
    const ONES: Self = Self([F::ONE; WIDTH]);

    #[inline(always)]
    fn from_slice(slice: &[F]) -> &Self {
        let array: &[F; WIDTH] = slice.try_into().expect("a vector has eight lanes");
        // SAFETY: the type is a transparent wrapper of the array.
        unsafe { &*std::ptr::from_ref(array).cast() }
    }

    #[inline(always)]
    fn from_slice_mut(slice: &mut [F]) -> &mut Self {
        let array: &mut [F; WIDTH] = slice.try_into().expect("a vector has eight lanes");
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
        assert!(matches!(block_len, 1 | 2 | 4), "a block divides the vector");
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
        // SAFETY: this level was detected; see the head of this file.
        let product = unsafe { canonical_product(other.register(), factor.register()) };
        // SAFETY: as above.
        let sum = unsafe { add(self.register(), product) };
        // SAFETY: as above.
        let difference = unsafe { sub(self.register(), product) };
        (Self::from_register(sum), Self::from_register(difference))
    }

    type Factor = [__m512i; 4];
    type WideSum = [__m512i; 3];

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

/// A lane x ≥ p becomes x − p: below p the difference wraps and is the larger.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn canonical(x: __m512i) -> __m512i {
    _mm512_min_epu64(x, _mm512_sub_epi64(x, _mm512_set1_epi64(ORDER as i64)))
}

/// The sum with y < p: after a carry out of 64 bits the rest is below p, and ε more does not carry again.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn add(x: __m512i, y: __m512i) -> __m512i {
    let sum = _mm512_add_epi64(x, y);
    let carried = _mm512_cmplt_epu64_mask(sum, y);
    _mm512_mask_add_epi64(sum, carried, sum, _mm512_set1_epi64(EPSILON))
}

/// The difference with y < p: after a borrow the rest is above 2^64 − p > ε, and ε less does not borrow again.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn sub(x: __m512i, y: __m512i) -> __m512i {
    let borrowed = _mm512_cmplt_epu64_mask(x, y);
    let difference = _mm512_sub_epi64(x, y);
    _mm512_mask_sub_epi64(difference, borrowed, difference, _mm512_set1_epi64(EPSILON))
}

#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn negate(x: __m512i) -> __m512i {
    _mm512_sub_epi64(_mm512_set1_epi64(ORDER as i64), canonical(x))
}

/// The high half of each lane in its low half; the high half is not cleared. A shuffle, because the shifter shares its port with multiplication.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn high_half(x: __m512i) -> __m512i {
    _mm512_castps_si512(_mm512_movehdup_ps(_mm512_castsi512_ps(x)))
}

/// `low + 2^64·high` modulo p: 2^64 ≡ ε and 2^96 ≡ −1, so it is `low − high_high + ε·high_low`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn reduce(low: __m512i, high: __m512i) -> __m512i {
    let difference = sub(low, _mm512_srli_epi64::<32>(high));
    add(difference, _mm512_mul_epu32(high, _mm512_set1_epi64(EPSILON)))
}

/// Lanewise products.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn mul(x: __m512i, y: __m512i) -> __m512i {
    let (low, high) = wide_product(x, y);
    reduce(low, high)
}

/// Lanewise products below p.
///
/// Of the last sum `s = d + ε·high_low` and s + ε, which is s − p modulo 2^64, the result is the smaller without a carry, and s + ε, which is
/// then below p, with one.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn canonical_product(x: __m512i, y: __m512i) -> __m512i {
    let epsilon = _mm512_set1_epi64(EPSILON);
    let (low, high) = wide_product(x, y);
    let addend = _mm512_mul_epu32(high, epsilon);
    let sum = _mm512_add_epi64(sub(low, _mm512_srli_epi64::<32>(high)), addend);
    let reduced = _mm512_add_epi64(sum, epsilon);
    _mm512_mask_min_epu64(reduced, _mm512_cmpge_epu64_mask(sum, addend), sum, reduced)
}

/// Low and high words of lanewise products: four products of halves, each below 2^64 − 2^33 + 2, so that a half may be added without a carry.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn wide_product(x: __m512i, y: __m512i) -> (__m512i, __m512i) {
    let (x_high, y_high) = (high_half(x), high_half(y));
    let low_low = _mm512_mul_epu32(x, y);
    let low_high = _mm512_mul_epu32(x, y_high);
    let high_low = _mm512_mul_epu32(x_high, y);
    let high_high = _mm512_mul_epu32(x_high, y_high);
    let first = _mm512_add_epi64(high_low, _mm512_srli_epi64::<32>(low_low));
    let second = _mm512_add_epi64(low_high, _mm512_and_si512(first, _mm512_set1_epi64(EPSILON)));
    let high = _mm512_add_epi64(_mm512_add_epi64(high_high, _mm512_srli_epi64::<32>(first)), _mm512_srli_epi64::<32>(second));
    (low_word(low_low, second), high)
}

/// Low half of `low`, and as high half the low half of `middle`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn low_word(low: __m512i, middle: __m512i) -> __m512i {
    _mm512_mask_shuffle_epi32::<0b10_10_00_00>(low, 0b1010_1010_1010_1010, middle)
}

/// Lanewise squares; the middle product counts twice, so that everything beside it is shifted by 31 or 33 bits instead of 32.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn square(x: __m512i) -> __m512i {
    let x_high = high_half(x);
    let low_low = _mm512_mul_epu32(x, x);
    let middle = _mm512_mul_epu32(x, x_high);
    let high_high = _mm512_mul_epu32(x_high, x_high);
    let carried = _mm512_add_epi64(middle, _mm512_srli_epi64::<33>(low_low));
    let high = _mm512_add_epi64(high_high, _mm512_srli_epi64::<31>(carried));
    reduce(_mm512_add_epi64(low_low, _mm512_slli_epi64::<33>(middle)), high)
}

/// Blocks of 1, 2 or 4 lanes: the even ones of both vectors, and the odd ones.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn interleave(a: __m512i, b: __m512i, block_len: usize) -> (__m512i, __m512i) {
    match block_len {
        1 => (_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b)),
        2 => {
            let even = _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13);
            let odd = _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15);
            (_mm512_permutex2var_epi64(a, even, b), _mm512_permutex2var_epi64(a, odd, b))
        }
        _ => (_mm512_shuffle_i64x2::<0b01_00_01_00>(a, b), _mm512_shuffle_i64x2::<0b11_10_11_10>(a, b)),
    }
}

/// A factor w as two of 64 bits, w and w·2^32 mod p, each as its low 52 bits (with more above them) and its high 12.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn factor(w: __m512i) -> [__m512i; 4] {
    let shifted = reduce(_mm512_slli_epi64::<32>(w), _mm512_srli_epi64::<32>(w));
    [w, _mm512_srli_epi64::<52>(w), shifted, _mm512_srli_epi64::<52>(shifted)]
}

/// Adds `x·w = x_low·w + x_high·(2^32·w)`: the sum is `s_0 + 2^52·(s_1 + s_2)`.
///
/// The multiplier takes 52 bits of each operand and gives the low or the high 52 bits of the product, added to a sum of 64. Each product adds
/// two terms below 2^52 to s_0, two below 2^32 to s_1 and two below 2^44 to s_2: 2^11 products fit, and s_1 + s_2 stays below 2^57.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn add_product(x: __m512i, factor: &[__m512i; 4], [s0, s1, s2]: [__m512i; 3]) -> [__m512i; 3] {
    let [w, w_top, shifted, shifted_top] = *factor;
    let low = _mm512_and_si512(x, _mm512_set1_epi64(EPSILON));
    let high = _mm512_srli_epi64::<32>(x);
    [
        _mm512_madd52lo_epu64(_mm512_madd52lo_epu64(s0, low, w), high, shifted),
        _mm512_madd52hi_epu64(_mm512_madd52hi_epu64(s1, low, w), high, shifted),
        _mm512_madd52lo_epu64(_mm512_madd52lo_epu64(s2, low, w_top), high, shifted_top),
    ]
}

/// `s_0 + 2^52·(s_1 + s_2)` modulo p.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512vl,avx512bw,avx512ifma")]
fn reduced([s0, s1, s2]: [__m512i; 3]) -> __m512i {
    let upper = _mm512_add_epi64(s1, s2);
    add(reduce(_mm512_slli_epi64::<52>(upper), _mm512_srli_epi64::<12>(upper)), canonical(s0))
}
