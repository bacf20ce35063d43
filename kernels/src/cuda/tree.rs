//! Merkle trees on the device (`kernels/cuda/merkle.cu`); the cap is kept on the host too.

use plonky2::field::types::Field;
use plonky2::hash::hash_types::NUM_HASH_OUT_ELTS;
use plonky2::hash::merkle_proofs::MerkleProof;
use plonky2::hash::merkle_tree::MerkleCap;
use zkinfer_circuits::backend::{BackendError, QueryAnswer};
use zkinfer_circuits::field::{Digest, F, H};

use super::lane::Lane;
use super::launch::{Argument, BLOCK_THREADS, Shape};
use super::memory::{Buffer, Words};

/// log₂ of the parents of the first level that is computed in one launch with all above it: as many as a block has threads.
const TOP_LOG_PARENTS: usize = BLOCK_THREADS.trailing_zeros() as usize;

/// The digests of a tree, level after level from the leaves' to the cap.
#[derive(Debug)]
pub(crate) struct Tree {
    log_leaves: usize,
    digests: Buffer,
    pub(crate) cap: MerkleCap<F, H>,
}

/// The words of a tree, off the device.
#[derive(Debug)]
pub(crate) struct HostTree {
    log_leaves: usize,
    words: Vec<u64>,
    cap: MerkleCap<F, H>,
}

impl HostTree {
    /// The same tree on the device.
    pub(crate) fn upload(&self, lane: Lane<'_>) -> Result<Tree, BackendError> {
        Ok(Tree { log_leaves: self.log_leaves, digests: lane.upload(&self.words)?, cap: self.cap.clone() })
    }

    /// The words of all digests, level after level.
    pub(crate) fn words(&self) -> &[u64] {
        &self.words
    }

    /// All levels, from the leaves' to the cap.
    pub(crate) fn levels(&self) -> Vec<Vec<Digest>> {
        let mut rest = &self.words[..];
        let mut levels = Vec::new();
        for log_length in (self.cap.height()..=self.log_leaves).rev() {
            let (level, below) = rest.split_at(level_words(log_length));
            levels.push(digests(level));
            rest = below;
        }
        levels
    }
}

/// Words of a level of 2^log_length digests.
fn level_words(log_length: usize) -> usize {
    NUM_HASH_OUT_ELTS << log_length
}

/// Words of all levels.
fn tree_words(log_leaves: usize, cap_height: usize) -> usize {
    (cap_height..=log_leaves).map(level_words).sum()
}

pub(crate) fn elements(words: &[u64]) -> Vec<F> {
    words.iter().map(|&word| F::from_canonical_u64(word)).collect()
}

fn digests(words: &[u64]) -> Vec<Digest> {
    words.chunks_exact(NUM_HASH_OUT_ELTS).map(|words| Digest::from_partial(&elements(words))).collect()
}

impl Tree {
    /// The tree over the rows of columns of 2^log_leaves values.
    pub(crate) fn of_columns(lane: Lane<'_>, columns: &Words<'_>, log_leaves: usize, cap_height: usize) -> Result<Self, BackendError> {
        let n_columns = columns.len() >> log_leaves;
        Self::build(lane, "merkle_column_leaves", columns, n_columns, log_leaves, cap_height)
    }

    /// The tree over cosets of 2^arity_bits elements of K, given by coordinate.
    pub(crate) fn of_cosets(
        lane: Lane<'_>,
        values: &Words<'_>,
        arity_bits: usize,
        log_leaves: usize,
        cap_height: usize,
    ) -> Result<Self, BackendError> {
        Self::build(lane, "merkle_coset_leaves", values, arity_bits, log_leaves, cap_height)
    }

    /// `kernel` hashes 2^log_leaves leaves of `source`; `count` is its last parameter.
    fn build(
        lane: Lane<'_>,
        kernel: &'static str,
        source: &Words<'_>,
        count: usize,
        log_leaves: usize,
        cap_height: usize,
    ) -> Result<Self, BackendError> {
        let mut digests = lane.allocate(tree_words(log_leaves, cap_height))?;
        let leaves = vec![
            Argument::In(source.slice(..)),
            Argument::Out(digests.part_mut(0, level_words(log_leaves))),
            Argument::Count(1 << log_leaves),
            Argument::Count(count as u32),
        ];
        lane.launch(kernel, Shape::of_items(1 << log_leaves), leaves)?;
        let mut view = digests.view_mut();
        let mut first = 0;
        let below_top = cap_height.max(TOP_LOG_PARENTS + 1).min(log_leaves);
        for log_parents in (below_top..log_leaves).rev() {
            let n_children = level_words(log_parents + 1);
            let mut levels = view.slice_mut(first..first + n_children + level_words(log_parents));
            let (children, parents) = levels.split_at_mut(n_children);
            let arguments = vec![Argument::In(children.as_view()), Argument::Out(parents), Argument::Count(1 << log_parents)];
            lane.launch("merkle_level", Shape::of_items(1 << log_parents), arguments)?;
            first += n_children;
        }
        if cap_height < below_top {
            let levels = Argument::Out(view.slice_mut(first..));
            let counts = [below_top, cap_height].map(|log_length| Argument::Count(1 << log_length));
            let one_block = Shape::of_items(1 << TOP_LOG_PARENTS);
            lane.launch("merkle_top", one_block, [levels].into_iter().chain(counts).collect())?;
        }
        Self::with_cap(lane, log_leaves, cap_height, digests)
    }

    fn with_cap(lane: Lane<'_>, log_leaves: usize, cap_height: usize, words: Buffer) -> Result<Self, BackendError> {
        let cap_words = level_words(cap_height);
        let cap = lane.download(&words.part(tree_words(log_leaves, cap_height) - cap_words, cap_words))?;
        Ok(Self { log_leaves, digests: words, cap: MerkleCap(digests(&cap)) })
    }

    /// A tree whose levels are known.
    pub(crate) fn from_levels(lane: Lane<'_>, levels: &[Vec<Digest>]) -> Result<Self, BackendError> {
        let words: Vec<u64> = levels.iter().flatten().flat_map(|digest| digest.elements).map(|element| element.0).collect();
        let log_leaves = levels[0].len().trailing_zeros() as usize;
        let cap_height = levels[levels.len() - 1].len().trailing_zeros() as usize;
        let words = lane.upload(&words)?;
        Self::with_cap(lane, log_leaves, cap_height, words)
    }

    /// The words of all levels.
    pub(crate) fn digests(&self) -> Words<'_> {
        self.digests.view()
    }

    /// Its words.
    pub(crate) fn download(&self, lane: Lane<'_>) -> Result<HostTree, BackendError> {
        Ok(HostTree { log_leaves: self.log_leaves, words: lane.download(&self.digests())?, cap: self.cap.clone() })
    }

    /// Rows and paths of leaves, all read at once.
    pub(crate) fn answer(&self, lane: Lane<'_>, rows: Rows<'_>, leaves: &[usize]) -> Result<Vec<QueryAnswer>, BackendError> {
        let n_leaves = 1usize << self.log_leaves;
        if let Some(leaf) = leaves.iter().find(|&&leaf| leaf >= n_leaves) {
            return Err(BackendError::Unsupported(format!("leaf {leaf} of {n_leaves} was asked for")));
        }
        if leaves.is_empty() {
            return Ok(Vec::new());
        }
        let height = self.log_leaves - self.cap.height();
        let n_words = rows.length + height * NUM_HASH_OUT_ELTS;
        let asked = lane.upload(&leaves.iter().map(|&leaf| leaf as u64).collect::<Vec<_>>())?;
        let mut answers = lane.allocate(n_words * leaves.len())?;
        let mut arguments = vec![Argument::In(rows.words), Argument::In(self.digests.view()), Argument::In(asked.view())];
        arguments.push(Argument::Out(answers.part_mut(0, n_words * leaves.len())));
        arguments.extend([n_leaves, rows.count, height, leaves.len()].map(|count| Argument::Count(count as u32)));
        lane.launch(rows.kernel, Shape::of_items((n_words * leaves.len()) as u64), arguments)?;
        let words = lane.download(&answers.part(0, n_words * leaves.len()))?;
        let answer = |words: &[u64]| {
            let (row, siblings) = words.split_at(rows.length);
            (elements(row), MerkleProof { siblings: digests(siblings) })
        };
        Ok(words.chunks_exact(n_words).map(answer).collect())
    }
}

/// The leaves of a tree: how a kernel finds their words.
pub(crate) struct Rows<'a> {
    /// `merkle_column_answers` or `merkle_coset_answers`.
    pub(crate) kernel: &'static str,
    pub(crate) words: Words<'a>,
    /// What the kernel is told: columns, or log₂ of the arity.
    pub(crate) count: usize,
    /// Words of a leaf.
    pub(crate) length: usize,
}
