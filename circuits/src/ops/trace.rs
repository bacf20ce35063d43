//! The honest prover's columns: one entry for all operators, and the multiplicities of lookups.

use plonky2::field::types::{Field, PrimeField64};

use super::add::trace::AddConstants;
use super::dense::trace::DenseConstants;
use super::{add, dense};
use crate::air::{Arena, ConstraintSystem, Node, Op, OracleId, Rule};
use crate::columns::Columns;
use crate::field::{F, from_signed};
use crate::gadgets::requantize::{OVERSHOOT_BITS, RequantWitness};
use crate::kind::Role;
use crate::layer::spec::LayerSpec;
use crate::layer::theta;

/// Private constants of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerConstants {
    /// Of a dense layer.
    Dense(DenseConstants),
    /// Of an add layer.
    Add(AddConstants),
}

/// Why an honest trace could not be computed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// A value overshoots its clamp by 24 bits or more; [`LayerSpec::check_no_wrap`] excludes it for inputs in range.
    #[error("output {row} overshoots its clamp by {overshoot}, which is 2^24 or more: an input is out of the program's range")]
    Overshoot {
        /// Index of the output.
        row: usize,
        /// The overshoot.
        overshoot: u64,
    },
    /// A private constant exceeds its registered width.
    #[error("the {constant} of output {row} does not fit the {bits} bits that the program registers for it (a bias with its offset)")]
    ConstantRange {
        /// Which constant.
        constant: &'static str,
        /// Index of the output.
        row: usize,
        /// Its registered width.
        bits: u32,
    },
    /// A looked-up cell is not a byte.
    #[error("lookup cell {cell} of row {row} is not a byte: a private constant is out of its registered range")]
    NotAByte {
        /// Index of the cell expression.
        cell: usize,
        /// The row.
        row: usize,
    },
}

/// The weights oracle's columns.
pub fn weight_columns(spec: &LayerSpec, constants: &LayerConstants) -> Columns {
    match constants {
        LayerConstants::Dense(constants) => dense::trace::weight_columns(spec, constants),
        LayerConstants::Add(multipliers) => add::trace::weight_columns(spec, *multipliers),
    }
}

/// The inference main oracle and the output tensor.
///
/// # Errors
/// [`TraceError`].
pub fn main_columns(
    system: &ConstraintSystem,
    spec: &LayerSpec,
    constants: &LayerConstants,
    weights: &Columns,
    inputs: [&[i64]; 2],
) -> Result<(Columns, Vec<i64>), TraceError> {
    let (columns, outputs) = match constants {
        LayerConstants::Dense(constants) => dense::trace::main_columns(spec, constants, inputs[0])?,
        LayerConstants::Add(multipliers) => add::trace::main_columns(spec, *multipliers, inputs)?,
    };
    let columns = with_multiplicities(system, spec, weights, columns)?;
    Ok((columns, outputs))
}

/// The registration main oracle.
///
/// # Errors
/// [`TraceError::NotAByte`] if a private constant is out of range.
pub fn registration_columns(system: &ConstraintSystem, spec: &LayerSpec, weights: &Columns) -> Result<Columns, TraceError> {
    let columns = match spec.kind.operator {
        crate::kind::Operator::Dense => dense::trace::registration_columns(spec, weights)?,
        crate::kind::Operator::Add => add::trace::registration_columns(spec, weights)?,
    };
    with_multiplicities(system, spec, weights, columns)
}

/// The constraint system that [`main_columns`] or [`registration_columns`] fills.
pub fn system_of(spec: &LayerSpec, role: Role) -> ConstraintSystem {
    super::system(&spec.kind, role)
}

pub(crate) fn pad(values: &[i64], rows: usize) -> Vec<F> {
    let mut column: Vec<F> = values.iter().map(|&value| from_signed(value)).collect();
    column.resize(rows, F::ZERO);
    column
}

pub(crate) fn check_overshoot(witnesses: &[RequantWitness]) -> Result<(), TraceError> {
    match witnesses.iter().position(|witness| witness.overshoot >> OVERSHOOT_BITS != 0) {
        None => Ok(()),
        Some(row) => Err(TraceError::Overshoot { row, overshoot: witnesses[row].overshoot }),
    }
}

/// The bytes of values below 2^bits, column by column.
pub(crate) fn constant_limbs(values: &[F], bits: u32, constant: &'static str) -> Result<Vec<Vec<F>>, TraceError> {
    if let Some(row) = values.iter().position(|value| value.to_canonical_u64() >> bits != 0) {
        return Err(TraceError::ConstantRange { constant, row, bits });
    }
    Ok((0..theta::N_CONSTANT_LIMBS)
        .map(|k| values.iter().map(|v| F::from_canonical_u64((v.to_canonical_u64() >> (8 * k)) & 255)).collect())
        .collect())
}

/// Appends `count`: how often each byte is looked up over all rows; byte b < 255 is counted on row b, 255 on row 255.
fn with_multiplicities(system: &ConstraintSystem, spec: &LayerSpec, weights: &Columns, main: Columns) -> Result<Columns, TraceError> {
    let rows = main.rows();
    let theta = spec.theta();
    let mut counts = vec![0u64; rows];
    for (index, cell) in lookup_cells(system).into_iter().enumerate() {
        let values = BaseRows { arena: &system.arena, theta: &theta, weights, main: &main };
        for row in 0..rows {
            let value = values.at(cell, row).to_canonical_u64();
            if value > 255 {
                return Err(TraceError::NotAByte { cell: index, row });
            }
            counts[value as usize] += 1;
        }
    }
    let mut columns: Vec<Vec<F>> = main.iter().map(<[F]>::to_vec).collect();
    columns.push(counts.into_iter().map(F::from_canonical_u64).collect());
    Ok(Columns::from_columns(rows, &columns))
}

/// The looked-up expressions, recovered from the denominators (α − a)(α − b); the table is the last factor.
fn lookup_cells(system: &ConstraintSystem) -> Vec<Node> {
    let ops = system.arena.ops();
    let mut cells = Vec::new();
    for rule in &system.rules {
        if let Rule::Quotient { denominator, .. } = rule
            && let Op::Mul(a, b) = ops[denominator.0 as usize]
        {
            for factor in [a, b] {
                if let Op::Sub(_, cell) = ops[factor.0 as usize] {
                    cells.push(cell);
                }
            }
        }
    }
    cells.pop();
    cells
}

/// Evaluates base-field expressions row by row.
struct BaseRows<'a> {
    arena: &'a Arena,
    theta: &'a [F],
    weights: &'a Columns,
    main: &'a Columns,
}

impl BaseRows<'_> {
    fn at(&self, node: Node, row: usize) -> F {
        match self.arena.ops()[node.0 as usize] {
            Op::Constant(value) => F::from_canonical_u64(value),
            Op::Parameter(index) => self.theta[index],
            Op::Cell(cell) if cell.oracle == OracleId::Weights => self.weights.column(cell.column)[row],
            Op::Cell(cell) => self.main.column(cell.column)[row],
            Op::Add(a, b) => self.at(a, row) + self.at(b, row),
            Op::Sub(a, b) => self.at(a, row) - self.at(b, row),
            Op::Mul(a, b) => self.at(a, row) * self.at(b, row),
            Op::ExtCell(_) | Op::Challenge(_) | Op::Combined => unreachable!("looked-up cells are in F"),
        }
    }
}
