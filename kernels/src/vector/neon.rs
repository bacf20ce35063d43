//! Two elements in a 128-bit register: NEON of AArch64.
//!
//! The functions at the end are compiled for the level's features and are safe within them; what enters them from elsewhere is unsafe, and
//! rests on one fact: [`Lanes`] is private, and is named only by [`enter`], which a [`Dispatch`] of this level guards, and by functions that
//! `enter` instantiates. So wherever a `Lanes` is computed on, the feature was detected.
//!
//! # Instructions
//! Counted in the machine code (rustc 1.96), for two elements: without loads, stores and constants that stay in registers, and on the portable
//! level's usual side of each branch. Counts, not timings: this level was never run on a processor that it is for.
//!
//! | | here | portable level, twice |
//! |---|---|---|
//! | sum | 5 | 8 |
//! | difference | 6 | 8 |
//! | sum and difference | 9 | 16 |
//! | product | 22 | 18 |
//! | square | 17 | 18 |
//! | `a ± b·c` | 31 | 36 |
//! | product added to a wide sum | 8 | 10 |
//! | wide sum reduced | 24 | 20 |
//!
//! There is no product of 64-bit lanes. It is made of four products of halves; on the scalar unit, which has one, it would take 24 instructions,
//! because four words must be moved there and two back. Loads and stores are half as many as the portable level's.
//!
//! Four elements in two registers could be split into halves by two instructions fewer a product and register, but a pass of radix 8 would keep
//! more vectors than there are registers: with its loads and stores it then takes 19 instructions an element and butterfly instead of 17.
#![allow(unsafe_code)]

use std::arch::aarch64::*;
use std::arch::asm;
use std::iter::{Product, Sum};
use std::mem::transmute;
use std::ops::{Add, AddAssign, Div, Mul, MulAssign, Neg, Sub, SubAssign};

use plonky2::field::packed::PackedField;
use plonky2::field::types::Field;
use zkinfer_circuits::field::{F, ORDER};

use super::operators::lanewise_operators;
use super::{Dispatch, Kernel, Level, MAX_PRODUCTS, Vector};

const WIDTH: usize = 2;

/// Two elements. An array, not a register: slices of elements are cast to slices of vectors, whose alignment must be that of an element.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct Lanes([F; WIDTH]);

/// Runs a kernel with the features of this level.
#[inline]
pub(super) fn enter<K: Kernel>(dispatch: Dispatch, kernel: K) -> K::Output {
    #[target_feature(enable = "neon")]
    fn with_features<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Lanes>()
    }
    assert_eq!(dispatch.level(), Level::Neon, "this level was dispatched");
    // SAFETY: a dispatch is only made for a level whose feature, the one that `with_features` enables, was detected on this processor.
    unsafe { with_features(kernel) }
}

impl Lanes {
    #[inline(always)]
    fn register(self) -> uint64x2_t {
        // SAFETY: both types are 16 bytes, and any bits are a value of either.
        unsafe { transmute::<Self, uint64x2_t>(self) }
    }

    #[inline(always)]
    fn from_register(register: uint64x2_t) -> Self {
        // SAFETY: both types are 16 bytes, and any bits are a value of either: an element may be represented by any word.
        unsafe { transmute::<uint64x2_t, Self>(register) }
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

lanewise_operators!(Lanes, 2);

// SAFETY: the width is a power of two, and the type is a transparent array of that many elements.
unsafe impl PackedField for Lanes {
    type Scalar = F;

    const WIDTH: usize = WIDTH;
    const ZEROS: Self = Self([F::ZERO; WIDTH]);
    const ONES: Self = Self([F::ONE; WIDTH]);

    #[inline(always)]
    fn from_slice(slice: &[F]) -> &Self {
        let array: &[F; WIDTH] = slice.try_into().expect("a vector has two lanes");
        // SAFETY: the type is a transparent wrapper of the array.
        unsafe { &*std::ptr::from_ref(array).cast() }
    }

    #[inline(always)]
    fn from_slice_mut(slice: &mut [F]) -> &mut Self {
        let array: &mut [F; WIDTH] = slice.try_into().expect("a vector has two lanes");
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
        assert_eq!(block_len, 1, "a block divides the vector");
        // SAFETY: this level was detected; see the head of this file.
        let (a, b) = unsafe { interleave(self.register(), other.register()) };
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

    type Factor = [uint32x2_t; 3];
    type WideSum = [uint64x2_t; 6];

    #[inline(always)]
    fn factor(self) -> Self::Factor {
        // SAFETY: this level was detected; see the head of this file.
        unsafe { factor(self.register()) }
    }

    #[inline(always)]
    fn no_products() -> Self::WideSum {
        [Self::ZEROS.register(); 6]
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
const EPSILON: u64 = u32::MAX as u64;

/// Adds ε in the lanes whose mask is all ones: adds the mask shifted right by 32 bits.
///
/// Written as the instruction, because of the intrinsic and a mask that it knows from a comparison the compiler makes two.
#[inline]
#[target_feature(enable = "neon")]
fn add_epsilon(x: uint64x2_t, mask: uint64x2_t) -> uint64x2_t {
    let mut sum = x;
    // SAFETY: the instruction reads its two operands and writes the first; it touches neither memory nor flags.
    unsafe {
        asm!(
            "usra {sum:v}.2d, {mask:v}.2d, #32",
            sum = inout(vreg) sum,
            mask = in(vreg) mask,
            options(pure, nomem, nostack, preserves_flags)
        );
    }
    sum
}

/// A lane x ≥ p becomes x − p = x + ε − 2^64.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn canonical(x: uint64x2_t) -> uint64x2_t {
    add_epsilon(x, vcgeq_u64(x, vdupq_n_u64(ORDER)))
}

/// The sum with y < p: after a carry out of 64 bits the rest is below p, and ε more does not carry again.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn add(x: uint64x2_t, y: uint64x2_t) -> uint64x2_t {
    let sum = vaddq_u64(x, y);
    add_epsilon(sum, vcgtq_u64(y, sum))
}

/// The difference with y < p: after a borrow the rest is above 2^64 − p > ε, and ε less does not borrow again.
#[inline]
#[target_feature(enable = "neon")]
fn sub(x: uint64x2_t, y: uint64x2_t) -> uint64x2_t {
    let borrowed = vandq_u64(vcgtq_u64(y, x), vdupq_n_u64(EPSILON));
    vsubq_u64(vsubq_u64(x, y), borrowed)
}

#[inline]
#[target_feature(enable = "neon")]
fn negate(x: uint64x2_t) -> uint64x2_t {
    vsubq_u64(vdupq_n_u64(ORDER), canonical(x))
}

/// `low + 2^64·high` modulo p: 2^64 ≡ ε and 2^96 ≡ −1, so it is `low + 2^32·high_low − (high_low + high_high)`.
#[inline]
#[target_feature(enable = "neon")]
fn reduce(low: uint64x2_t, high: uint64x2_t) -> uint64x2_t {
    let halves = vpaddlq_u32(vreinterpretq_u32_u64(high));
    sub(add(low, vshlq_n_u64::<32>(high)), halves)
}

/// Lanewise products: four products of halves, each below 2^64 − 2^33 + 2, so that a half may be added without a carry.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn mul(x: uint64x2_t, y: uint64x2_t) -> uint64x2_t {
    let (x_low, x_high) = (vmovn_u64(x), vshrn_n_u64::<32>(x));
    let (y_low, y_high) = (vmovn_u64(y), vshrn_n_u64::<32>(y));
    let low_low = vmull_u32(x_low, y_low);
    let first = vsraq_n_u64::<32>(vmull_u32(x_high, y_low), low_low);
    let second = vmlal_u32(vandq_u64(first, vdupq_n_u64(EPSILON)), x_low, y_high);
    let high = vsraq_n_u64::<32>(vsraq_n_u64::<32>(vmull_u32(x_high, y_high), first), second);
    reduce(vsliq_n_u64::<32>(low_low, second), high)
}

/// Lanewise squares; the middle product counts twice, so that everything beside it is shifted by 31 or 33 bits instead of 32.
#[inline]
#[target_feature(enable = "neon")]
pub(crate) fn square(x: uint64x2_t) -> uint64x2_t {
    let (x_low, x_high) = (vmovn_u64(x), vshrn_n_u64::<32>(x));
    let low_low = vmull_u32(x_low, x_low);
    let middle = vsraq_n_u64::<33>(vmull_u32(x_low, x_high), low_low);
    let high = vsraq_n_u64::<31>(vmull_u32(x_high, x_high), middle);
    reduce(vsliq_n_u64::<33>(low_low, middle), high)
}

/// The first lanes of both vectors, and the second ones.
#[inline]
#[target_feature(enable = "neon")]
fn interleave(a: uint64x2_t, b: uint64x2_t) -> (uint64x2_t, uint64x2_t) {
    (vzip1q_u64(a, b), vzip2q_u64(a, b))
}

/// Bits of a factor's limb; the third limb has one more.
const LIMB_BITS: i32 = 21;
/// The largest products fit the sums, and so does what [`carried`] moves up.
const _: () = {
    let halves = MAX_PRODUCTS as u128 * EPSILON as u128;
    let limb = (1 << LIMB_BITS) - 1;
    let second = halves * limb + (halves * limb >> LIMB_BITS);
    assert!(halves * (2 * limb + 1) + (second >> LIMB_BITS) < 1 << 64);
};

/// A factor as limbs of 21, 21 and 22 bits.
#[inline]
#[target_feature(enable = "neon")]
fn factor(w: uint64x2_t) -> [uint32x2_t; 3] {
    let limb = |word| vmovn_u64(vandq_u64(word, vdupq_n_u64((1 << LIMB_BITS) - 1)));
    [limb(w), limb(vshrq_n_u64::<LIMB_BITS>(w)), vmovn_u64(vshrq_n_u64::<{ 2 * LIMB_BITS }>(w))]
}

/// Adds the products of a factor's limbs and the low half of x to the first three sums, those with the high half to the others.
#[inline]
#[target_feature(enable = "neon")]
fn add_product(x: uint64x2_t, factor: &[uint32x2_t; 3], sum: [uint64x2_t; 6]) -> [uint64x2_t; 6] {
    let (low, high) = (vmovn_u64(x), vshrn_n_u64::<32>(x));
    let [w0, w1, w2] = *factor;
    let [l0, l1, l2, h0, h1, h2] = sum;
    [
        vmlal_u32(l0, low, w0),
        vmlal_u32(l1, low, w1),
        vmlal_u32(l2, low, w2),
        vmlal_u32(h0, high, w0),
        vmlal_u32(h1, high, w1),
        vmlal_u32(h2, high, w2),
    ]
}

/// `s_0 + 2^21·s_1 + 2^42·s_2` as a word and what is above it, less than 2^42.
#[inline]
#[target_feature(enable = "neon")]
fn carried(s0: uint64x2_t, s1: uint64x2_t, s2: uint64x2_t) -> (uint64x2_t, uint64x2_t) {
    let s1 = vsraq_n_u64::<LIMB_BITS>(s1, s0);
    let s2 = vsraq_n_u64::<LIMB_BITS>(s2, s1);
    let word = vsliq_n_u64::<{ 2 * LIMB_BITS }>(vsliq_n_u64::<LIMB_BITS>(s0, s1), s2);
    (word, vshrq_n_u64::<{ 64 - 2 * LIMB_BITS }>(s2))
}

/// `l + 2^32·h` modulo p. Of `h = low + 2^64·high` the low half counts 2^32, the high half 2^64, and `high` 2^96 ≡ −1; what counts 2^64 is
/// treated as in [`reduce`].
#[inline]
#[target_feature(enable = "neon")]
fn reduced([l0, l1, l2, h0, h1, h2]: [uint64x2_t; 6]) -> uint64x2_t {
    let (low, middle) = carried(l0, l1, l2);
    let (high_low, high) = carried(h0, h1, h2);
    let middle = vsraq_n_u64::<32>(middle, high_low);
    let sum = add(add(low, vshlq_n_u64::<32>(high_low)), vshlq_n_u64::<32>(middle));
    sub(sum, vpadalq_u32(high, vreinterpretq_u32_u64(middle)))
}
