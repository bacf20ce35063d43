//! Requantization `y = clamp(⌊(v + 2^(s−1)) / 2^s⌋, lo, hi)` of an expression v, with u = y − lo.
//!
//! One signed overshoot serves both clamps: `v + 2^(s−1) = (y + σ·e)·2^s + rem`, σ = 2u/R − 1, which is +1 at u = R and −1 at u = 0;
//! strictly between, CLAMP forces e = 0. With `0 ≤ u ≤ R`, `0 ≤ rem < 2^s`, `0 ≤ e < 2^24` and no wrap (checked on the program),
//! y is the unique solution over the integers (`docs/PROTOCOL.md` §3).

use super::lookup::{LookupNames, byte_lookups};
use super::table::ByteTable;
use crate::air::{Domain, Node, OracleId, SystemBuilder};
use crate::field::{F, ORDER, from_signed};
use crate::layer::theta;
use plonky2::field::types::Field;

/// Limbs of the overshoot.
pub const N_OVERSHOOT: usize = 3;
/// The overshoot is below 2^24.
pub const OVERSHOOT_BITS: u32 = 24;

/// Which inequality of `docs/PROTOCOL.md` §1 a requantization violates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsafe {
    /// A side of REQUANT, at most this large, could reach p.
    Wrap(u128),
    /// A value could overshoot the clamp by 2^24 or more.
    Overshoot,
}

/// Checks both inequalities for a product of absolute value at most `product_bound` (A), below 2^100; `1 ≤ shift ≤ 39`:
/// ```text
/// no wrap     2^s·(max(|lo|, |hi|) + 2^24 + 1) + A + 2^(s−1) < p
/// overshoot   ⌊A/2^s⌋ + 1 + max(|lo|, |hi|) < 2^24
/// ```
/// The second is what e ≤ |⌊(v + 2^(s−1))/2^s⌋| + max(|lo|, |hi|) needs. The one place of this rule, for importer, prover and verifier.
///
/// # Errors
/// Which one fails, the first first.
pub fn check_product(product_bound: u128, shift: u32, lo: i64, hi: i64) -> Result<(), Unsafe> {
    let largest_output = u128::from(lo.unsigned_abs().max(hi.unsigned_abs()));
    let largest = ((largest_output + (1 << OVERSHOOT_BITS) + 1) << shift) + product_bound + (1u128 << (shift - 1));
    if largest >= u128::from(ORDER) {
        return Err(Unsafe::Wrap(largest));
    }
    if (product_bound >> shift) + 1 + largest_output >= 1 << OVERSHOOT_BITS {
        return Err(Unsafe::Overshoot);
    }
    Ok(())
}

/// Columns that hold a requantized value.
#[derive(Clone, Debug)]
pub struct RequantColumns {
    /// u = y − lo on active rows, 0 elsewhere.
    pub offset_output: Node,
    remainder: Vec<Node>,
    overshoot: Vec<Node>,
}

/// Adds `u`, `r0 … r4`, `e0 … e2` to main.
pub fn requant_columns(b: &mut SystemBuilder) -> RequantColumns {
    let offset_output = b.column(OracleId::Main, "u");
    let remainder = (0..theta::N_REMAINDER).map(|k| b.column(OracleId::Main, format!("r{k}"))).collect();
    let overshoot = (0..N_OVERSHOOT).map(|k| b.column(OracleId::Main, format!("e{k}"))).collect();
    RequantColumns { offset_output, remainder, overshoot }
}

fn parameters(b: &mut SystemBuilder, first: usize, count: usize) -> Vec<Node> {
    (first..first + count).map(|index| b.arena.parameter(index)).collect()
}

/// Constrains `u + lo` to be the requantization of `scaled` (an expression of degree ≤ 2) on rows where `active` is 1.
pub fn requantize(b: &mut SystemBuilder, columns: &RequantColumns, scaled: Node, active: Node, table: ByteTable) {
    let u = columns.offset_output;
    let one = b.arena.constant(1);
    let range = b.arena.parameter(theta::RANGE);
    let headroom = b.arena.sub(range, u);
    // MASK-OUT  (1 − active)·u = 0
    let inactive = b.arena.sub(one, active);
    let masked = b.arena.mul(inactive, u);
    b.constrain("MASK-OUT", Domain::Every, masked);
    // CLAMP  e·u·(R − u) = 0,  e = e0 + 2^8·e1 + 2^16·e2
    let bases: Vec<Node> = (0..N_OVERSHOOT).map(|k| b.arena.constant(1 << (8 * k))).collect();
    let overshoot = b.arena.inner_product(&bases, &columns.overshoot);
    let interior = b.arena.mul(u, headroom);
    let clamp = b.arena.mul(overshoot, interior);
    b.constrain("CLAMP", Domain::Every, clamp);
    // REQUANT  active·(v − ((u + lo + (2u/R − 1)·e)·2^s + rem − 2^(s−1))) = 0
    let lo = b.arena.parameter(theta::LO);
    let inverse_range = b.arena.parameter(theta::INVERSE_RANGE);
    let scale = b.arena.parameter(theta::SCALE);
    let half = b.arena.parameter(theta::HALF);
    let two_over_range = b.arena.add(inverse_range, inverse_range);
    let sign = b.arena.mul(two_over_range, u);
    let sign = b.arena.sub(sign, one);
    let signed_overshoot = b.arena.mul(sign, overshoot);
    let output = b.arena.add(u, lo);
    let quotient = b.arena.add(output, signed_overshoot);
    let quotient = b.arena.mul(quotient, scale);
    let weights = parameters(b, theta::REMAINDER, theta::N_REMAINDER);
    let remainder = b.arena.inner_product(&weights, &columns.remainder);
    let right = b.arena.add(quotient, remainder);
    let right = b.arena.sub(right, half);
    let difference = b.arena.sub(scaled, right);
    let zero = b.arena.mul(active, difference);
    b.constrain("REQUANT", Domain::Every, zero);
    // LOOKUP-0 … LOOKUP-5: u, R − u, limbs of rem, its scaled top limb, limbs of e
    let top_weights = parameters(b, theta::REMAINDER_TOP, theta::N_REMAINDER);
    let top = b.arena.inner_product(&top_weights, &columns.remainder);
    let mut cells = vec![u, headroom];
    cells.extend(&columns.remainder);
    cells.push(top);
    cells.extend(&columns.overshoot);
    byte_lookups(b, &cells, table, LookupNames { constraint: "LOOKUP", sum: "SUM-LOOKUP" });
}

/// Values of the columns of one requantized element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequantWitness {
    /// The clamped output.
    pub output: i64,
    /// The overshoot beyond the clamp.
    pub overshoot: u64,
    /// The remainder, in `[0, 2^s)`.
    pub remainder: u64,
}

/// The honest witness of `clamp(⌊(scaled + 2^(s−1)) / 2^s⌋, lo, hi)`; 1 ≤ s ≤ 39, `lo ≤ hi`.
pub fn requant_witness(scaled: i128, shift: u32, lo: i64, hi: i64) -> RequantWitness {
    let biased = scaled + (1i128 << (shift - 1));
    let quotient = biased >> shift;
    let remainder = (biased - (quotient << shift)) as u64;
    let output = quotient.clamp(i128::from(lo), i128::from(hi)) as i64;
    let overshoot = (quotient - i128::from(output)).unsigned_abs() as u64;
    RequantWitness { output, overshoot, remainder }
}

/// The columns `u, r0 … r4, e0 … e2` of rows of witnesses, padded with rows of the value zero to `n_rows`.
pub fn requant_values(witnesses: &[RequantWitness], lo: i64, n_rows: usize) -> Vec<Vec<F>> {
    let mut columns = vec![vec![F::ZERO; n_rows]; 1 + theta::N_REMAINDER + N_OVERSHOOT];
    for (row, witness) in witnesses.iter().enumerate() {
        columns[0][row] = from_signed(witness.output - lo);
        for k in 0..theta::N_REMAINDER {
            columns[1 + k][row] = F::from_canonical_u64((witness.remainder >> (8 * k)) & 255);
        }
        for k in 0..N_OVERSHOOT {
            columns[1 + theta::N_REMAINDER + k][row] = F::from_canonical_u64((witness.overshoot >> (8 * k)) & 255);
        }
    }
    columns
}
