//! The permutation with AVX-512 IFMA: batches of 8 states, one element of 8 states in a register pair.
//!
//! An element is `low + 2^32·high` modulo p, where the limbs are 64-bit lanes that may exceed 32 bits; `2^64 = 2^32 − 1` and `2^96 = −1`
//! bring products back to two limbs. IFMA gives bits 0..52 and 52..104 of a product of 52-bit factors: with both factors scaled by
//! 2^10 these are the bits 0..32, scaled by 2^20, and 32.., unscaled, of the product of the limbs themselves. So x^7 needs no carry
//! at all; limbs are made short again once a round. Partial rounds go in pairs: `M² = C² + …`, with C² applied on frequencies
//! ([`super::tables`]) modulo 2^52.
//!
//! X abbreviates 2^32 in the bounds. *Short* limbs are those of [`shorten`] and [`shorten_52`]: `0 ≤ low < X`, `0 ≤ high < 1.002·X`.
//!
//! Several batches go through a round together, so that latencies hide behind one another: all S-boxes of a partial round are
//! independent between batches only.

use std::arch::x86_64::*;

use zkinfer_circuits::field::ORDER;

use super::tables::{self, CIRCULANT, DIAGONAL, Frequencies, HALF_FULL, N_PAIRS, WIDTH};
use super::{LANES, States};
use crate::vector::{Dispatch, Level};

type V = __m512i;

/// States in one batch.
const BATCH: usize = 8;

/// Lane by lane `low + 2^32·high`.
#[derive(Clone, Copy)]
struct Limbs {
    low: V,
    high: V,
}

/// `batches[element][batch]`.
type Batches<const N: usize> = [[Limbs; N]; WIDTH];

/// A constant as limbs, not short in general.
type Constant = [u64; 2];

const X: u64 = 1 << 32;
/// [`shorten_52`] adds this to the low limb.
const LIFT: u64 = (1 << 20) - 1;

/// Limbs of a constant, of which the low one is at least `borrowed·X`, and the high one at least `multiples·(X − 1) − borrowed`.
const fn with_headroom(constant: u64, borrowed: u64, multiples: u64) -> Constant {
    // p = 1 + X·(X − 1), and X·borrowed moves from the high limb to the low one.
    [constant % X + borrowed * X + multiples, constant / X + multiples * (X - 1) - borrowed]
}

/// S-box outputs: `−S_BOX·X < low ≤ X` and `0 ≤ high < S_BOX·X`; see [`power_seven`].
const S_BOX: u64 = 7234;

/// What a full round's constants lend the low limb: the matrix's rows sum to at most 264.
const FULL_BORROWED: u64 = 1 << 21;
const _: () = assert!(264 * S_BOX < FULL_BORROWED);
/// What a pair's constants lend the low limb, which gets at least 41 times an S-box output, less than X·2^20 all in all.
const PAIR_BORROWED: u64 = 3 << 17;
const _: () = assert!(41 * (S_BOX + 2) < PAIR_BORROWED && PAIR_BORROWED + 41 * S_BOX + (1 << 17) < LIFT);
/// What a pair's constants lend the high limb; see [`partial_pair`].
const PAIR_MULTIPLES: u64 = 1 << 7;
const _: () = assert!(41 * 2 + 4 < PAIR_MULTIPLES);

/// Constants of two partial rounds.
struct Pair {
    /// Added to element 0 between the rounds.
    between: Constant,
    /// Added by both, on frequencies; the headroom is in `plus`, which every element gets. `im` is less `re`: see [`multiply_complex`].
    after: Frequencies<Constant>,
}

/// Constants of the permutation.
struct Tables {
    first: [Constant; WIDTH],
    /// Added after all full rounds but the last.
    full: [[Constant; WIDTH]; 2 * HALF_FULL],
    pairs: [Pair; N_PAIRS],
}

static TABLES: Tables = build_tables();

const fn build_tables() -> Tables {
    let mut tables = Tables {
        first: [[0; 2]; WIDTH],
        full: [[[0; 2]; WIDTH]; 2 * HALF_FULL],
        pairs: [const { Pair { between: [0; 2], after: ZERO } }; N_PAIRS],
    };
    let mut element = 0;
    while element < WIDTH {
        tables.first[element] = with_headroom(tables::round_constant(0, element), 4, 1);
        let mut index = 0;
        while index < 2 * HALF_FULL {
            let round = if index < HALF_FULL { index } else { index + 2 * N_PAIRS };
            tables.full[index][element] = with_headroom(tables::round_constant(round + 1, element), FULL_BORROWED, 1);
            index += 1;
        }
        element += 1;
    }
    let mut pair = 0;
    while pair < N_PAIRS {
        let round = HALF_FULL + 2 * pair;
        tables.pairs[pair] = Pair {
            between: with_headroom(tables::first_after_one(round, LIFT), 0, 1),
            after: pair_constants(Frequencies::of_constants(tables::constants_after_pair(round, LIFT))),
        };
        pair += 1;
    }
    tables
}

const ZERO: Frequencies<Constant> = Frequencies { plus: [[0; 2]; 3], minus: [[0; 2]; 3], re: [[0; 2]; 3], im: [[0; 2]; 3] };

const fn pair_constants(constants: Frequencies<u64>) -> Frequencies<Constant> {
    let mut limbs = ZERO;
    let mut b = 0;
    while b < 3 {
        limbs.plus[b] = with_headroom(constants.plus[b], PAIR_BORROWED, PAIR_MULTIPLES);
        limbs.minus[b] = with_headroom(constants.minus[b], 0, 0);
        limbs.re[b] = with_headroom(constants.re[b], 0, 0);
        limbs.im[b] = with_headroom(tables::sub(constants.im[b], constants.re[b]), 0, 0);
        b += 1;
    }
    limbs
}

// One instruction each. Lanes are 64 bits; sums and differences are modulo 2^64.

#[inline]
#[target_feature(enable = "avx512f")]
fn all(word: u64) -> V {
    _mm512_set1_epi64(word.cast_signed())
}

#[inline]
#[target_feature(enable = "avx512f")]
fn add(a: V, b: V) -> V {
    _mm512_add_epi64(a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn sub(a: V, b: V) -> V {
    _mm512_sub_epi64(a, b)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn low_half(a: V) -> V {
    _mm512_and_si512(a, all(X - 1))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn left<const BITS: u32>(a: V) -> V {
    _mm512_slli_epi64::<BITS>(a)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn right<const BITS: u32>(a: V) -> V {
    _mm512_srli_epi64::<BITS>(a)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn right_signed<const BITS: u32>(a: V) -> V {
    _mm512_srai_epi64::<BITS>(a)
}

/// `sum + (a·b mod 2^52)`, of the factors modulo 2^52.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn lo(sum: V, a: V, b: V) -> V {
    _mm512_madd52lo_epu64(sum, a, b)
}

/// `sum + ⌊a·b / 2^52⌋`, of the factors modulo 2^52.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn hi(sum: V, a: V, b: V) -> V {
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
fn power_seven<const N: usize>(x: &mut [Limbs; N]) {
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

/// The short limbs of limbs with `high/X ≤ low < 2^62` and `0 ≤ high < 2^54`.
#[inline]
#[target_feature(enable = "avx512f")]
fn shorten(x: Limbs) -> Limbs {
    let carry = right::<32>(x.high);
    let low = sub(x.low, carry);
    Limbs { low: low_half(low), high: add(add(low_half(x.high), carry), right::<32>(low)) }
}

/// As [`shorten`] if low may be negative: `0 ≤ low < X` and `−2^13 ≤ high < 1.002·X` for S-box outputs.
#[inline]
#[target_feature(enable = "avx512f")]
fn shorten_signed(x: Limbs) -> Limbs {
    let carry = right::<32>(x.high);
    let low = sub(x.low, carry);
    Limbs { low: low_half(low), high: add(add(low_half(x.high), carry), right_signed::<32>(low)) }
}

/// The short limbs of limbs modulo 2^52 with `low < 2^52 − 2^20`; adds [`LIFT`].
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn shorten_52(x: Limbs) -> Limbs {
    let by_20 = all(1 << 20);
    // ~high / X = 2^20 − 1 − ⌊high / X⌋.
    let not_high = _mm512_xor_si512(x.high, all(u64::MAX));
    let low = hi(x.low, not_high, by_20);
    Limbs { low: low_half(low), high: hi(hi(low_half(x.high), x.high, by_20), low, by_20) }
}

/// From elements to frequencies, both of one limb.
#[inline]
#[target_feature(enable = "avx512f")]
fn to_frequencies(x: &[V; WIDTH]) -> Frequencies<V> {
    let mut y = Frequencies { plus: [x[0]; 3], minus: [x[0]; 3], re: [x[0]; 3], im: [x[0]; 3] };
    for b in 0..3 {
        let (even, odd) = (add(x[b], x[b + 6]), add(x[b + 3], x[b + 9]));
        y.plus[b] = add(even, odd);
        y.minus[b] = sub(even, odd);
        y.re[b] = sub(x[b], x[b + 6]);
        y.im[b] = sub(x[b + 9], x[b + 3]);
    }
    y
}

/// Back to elements.
#[inline]
#[target_feature(enable = "avx512f")]
fn to_elements(y: &Frequencies<V>) -> [V; WIDTH] {
    let mut x = [y.plus[0]; WIDTH];
    for b in 0..3 {
        let (even, odd) = (add(y.plus[b], y.minus[b]), sub(y.plus[b], y.minus[b]));
        x[b] = add(even, y.re[b]);
        x[b + 3] = sub(odd, y.im[b]);
        x[b + 6] = sub(even, y.re[b]);
        x[b + 9] = add(odd, y.im[b]);
    }
    x
}

/// The products by [`multiply_by_matrix`] are shifts made for these frequencies.
const _: () = {
    let c = Frequencies::of_matrix();
    assert!(matches!(c.plus, [16, 32, 16]) && matches!(c.minus, [-1, -8, 2]));
    assert!(matches!(c.re, [2, -4, 16]) && matches!(c.im, [-1, 1, 1]));
};

/// C on frequencies of one limb; the sum of the absolute values of a row of C is 256.
#[inline]
#[target_feature(enable = "avx512f")]
fn multiply_by_matrix(x: &[V; WIDTH]) -> [V; WIDTH] {
    let Frequencies { plus: u, minus: w, re: r, im: i } = to_frequencies(x);
    let twice = |x| add(x, x);
    // 16·[1, 2, 1]: the sum of all, and once more the one before.
    let sum = add(add(u[0], u[1]), u[2]);
    let plus = [left::<4>(add(sum, u[2])), left::<4>(add(sum, u[0])), left::<4>(add(sum, u[1]))];
    // [−1, −8, 2], z³ = −1: −w₀ − 2w₁ + 8w₂, −8w₀ − w₁ − 2w₂, 2w₀ − 8w₁ − w₂.
    let minus = [
        sub(sub(left::<3>(w[2]), w[0]), twice(w[1])),
        sub(all(0), add(add(left::<3>(w[0]), w[1]), twice(w[2]))),
        sub(sub(twice(w[0]), left::<3>(w[1])), w[2]),
    ];
    // [2 − i, −4 + i, 16 + i], z³ = −i; the second and third factors times −i are 1 + 4i and 1 − 16i.
    let re = [
        add(add(add(twice(r[0]), i[0]), add(r[1], left::<4>(i[1]))), sub(r[2], left::<2>(i[2]))),
        add(sub(add(twice(r[1]), i[1]), add(i[0], left::<2>(r[0]))), add(r[2], left::<4>(i[2]))),
        add(sub(sub(left::<4>(r[0]), i[0]), add(i[1], left::<2>(r[1]))), add(twice(r[2]), i[2])),
    ];
    let im = [
        add(add(sub(twice(i[0]), r[0]), sub(i[1], left::<4>(r[1]))), add(i[2], left::<2>(r[2]))),
        add(add(sub(twice(i[1]), r[1]), sub(r[0], left::<2>(i[0]))), sub(i[2], left::<4>(r[2]))),
        add(add(add(left::<4>(i[0]), r[0]), sub(r[1], left::<2>(i[1]))), sub(twice(i[2]), r[2])),
    ];
    to_elements(&Frequencies { plus, minus, re, im })
}

/// C² modulo 2^52.
const SQUARE: Frequencies<i64> = Frequencies::of_square();

/// C² where z³ = −1, added to `start`.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply_minus(start: [V; 3], x: [V; 3]) -> [V; 3] {
    let mut y = start;
    for (j, &x) in x.iter().enumerate() {
        for (k, y) in y.iter_mut().enumerate() {
            let factor = SQUARE.minus[(k + 3 - j) % 3];
            *y = lo(*y, x, all_52(if j > k { -factor } else { factor }));
        }
    }
    y
}

/// A constant modulo 2^52.
#[inline]
#[target_feature(enable = "avx512f")]
fn all_52(constant: i64) -> V {
    all(constant.cast_unsigned() & ((1 << 52) - 1))
}

/// C² where z³ = 1, added to `start`; two of the three factors are equal.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply_plus(start: [V; 3], x: [V; 3]) -> [V; 3] {
    const { assert!(SQUARE.plus[0] == SQUARE.plus[1]) }
    let sum = add(add(x[0], x[1]), x[2]);
    let mut y = start;
    for (k, y) in y.iter_mut().enumerate() {
        *y = lo(lo(*y, sum, all_52(SQUARE.plus[0])), x[(k + 1) % 3], all_52(SQUARE.plus[2] - SQUARE.plus[0]));
    }
    y
}

/// C² where z³ = −i, added to the start of the real part and to the sum of both starts. With `K = Σ c·(re + im)` the product
/// `Σ (c + s·i)·(re + im·i)` is `K − Σ (c + s)·im + i·(K + Σ (s − c)·re)`.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply_complex(start: [[V; 3]; 2], re: [V; 3], im: [V; 3]) -> ([V; 3], [V; 3]) {
    let [mut y_re, mut y_im] = start;
    for j in 0..3 {
        let sum = add(re[j], im[j]);
        for (k, y) in y_re.iter_mut().enumerate() {
            *y = lo(*y, sum, all_52(complex_factor(k, j)[0]));
        }
    }
    for (y_im, &common) in y_im.iter_mut().zip(&y_re) {
        *y_im = add(*y_im, common);
    }
    for j in 0..3 {
        for k in 0..3 {
            let [c, s] = complex_factor(k, j);
            y_re[k] = lo(y_re[k], im[j], all_52(-c - s));
            y_im[k] = lo(y_im[k], re[j], all_52(s - c));
        }
    }
    (y_re, y_im)
}

/// Real and imaginary part of what coefficient j of a factor contributes to coefficient k of the product.
const fn complex_factor(k: usize, j: usize) -> [i64; 2] {
    let index = (k + 3 - j) % 3;
    // Times −i if the product wraps.
    if j > k { [SQUARE.im[index], -SQUARE.re[index]] } else { [SQUARE.re[index], SQUARE.im[index]] }
}

/// C² on one limb modulo 2^52, plus constants on frequencies.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiply_by_square(x: &[V; WIDTH], limb: usize, constants: &Frequencies<Constant>) -> [V; WIDTH] {
    let y = to_frequencies(x);
    let start = |constants: &[Constant; 3]| [all(constants[0][limb]), all(constants[1][limb]), all(constants[2][limb])];
    let plus = multiply_plus(start(&constants.plus), y.plus);
    let minus = multiply_minus(start(&constants.minus), y.minus);
    let (re, im) = multiply_complex([start(&constants.re), start(&constants.im)], y.re, y.im);
    to_elements(&Frequencies { plus, minus, re, im })
}

/// One limb of the elements of a batch.
macro_rules! limb {
    ($batches:expr, $batch:expr, $limb:ident) => {{
        let mut elements = [$batches[0][$batch].$limb; WIDTH];
        for (element, row) in elements.iter_mut().zip($batches.iter()) {
            *element = row[$batch].$limb;
        }
        elements
    }};
}

/// S-boxes, matrix and constants on short limbs, of which come short ones if `constants` lend the low limb 2^21·X.
///
/// Low is at least −264·7234·X after the matrix and at most 264·X, high from 0 to 264·7234·X.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn full_round<const N: usize>(x: &mut Batches<N>, constants: &[Constant; WIDTH]) {
    for four in x.as_flattened_mut().as_chunks_mut::<4>().0 {
        power_seven(four);
    }
    for batch in 0..N {
        let first = x[0][batch];
        let mut low = multiply_by_matrix(&limb!(x, batch, low));
        let mut high = multiply_by_matrix(&limb!(x, batch, high));
        low[0] = add(low[0], left::<{ DIAGONAL.ilog2() }>(first.low));
        high[0] = add(high[0], left::<{ DIAGONAL.ilog2() }>(first.high));
        for (element, &[constant_low, constant_high]) in constants.iter().enumerate() {
            let sum = Limbs { low: add(low[element], all(constant_low)), high: add(high[element], all(constant_high)) };
            x[element][batch] = shorten(sum);
        }
    }
}

/// Two partial rounds on short limbs, of which come short ones.
///
/// With `s = x + e₀(x₀^7 − x₀)` the first gives `t = C·s + 8e₀s₀ + c`, and the second `C·(t + e₀(t₀^7 − t₀)) + 8e₀t₀^7 + c'`, which is
/// `C²·s + C·e₀(8s₀ − t₀ + t₀^7) + 8e₀t₀^7 + C·c + c'`.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn partial_pair<const N: usize>(x: &mut Batches<N>, pair: &Pair) {
    power_seven(&mut x[0]);
    let mut between = x[0];
    for (batch, between) in between.iter_mut().enumerate() {
        x[0][batch] = shorten_signed(x[0][batch]);
        *between = shorten_52(first_of_matrix(x, batch, pair.between));
    }
    for batch in 0..N {
        let (s, t) = (x[0][batch], between[batch]);
        let mut power = [t];
        power_seven(&mut power);
        let [power] = power;
        let low = finish_pair(&limb!(x, batch, low), 0, pair, [s.low, t.low, power.low]);
        let high = finish_pair(&limb!(x, batch, high), 1, pair, [s.high, t.high, power.high]);
        for element in 0..WIDTH {
            x[element][batch] = shorten_52(Limbs { low: low[element], high: high[element] });
        }
    }
}

/// The first element of M·x plus a constant, modulo 2^52.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn first_of_matrix<const N: usize>(x: &Batches<N>, batch: usize, constant: Constant) -> Limbs {
    let mut sums = [Limbs { low: all(constant[0]), high: all(constant[1]) }, Limbs { low: all(0), high: all(0) }];
    // Element 0 comes last: it is known last.
    for (element, row) in x.iter().enumerate().rev() {
        let factor = all(CIRCULANT[element] + if element == 0 { DIAGONAL } else { 0 });
        let sum = &mut sums[element % 2];
        *sum = Limbs { low: lo(sum.low, row[batch].low, factor), high: lo(sum.high, row[batch].high, factor) };
    }
    Limbs { low: add(sums[0].low, sums[1].low), high: add(sums[0].high, sums[1].high) }
}

/// One limb of the sum in [`partial_pair`], modulo 2^52; `first` holds s₀, t₀ and t₀^7.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn finish_pair(s: &[V; WIDTH], limb: usize, pair: &Pair, first: [V; 3]) -> [V; WIDTH] {
    let [s0, t0, power] = first;
    let mut sum = multiply_by_square(s, limb, &pair.after);
    let rest = add(sub(left::<{ DIAGONAL.ilog2() }>(s0), t0), power);
    for (row, sum) in sum.iter_mut().enumerate() {
        *sum = lo(*sum, rest, all(tables::circulant(row, 0)));
    }
    sum[0] = add(sum[0], left::<{ DIAGONAL.ilog2() }>(power));
    sum
}

/// Permutes the first batches.
#[target_feature(enable = "avx512f,avx512ifma")]
fn permute_batches<const N: usize>(states: &mut States) {
    let words = &mut states.words;
    let nothing = Limbs { low: all(0), high: all(0) };
    let mut x = [[nothing; N]; WIDTH];
    for ((row, words), &[low, high]) in x.iter_mut().zip(words.iter()).zip(&TABLES.first) {
        for (x, words) in row.iter_mut().zip(words.as_chunks::<BATCH>().0) {
            let word = load(words);
            *x = shorten(Limbs { low: add(low_half(word), all(low)), high: add(right::<32>(word), all(high)) });
        }
    }
    for constants in &TABLES.full[..HALF_FULL] {
        full_round(&mut x, constants);
    }
    for pair in &TABLES.pairs {
        partial_pair(&mut x, pair);
    }
    for constants in &TABLES.full[HALF_FULL..] {
        full_round(&mut x, constants);
    }
    for (row, words) in x.iter().zip(words.iter_mut()) {
        for (&x, words) in row.iter().zip(words.as_chunks_mut::<BATCH>().0) {
            store(canonical(x), words);
        }
    }
}

/// The canonical words of short limbs.
#[inline]
#[target_feature(enable = "avx512f")]
fn canonical(x: Limbs) -> V {
    // 2^64 = X − 1. If high exceeds X, then by less than 2^23, so that nothing overflows.
    let carry = right::<32>(x.high);
    let word = add(add(x.low, left::<32>(x.high)), sub(left::<32>(carry), carry));
    // Below p the difference wraps to more than the word.
    _mm512_min_epu64(word, sub(word, all(ORDER)))
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(words: &[u64; BATCH]) -> V {
    // SAFETY: the reference is good for 64 bytes, and the load demands no alignment.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_loadu_si512(words.as_ptr().cast())
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(x: V, words: &mut [u64; BATCH]) {
    // SAFETY: the reference is good for 64 bytes, and the store demands no alignment.
    #[allow(unsafe_code)]
    unsafe {
        _mm512_storeu_si512(words.as_mut_ptr().cast(), x);
    }
}

/// Permutes at least the first `n` states.
pub(super) fn enter(dispatch: Dispatch, states: &mut States, n: usize) {
    assert_eq!(dispatch.level(), Level::Avx512, "this level was dispatched");
    // SAFETY: a dispatch is only made for a level whose features, among them those that `permute` enables, were detected.
    #[allow(unsafe_code)]
    unsafe {
        permute(states, n);
    }
}

#[target_feature(enable = "avx512f,avx512ifma")]
fn permute(states: &mut States, n: usize) {
    const { assert!(LANES == 4 * BATCH) }
    match n.div_ceil(BATCH) {
        0 => {}
        1 => permute_batches::<1>(states),
        2 => permute_batches::<2>(states),
        _ => permute_batches::<4>(states),
    }
}
