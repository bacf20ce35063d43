//! The steps of FRI: batching, folding, committing, grinding. Transcript order is the caller's.

use plonky2::field::types::{Field, PrimeField64};
use plonky2::iop::challenger::Challenger;
use rayon::prelude::*;
use std::ops::Range;
use zkinfer_circuits::backend::{BackendError, OpeningBatch, QueryAnswer};
use zkinfer_circuits::field::{D, F, H, K, ORDER, ext, limbs};

use super::buffer::zeros;
use super::oracle::extend;
use super::transform::RootTables;
use super::tree::Tree;
use super::wide::{combine, split, weighted_sum};
use crate::poseidon::{LANES, Pending, RATE, States};
use crate::vector::Dispatch;

/// Values interleaved by one task.
const CHUNK: usize = 1 << 12;

/// Columns in coefficient form, wherever they are kept.
pub(crate) trait Polynomials: Sync {
    /// log₂ of the number of coefficients of every column.
    fn log_rows(&self) -> usize;
    /// The coefficients of a column that exists.
    fn coefficients(&self, column: usize) -> &[F];
}

impl Polynomials for super::oracle::Oracle {
    fn log_rows(&self) -> usize {
        self.log_rows
    }

    fn coefficients(&self, column: usize) -> &[F] {
        super::oracle::Oracle::coefficients(self, column)
    }
}

/// The polynomial in FRI.
#[derive(Debug)]
pub struct Codeword {
    /// By coordinate; the coefficients left out are zero.
    pub(crate) coefficients: [Vec<F>; 2],
    /// By coordinate, on shift·⟨w⟩ of order 2^log_size, bit-reversed.
    pub(crate) values: [Vec<F>; 2],
    log_size: usize,
    shift: F,
}

impl Codeword {
    fn new(tables: &RootTables, coefficients: [Vec<F>; 2], log_size: usize, shift: F) -> Self {
        let log_length = coefficients[0].len().trailing_zeros() as usize;
        let cosets = tables.cosets(log_length, log_size - log_length, shift);
        let values = coefficients.each_ref().map(|limb| extend(&[limb], &cosets, 1 << log_length));
        Self { coefficients, values, log_size, shift }
    }
}

/// The Merkle tree of one FRI layer.
#[derive(Debug)]
pub struct FoldTree {
    pub(crate) leaves: Vec<F>,
    leaf_length: usize,
    pub(crate) tree: Tree,
}

impl FoldTree {
    /// The leaf and its path.
    pub(crate) fn query(&self, leaf: usize) -> Result<QueryAnswer, BackendError> {
        let row = self.leaves.chunks_exact(self.leaf_length).nth(leaf);
        let row = row.ok_or_else(|| BackendError::Unsupported(format!("leaf {leaf} of a FRI layer was asked for")))?;
        Ok((row.to_vec(), self.tree.path(leaf)))
    }
}

/// `Σ_b α^… (F_b − F_b(z_b)) / (X − z_b)`, `F_b = Σ_j α^j f_bj`: each later batch multiplies the sum so far by α^|batch|.
pub(crate) fn batch(tables: &RootTables, oracles: &[&dyn Polynomials], batches: &[OpeningBatch], alpha: K, rate_bits: usize) -> Codeword {
    let n_rows = 1usize << oracles[0].log_rows();
    let combinations = Combinations::new(tables.dispatch(), oracles, batches, alpha, n_rows);
    let quotients: Vec<[Vec<F>; 2]> = batches.par_iter().map(|batch| divide_by_linear(combinations.of_batch(batch), batch.point)).collect();
    let mut weight = K::ONE;
    let mut terms: Vec<(&[Vec<F>; 2], K)> = Vec::new();
    for (batch, quotient) in batches.iter().zip(&quotients).rev() {
        terms.push((quotient, weight));
        weight *= alpha.exp_u64(batch.opened.iter().map(|opened| opened.columns.len()).sum::<usize>() as u64);
    }
    let sum = weighted_sum(tables.dispatch(), &terms, n_rows);
    Codeword::new(tables, sum, oracles[0].log_rows() + rate_bits, F::coset_shift())
}

/// Oracle and columns, and their combination by coordinate.
type RangeCombination = ((usize, Range<usize>), [Vec<F>; 2]);

/// `Σ_j α^j f_j` over ranges of columns; a range opened at several points is combined once.
struct Combinations {
    dispatch: Dispatch,
    alpha: K,
    n_rows: usize,
    of_range: Vec<RangeCombination>,
}

impl Combinations {
    fn new(dispatch: Dispatch, oracles: &[&dyn Polynomials], batches: &[OpeningBatch], alpha: K, n_rows: usize) -> Self {
        let mut of_range: Vec<RangeCombination> = Vec::new();
        for opened in batches.iter().flat_map(|batch| &batch.opened) {
            let range = (opened.oracle, opened.columns.clone());
            if of_range.iter().all(|(known, _)| *known != range) {
                let columns: Vec<&[F]> = opened.columns.clone().map(|column| oracles[opened.oracle].coefficients(column)).collect();
                let weights: Vec<K> = alpha.powers().take(columns.len()).collect();
                of_range.push((range, combine(dispatch, &columns, &weights, n_rows)));
            }
        }
        Self { dispatch, alpha, n_rows, of_range }
    }

    fn of_batch(&self, batch: &OpeningBatch) -> [Vec<F>; 2] {
        let mut power = K::ONE;
        let mut terms = Vec::new();
        for opened in &batch.opened {
            let range = (opened.oracle, opened.columns.clone());
            let (_, combination) = self.of_range.iter().find(|(known, _)| *known == range).expect("every range was combined");
            terms.push((combination, power));
            power *= self.alpha.exp_u64(opened.columns.len() as u64);
        }
        weighted_sum(self.dispatch, &terms, self.n_rows)
    }
}

/// `(f − f(z)) / (X − z)`, padded with a zero, in place of f.
fn divide_by_linear([mut c0, mut c1]: [Vec<F>; 2], point: K) -> [Vec<F>; 2] {
    let mut carried = K::ZERO;
    for (c0, c1) in c0.iter_mut().zip(&mut c1).rev() {
        let next = carried * point + ext(*c0, *c1);
        [*c0, *c1] = limbs(carried);
        carried = next;
    }
    [c0, c1]
}

/// Commits the codeword's values in cosets of 2^arity_bits.
pub(crate) fn fold_commit(dispatch: Dispatch, codeword: &Codeword, arity_bits: usize, cap_height: usize) -> Result<FoldTree, BackendError> {
    if arity_bits + cap_height > codeword.log_size {
        return Err(BackendError::Unsupported(format!(
            "a codeword of 2^{} values has no cap of height {cap_height} over cosets of 2^{arity_bits}",
            codeword.log_size
        )));
    }
    let [c0, c1] = &codeword.values;
    let mut leaves = zeros(D * c0.len());
    leaves.par_chunks_mut(D * CHUNK).zip(c0.par_chunks(CHUNK).zip(c1.par_chunks(CHUNK))).for_each(|(leaves, (c0, c1))| {
        for (leaf, (&c0, &c1)) in leaves.chunks_exact_mut(D).zip(c0.iter().zip(c1)) {
            leaf.copy_from_slice(&[c0, c1]);
        }
    });
    let leaf_length = D << arity_bits;
    let tree = Tree::from_leaves(dispatch, &leaves, leaf_length, cap_height);
    Ok(FoldTree { leaves, leaf_length, tree })
}

/// `P(x) = Σ_i x^i P_i(x^r)` becomes `Σ_i β^i P_i`, on the r-th powers of the domain.
pub(crate) fn fold(tables: &RootTables, codeword: Codeword, arity_bits: usize, beta: K) -> Result<Codeword, BackendError> {
    let log_size = codeword.log_size.checked_sub(arity_bits);
    let log_size = log_size.ok_or_else(|| BackendError::Unsupported(format!("2^{} values folded by 2^{arity_bits}", codeword.log_size)))?;
    let [c0, c1] = &codeword.coefficients;
    let arity = 1 << arity_bits;
    let folded: Vec<K> = c0
        .par_chunks(arity)
        .zip(c1.par_chunks(arity))
        .with_min_len(256)
        .map(|(c0, c1)| c0.iter().zip(c1).rev().fold(K::ZERO, |sum, (&c0, &c1)| sum * beta + ext(c0, c1)))
        .collect();
    Ok(Codeword::new(tables, split(&folded), log_size, codeword.shift.exp_power_of_2(arity_bits)))
}

/// The first `len / 2^rate_bits` coefficients.
pub(crate) fn final_polynomial(codeword: &Codeword, rate_bits: usize) -> Vec<K> {
    let [c0, c1] = &codeword.coefficients;
    let mut coefficients: Vec<K> = c0.iter().zip(c1).map(|(&c0, &c1)| ext(c0, c1)).collect();
    coefficients.resize((1 << codeword.log_size) >> rate_bits, K::ZERO);
    coefficients
}

/// The smallest nonce whose challenge has `bits` leading zeros: blocks of nonces in order, each searched in parallel.
pub(crate) fn grind(dispatch: Dispatch, challenger: &Challenger<F, H>, bits: u32) -> Result<u64, BackendError> {
    const BLOCK: usize = 1 << 14;
    let pending = Pending::of(challenger);
    let mut states = States::ZERO;
    for (words, element) in states.words.iter_mut().zip(pending.state) {
        words.fill(element.to_canonical_u64());
    }
    let search = |nonces: Range<u64>| {
        let mut states = states.clone();
        for (word, nonce) in states.words[pending.position].iter_mut().zip(nonces.clone()) {
            *word = nonce;
        }
        states.permute(dispatch, LANES);
        // A challenger gives the last element of the rate first.
        let challenges = &states.words[RATE - 1];
        nonces.zip(challenges).find(|(_, challenge)| challenge.leading_zeros() >= bits).map(|(nonce, _)| nonce)
    };
    let search_block = |first: u64| {
        let groups = (0..BLOCK / LANES).into_par_iter().with_min_len(8).map(|group| first + (group * LANES) as u64);
        groups.find_map_first(|first| search(first.min(ORDER)..(first + LANES as u64).min(ORDER)))
    };
    let nonce = (0..ORDER).step_by(BLOCK).find_map(search_block);
    nonce.ok_or_else(|| BackendError::Unsupported(format!("no nonce has a challenge with {bits} leading zeros")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vector::Level;
    use plonky2::field::types::Sample;

    /// By the challenger itself, one nonce after another.
    fn smallest_nonce(challenger: &Challenger<F, H>, bits: u32) -> u64 {
        let accepted = |nonce: &u64| {
            let mut attempt = challenger.clone();
            attempt.observe_element(F::from_canonical_u64(*nonce));
            attempt.get_challenge().to_canonical_u64().leading_zeros() >= bits
        };
        (0..ORDER).find(accepted).expect("there is a nonce")
    }

    #[test]
    fn grinding_gives_the_smallest_nonce_whatever_is_buffered() {
        for level in Level::available() {
            let dispatch = Dispatch::new(level).expect("available");
            for n_observed in 0..=25 {
                let mut challenger = Challenger::new();
                challenger.observe_elements(&F::rand_vec(n_observed));
                for bits in [0, 1, 6, 10] {
                    let expected = smallest_nonce(&challenger, bits);
                    let case = format!("{}, {n_observed} observed, {bits} bits", level.name());
                    assert_eq!(grind(dispatch, &challenger, bits).expect("found"), expected, "{case}");
                }
                let _ = challenger.get_n_challenges(n_observed % 9);
                assert_eq!(grind(dispatch, &challenger, 7).expect("found"), smallest_nonce(&challenger, 7), "after challenges");
            }
        }
    }

    #[test]
    fn grinding_crosses_blocks_of_nonces() {
        let mut challenger = Challenger::new();
        // The smallest nonce of 15 bits is beyond the first block for most challengers.
        let seed = (0..).find(|&seed| {
            challenger = Challenger::new();
            challenger.observe_element(F::from_canonical_u64(seed));
            grind(Dispatch::detect(), &challenger, 15).expect("found") > 1 << 14
        });
        assert!(seed.is_some());
        assert_eq!(grind(Dispatch::detect(), &challenger, 15).expect("found"), smallest_nonce(&challenger, 15));
    }
}
