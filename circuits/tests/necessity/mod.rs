//! One attack for each constraint.

pub mod inference;
pub mod registration;

use plonky2::field::types::Field;
use zkinfer_circuits::field::{F, from_signed};
use zkinfer_circuits::kind::Operator;

use crate::support::forge::Forgery;

/// A forgery that one constraint alone stops.
pub struct Attack {
    /// Id of the constraint or summand.
    pub id: &'static str,
    /// Builds the false witness.
    pub forge: fn(Operator) -> Forgery,
}

/// Fills the table's column with values of the rows.
pub fn set_table(forgery: &mut Forgery, value: impl Fn(i64) -> i64) {
    for (row, cell) in forgery.main("table").iter_mut().enumerate() {
        *cell = from_signed(value(row as i64));
    }
}

/// A table that violates TABLE-FIRST alone: −100 … 255.
pub fn table_from_minus_100(row: i64) -> i64 {
    (row - 100).min(255)
}

/// A table that violates TABLE-LAST alone: 0 … 511.
pub fn table_to_511(row: i64) -> i64 {
    row
}

/// A table that violates TABLE-STEP alone: row 256 holds `extra`, which is no byte.
pub fn table_with(extra: i64) -> impl Fn(i64) -> i64 {
    move |row| if row == 256 { extra } else { row.min(255) }
}

/// b/2 in F.
pub fn half(b: u64) -> F {
    F::from_canonical_u64(b) / F::TWO
}
