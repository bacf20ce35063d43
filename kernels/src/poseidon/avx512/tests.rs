//! Rounds on limbs at the ends of their ranges, which whole permutations hardly ever meet.

use plonky2::field::types::{Field, PrimeField64};
use plonky2::hash::poseidon::Poseidon;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use zkinfer_circuits::field::F;

use super::*;
use crate::poseidon::tables::{X, round_constant};

/// `words[element][limb][lane]`.
type Words = [[[u64; BATCH]; 2]; WIDTH];

/// The largest high limb that is short.
const HIGH: u64 = X + (1 << 23);

/// States of short limbs; with `n_free` elements that are random or extreme, and others of which the high limbs, or all, are zero.
fn states(random: &mut StdRng, n_free: usize) -> Words {
    let lows = [0, 1, X - 1, random.gen_range(0..X)];
    let highs = [0, 1, X - 1, X, HIGH, random.gen_range(0..X)];
    std::array::from_fn(|element| {
        let is_free = element < n_free;
        let low = std::array::from_fn(|_| if is_free || n_free.is_multiple_of(2) { lows[random.gen_range(0..lows.len())] } else { 0 });
        let high = std::array::from_fn(|_| if is_free { highs[random.gen_range(0..highs.len())] } else { 0 });
        [low, high]
    })
}

fn elements(words: &Words, lane: usize) -> [F; WIDTH] {
    words.map(|[low, high]| F::from_noncanonical_u128(u128::from(low[lane]) + (u128::from(high[lane]) << 32)))
}

/// `n_boxes` S-boxes, the matrix and the constants of the next round, by the formula.
fn round(mut x: [F; WIDTH], n_boxes: usize, next: usize) -> [F; WIDTH] {
    for x in &mut x[..n_boxes] {
        *x = x.exp_u64(7);
    }
    let mut y = F::mds_layer(&x);
    for (element, y) in y.iter_mut().enumerate() {
        *y += F::from_canonical_u64(round_constant(next, element));
    }
    y
}

/// Loads limbs, runs rounds on them, and stores them.
#[target_feature(enable = "avx512f,avx512ifma")]
fn with_limbs(words: &Words, run: fn(&mut Batches<1>)) -> Words {
    let mut x = words.map(|_| [Limbs { low: all(0), high: all(0) }]);
    for ([x], [low, high]) in x.iter_mut().zip(words) {
        *x = Limbs { low: load(low), high: load(high) };
    }
    run(&mut x);
    let mut words = *words;
    for ([x], [low, high]) in x.iter().zip(&mut words) {
        store(x.low, low);
        store(x.high, high);
    }
    words
}

fn check(run: fn(&mut Batches<1>), expected: fn([F; WIDTH]) -> [F; WIDTH]) {
    if !Level::available().contains(&Level::Avx512) {
        return;
    }
    let mut random = StdRng::seed_from_u64(6);
    for case in 0..20_000 {
        let before = states(&mut random, case % (WIDTH + 1));
        // SAFETY: the features were detected.
        #[allow(unsafe_code)]
        let after = unsafe { with_limbs(&before, run) };
        for lane in 0..BATCH {
            let short = after.iter().all(|[low, high]| low[lane] < X && high[lane] <= HIGH);
            assert!(short, "case {case}, lane {lane}: {after:x?}");
            let [got, expected] = [elements(&after, lane), expected(elements(&before, lane))].map(|x| x.map(|x| x.to_canonical_u64()));
            assert_eq!(got, expected, "case {case}, lane {lane}: {before:x?}");
        }
    }
}

/// As a function without features.
macro_rules! rounds {
    ($rounds:expr) => {
        // SAFETY: `check` calls it after the features were detected.
        #[allow(unsafe_code)]
        |x| unsafe {
            $rounds(x);
        }
    };
}

#[test]
fn a_full_round_is_right_for_all_short_limbs() {
    check(rounds!(|x| full_round(x, &TABLES.full[0])), |x| round(x, WIDTH, 1));
    check(rounds!(|x| full_round(x, &TABLES.full[7])), |x| round(x, WIDTH, 30));
}

#[test]
fn two_partial_rounds_are_right_for_all_short_limbs() {
    check(rounds!(|x| partial_pair(x, &TABLES.pairs[0])), |x| round(round(x, 1, 5), 1, 6));
    check(rounds!(|x| partial_pair(x, &TABLES.pairs[10])), |x| round(round(x, 1, 25), 1, 26));
}
