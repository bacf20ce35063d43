//! The permutation on words, written once for levels without wide multipliers: batches of as many states as a vector has lanes, one element
//! of each in a register.
//!
//! S-boxes work on whole words, by the products of [`crate::vector`]. The matrix works on limbs `low + X·high`, X = 2^32, of 64-bit lanes:
//! its entries are small and positive, so that two rounds pass before limbs are made short again. Of the partial rounds, only element
//! 0 is put together to a word in each.

use super::tables::{self, Constant, HALF_FULL, N_PAIRS, WIDTH, with_headroom};

/// The elements of a batch, limb by limb.
#[derive(Clone, Copy)]
pub(super) struct Limbs<V> {
    pub(super) low: [V; WIDTH],
    pub(super) high: [V; WIDTH],
}

/// Constants of two partial rounds.
pub(super) struct Pair {
    /// Added to element 0 between the rounds.
    pub(super) between: Constant,
    /// Added after both, and what the other constants between the rounds became in the second.
    pub(super) after: [Constant; WIDTH],
}

/// Constants of the permutation.
pub(super) struct Tables {
    pub(super) first: [Constant; WIDTH],
    /// Added after all full rounds but the last.
    pub(super) full: [[Constant; WIDTH]; 2 * HALF_FULL],
    pub(super) pairs: [Pair; N_PAIRS],
}

pub(super) static TABLES: Tables = build_tables();

/// What a pair's constants lend the low limb, which must not be less than the carry of the high one: two rounds, whose rows sum to at
/// most 264, of limbs below 1.001·X, and constants.
const PAIR_BORROWED: u64 = 1 << 17;
const _: () = assert!(264 * 265 + 2 < PAIR_BORROWED);

const fn build_tables() -> Tables {
    let mut tables = Tables {
        first: [[0; 2]; WIDTH],
        full: [[[0; 2]; WIDTH]; 2 * HALF_FULL],
        pairs: [const { Pair { between: [0; 2], after: [[0; 2]; WIDTH] } }; N_PAIRS],
    };
    let mut element = 0;
    while element < WIDTH {
        tables.first[element] = with_headroom(tables::round_constant(0, element), 0, 0);
        let mut index = 0;
        while index < 2 * HALF_FULL {
            let round = if index < HALF_FULL { index } else { index + 2 * N_PAIRS };
            tables.full[index][element] = with_headroom(tables::round_constant(round + 1, element), 0, 0);
            index += 1;
        }
        let mut pair = 0;
        while pair < N_PAIRS {
            let round = HALF_FULL + 2 * pair;
            let between = tables::first_after_one(round, 0);
            tables.pairs[pair].between = with_headroom(between, 0, 0);
            // The S-box replaces element 0 together with its constant.
            let after = tables::constants_after_pair(round, 0)[element];
            let after = tables::sub(after, tables::mul(tables::circulant(element, 0), between));
            tables.pairs[pair].after[element] = with_headroom(after, PAIR_BORROWED, 1);
            pair += 1;
        }
        element += 1;
    }
    tables
}

/// Batches permuted together.
pub(super) const TOGETHER: usize = 4;

/// Defines `permute` for vectors `V` of `BATCH` lanes, with what `matrix_by_shifts` defines and needs and the functions `add_words`, `mul`,
/// `square` and `canonical` on words, `low_half`, `high_half`, `load`, `store`, and `add_carry(low, high) = low + (X − 1)·⌊high/X⌋`, as
/// functions with the target features given.
macro_rules! permutation_by_words {
    ($features:literal) => {
        /// The S-box x^7 = x³·x⁴ on independent words, product by product, so that their latencies hide one another.
        #[inline]
        #[target_feature(enable = $features)]
        fn power_seven<const N: usize>(x: &mut [V; N]) {
            let mut second = *x;
            for second in &mut second {
                *second = square(*second);
            }
            for (x, &second) in x.iter_mut().zip(&second) {
                *x = mul(*x, second);
            }
            for second in &mut second {
                *second = square(*second);
            }
            for (x, &fourth) in x.iter_mut().zip(&second) {
                *x = mul(*x, fourth);
            }
        }

        /// The limbs of words.
        #[inline]
        #[target_feature(enable = $features)]
        fn split(x: &[V; WIDTH]) -> Limbs<V> {
            let mut limbs = Limbs { low: *x, high: *x };
            for (low, high) in limbs.low.iter_mut().zip(&mut limbs.high) {
                (*low, *high) = (low_half(*low), high_half(*high));
            }
            limbs
        }

        /// A word of limbs below 2^62: 2^64 = X − 1, and `low + (X − 1)·⌊high/X⌋ < p`.
        #[inline]
        #[target_feature(enable = $features)]
        fn word(low: V, high: V) -> V {
            add_words(left::<32>(high), add_carry(low, high))
        }

        /// Limbs with `0 ≤ low < X` and `0 ≤ high < 1.001·X`, of limbs below 2^52 with `high/X ≤ low`.
        #[inline]
        #[target_feature(enable = $features)]
        fn shorten(low: V, high: V) -> (V, V) {
            let carry = high_half(high);
            let low = sub(low, carry);
            (low_half(low), add(add(low_half(high), carry), high_half(low)))
        }

        /// M·x of limbs; they grow by the factor 264 at most.
        #[inline]
        #[target_feature(enable = $features)]
        fn multiply(x: &Limbs<V>) -> Limbs<V> {
            let mut y = Limbs { low: multiply_by_matrix(&x.low), high: multiply_by_matrix(&x.high) };
            y.low[0] = add(y.low[0], left::<LOG_DIAGONAL>(x.low[0]));
            y.high[0] = add(y.high[0], left::<LOG_DIAGONAL>(x.high[0]));
            y
        }

        /// S-boxes, matrix and constants on words.
        #[inline]
        #[target_feature(enable = $features)]
        fn full_round(x: &mut [V; WIDTH], constants: &[Constant; WIDTH]) {
            for four in x.as_chunks_mut::<4>().0 {
                power_seven(four);
            }
            let limbs = multiply(&split(x));
            for (element, &[low, high]) in constants.iter().enumerate() {
                // Below 265·X.
                x[element] = word(add(limbs.low[element], all(low)), add(limbs.high[element], all(high)));
            }
        }

        /// Two partial rounds on short limbs of several batches, whose S-boxes hide one another's latencies.
        #[inline]
        #[target_feature(enable = $features)]
        fn partial_pair<const N: usize>(batches: &mut [Limbs<V>; N], pair: &Pair) {
            replace_first(batches, [0, 0]);
            for x in &mut *batches {
                *x = multiply(x);
            }
            replace_first(batches, pair.between);
            for x in batches {
                let y = multiply(x);
                for (element, &[low, high]) in pair.after.iter().enumerate() {
                    let limbs = shorten(add(y.low[element], all(low)), add(y.high[element], all(high)));
                    (x.low[element], x.high[element]) = limbs;
                }
            }
        }

        /// Adds a constant to element 0, and applies the S-box.
        #[inline]
        #[target_feature(enable = $features)]
        fn replace_first<const N: usize>(batches: &mut [Limbs<V>; N], [low, high]: Constant) {
            let mut first = [all(0); N];
            for (first, x) in first.iter_mut().zip(batches.iter()) {
                *first = word(add(x.low[0], all(low)), add(x.high[0], all(high)));
            }
            power_seven(&mut first);
            for (&first, x) in first.iter().zip(batches) {
                (x.low[0], x.high[0]) = (low_half(first), high_half(first));
            }
        }

        /// The first half of the full rounds, after which limbs are short.
        #[inline]
        #[target_feature(enable = $features)]
        fn begin(mut x: [V; WIDTH]) -> Limbs<V> {
            for (x, &[low, high]) in x.iter_mut().zip(&TABLES.first) {
                *x = word(add(low_half(*x), all(low)), add(high_half(*x), all(high)));
            }
            for constants in &TABLES.full[..HALF_FULL] {
                full_round(&mut x, constants);
            }
            split(&x)
        }

        /// The second half of the full rounds.
        #[inline]
        #[target_feature(enable = $features)]
        fn end(limbs: &Limbs<V>) -> [V; WIDTH] {
            let mut x = limbs.low;
            for (x, &high) in x.iter_mut().zip(&limbs.high) {
                *x = word(*x, high);
            }
            for constants in &TABLES.full[HALF_FULL..] {
                full_round(&mut x, constants);
            }
            x
        }

        /// Permutes `N` batches from `first` on.
        #[target_feature(enable = $features)]
        fn permute_batches<const N: usize>(states: &mut States, first: usize) {
            let nothing = [all(0); WIDTH];
            let mut batches = [Limbs { low: nothing, high: nothing }; N];
            for (batch, limbs) in batches.iter_mut().enumerate() {
                let mut x = nothing;
                for (x, words) in x.iter_mut().zip(&states.words) {
                    *x = load(&words.as_chunks().0[first + batch]);
                }
                *limbs = begin(x);
            }
            for pair in &TABLES.pairs {
                partial_pair(&mut batches, pair);
            }
            for (batch, limbs) in batches.iter().enumerate() {
                for (x, words) in end(limbs).into_iter().zip(&mut states.words) {
                    store(canonical(x), &mut words.as_chunks_mut().0[first + batch]);
                }
            }
        }

        #[target_feature(enable = $features)]
        fn permute(states: &mut States, n: usize) {
            const { assert!(LANES.is_multiple_of(TOGETHER * BATCH)) }
            if n <= BATCH {
                return permute_batches::<1>(states, 0);
            }
            if n <= 2 * BATCH {
                return permute_batches::<2>(states, 0);
            }
            for first in (0..n.div_ceil(BATCH)).step_by(TOGETHER) {
                permute_batches::<TOGETHER>(states, first);
            }
        }
    };
}

pub(super) use permutation_by_words;
