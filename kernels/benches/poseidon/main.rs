//! Measures Poseidon, Merkle trees and grinding at every level of vectors against plonky2's, side by side.
//!
//! `cargo bench -p zkinfer-kernels --bench poseidon > benches/results/kernels_poseidon.json`. Repetitions of all contestants take turns, so
//! that what else the machine does falls on all of them alike. `ratio` is how many times as fast as plonky2's a median is.

#[path = "../steps/meter.rs"]
#[allow(dead_code, reason = "the steps measure more")]
mod meter;

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use plonky2::field::goldilocks_field::GoldilocksField as F;
use plonky2::field::types::{Field, PrimeField64, Sample};
use plonky2::hash::merkle_tree::MerkleTree;
use plonky2::hash::poseidon::{Poseidon, PoseidonHash};
use plonky2::iop::challenger::Challenger;
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use zkinfer_circuits::backend::Backend;
use zkinfer_kernels::measure::{Permutation, merkle_cap};
use zkinfer_kernels::{CpuBackend, Level};

const LOG_LEAVES: usize = 15;
const WIDTH: usize = 135;
const CAP_HEIGHT: usize = 4;
const GRINDING_BITS: u32 = 16;

/// A name and what is measured.
type Contestant<'a> = (String, Box<dyn FnMut() + 'a>);

fn main() -> Result<(), Box<dyn Error>> {
    let mut report = Map::new();
    report.insert("command".to_owned(), json!("cargo bench -p zkinfer-kernels --bench poseidon"));
    report.insert("machine".to_owned(), meter::machine());
    report.insert("permutation_one_thread_ns".to_owned(), measure_permutation()?);
    report.insert(format!("merkle_tree_2^{LOG_LEAVES}x{WIDTH}_ms"), measure_tree()?);
    report.insert(format!("grinding_{GRINDING_BITS}_bits_ms"), measure_grinding()?);
    emit(&Value::Object(report))
}

#[allow(clippy::print_stdout)]
fn emit(report: &Value) -> Result<(), Box<dyn Error>> {
    println!("{}", serde_json::to_string_pretty(report)?);
    Ok(())
}

/// Nanoseconds a permutation, by number of states permuted together.
fn measure_permutation() -> Result<Value, Box<dyn Error>> {
    const CALLS: usize = 64;
    let mut state: [F; 12] = std::array::from_fn(|_| F::rand());
    let mut contestants: Vec<Contestant<'_>> =
        vec![("plonky2".to_owned(), Box::new(|| (0..CALLS).for_each(|_| state = F::poseidon(black_box(state)))))];
    let mut divisors = vec![CALLS];
    for level in Level::available() {
        for n in [8, 16, Permutation::LANES] {
            let mut permutation = Permutation::new(level)?;
            let calls = CALLS / 8;
            contestants.push((
                format!("{} x{n}", level.name()),
                Box::new(move || (0..calls).for_each(|_| black_box(&mut permutation).permute(n))),
            ));
            divisors.push(calls * n);
        }
    }
    let seconds = take_turns(501, &mut contestants);
    Ok(summary(&contestants, &seconds, |contestant| 1e9 / divisors[contestant] as f64))
}

/// Milliseconds a tree, on all threads; the caps are compared too.
fn measure_tree() -> Result<Value, Box<dyn Error>> {
    let n_leaves = 1 << LOG_LEAVES;
    let columns = F::rand_vec(n_leaves * WIDTH);
    let rows: Vec<Vec<F>> = (0..n_leaves).map(|leaf| columns.iter().skip(leaf).step_by(n_leaves).copied().collect()).collect();
    let expected = MerkleTree::<F, PoseidonHash>::new(rows.clone(), CAP_HEIGHT).cap;
    // plonky2's tree takes its leaves away: copies are made beforehand, outside the measurement.
    const REPETITIONS: usize = 9;
    let mut copies = vec![rows; REPETITIONS];
    let plonky2 = || {
        let leaves = copies.pop().expect("one copy a repetition");
        // The tree is not dropped here: that takes time too.
        std::mem::forget(black_box(MerkleTree::<F, PoseidonHash>::new(leaves, CAP_HEIGHT)));
    };
    let mut contestants: Vec<Contestant<'_>> = vec![("plonky2".to_owned(), Box::new(plonky2))];
    for level in Level::available() {
        assert_eq!(merkle_cap(level, &columns, n_leaves, CAP_HEIGHT)?, expected, "{} gives plonky2's cap", level.name());
        let columns = &columns;
        contestants.push((level.name().to_owned(), Box::new(move || drop(black_box(merkle_cap(level, columns, n_leaves, CAP_HEIGHT))))));
    }
    let seconds = take_turns(REPETITIONS, &mut contestants);
    Ok(summary(&contestants, &seconds, |_| 1e3))
}

/// Milliseconds to the smallest nonce of a fixed challenger, on all threads.
fn measure_grinding() -> Result<Value, Box<dyn Error>> {
    let mut challenger = Challenger::<F, PoseidonHash>::new();
    challenger.observe_elements(&F::TWO.powers().take(11).collect::<Vec<_>>());
    let accepted = |nonce: &u64| {
        let mut attempt = challenger.clone();
        attempt.observe_element(F::from_canonical_u64(*nonce));
        attempt.get_challenge().to_canonical_u64().leading_zeros() >= GRINDING_BITS
    };
    let search = || (0..).step_by(1 << 14).find_map(|first| (first..first + (1 << 14)).into_par_iter().find_first(accepted));
    let expected = search().ok_or("no nonce")?;
    let mut contestants: Vec<Contestant<'_>> = vec![("plonky2".to_owned(), Box::new(|| assert!(search().is_some())))];
    for level in Level::available() {
        let backend = CpuBackend::with_level(level)?;
        assert_eq!(backend.grind(&challenger, GRINDING_BITS)?, expected, "{} finds the smallest nonce", level.name());
        let challenger = &challenger;
        contestants.push((level.name().to_owned(), Box::new(move || drop(black_box(backend.grind(challenger, GRINDING_BITS))))));
    }
    let seconds = take_turns(15, &mut contestants);
    Ok(summary(&contestants, &seconds, |_| 1e3))
}

/// Seconds of every repetition, by contestant.
fn take_turns(repetitions: usize, contestants: &mut [Contestant<'_>]) -> Vec<Vec<f64>> {
    let mut seconds = vec![Vec::new(); contestants.len()];
    for _ in 0..repetitions {
        for ((_, run), seconds) in contestants.iter_mut().zip(&mut seconds) {
            let start = Instant::now();
            run();
            seconds.push(start.elapsed().as_secs_f64());
        }
    }
    seconds
}

/// Medians and minima in another unit, and ratios to the first contestant.
fn summary(contestants: &[Contestant<'_>], seconds: &[Vec<f64>], unit: impl Fn(usize) -> f64) -> Value {
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    let figures: Vec<[f64; 2]> = (seconds.iter().enumerate())
        .map(|(contestant, seconds)| {
            let mut sorted = seconds.clone();
            sorted.sort_by(f64::total_cmp);
            [sorted[sorted.len() / 2], sorted[0]].map(|seconds| seconds * unit(contestant))
        })
        .collect();
    let entries = contestants.iter().zip(&figures).map(|((name, _), &[median, minimum])| {
        let ratios = json!({ "median": rounded(median), "minimum": rounded(minimum), "ratio": rounded(figures[0][0] / median),
            "ratio_of_minima": rounded(figures[0][1] / minimum) });
        (name.clone(), ratios)
    });
    Value::Object(entries.collect())
}
