//! Committed oracles on the device: coefficients and extension by columns, and the tree over the extension's rows.

use std::ops::Range;

use plonky2::field::types::Field;
use zkinfer_circuits::backend::{BackendError, CommitShape, QueryAnswer};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::F;

use super::device::{Device, STAGE_WORDS};
use super::lane::Lane;
use super::launch::{Argument, Recorder};
use super::memory::{Buffer, WORD_BYTES, Words};
use super::transform::{extend, interpolate};
use super::tree::{HostTree, Rows, Tree, elements};
use crate::cpu::oracle::Oracle as CpuOracle;
use crate::cpu::saved;
use crate::cpu::tree::Tree as CpuTree;

/// A committed oracle.
#[derive(Debug)]
pub(crate) struct Oracle {
    pub(crate) log_rows: usize,
    pub(crate) shape: CommitShape,
    pub(crate) n_columns: usize,
    /// Column after column, 2^log_rows coefficients each.
    coefficients: Buffer,
    /// Column after column, 2^(log_rows + rate_bits) values each, in the order of leaves.
    extension: Buffer,
    pub(crate) tree: Tree,
}

/// The words of an oracle, off the device.
#[derive(Debug)]
pub(crate) struct HostOracle {
    log_rows: usize,
    shape: CommitShape,
    n_columns: usize,
    coefficients: Vec<u64>,
    extension: Vec<u64>,
    tree: HostTree,
}

impl HostOracle {
    /// The same oracle on the device.
    pub(crate) fn upload(&self, lane: Lane<'_>) -> Result<Oracle, BackendError> {
        let upload = |source: &[u64]| lane.upload_with(source.len(), |first, words| words.copy_from_slice(&source[first..][..words.len()]));
        let (coefficients, extension) = (upload(&self.coefficients)?, upload(&self.extension)?);
        let tree = self.tree.upload(lane)?;
        lane.finish()?;
        Ok(Oracle { log_rows: self.log_rows, shape: self.shape, n_columns: self.n_columns, coefficients, extension, tree })
    }

    /// Coefficients, extension, digests.
    pub(crate) fn values(&self) -> Vec<F> {
        [&self.coefficients, &self.extension, self.tree.words()].into_iter().flat_map(elements).collect()
    }

    /// The bytes that the CPU backend writes.
    pub(crate) fn save(&self) -> Vec<u8> {
        let tree = CpuTree::from_levels(self.tree.levels());
        let (coefficients, extension) = (elements(&self.coefficients), elements(&self.extension));
        saved::save(&CpuOracle::from_parts(self.log_rows, self.shape, coefficients, extension, tree))
    }
}

impl Oracle {
    /// Interpolates, extends and commits columns.
    pub(crate) fn commit(lane: Lane<'_>, columns: &Columns, shape: CommitShape) -> Result<Self, BackendError> {
        let (n_columns, log_rows) = (columns.n_columns(), check_sizes(columns.rows(), columns.n_columns(), shape)?);
        let log_leaves = log_rows + shape.rate_bits;
        let recorder = Recorder::default();
        // Several groups are copied beside kernels, which are not to be put off.
        let is_one_group = n_columns <= group_columns(log_rows);
        let lane = if is_one_group { lane.gathering(&recorder, n_columns << log_leaves) } else { lane };
        let mut coefficients = lane.allocate(n_columns << log_rows)?;
        let mut extension = lane.allocate(n_columns << log_leaves)?;
        upload_in_groups(lane, columns.as_flat(), log_rows, |values, group| {
            let (words, leaves) = (group.start << log_rows, group.len() << log_leaves);
            interpolate(lane, values.slice(..), coefficients.part_mut(words, values.len()), log_rows)?;
            let source = Argument::In(coefficients.part(words, values.len()));
            let target = extension.part_mut(group.start << log_leaves, leaves);
            extend(lane, source, target, log_rows, shape.rate_bits, F::coset_shift())
        })?;
        let tree = Tree::of_columns(lane, &extension.view(), log_leaves, shape.cap_height)?;
        Ok(Self { log_rows, shape, n_columns, coefficients, extension, tree })
    }

    /// As [`Oracle::commit`], of values on the device in natural order.
    pub(crate) fn commit_values(lane: Lane<'_>, values: &Words<'_>, log_rows: usize, shape: CommitShape) -> Result<Self, BackendError> {
        let mut coefficients = lane.allocate(values.len())?;
        interpolate(lane, values.slice(..), coefficients.view_mut(), log_rows)?;
        Self::commit_coefficients(lane, coefficients, values.len() >> log_rows, log_rows, shape)
    }

    /// Extends and commits `n_columns` polynomials of 2^log_rows coefficients.
    pub(crate) fn commit_coefficients(
        lane: Lane<'_>,
        coefficients: Buffer,
        n_columns: usize,
        log_rows: usize,
        shape: CommitShape,
    ) -> Result<Self, BackendError> {
        check_sizes(1 << log_rows, n_columns, shape)?;
        let log_leaves = log_rows + shape.rate_bits;
        let mut extension = lane.allocate(n_columns << log_leaves)?;
        extend(lane, Argument::In(coefficients.view()), extension.view_mut(), log_rows, shape.rate_bits, F::coset_shift())?;
        let tree = Tree::of_columns(lane, &extension.view(), log_leaves, shape.cap_height)?;
        Ok(Self { log_rows, shape, n_columns, coefficients, extension, tree })
    }

    /// As [`Oracle::commit_coefficients`], of as many columns as there are coefficients for, with further columns of the leaves, `salt`, that are
    /// no values of polynomials.
    pub(crate) fn commit_salted(
        lane: Lane<'_>,
        coefficients: Buffer,
        log_rows: usize,
        salt: &[F],
        shape: CommitShape,
    ) -> Result<Self, BackendError> {
        let n_columns = coefficients.view().len() >> log_rows;
        check_sizes(1 << log_rows, n_columns, shape)?;
        let log_leaves = log_rows + shape.rate_bits;
        let n_values = n_columns << log_leaves;
        let mut extension = lane.allocate(n_values + salt.len())?;
        if !salt.is_empty() {
            lane.copy(&lane.upload_elements(salt)?.view(), extension.part_mut(n_values, salt.len()))?;
        }
        let source = Argument::In(coefficients.view());
        extend(lane, source, extension.part_mut(0, n_values), log_rows, shape.rate_bits, F::coset_shift())?;
        let tree = Tree::of_columns(lane, &extension.view(), log_leaves, shape.cap_height)?;
        Ok(Self { log_rows, shape, n_columns, coefficients, extension, tree })
    }

    pub(crate) fn n_rows(&self) -> usize {
        1 << self.log_rows
    }

    pub(crate) fn log_leaves(&self) -> usize {
        self.log_rows + self.shape.rate_bits
    }

    /// Coefficients of columns that exist.
    pub(crate) fn coefficients(&self, columns: Range<usize>) -> Words<'_> {
        self.coefficients.part(columns.start << self.log_rows, columns.len() << self.log_rows)
    }

    /// The whole extension.
    pub(crate) fn extension(&self) -> Words<'_> {
        self.extension.view()
    }

    /// The rows and the paths of leaves.
    pub(crate) fn query(&self, lane: Lane<'_>, leaves: &[usize]) -> Result<Vec<QueryAnswer>, BackendError> {
        let n_columns = self.extension.view().len() >> self.log_leaves();
        self.tree.answer(
            lane,
            Rows { kernel: "merkle_column_answers", words: self.extension(), count: n_columns, length: n_columns },
            leaves,
        )
    }

    /// Bytes that it takes on the device.
    pub(crate) fn size_bytes(&self) -> u64 {
        [self.coefficients.view(), self.extension.view(), self.tree.digests()].iter().map(|words| words.len() as u64 * WORD_BYTES).sum()
    }

    /// Its words.
    pub(crate) fn download(&self, lane: Lane<'_>) -> Result<HostOracle, BackendError> {
        Ok(HostOracle {
            log_rows: self.log_rows,
            shape: self.shape,
            n_columns: self.n_columns,
            coefficients: lane.download(&self.coefficients.view())?,
            extension: lane.download(&self.extension.view())?,
            tree: self.tree.download(lane)?,
        })
    }

    /// An oracle from its bytes.
    pub(crate) fn load(lane: Lane<'_>, bytes: &[u8]) -> Result<Self, BackendError> {
        let host = saved::load(bytes)?;
        Device::check_log_leaves(host.log_rows + host.shape.rate_bits)?;
        let upload = |values: &[F]| lane.upload_with(values.len(), |first, words| write_words(words, &values[first..]));
        let (coefficients, extension) = (upload(&host.coefficients)?, upload(&host.extension)?);
        let tree = Tree::from_levels(lane, host.tree.levels())?;
        Ok(Self { log_rows: host.log_rows, shape: host.shape, n_columns: host.n_columns(), coefficients, extension, tree })
    }
}

fn write_words(words: &mut [u64], values: &[F]) {
    for (word, value) in words.iter_mut().zip(values) {
        *word = value.0;
    }
}

/// Columns of a group that is uploaded at once: as many as fill a pinned buffer, or one that is larger.
fn group_columns(log_rows: usize) -> usize {
    (STAGE_WORDS >> log_rows).max(1)
}

/// Uploads columns group by group and gives each to `compute`, with the columns that it holds: while the kernels of one group run, the next is copied.
///
/// Two buffers take turns; events make a copy wait for the kernels that read the
/// buffer before, and kernels for the copy.
fn upload_in_groups(
    lane: Lane<'_>,
    values: &[F],
    log_rows: usize,
    mut compute: impl FnMut(Words<'_>, Range<usize>) -> Result<(), BackendError>,
) -> Result<(), BackendError> {
    let group_columns = group_columns(log_rows);
    let group_words = group_columns << log_rows;
    let groups = values.chunks(group_words);
    // A single group has nothing to run beside.
    let copies = if groups.len() > 1 { lane.copies() } else { lane };
    let mut buffers = (0..groups.len().min(2)).map(|_| copies.allocate(group_words.min(values.len()))).collect::<Result<Vec<_>, _>>()?;
    for (index, group) in groups.enumerate() {
        let buffer = &mut buffers[index % 2];
        copies.write_with(buffer.part_mut(0, group.len()), |first, words| write_words(words, &group[first..]))?;
        let first = index * group_columns;
        compute(buffer.part(0, group.len()), first..first + (group.len() >> log_rows))?;
    }
    Ok(())
}

/// log₂ of the rows, after checking that an oracle of this shape can exist on a device.
fn check_sizes(n_rows: usize, n_columns: usize, shape: CommitShape) -> Result<usize, BackendError> {
    let log_rows = n_rows.trailing_zeros() as usize;
    if !n_rows.is_power_of_two() || n_columns == 0 || u32::try_from(n_columns).is_err() || shape.cap_height > log_rows + shape.rate_bits {
        return Err(BackendError::Unsupported(format!(
            "an oracle of {n_columns} columns, {n_rows} rows, rate bits {} and cap height {}: rows must be a power of two, and the cap no \
             higher than the tree",
            shape.rate_bits, shape.cap_height
        )));
    }
    Device::check_log_leaves(log_rows + shape.rate_bits)?;
    Ok(log_rows)
}
