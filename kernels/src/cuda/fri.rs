//! The steps of FRI on the device: batching, committing, folding.

use std::ops::Range;
use std::sync::Arc;

use plonky2::field::types::Field;
use zkinfer_circuits::backend::{BackendError, OpeningBatch, QueryAnswer};
use zkinfer_circuits::field::{F, K, limbs};

use super::lane::Lane;
use super::launch::Argument;
use super::memory::Buffer;
use super::oracle::Oracle;
use super::polynomial::{Recurrence, Walk, combine, fold as fold_coefficients, joined, scale_add};
use super::transform::extend;
use super::tree::{Rows, Tree, elements};

/// The polynomial in FRI.
#[derive(Debug)]
pub struct Codeword {
    /// By coordinate, 2^log_length each; the coefficients left out are zero.
    coefficients: Buffer,
    log_length: usize,
    /// By coordinate, on shift·⟨w⟩ of order 2^log_size, bit-reversed. Shared with the trees over them.
    values: Arc<Buffer>,
    log_size: usize,
    shift: F,
}

impl Codeword {
    fn new(lane: Lane<'_>, coefficients: Buffer, log_length: usize, log_size: usize, shift: F) -> Result<Self, BackendError> {
        let mut values = lane.allocate(2 << log_size)?;
        let source = Argument::In(coefficients.part(0, 2 << log_length));
        extend(lane, source, values.view_mut(), log_length, log_size - log_length, shift)?;
        Ok(Self { coefficients, log_length, values: Arc::new(values), log_size, shift })
    }

    /// Words of its values.
    pub(crate) fn n_words(&self) -> usize {
        2 << self.log_size
    }
}

/// The Merkle tree of one FRI layer.
#[derive(Debug)]
pub struct FoldTree {
    values: Arc<Buffer>,
    log_leaves: usize,
    arity_bits: usize,
    pub(crate) tree: Tree,
}

impl FoldTree {
    /// The leaves, coordinates of a point side by side, and their paths.
    pub(crate) fn query(&self, lane: Lane<'_>, leaves: &[usize]) -> Result<Vec<QueryAnswer>, BackendError> {
        let words = self.values.part(0, 2 << (self.log_leaves + self.arity_bits));
        self.tree.answer(lane, Rows { kernel: "merkle_coset_answers", words, count: self.arity_bits, length: 2 << self.arity_bits }, leaves)
    }
}

impl FoldTree {
    /// Leaf after leaf, the coordinates of a point side by side; then the digests.
    pub(crate) fn values(&self, lane: Lane<'_>) -> Result<Vec<F>, BackendError> {
        let log_values = self.log_leaves + self.arity_bits;
        let points = joined(&lane.download(&self.values.part(0, 2 << log_values))?);
        let mut values: Vec<F> = points.into_iter().flat_map(limbs).collect();
        values.extend(elements(self.tree.download(lane)?.words()));
        Ok(values)
    }
}

/// Oracle and columns, and their combination.
type RangeCombination = ((usize, Range<usize>), Buffer);

/// `Σ_b α^… (F_b − F_b(z_b)) / (X − z_b)`, `F_b = Σ_j α^j f_bj`: each later batch multiplies the sum so far by α^|batch|.
///
/// A range opened at several points is combined once. The caller has checked that all ranges exist and all oracles have one size.
pub(crate) fn batch(lane: Lane<'_>, oracles: &[&Oracle], batches: &[OpeningBatch], alpha: K) -> Result<Codeword, BackendError> {
    let log_rows = oracles[0].log_rows;
    let mut combinations: Vec<RangeCombination> = Vec::new();
    let mut sum = lane.allocate(2 << log_rows)?;
    lane.zero(sum.view_mut())?;
    for batch in batches {
        let mut composition = lane.allocate(2 << log_rows)?;
        lane.zero(composition.view_mut())?;
        let mut power = K::ONE;
        for opened in &batch.opened {
            let range = (opened.oracle, opened.columns.clone());
            if combinations.iter().all(|(known, _)| *known != range) {
                let weights: Vec<K> = alpha.powers().take(opened.columns.len()).collect();
                let columns = oracles[opened.oracle].coefficients(opened.columns.clone());
                combinations.push((range.clone(), combine(lane, columns, &weights, log_rows)?));
            }
            let (_, combination) = combinations.iter().find(|(known, _)| *known == range).expect("every range was combined");
            scale_add(lane, composition.view_mut(), combination, K::ONE, power)?;
            power *= alpha.exp_u64(opened.columns.len() as u64);
        }
        // (f − f(z)) / (X − z): the carries of Horner's rule from the top.
        Recurrence { ratio: batch.point, offset: K::ZERO, walk: Walk::Down }.run(lane, composition.view_mut())?;
        scale_add(lane, sum.view_mut(), &composition, power, K::ONE)?;
    }
    Codeword::new(lane, sum, log_rows, oracles[0].log_leaves(), F::coset_shift())
}

/// Commits the codeword's values in cosets of 2^arity_bits.
pub(crate) fn fold_commit(lane: Lane<'_>, codeword: &Codeword, arity_bits: usize, cap_height: usize) -> Result<FoldTree, BackendError> {
    if arity_bits + cap_height > codeword.log_size {
        return Err(BackendError::Unsupported(format!(
            "a codeword of 2^{} values has no cap of height {cap_height} over cosets of 2^{arity_bits}",
            codeword.log_size
        )));
    }
    let log_leaves = codeword.log_size - arity_bits;
    let tree = Tree::of_cosets(lane, &codeword.values.view(), arity_bits, log_leaves, cap_height)?;
    Ok(FoldTree { values: Arc::clone(&codeword.values), log_leaves, arity_bits, tree })
}

/// `P(x) = Σ_i x^i P_i(x^r)` becomes `Σ_i β^i P_i`, on the r-th powers of the domain.
pub(crate) fn fold(lane: Lane<'_>, codeword: &Codeword, arity_bits: usize, beta: K) -> Result<Codeword, BackendError> {
    let log_size = codeword.log_size.checked_sub(arity_bits);
    let log_size = log_size.ok_or_else(|| BackendError::Unsupported(format!("2^{} values folded by 2^{arity_bits}", codeword.log_size)))?;
    // A polynomial shorter than a group is one group, whose other coefficients are zero.
    let group_bits = arity_bits.min(codeword.log_length);
    let folded = fold_coefficients(lane, codeword.coefficients.part(0, 2 << codeword.log_length), group_bits, beta)?;
    Codeword::new(lane, folded, codeword.log_length - group_bits, log_size, codeword.shift.exp_power_of_2(arity_bits))
}

/// The first `len / 2^rate_bits` coefficients.
pub(crate) fn final_polynomial(lane: Lane<'_>, codeword: &Codeword, rate_bits: usize) -> Result<Vec<K>, BackendError> {
    let mut coefficients = joined(&lane.download(&codeword.coefficients.part(0, 2 << codeword.log_length))?);
    coefficients.resize((1 << codeword.log_size) >> rate_bits, K::ZERO);
    Ok(coefficients)
}
