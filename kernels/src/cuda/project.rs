//! The projected oracle on the device: each K column by its rule (`docs/PROTOCOL.md` §2), in natural order.

use cudarc::driver::CudaViewMut;
use zkinfer_circuits::air::{ConstraintSystem, Node, OracleId, Rule};
use zkinfer_circuits::backend::{BackendError, Scalars};
use zkinfer_circuits::field::F;

use plonky2::field::types::Field;

use super::device::{Argument, Lane, Shape};
use super::memory::Buffer;
use super::oracle::Oracle;
use super::polynomial::powers;
use super::program::{Domain, N_ARRAYS, Place, run};
use super::transform::extend;
use crate::cpu::program::{Column, Program, Sink};

/// Elements that one thread divides.
const DIVISIONS_PER_THREAD: u64 = 8;

/// The projected columns on G, 2^log_rows words each.
pub(crate) fn project(
    lane: Lane<'_>,
    system: &ConstraintSystem,
    scalars: Scalars<'_>,
    oracles: [&Oracle; 2],
) -> Result<Buffer, BackendError> {
    let log_rows = oracles[0].log_rows;
    let pair_words = 2usize << log_rows;
    let mut columns = lane.allocate(system.rules.len() * pair_words)?;
    for (index, &rule) in system.rules.iter().enumerate() {
        let target = columns.part_mut(index * pair_words, pair_words);
        match rule {
            Rule::Powers { ratio } => {
                let powers = powers(lane, scalars.challenges[ratio], 1 << log_rows)?;
                lane.copy(&powers.view(), target)?;
            }
            Rule::Fold { source, ratio } => fold(lane, oracles[OracleId::Main as usize], source, scalars, ratio, target)?,
            Rule::Quotient { numerator, denominator } => quotient(lane, system, scalars, oracles, [numerator, denominator], target)?,
        }
    }
    Ok(columns)
}

/// Row q·m + i holds ratio^q · source(i).
fn fold(
    lane: Lane<'_>,
    main: &Oracle,
    source: usize,
    scalars: Scalars<'_>,
    ratio: usize,
    target: CudaViewMut<'_, u64>,
) -> Result<(), BackendError> {
    let n_rows = main.n_rows();
    if scalars.period == 0 || !n_rows.is_multiple_of(scalars.period) {
        return Err(BackendError::Unsupported(format!("groups of {} in {n_rows} rows", scalars.period)));
    }
    let mut values = lane.allocate(n_rows)?;
    on_rows(lane, main, source, values.view_mut())?;
    let ratios = powers(lane, scalars.challenges[ratio], n_rows / scalars.period)?;
    let mut arguments = vec![Argument::In(values.view()), Argument::In(ratios.view()), Argument::Out(target)];
    arguments.extend([main.log_rows, scalars.period].map(|count| Argument::Count(count as u32)));
    lane.launch("fold_column", Shape::of_items(n_rows as u64), arguments)
}

/// A column's values on G, bit-reversed.
pub(crate) fn on_rows(lane: Lane<'_>, oracle: &Oracle, column: usize, target: CudaViewMut<'_, u64>) -> Result<(), BackendError> {
    if column >= oracle.n_columns {
        return Err(BackendError::Unsupported(format!("column {column} of an oracle of {} is read", oracle.n_columns)));
    }
    extend(lane, Argument::In(oracle.coefficients(column..column + 1)), target, oracle.log_rows, 0, F::ONE)
}

/// A column of quotients; each rule runs its own part of the arena.
fn quotient(
    lane: Lane<'_>,
    system: &ConstraintSystem,
    scalars: Scalars<'_>,
    oracles: [&Oracle; 2],
    nodes: [Node; 2],
    target: CudaViewMut<'_, u64>,
) -> Result<(), BackendError> {
    let log_rows = oracles[0].log_rows;
    let n_rows = 1usize << log_rows;
    let sinks: Vec<(Node, Sink)> = nodes.into_iter().enumerate().map(|(slot, node)| (node, Sink::Store { slot })).collect();
    let program = Program::compile(&system.arena, scalars, &sinks);
    let mut values = lane.allocate(program.columns.len() << log_rows)?;
    let mut places = Vec::new();
    for (index, &column) in program.columns.iter().enumerate() {
        let Column::Oracle(oracle @ (OracleId::Weights | OracleId::Main), column) = column else {
            return Err(BackendError::Unsupported(format!("a rule of the projected columns reads {column:?}")));
        };
        let offset = index << log_rows;
        on_rows(lane, oracles[oracle as usize], column, values.part_mut(offset, n_rows))?;
        places.push(Place { array: 0, offset });
    }
    let mut arrays = [const { None }; N_ARRAYS];
    arrays[0] = Some(values.view());
    let domain = Domain { log_rows, period: scalars.period, n_cosets: 1, is_natural: true };
    let outputs = run(lane, &program, &places, arrays, domain)?;
    divide(lane, &outputs, target, n_rows)
}

/// `numerator / denominator` over the whole column.
fn divide(lane: Lane<'_>, values: &Buffer, target: CudaViewMut<'_, u64>, n_rows: usize) -> Result<(), BackendError> {
    let mut vanishes = lane.upload(&[0])?;
    let arguments =
        vec![Argument::In(values.view()), Argument::Out(target), Argument::Out(vanishes.view_mut()), Argument::Count(n_rows as u32)];
    lane.launch("divide_columns", Shape::of_items((n_rows as u64).div_ceil(DIVISIONS_PER_THREAD)), arguments)?;
    if lane.download(&vanishes.view())? == [0] {
        return Ok(());
    }
    Err(BackendError::Witness("a denominator of a lookup is zero: the challenge hits a cell".to_owned()))
}
