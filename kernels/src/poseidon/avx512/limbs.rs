//! Limbs: elements of 8 states as two vectors, the S-box on them, and how they are made short again.

use std::arch::x86_64::*;

use zkinfer_circuits::field::ORDER;

use crate::poseidon::tables::X;

pub(super) type V = __m512i;

/// States in one vector.
pub(super) const BATCH: usize = 8;

/// Lane by lane `low + 2^32·high`.
#[derive(Clone, Copy)]
pub(super) struct Limbs {
    pub(super) low: V,
    pub(super) high: V,
}

/// [`shorten_52`] adds this to the low limb.
pub(super) const LIFT: u64 = (1 << 20) - 1;

/// S-box outputs: `−S_BOX·X < low ≤ X` and `0 ≤ high < S_BOX·X`; see [`power_seven`].
pub(super) const S_BOX: u64 = 7234;

// One instruction each. Lanes are 64 bits; sums and differences are modulo 2^64.

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn all(word: u64) -> V {
    _mm512_set1_epi64(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn add(a: V, b: V) -> V {
    _mm512_add_epi64(a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn sub(a: V, b: V) -> V {
    _mm512_sub_epi64(a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn low_half(a: V) -> V {
    _mm512_and_si512(a, all(X - 1))
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn left<const BITS: u32>(a: V) -> V {
    _mm512_slli_epi64::<BITS>(a)
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn right<const BITS: u32>(a: V) -> V {
    _mm512_srli_epi64::<BITS>(a)
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn right_signed<const BITS: u32>(a: V) -> V {
    _mm512_srai_epi64::<BITS>(a)
}

/// `sum + (a·b mod 2^52)`, of the factors modulo 2^52.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn lo(sum: V, a: V, b: V) -> V {
    _mm512_madd52lo_epu64(sum, a, b)
}

/// `sum + ⌊a·b / 2^52⌋`, of the factors modulo 2^52.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn hi(sum: V, a: V, b: V) -> V {
    _mm512_madd52hi_epu64(sum, a, b)
}

/// A product of two numbers before its parts are brought to one scale: `low = low_bits/2^20 − low_carry` and
/// `high = high_bits/2^20 + high_carry`.
#[derive(Clone, Copy)]
struct Product {
    low_bits: V,
    low_carry: V,
    high_bits: V,
    high_carry: V,
}

/// `a·b + p` of limbs scaled by 2^10, where p is written with `BORROWED·X` more in the low limb (nothing is added if that is 0):
/// `low = a₀b₀ − a₁b₁` and `high = a₀b₁ + a₁b₀ + a₁b₁`, carries from high to low by `2^64 = X − 1`.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn product<const BORROWED: u64>(a: Limbs, b: Limbs) -> Product {
    let top_bits = lo(all(0), a.high, b.high);
    let cross = hi(hi(all(carry_start(BORROWED)), a.low, b.high), a.high, b.low);
    Product {
        low_bits: sub(lo(all(bits_start(BORROWED)), a.low, b.low), top_bits),
        low_carry: hi(cross, a.high, b.high),
        high_bits: lo(lo(top_bits, a.low, b.high), a.high, b.low),
        high_carry: hi(cross, a.low, b.low),
    }
}

/// [`product`] of a number with itself; `twice` is twice its low limb.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn square<const BORROWED: u64>(a: Limbs, twice: V) -> Product {
    let top_bits = lo(all(0), a.high, a.high);
    let cross = hi(all(carry_start(BORROWED)), twice, a.high);
    Product {
        low_bits: sub(lo(all(bits_start(BORROWED)), a.low, a.low), top_bits),
        low_carry: hi(cross, a.high, a.high),
        high_bits: lo(top_bits, twice, a.high),
        high_carry: hi(cross, a.low, a.low),
    }
}

/// Where `high_carry` and `low_carry` begin.
const fn carry_start(borrowed: u64) -> u64 {
    if borrowed == 0 { 0 } else { X - 1 - borrowed }
}

/// Where `low_bits` begin: `low` gets `borrowed·X + 1`, and `high` gets `X − 1 − borrowed`, together p.
const fn bits_start(borrowed: u64) -> u64 {
    if borrowed == 0 { 0 } else { (borrowed * X + 1 + carry_start(borrowed)) << 20 }
}

/// The limbs scaled by 2^10, if neither is negative and both are less than 2^42.
#[inline]
#[target_feature(enable = "avx512f")]
fn scaled(product: Product) -> Limbs {
    Limbs {
        low: sub(right::<10>(product.low_bits), left::<10>(product.low_carry)),
        high: add(right::<10>(product.high_bits), left::<10>(product.high_carry)),
    }
}

/// The limbs.
#[inline]
#[target_feature(enable = "avx512f")]
fn unscaled(product: Product) -> Limbs {
    Limbs {
        low: sub(right_signed::<20>(product.low_bits), product.low_carry),
        high: add(right::<20>(product.high_bits), product.high_carry),
    }
}

/// The S-box x^7 = x³·x⁴ on short limbs.
///
/// Bounds in units of X; the bits of one product of limbs are below 1, and its carry is at most the product of the bounds.
/// - x: low < 1, high < 1.002.
/// - x²: cross < 2.01, top < 1.01, bottom < 1. Low from 5 − 4.02 to 5 + 1, high < 2 + 3.01 + 1 = 6.01.
/// - x³: cross < 12.03, top < 6.03, bottom < 6. Low from 20 − 19.06 to 20 + 1, high < 3 + 18.03 + 1 = 22.03.
/// - x⁴: cross < 72.2, top < 36.2, bottom < 36. Low from 110 − 109.4 to 110 + 1, high < 2 + 108.2 + 1 = 111.2.
/// - x⁷: cross < 4781, top < 2450, bottom < 2331. Low from −7232 to 1, high < 3 + 7112.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn power_seven<const N: usize>(x: &mut [Limbs; N]) {
    let (mut first, mut second) = (*x, *x);
    for (first, second) in first.iter_mut().zip(&mut second) {
        let twice = left::<11>(first.low);
        *first = Limbs { low: left::<10>(first.low), high: left::<10>(first.high) };
        *second = scaled(square::<5>(*first, twice));
    }
    for (first, second) in first.iter_mut().zip(&second) {
        *first = scaled(product::<20>(*first, *second));
    }
    for second in &mut second {
        *second = scaled(square::<110>(*second, add(second.low, second.low)));
    }
    for ((x, third), fourth) in x.iter_mut().zip(&first).zip(&second) {
        *x = unscaled(product::<0>(*third, *fourth));
    }
}

/// The short limbs of limbs with `high/X ≤ low < 2^54` and `0 ≤ high < 2^54`: both carries are below 2^22.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn shorten(x: Limbs) -> Limbs {
    let carry = right::<32>(x.high);
    let low = sub(x.low, carry);
    Limbs { low: low_half(low), high: add(add(low_half(x.high), carry), right::<32>(low)) }
}

/// As [`shorten`] if low may be negative: `0 ≤ low < X` and `−2^13 ≤ high < 1.002·X` for S-box outputs.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn shorten_signed(x: Limbs) -> Limbs {
    let carry = right::<32>(x.high);
    let low = sub(x.low, carry);
    Limbs { low: low_half(low), high: add(add(low_half(x.high), carry), right_signed::<32>(low)) }
}

/// The short limbs of limbs modulo 2^52 with `low < 2^52 − 2^20`; adds [`LIFT`]. Both carries are below 2^20.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
pub(super) fn shorten_52(x: Limbs) -> Limbs {
    let by_20 = all(1 << 20);
    // ~high / X = 2^20 − 1 − ⌊high / X⌋.
    let not_high = _mm512_xor_si512(x.high, all(u64::MAX));
    let low = hi(x.low, not_high, by_20);
    Limbs { low: low_half(low), high: hi(hi(low_half(x.high), x.high, by_20), low, by_20) }
}

/// The canonical words of short limbs.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn canonical(x: Limbs) -> V {
    // 2^64 = X − 1. If high exceeds X, then by less than 2^23, so that nothing overflows.
    let carry = right::<32>(x.high);
    let word = add(add(x.low, left::<32>(x.high)), sub(left::<32>(carry), carry));
    // Below p the difference wraps to more than the word.
    _mm512_min_epu64(word, sub(word, all(ORDER)))
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(words: &[u64; BATCH]) -> V {
    // SAFETY: the reference is good for 64 bytes, and the load demands no alignment.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_loadu_si512(words.as_ptr().cast())
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store(x: V, words: &mut [u64; BATCH]) {
    // SAFETY: the reference is good for 64 bytes, and the store demands no alignment.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_storeu_si512(words.as_mut_ptr().cast(), x);
    }
}
