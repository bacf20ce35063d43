//! The table of bytes: a main column whose values are exactly 0 … 255, without any preprocessed column.
//!
//! It starts at 0, rises by 0 or 1 from row to row, and ends at 255; n ≥ 256 rows.

use crate::air::{Domain, Node, OracleId, Rotation, SystemBuilder};
use crate::field::F;
use plonky2::field::types::Field;

/// The table's columns.
#[derive(Clone, Copy, Debug)]
pub struct ByteTable {
    /// The byte of a row.
    pub table: Node,
    /// How often lookups read this row.
    pub count: Node,
}

/// Adds columns `table`, `count` to main, and the TABLE constraints.
pub fn byte_table(b: &mut SystemBuilder) -> ByteTable {
    let table = b.column(OracleId::Main, "table");
    let count = b.column(OracleId::Main, "count");
    // TABLE-FIRST  table = 0 on row 0
    b.constrain("TABLE-FIRST", Domain::First, table);
    // TABLE-STEP   (table(gX) − table)·(table(gX) − table − 1) = 0 on rows 0 … n − 2
    let next = b.rotate(table, Rotation::Next);
    let rise = b.arena.sub(next, table);
    let one = b.arena.constant(1);
    let rise_minus_one = b.arena.sub(rise, one);
    let step = b.arena.mul(rise, rise_minus_one);
    b.constrain("TABLE-STEP", Domain::Step, step);
    // TABLE-LAST   table = 255 on row n − 1
    let last = b.arena.constant(255);
    let zero = b.arena.sub(table, last);
    b.constrain("TABLE-LAST", Domain::Last, zero);
    ByteTable { table, count }
}

/// The honest table column: row r holds min(r, 255).
pub fn table_values(n_rows: usize) -> Vec<F> {
    (0..n_rows).map(|row| F::from_canonical_usize(row.min(255))).collect()
}
