//! The permutation with AVX-512 IFMA: batches of 8 states, one element of 8 states in a register pair.
//!
//! An element is `low + 2^32·high` modulo p, where the limbs are 64-bit lanes that may exceed 32 bits; `2^64 = 2^32 − 1` and `2^96 = −1`
//! bring products back to two limbs. IFMA gives bits 0..52 and 52..104 of a product of 52-bit factors: with both factors scaled by
//! 2^10 these are the bits 0..32, scaled by 2^20, and 32.., unscaled, of the product of the limbs themselves. So x^7 needs no carry
//! at all; limbs are made short again once a round. Partial rounds go in pairs: `M² = C² + …`, with C² applied on frequencies
//! ([`super::tables`]) modulo 2^52.
//!
//! X is 2^32. *Short* limbs are those of [`shorten`] and [`shorten_52`]: `0 ≤ low < X`, `0 ≤ high < 1.002·X`.
//!
//! Several batches go through a round together, so that latencies hide behind one another: all S-boxes of a partial round are
//! independent between batches only.

mod limbs;
mod square;
#[cfg(test)]
mod tests;

use super::by_shifts::matrix_by_shifts;
use super::tables::{self, CIRCULANT, Constant, DIAGONAL, Frequencies, HALF_FULL, LOG_DIAGONAL, N_PAIRS, WIDTH, with_headroom};
use super::{LANES, States};
use crate::vector::{Dispatch, Level};
use limbs::{
    BATCH, LIFT, Limbs, S_BOX, V, add, all, canonical, left, lo, load, low_half, power_seven, right, shorten, shorten_52, shorten_signed,
    store, sub,
};
use square::multiply_by_square;

/// `batches[element][batch]`.
type Batches<const N: usize> = [[Limbs; N]; WIDTH];

/// What a full round's constants lend the low limb: the matrix's rows sum to at most 264.
const FULL_BORROWED: u64 = 1 << 21;
const _: () = assert!(264 * S_BOX + 264 + FULL_BORROWED < 1 << 22);
const _: () = assert!(264 * S_BOX < FULL_BORROWED);

/// What a pair's constants lend the low limb. It may get −41 times an S-box output, t₀ and three constants ([`partial_pair`]).
const PAIR_BORROWED: u64 = 3 << 17;
const _: () = assert!(41 * (S_BOX + 2) + 3 < PAIR_BORROWED);
/// What a pair's constants lend the high limb, in which nothing is negative but 41·t₀, three constants, and s₀ and `PAIR_BORROWED`, which
/// are far below X.
const PAIR_MULTIPLES: u64 = 1 << 7;
const _: () = assert!(41 * 2 + 3 + 2 < PAIR_MULTIPLES);
/// So neither limb is negative after a pair. Nor is one too large for [`shorten_52`], in units of X: rows of C² sum to 2^16.
const _: () = assert!(PAIR_BORROWED + PAIR_MULTIPLES + 41 * (S_BOX + 8) + (1 << 17) + 3 < LIFT);

/// Constants of two partial rounds.
struct Pair {
    /// Added to element 0 between the rounds; its high limb makes up for that of s₀, which may be negative, but not below −2^13.
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

matrix_by_shifts!("avx512f");

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
        low[0] = add(low[0], left::<LOG_DIAGONAL>(first.low));
        high[0] = add(high[0], left::<LOG_DIAGONAL>(first.high));
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
    let rest = add(sub(left::<LOG_DIAGONAL>(s0), t0), power);
    for (row, sum) in sum.iter_mut().enumerate() {
        *sum = lo(*sum, rest, all(tables::circulant(row, 0)));
    }
    sum[0] = add(sum[0], left::<LOG_DIAGONAL>(power));
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
