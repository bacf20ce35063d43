//! Every level against plonky2's permutation.

use plonky2::field::types::{Field, PrimeField64, Sample};
use plonky2::hash::hash_types::HashOut;
use plonky2::hash::hashing::PlonkyPermutation;
use plonky2::hash::poseidon::{Poseidon, PoseidonHash, PoseidonPermutation};
use plonky2::iop::challenger::Challenger;
use plonky2::plonk::config::Hasher;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use zkinfer_circuits::field::{Digest, F, H, ORDER};

use super::*;

fn dispatches() -> Vec<Dispatch> {
    Level::available().into_iter().map(|level| Dispatch::new(level).expect("available")).collect()
}

/// Compares the first `n` states with plonky2's, of the canonical elements.
fn check_permutation(dispatch: Dispatch, states: &States, n: usize) {
    let mut permuted = states.clone();
    permuted.permute(dispatch, n);
    for lane in 0..n {
        let state = states.words.map(|words| F::from_canonical_u64(words[lane] % ORDER));
        let expected = F::poseidon(state).map(|element| element.to_canonical_u64());
        let got = permuted.words.map(|words| words[lane]);
        assert_eq!(got, expected, "{} lane {lane} of {n}, input {:x?}", dispatch.level().name(), states.words.map(|words| words[lane]));
    }
}

#[test]
fn permutes_random_words_as_plonky2_does() {
    let mut random = StdRng::seed_from_u64(1);
    for dispatch in dispatches() {
        for _ in 0..100_000 / LANES {
            let states = States { words: std::array::from_fn(|_| std::array::from_fn(|_| random.r#gen())) };
            check_permutation(dispatch, &states, LANES);
        }
    }
}

/// Words at the ends of ranges: of limbs, of canonical elements, of all words.
const EDGES: [u64; 14] = [
    0,
    1,
    2,
    0xffff_fffe,
    0xffff_ffff,
    1 << 32,
    1 << 63,
    0xffff_fffe_ffff_ffff,
    0xffff_ffff_0000_0000,
    ORDER,
    ORDER + 1,
    0xffff_ffff_8000_0000,
    u64::MAX - 1,
    u64::MAX,
];

#[test]
fn permutes_words_at_the_ends_of_ranges_as_plonky2_does() {
    let mut random = StdRng::seed_from_u64(2);
    for dispatch in dispatches() {
        for edge in EDGES {
            check_permutation(dispatch, &States { words: [[edge; LANES]; WIDTH] }, LANES);
        }
        for _ in 0..500 {
            let states = States { words: std::array::from_fn(|_| std::array::from_fn(|_| EDGES[random.gen_range(0..EDGES.len())])) };
            check_permutation(dispatch, &states, LANES);
        }
    }
}

#[test]
fn permutes_any_number_of_states() {
    let mut random = StdRng::seed_from_u64(3);
    for dispatch in dispatches() {
        for n in 0..=LANES {
            let states = States { words: std::array::from_fn(|_| std::array::from_fn(|_| random.r#gen())) };
            check_permutation(dispatch, &states, n);
        }
    }
}

/// Rounds invert to states whose S-boxes meet chosen values: limbs at the ends of their ranges in the middle of the permutation.
#[test]
fn permutes_states_with_extreme_values_in_later_rounds_as_plonky2_does() {
    let mut random = StdRng::seed_from_u64(4);
    let extremes = [0, 1, 0xffff_ffff, 0xffff_ffff_0000_0000, ORDER - 1].map(F::from_canonical_u64);
    for round in [1, 3, 4, 5, 6, 15, 24, 25, 26, 27, 29] {
        let mut states = States::ZERO;
        for lane in 0..LANES {
            let target = std::array::from_fn(|_| extremes[random.gen_range(0..if lane < 8 { 1 } else { extremes.len() })]);
            for (words, element) in states.words.iter_mut().zip(inverse::before_rounds(target, round)) {
                words[lane] = element.to_canonical_u64();
            }
        }
        for dispatch in dispatches() {
            check_permutation(dispatch, &states, LANES);
        }
    }
}

fn leaves(width: usize, n: usize) -> Vec<Vec<F>> {
    let mut random = StdRng::seed_from_u64(5);
    (0..n)
        .map(|_| {
            (0..width).map(|_| F::from_noncanonical_u64(random.r#gen::<u64>() | if width.is_multiple_of(2) { ORDER } else { 0 })).collect()
        })
        .collect()
}

#[test]
fn hashes_leaves_of_every_width_and_number_as_plonky2_does() {
    for dispatch in dispatches() {
        for width in (1..=20).chain([135, 257]) {
            for n in [1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 32] {
                let leaves = leaves(width, n + 3);
                let expected: Vec<Digest> = leaves.iter().map(|leaf| PoseidonHash::hash_or_noop(leaf)).collect();
                let case = format!("{} width {width}, {n} leaves", dispatch.level().name());
                let columns: Vec<F> = (0..width).flat_map(|column| leaves.iter().map(move |leaf| leaf[column])).collect();
                let mut digests = vec![Digest::ZERO; n];
                hash_columns(dispatch, &columns, n + 3, 2, &mut digests);
                assert_eq!(digests, expected[2..n + 2], "{case}, by columns");
                hash_rows(dispatch, &leaves[..n].concat(), width, &mut digests);
                assert_eq!(digests, expected[..n], "{case}, by rows");
            }
        }
    }
}

#[test]
fn compresses_any_number_of_pairs_as_plonky2_does() {
    for dispatch in dispatches() {
        for n in 1..=LANES {
            let children: Vec<Digest> = (0..2 * n).map(|_| HashOut { elements: [(); 4].map(|()| F::rand()) }).collect();
            let expected: Vec<Digest> = children.chunks_exact(2).map(|pair| PoseidonHash::two_to_one(pair[0], pair[1])).collect();
            let mut parents = vec![Digest::ZERO; n];
            compress(dispatch, &children, &mut parents);
            assert_eq!(parents, expected, "{} {n} pairs", dispatch.level().name());
        }
    }
}

#[test]
fn the_pending_state_of_a_challenger_is_what_it_permutes_next() {
    for n_observed in 0..=20 {
        let mut challenger = Challenger::<F, H>::new();
        challenger.observe_elements(&F::rand_vec(n_observed));
        let pending = Pending::of(&challenger);
        assert_eq!(pending.position, n_observed % RATE);
        let element = F::rand();
        challenger.observe_element(element);
        let mut state = PoseidonPermutation::new(pending.state);
        state.set_elt(element, pending.position);
        state.permute();
        assert_eq!(challenger.compact(), state);
    }
}
