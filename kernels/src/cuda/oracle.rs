//! Committed oracles on the device: coefficients and extension by columns, and the tree over the extension's rows.

use cudarc::driver::CudaView;
use plonky2::field::types::Field;
use zkinfer_circuits::backend::{BackendError, CommitShape, QueryAnswer};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::F;

use super::device::{Argument, Device, Lane};
use super::memory::Buffer;
use super::transform::{extend, interpolate};
use super::tree::{Tree, elements};
use crate::cpu::oracle::Oracle as CpuOracle;
use crate::cpu::saved;
use crate::cpu::tree::Tree as CpuTree;

/// A committed oracle.
#[derive(Debug)]
pub struct Oracle {
    pub(crate) log_rows: usize,
    pub(crate) shape: CommitShape,
    pub(crate) n_columns: usize,
    /// Column after column, 2^log_rows coefficients each.
    coefficients: Buffer,
    /// Column after column, 2^(log_rows + rate_bits) values each, in the order of leaves.
    extension: Buffer,
    pub(crate) tree: Tree,
}

impl Oracle {
    /// Interpolates, extends and commits columns.
    pub(crate) fn commit(lane: Lane<'_>, columns: &Columns, shape: CommitShape) -> Result<Self, BackendError> {
        let log_rows = check_sizes(columns.rows(), columns.n_columns(), shape)?;
        let flat = columns.as_flat();
        let values = lane.upload_with(flat.len(), |first, words| {
            for (word, value) in words.iter_mut().zip(&flat[first..]) {
                *word = value.0;
            }
        })?;
        Self::commit_values(lane, &values.part(0, flat.len()), log_rows, shape)
    }

    /// As [`Oracle::commit`], of values on the device in natural order.
    pub(crate) fn commit_values(
        lane: Lane<'_>,
        values: &CudaView<'_, u64>,
        log_rows: usize,
        shape: CommitShape,
    ) -> Result<Self, BackendError> {
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
    pub(crate) fn coefficients(&self, columns: std::ops::Range<usize>) -> CudaView<'_, u64> {
        self.coefficients.part(columns.start << self.log_rows, columns.len() << self.log_rows)
    }

    /// The whole extension.
    pub(crate) fn extension(&self) -> CudaView<'_, u64> {
        self.extension.view()
    }

    /// The row and the path of a leaf.
    pub(crate) fn query(&self, lane: Lane<'_>, leaf: usize) -> Result<QueryAnswer, BackendError> {
        let n_leaves = 1usize << self.log_leaves();
        if leaf >= n_leaves {
            return Err(BackendError::Unsupported(format!("leaf {leaf} of {n_leaves} was asked for")));
        }
        self.tree.answer(lane, self.extension(), leaf)
    }

    /// The bytes that the CPU backend writes.
    pub(crate) fn save(&self, lane: Lane<'_>) -> Result<Vec<u8>, BackendError> {
        let coefficients = elements(&lane.download(&self.coefficients.view())?);
        let extension = elements(&lane.download(&self.extension.view())?);
        let tree = CpuTree::from_levels(self.tree.levels(lane)?);
        Ok(saved::save(&CpuOracle::from_parts(self.log_rows, self.shape, coefficients, extension, tree)))
    }

    /// An oracle from its bytes.
    pub(crate) fn load(lane: Lane<'_>, bytes: &[u8]) -> Result<Self, BackendError> {
        let host = saved::load(bytes)?;
        Device::check_log_leaves(host.log_rows + host.shape.rate_bits)?;
        let upload = |values: &[F]| {
            lane.upload_with(values.len(), |first, words| {
                for (word, value) in words.iter_mut().zip(&values[first..]) {
                    *word = value.0;
                }
            })
        };
        let (coefficients, extension) = (upload(&host.coefficients)?, upload(&host.extension)?);
        let tree = Tree::from_levels(lane, host.tree.levels())?;
        Ok(Self { log_rows: host.log_rows, shape: host.shape, n_columns: host.n_columns(), coefficients, extension, tree })
    }
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
