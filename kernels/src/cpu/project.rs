//! The projected oracle: each K column by its rule (`docs/PROTOCOL.md` §2).

use plonky2::field::types::Field;
use rayon::prelude::*;
use zkinfer_circuits::air::{ConstraintSystem, Node, OracleId, Rule};
use zkinfer_circuits::backend::{BackendError, Scalars};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{F, K, ext, limbs, scale};

use super::interpreter::{BlockOutput, Execution, Geometry, Order};
use super::oracle::Oracle;
use super::program::{Column, Program, Sink};
use super::transform::RootTables;
use super::wide::{powers, split};

/// The projected columns on G.
pub(crate) fn project(
    tables: &RootTables,
    system: &ConstraintSystem,
    scalars: Scalars<'_>,
    oracles: [&Oracle; 2],
) -> Result<Columns, BackendError> {
    let n_rows = oracles[0].n_rows();
    let mut quotients = quotients(tables, system, scalars, oracles)?.into_iter();
    let columns = system.rules.iter().flat_map(|&rule| match rule {
        Rule::Powers { ratio } => split(&powers(scalars.challenges[ratio], n_rows)),
        Rule::Fold { source, ratio } => {
            let source = oracles[OracleId::Main as usize].row_values(tables, source);
            fold(&source, scalars.challenges[ratio], scalars.period)
        }
        Rule::Quotient { .. } => quotients.next().expect("one pair of columns per quotient rule"),
    });
    let columns: Vec<Vec<F>> = columns.collect();
    Ok(Columns::from_columns(n_rows, &columns))
}

/// Row q·m + i holds ratio^q · source(i).
fn fold(source: &[F], ratio: K, period: usize) -> [Vec<F>; 2] {
    let groups = ratio.powers().take(source.len() / period);
    split(&groups.flat_map(|power| source[..period].iter().map(move |&value| scale(power, value))).collect::<Vec<K>>())
}

/// The columns of the quotient rules, in order.
fn quotients(
    tables: &RootTables,
    system: &ConstraintSystem,
    scalars: Scalars<'_>,
    oracles: [&Oracle; 2],
) -> Result<Vec<[Vec<F>; 2]>, BackendError> {
    let nodes: Vec<[Node; 2]> = system
        .rules
        .iter()
        .filter_map(|&rule| match rule {
            Rule::Quotient { numerator, denominator } => Some([numerator, denominator]),
            Rule::Powers { .. } | Rule::Fold { .. } => None,
        })
        .collect();
    let sinks: Vec<(Node, Sink)> = nodes.iter().flatten().enumerate().map(|(slot, &node)| (node, Sink::Store { slot })).collect();
    let program = Program::compile(&system.arena, scalars, &sinks);
    let values: Vec<_> = program
        .columns
        .par_iter()
        .map(|&column| match column {
            Column::Oracle(oracle @ (OracleId::Weights | OracleId::Main), index) => Ok(oracles[oracle as usize].row_values(tables, index)),
            other => Err(BackendError::Unsupported(format!("a rule of the projected columns reads {other:?}"))),
        })
        .collect::<Result<_, _>>()?;
    let columns: Vec<&[F]> = values.iter().map(|column| &**column).collect();
    let (log_rows, n_points) = (oracles[0].log_rows, oracles[0].n_rows());
    let geometry = Geometry { log_rows, order: Order::Natural, period: scalars.period };
    let blocks = Execution { program: &program, columns: &columns, geometry, n_points, dispatch: tables.dispatch() }
        .run(|_, outputs| divide(outputs));
    let mut result = vec![[Vec::with_capacity(n_points), Vec::with_capacity(n_points)]; nodes.len()];
    for block in blocks {
        for (column, values) in result.iter_mut().zip(block.ok_or_else(vanishing)?) {
            for (limb, values) in column.iter_mut().zip(values) {
                limb.extend(values);
            }
        }
    }
    Ok(result)
}

fn vanishing() -> BackendError {
    BackendError::Witness("a denominator of a lookup is zero: the challenge hits a cell".to_owned())
}

/// `numerator / denominator` for outputs in pairs; none if a denominator is zero. One inversion per block: `1/d = (d0 − φ·d1) / (d0² − 7·d1²)`.
fn divide(outputs: &[BlockOutput]) -> Option<Vec<BlockOutput>> {
    let seven = F::from_canonical_u64(7);
    let norms: Vec<F> =
        outputs.chunks_exact(2).flat_map(|pair| pair[1][0].iter().zip(&pair[1][1]).map(|(&d0, &d1)| d0 * d0 - seven * d1 * d1)).collect();
    if norms.iter().any(Field::is_zero) {
        return None;
    }
    let mut inverses = F::batch_multiplicative_inverse(&norms).into_iter();
    let quotients = outputs.chunks_exact(2).map(|pair| {
        let [numerator, denominator] = [&pair[0], &pair[1]];
        let cells = numerator[0].iter().zip(&numerator[1]).zip(denominator[0].iter().zip(&denominator[1])).zip(&mut inverses);
        cells.map(|(((&n0, &n1), (&d0, &d1)), inverse)| limbs(scale(ext(n0, n1) * ext(d0, -d1), inverse)).into()).unzip()
    });
    Some(quotients.map(|(c0, c1)| [c0, c1]).collect())
}
