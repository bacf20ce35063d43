//! A matrix of field elements, column by column in one flat buffer.

use crate::field::F;
use plonky2::field::types::Field;

/// `n_columns` columns of `rows` elements: element (row, column) at `column·rows + row`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns {
    rows: usize,
    values: Vec<F>,
}

impl Columns {
    /// All zero.
    pub fn zero(rows: usize, n_columns: usize) -> Self {
        Self { rows, values: vec![F::ZERO; rows * n_columns] }
    }

    /// From columns of equal length `rows`.
    ///
    /// # Panics
    /// If a column has another length: an error of the caller.
    pub fn from_columns(rows: usize, columns: &[Vec<F>]) -> Self {
        let mut values = Vec::with_capacity(rows * columns.len());
        for column in columns {
            assert_eq!(column.len(), rows, "every column has one element per row");
            values.extend_from_slice(column);
        }
        Self { rows, values }
    }

    /// From a flat buffer, whose length is a multiple of `rows`.
    ///
    /// # Panics
    /// If it is not: an error of the caller.
    pub fn from_flat(rows: usize, values: Vec<F>) -> Self {
        assert_eq!(values.len() % rows.max(1), 0, "a flat buffer holds whole columns");
        Self { rows, values }
    }

    /// Rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Number of columns.
    pub fn n_columns(&self) -> usize {
        self.values.len().checked_div(self.rows).unwrap_or(0)
    }

    /// One column.
    pub fn column(&self, index: usize) -> &[F] {
        &self.values[index * self.rows..(index + 1) * self.rows]
    }

    /// One column, to be written.
    pub fn column_mut(&mut self, index: usize) -> &mut [F] {
        &mut self.values[index * self.rows..(index + 1) * self.rows]
    }

    /// The columns in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[F]> {
        self.values.chunks(self.rows.max(1))
    }

    /// The flat buffer.
    pub fn as_flat(&self) -> &[F] {
        &self.values
    }
}
