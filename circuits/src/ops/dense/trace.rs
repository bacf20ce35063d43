//! The honest columns of a dense layer.

use crate::columns::Columns;
use crate::field::{F, from_signed};
use crate::gadgets::requantize::{RequantWitness, requant_values, requant_witness};
use crate::gadgets::table::table_values;
use crate::layer::spec::{LayerSpec, OutputRule};
use crate::ops::trace::{TraceError, check_overshoot, constant_limbs, pad};
use plonky2::field::types::Field;
use rayon::prelude::*;

/// Private constants of a dense layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DenseConstants {
    /// W, row-major `[n_outputs, n_inputs]`.
    pub weights: Vec<i8>,
    /// b, `[n_outputs]`.
    pub bias: Vec<i64>,
    /// M, `[n_outputs]`; empty for a raw layer.
    pub multipliers: Vec<u32>,
}

/// The weights oracle: `W_0 … W_{C−1}, bias, mult, active` (`docs/PROTOCOL.md` §2).
pub fn weight_columns(spec: &LayerSpec, constants: &DenseConstants) -> Columns {
    let (rows, n_columns, period) = (spec.kind.rows(), spec.kind.n_columns, spec.period());
    let mut columns = Columns::zero(rows, n_columns + 3);
    for (output, weights) in constants.weights.chunks(spec.n_inputs).enumerate() {
        let (group, column) = (output / n_columns, output % n_columns);
        let cells = &mut columns.column_mut(column)[group * period..];
        for (cell, &weight) in cells.iter_mut().zip(weights) {
            *cell = from_signed(weight.into());
        }
    }
    for (row, &bias) in constants.bias.iter().enumerate() {
        columns.column_mut(n_columns)[row] = from_signed(bias);
    }
    for (row, &multiplier) in constants.multipliers.iter().enumerate() {
        columns.column_mut(n_columns + 1)[row] = F::from_canonical_u32(multiplier);
    }
    columns.column_mut(n_columns + 2)[..spec.n_outputs].fill(F::ONE);
    columns
}

/// The main oracle up to `table`, and the layer's output values.
///
/// # Errors
/// [`TraceError`] if an overshoot exceeds 24 bits: the input is outside the range that the program states.
pub fn main_columns(spec: &LayerSpec, constants: &DenseConstants, input: &[i64]) -> Result<(Columns, Vec<i64>), TraceError> {
    let rows = spec.kind.rows();
    let accumulators = accumulate(constants, input);
    let (shift, lo, hi) = spec.requantization();
    let witnesses: Vec<RequantWitness> = (0..spec.n_outputs)
        .map(|output| {
            let multiplier = constants.multipliers.get(output).copied().unwrap_or(0);
            requant_witness(i128::from(accumulators[output]) * i128::from(multiplier), shift, lo, hi)
        })
        .collect();
    check_overshoot(&witnesses)?;
    let outputs = match spec.output {
        OutputRule::Raw => accumulators.clone(),
        OutputRule::Requantize { .. } => witnesses.iter().map(|witness| witness.output).collect(),
    };
    let mut columns = vec![pad(input, rows)];
    columns.extend(requant_values(&witnesses, lo, rows));
    columns.push(pad(&accumulators, rows));
    columns.push(table_values(rows));
    Ok((Columns::from_columns(rows, &columns), outputs))
}

/// `acc = W x + b`; |acc| < 2^62 is checked when the program is.
fn accumulate(constants: &DenseConstants, input: &[i64]) -> Vec<i64> {
    constants
        .weights
        .par_chunks(input.len())
        .zip(&constants.bias)
        .map(|(weights, &bias)| weights.iter().zip(input).map(|(&w, &x)| i64::from(w) * x).sum::<i64>() + bias)
        .collect()
}

/// The registration's main oracle up to `table`: limbs of bias and multiplier.
///
/// # Errors
/// [`TraceError::ConstantRange`].
pub fn registration_columns(spec: &LayerSpec, weights: &Columns) -> Result<Columns, TraceError> {
    let rows = spec.kind.rows();
    let bias = weights.column(spec.kind.n_columns);
    let offset = F::from_canonical_u64(1 << spec.bias_bits);
    let shifted: Vec<F> = bias.iter().map(|&bias| bias + offset).collect();
    let mut columns = constant_limbs(&shifted, spec.bias_bits + 1, "bias")?;
    columns.extend(constant_limbs(weights.column(spec.kind.n_columns + 1), spec.mult_bits, "multiplier")?);
    columns.push(table_values(rows));
    Ok(Columns::from_columns(rows, &columns))
}
