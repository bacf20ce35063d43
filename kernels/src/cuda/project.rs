//! The projected oracle on the device: each K column by its rule (`docs/PROTOCOL.md` §2), in natural order.

use zkinfer_circuits::air::{ConstraintSystem, Node, OracleId, Rule};
use zkinfer_circuits::backend::{BackendError, Scalars};
use zkinfer_circuits::field::F;

use plonky2::field::types::Field;

use super::lane::Lane;
use super::launch::{Argument, Shape};
use super::memory::{Buffer, Words, WordsMut};
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
    target: WordsMut<'_>,
) -> Result<(), BackendError> {
    let n_rows = main.n_rows();
    if scalars.period == 0 || !n_rows.is_multiple_of(scalars.period) {
        return Err(BackendError::Unsupported(format!("groups of {} in {n_rows} rows", scalars.period)));
    }
    let mut values = lane.allocate(n_rows)?;
    extend(lane, Argument::In(readable(main, source, 1)?), values.view_mut(), main.log_rows, 0, F::ONE)?;
    let ratios = powers(lane, scalars.challenges[ratio], n_rows / scalars.period)?;
    let mut arguments = vec![Argument::In(values.view()), Argument::In(ratios.view()), Argument::Out(target)];
    arguments.extend([main.log_rows, scalars.period].map(|count| Argument::Count(count as u32)));
    lane.launch("fold_column", Shape::of_items(n_rows as u64), arguments)
}

/// Coefficients of neighbouring columns of an oracle.
pub(crate) fn readable(oracle: &Oracle, first: usize, n_columns: usize) -> Result<Words<'_>, BackendError> {
    if first + n_columns > oracle.n_columns {
        return Err(BackendError::Unsupported(format!("column {} of an oracle of {} is read", first + n_columns - 1, oracle.n_columns)));
    }
    Ok(oracle.coefficients(first..first + n_columns))
}

/// Whether the second column lies behind the first.
fn precedes(column: Column, next: Column) -> bool {
    match (column, next) {
        (Column::Oracle(oracle, column), Column::Oracle(other, next)) => oracle == other && column + 1 == next,
        (Column::Combined(limb), Column::Combined(next)) => limb + 1 == next,
        _ => false,
    }
}

/// The values on G, bit-reversed, of all columns that a program reads, and where each lies. `source` gives the coefficients of a column and of so many
/// that follow it; neighbours are transformed together.
pub(crate) fn columns_on_rows<'a>(
    lane: Lane<'_>,
    columns: &[Column],
    log_rows: usize,
    source: impl Fn(Column, usize) -> Result<Words<'a>, BackendError>,
) -> Result<(Buffer, Vec<Place>), BackendError> {
    let mut order = columns.to_vec();
    order.sort_unstable();
    let mut values = lane.allocate(columns.len() << log_rows)?;
    let mut first = 0;
    for run in order.chunk_by(|&column, &next| precedes(column, next)) {
        let target = values.part_mut(first << log_rows, run.len() << log_rows);
        extend(lane, Argument::In(source(run[0], run.len())?), target, log_rows, 0, F::ONE)?;
        first += run.len();
    }
    let position = |column| order.binary_search(column).expect("the order is of these columns");
    let places = columns.iter().map(|column| Place { array: 0, offset: position(column) << log_rows }).collect();
    Ok((values, places))
}

/// A column of quotients; each rule runs its own part of the arena.
fn quotient(
    lane: Lane<'_>,
    system: &ConstraintSystem,
    scalars: Scalars<'_>,
    oracles: [&Oracle; 2],
    nodes: [Node; 2],
    target: WordsMut<'_>,
) -> Result<(), BackendError> {
    let log_rows = oracles[0].log_rows;
    let n_rows = 1usize << log_rows;
    let sinks: Vec<(Node, Sink)> = nodes.into_iter().enumerate().map(|(slot, node)| (node, Sink::Store { slot })).collect();
    let program = Program::compile(&system.arena, scalars, &sinks);
    let (values, places) = columns_on_rows(lane, &program.columns, log_rows, |first, n_columns| match first {
        Column::Oracle(oracle @ (OracleId::Weights | OracleId::Main), column) => readable(oracles[oracle as usize], column, n_columns),
        _ => Err(BackendError::Unsupported(format!("a rule of the projected columns reads {first:?}"))),
    })?;
    let mut arrays = [const { None }; N_ARRAYS];
    arrays[0] = Some(values.view());
    let domain = Domain { log_rows, period: scalars.period, n_cosets: 1, is_natural: true };
    let outputs = run(lane, &program, &places, arrays, domain)?;
    divide(lane, &outputs, target, n_rows)
}

/// `numerator / denominator` over the whole column.
fn divide(lane: Lane<'_>, values: &Buffer, target: WordsMut<'_>, n_rows: usize) -> Result<(), BackendError> {
    let mut vanishes = lane.upload(&[0])?;
    let arguments =
        vec![Argument::In(values.view()), Argument::Out(target), Argument::Out(vanishes.view_mut()), Argument::Count(n_rows as u32)];
    lane.launch("divide_columns", Shape::of_items((n_rows as u64).div_ceil(DIVISIONS_PER_THREAD)), arguments)?;
    if lane.download(&vanishes.view())? == [0] {
        return Ok(());
    }
    Err(BackendError::Witness("a denominator of a lookup is zero: the challenge hits a cell".to_owned()))
}
