//! Committed oracles: coefficients and low-degree extension by columns, and the Merkle tree over the extension's rows.

use std::borrow::Cow;
use std::sync::Arc;

use plonky2::field::types::Field;
use rayon::prelude::*;
use zkinfer_circuits::backend::{BackendError, CommitShape, OracleSizes, QueryAnswer};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{F, ORDER};

use super::buffer::zeros;
use super::transform::{Coset, MAX_LOG_SIZE, RootTables};
use super::tree::Tree;

/// Widest oracle whose values on G are kept; those of a wider one are transformed back when a step reads them.
const MAX_KEPT_COLUMNS: usize = 64;

/// A committed oracle.
#[derive(Debug)]
pub struct Oracle {
    pub(crate) log_rows: usize,
    pub(crate) shape: CommitShape,
    /// Column after column, 2^log_rows coefficients each.
    pub(crate) coefficients: Vec<F>,
    /// Column after column, 2^(log_rows + rate_bits) values each on the coset, bit-reversed: the order of leaves. Then the salt, if there is any.
    pub(crate) extension: Vec<F>,
    pub(crate) tree: Tree,
    /// Values on G, natural order, if they were kept.
    rows: Option<Columns>,
}

impl Oracle {
    /// Interpolates, extends and commits columns.
    pub(crate) fn commit(tables: &RootTables, columns: &Columns, shape: CommitShape) -> Result<Self, BackendError> {
        let log_rows = checked_log_rows(columns.rows(), columns.n_columns(), shape)?;
        let coefficients = interpolate(tables, columns, log_rows);
        let rows = (columns.n_columns() <= MAX_KEPT_COLUMNS).then(|| columns.clone());
        let oracle = Self::commit_coefficients(tables, log_rows, coefficients, shape)?;
        Ok(Self { rows, ..oracle })
    }

    /// Extends and commits polynomials given by coefficients, column after column.
    pub(crate) fn commit_coefficients(
        tables: &RootTables,
        log_rows: usize,
        coefficients: Vec<F>,
        shape: CommitShape,
    ) -> Result<Self, BackendError> {
        Self::commit_salted(tables, log_rows, coefficients, &[], shape)
    }

    /// The same with further columns of the leaves, `salt`, that are no values of polynomials.
    pub(crate) fn commit_salted(
        tables: &RootTables,
        log_rows: usize,
        coefficients: Vec<F>,
        salt: &[F],
        shape: CommitShape,
    ) -> Result<Self, BackendError> {
        let n_columns = coefficients.len() >> log_rows;
        checked_log_rows(1 << log_rows, n_columns, shape)?;
        let cosets = tables.cosets(log_rows, shape.rate_bits, F::coset_shift());
        let columns: Vec<&[F]> = coefficients.chunks_exact(1 << log_rows).collect();
        let extension = extend_before(&columns, &cosets, 1 << log_rows, salt);
        let tree = Tree::from_columns(tables.dispatch(), &extension, 1 << (log_rows + shape.rate_bits), shape.cap_height);
        Ok(Self { log_rows, shape, coefficients, extension, tree, rows: None })
    }

    /// An oracle from its parts, whose sizes agree.
    pub(crate) fn from_parts(log_rows: usize, shape: CommitShape, coefficients: Vec<F>, extension: Vec<F>, tree: Tree) -> Self {
        Self { log_rows, shape, coefficients, extension, tree, rows: None }
    }

    pub(crate) fn sizes(&self) -> OracleSizes {
        OracleSizes { log_rows: self.log_rows, n_columns: self.n_columns(), shape: self.shape }
    }

    pub(crate) fn n_rows(&self) -> usize {
        1 << self.log_rows
    }

    pub(crate) fn n_columns(&self) -> usize {
        self.coefficients.len() >> self.log_rows
    }

    pub(crate) fn n_leaves(&self) -> usize {
        1 << (self.log_rows + self.shape.rate_bits)
    }

    /// Coefficients of a column that exists.
    pub(crate) fn coefficients(&self, column: usize) -> &[F] {
        &self.coefficients[column << self.log_rows..(column + 1) << self.log_rows]
    }

    /// A column on the extended domain, in the order of leaves.
    ///
    /// # Panics
    /// If there is no such column.
    pub fn extension(&self, column: usize) -> &[F] {
        let log_leaves = self.log_rows + self.shape.rate_bits;
        &self.extension[column << log_leaves..(column + 1) << log_leaves]
    }

    /// A column on G in natural order.
    pub(crate) fn row_values(&self, tables: &RootTables, column: usize) -> Cow<'_, [F]> {
        match &self.rows {
            Some(rows) => Cow::Borrowed(rows.column(column)),
            None => Cow::Owned(values_on_rows(tables, self.coefficients(column))),
        }
    }

    /// The row and the path of a leaf.
    pub(crate) fn query(&self, leaf: usize) -> Result<QueryAnswer, BackendError> {
        let n_leaves = self.n_leaves();
        if leaf >= n_leaves {
            return Err(BackendError::Unsupported(format!("leaf {leaf} of {n_leaves} was asked for")));
        }
        let row = self.extension.chunks_exact(n_leaves).map(|column| column[leaf]).collect();
        Ok((row, self.tree.path(leaf)))
    }
}

/// Coefficients of columns of 2^log_rows values on G, column after column.
pub(crate) fn interpolate(tables: &RootTables, columns: &Columns, log_rows: usize) -> Vec<F> {
    let mut coefficients = zeros(columns.as_flat().len());
    let domain = tables.coset(log_rows, F::ONE);
    let inverse = domain.inverse();
    let targets = coefficients.par_chunks_mut(1 << log_rows).zip(columns.as_flat().par_chunks(1 << log_rows));
    targets.for_each(|(coefficients, values)| inverse.apply_from(values, coefficients));
    coefficients
}

/// Values of a polynomial on G, in natural order.
pub(crate) fn values_on_rows(tables: &RootTables, coefficients: &[F]) -> Vec<F> {
    let mut values = coefficients.to_vec();
    tables.coset(values.len().trailing_zeros() as usize, F::ONE).forward(&mut values);
    super::transform::reversed(tables.dispatch(), &values)
}

/// Every column on every coset, one after another; the columns have at most `coset_size` coefficients.
pub(crate) fn extend(columns: &[&[F]], cosets: &[Arc<Coset>], coset_size: usize) -> Vec<F> {
    extend_before(columns, cosets, coset_size, &[])
}

/// The same, followed by `last`: appended later, it would make the whole extension move.
fn extend_before(columns: &[&[F]], cosets: &[Arc<Coset>], coset_size: usize, last: &[F]) -> Vec<F> {
    let length = columns.len() * cosets.len() * coset_size;
    let mut extension = zeros(length + last.len());
    let (values, rest) = extension.split_at_mut(length);
    rest.copy_from_slice(last);
    values.par_chunks_mut(coset_size).enumerate().for_each(|(index, values)| {
        cosets[index % cosets.len()].forward_from(columns[index / cosets.len()], values);
    });
    extension
}

/// log₂ of the rows, after checking that an oracle of this shape can exist.
fn checked_log_rows(n_rows: usize, n_columns: usize, shape: CommitShape) -> Result<usize, BackendError> {
    let log_rows = n_rows.trailing_zeros() as usize;
    let fits = n_rows.is_power_of_two() && log_rows + shape.rate_bits < MAX_LOG_SIZE;
    if !fits || n_columns == 0 || shape.cap_height > log_rows + shape.rate_bits {
        return Err(BackendError::Unsupported(format!(
            "an oracle of {n_columns} columns, {n_rows} rows, rate bits {} and cap height {}: rows must be a power of two, \
             log2(rows) + rate bits at most 31 and at least the cap height",
            shape.rate_bits, shape.cap_height
        )));
    }
    Ok(log_rows)
}

/// Whether a word encodes a field element canonically.
pub(crate) fn is_canonical(word: u64) -> bool {
    word < ORDER
}
