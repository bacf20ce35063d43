//! logUp (eprint 2022/1530) into the table of bytes: two lookups to a K column.
//!
//! For cells a, b: `h = 1/(α − a) + 1/(α − b)`; the last column pairs a cell with the table:
//! `h = 1/(α − a) − count/(α − table)`. The sum of all h over all rows is 0 iff every looked-up cell is a byte (up to |cells|·n/|K|).

use super::table::ByteTable;
use crate::air::{Domain, Node, Rule, SystemBuilder, Total};
use crate::layer::theta;

/// Names of the lookup constraints and of their sum.
#[derive(Clone, Copy, Debug)]
pub struct LookupNames {
    /// Prefix of the helper constraints.
    pub constraint: &'static str,
    /// Id of the summand.
    pub sum: &'static str,
}

/// Constrains every cell of `cells` (an odd number of expressions of degree 1) to be a byte.
///
/// # Panics
/// If the number of cells is even: an error in the definition of an operator.
pub fn byte_lookups(b: &mut SystemBuilder, cells: &[Node], table: ByteTable, names: LookupNames) {
    assert_eq!(cells.len() % 2, 1, "the table pairs with the last cell");
    let alpha = b.arena.challenge(theta::ALPHA);
    let mut helpers = Vec::new();
    for (k, pair) in cells.chunks(2).enumerate() {
        let from_alpha = b.arena.sub(alpha, pair[0]);
        let (numerator, denominator) = match pair.get(1) {
            // LOOKUP-k  h_k·(α − a)(α − b) − ((α − a) + (α − b)) = 0
            Some(&second) => {
                let other = b.arena.sub(alpha, second);
                (b.arena.add(from_alpha, other), b.arena.mul(from_alpha, other))
            }
            // LOOKUP-last  h·(α − a)(α − table) − ((α − table) − count·(α − a)) = 0
            None => {
                let other = b.arena.sub(alpha, table.table);
                let counted = b.arena.mul(table.count, from_alpha);
                (b.arena.sub(other, counted), b.arena.mul(from_alpha, other))
            }
        };
        let helper = b.projected(&format!("h{k}"), Rule::Quotient { numerator, denominator });
        let scaled = b.arena.mul(helper, denominator);
        let zero = b.arena.sub(scaled, numerator);
        b.constrain(format!("{}-{k}", names.constraint), Domain::Every, zero);
        helpers.push(helper);
    }
    let sum = b.arena.sum(&helpers);
    b.sum(names.sum, sum, Total::Zero);
}
