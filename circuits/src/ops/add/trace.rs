//! The honest columns of an add layer.

use crate::columns::Columns;
use crate::field::F;
use crate::gadgets::requantize::{RequantWitness, requant_values, requant_witness};
use crate::gadgets::table::table_values;
use crate::layer::spec::LayerSpec;
use crate::ops::trace::{TraceError, check_overshoot, constant_limbs, pad};
use plonky2::field::types::Field;

/// Private constants of an add layer: M₁, M₂.
pub type AddConstants = [u32; 2];

/// The weights oracle: `mult1, mult2, active`; multipliers stand on active rows.
pub fn weight_columns(spec: &LayerSpec, multipliers: AddConstants) -> Columns {
    let mut columns = Columns::zero(spec.kind.rows(), 3);
    for (column, value) in [multipliers[0], multipliers[1], 1].into_iter().enumerate() {
        columns.column_mut(column)[..spec.n_outputs].fill(F::from_canonical_u32(value));
    }
    columns
}

/// The main oracle up to `table`, and the output values.
///
/// # Errors
/// [`TraceError`] if an overshoot exceeds 24 bits.
pub fn main_columns(spec: &LayerSpec, multipliers: AddConstants, inputs: [&[i64]; 2]) -> Result<(Columns, Vec<i64>), TraceError> {
    let rows = spec.kind.rows();
    let (shift, lo, hi) = spec.requantization();
    let witnesses: Vec<RequantWitness> = inputs[0]
        .iter()
        .zip(inputs[1])
        .map(|(&a, &b)| {
            let scaled = i128::from(a) * i128::from(multipliers[0]) + i128::from(b) * i128::from(multipliers[1]);
            requant_witness(scaled, shift, lo, hi)
        })
        .collect();
    check_overshoot(&witnesses)?;
    let outputs = witnesses.iter().map(|witness| witness.output).collect();
    let mut columns = vec![pad(inputs[0], rows), pad(inputs[1], rows)];
    columns.extend(requant_values(&witnesses, lo, rows));
    columns.push(table_values(rows));
    Ok((Columns::from_columns(rows, &columns), outputs))
}

/// The registration's main oracle up to `table`: limbs of both multipliers.
///
/// # Errors
/// [`TraceError::ConstantRange`].
pub fn registration_columns(spec: &LayerSpec, weights: &Columns) -> Result<Columns, TraceError> {
    let rows = spec.kind.rows();
    let mut columns = constant_limbs(weights.column(0), spec.mult_bits, "first multiplier")?;
    columns.extend(constant_limbs(weights.column(1), spec.mult_bits, "second multiplier")?);
    columns.push(table_values(rows));
    Ok(Columns::from_columns(rows, &columns))
}
