//! The projected oracle: each K column by its rule (`docs/PROTOCOL.md` §2).

use plonky2::field::types::Field;
use rayon::prelude::*;
use zkinfer_circuits::air::{ConstraintSystem, Node, OracleId, Rule};
use zkinfer_circuits::backend::{BackendError, Scalars};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{F, K, scale};

use super::interpreter::{BlockOutput, Execution, Geometry, Order};
use super::oracle::Oracle;
use super::program::{Column, Program, Sink};
use super::transform::RootTables;
use super::wide::{powers, split};
use crate::vector::{Kernel, Vector, extension_product};

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
        .run(|_, outputs| tables.dispatch().run(Divide(outputs)));
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

/// `numerator / denominator` for outputs in pairs; none if a denominator is zero. One inversion per block and lane:
/// `1/d = (d0 − φ·d1) / (d0² − 7·d1²)`.
struct Divide<'a>(&'a [BlockOutput]);

impl Kernel for Divide<'_> {
    type Output = Option<Vec<BlockOutput>>;

    #[inline(always)]
    fn run<V: Vector>(self) -> Self::Output {
        let length = self.0.first().map_or(0, |[c0, _]| c0.len());
        if length.is_multiple_of(V::WIDTH) { divide::<V>(self.0, length) } else { divide::<F>(self.0, length) }
    }
}

#[inline(always)]
fn divide<V: Vector>(outputs: &[BlockOutput], length: usize) -> Option<Vec<BlockOutput>> {
    let seven = V::from(F::from_canonical_u64(7));
    let mut norms = Vec::with_capacity(outputs.len() / 2 * length / V::WIDTH);
    for pair in outputs.chunks_exact(2) {
        let [d0, d1] = &pair[1];
        for (&d0, &d1) in V::pack_slice(d0).iter().zip(V::pack_slice(d1)) {
            norms.push(d0.squared() - d1.squared() * seven);
        }
    }
    invert::<V>(&mut norms)?;
    let mut inverses = norms.into_iter();
    let mut quotients = Vec::with_capacity(outputs.len() / 2);
    for pair in outputs.chunks_exact(2) {
        let [[n0, n1], [d0, d1]] = [&pair[0], &pair[1]];
        let mut quotient = [vec![F::ZERO; length], vec![F::ZERO; length]];
        let lanes = (0..length).step_by(V::WIDTH);
        for (lane, inverse) in lanes.zip(&mut inverses) {
            let [n0, n1, d0, d1] = [V::load(&n0[lane..]), V::load(&n1[lane..]), V::load(&d0[lane..]), V::load(&d1[lane..])];
            let [c0, c1] = extension_product([n0, n1], [d0 * inverse, -(d1 * inverse)]);
            c0.store(&mut quotient[0][lane..]);
            c1.store(&mut quotient[1][lane..]);
        }
        quotients.push(quotient);
    }
    Some(quotients)
}

/// Inverses in place, by the products of all before; none if a lane is zero.
#[inline(always)]
pub(crate) fn invert<V: Vector>(values: &mut [V]) -> Option<()> {
    let mut product = V::ONES;
    let mut before = Vec::with_capacity(values.len());
    for &value in values.iter() {
        before.push(product);
        product *= value;
    }
    if product.as_slice().iter().any(Field::is_zero) {
        return None;
    }
    let mut inverse = V::load(&F::batch_multiplicative_inverse(product.as_slice()));
    for (value, before) in values.iter_mut().zip(before).rev() {
        let own = inverse * before;
        inverse *= *value;
        *value = own;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use plonky2::field::types::Sample;
    use zkinfer_circuits::field::{ext, limbs};

    use super::*;
    use crate::vector::{Dispatch, Level};

    fn quotients_of(pairs: &[[K; 2]], dispatch: Dispatch) -> Option<Vec<K>> {
        let outputs: Vec<BlockOutput> = [0, 1].map(|side| split(&pairs.iter().map(|pair| pair[side]).collect::<Vec<K>>())).into();
        let quotients = dispatch.run(Divide(&outputs))?;
        let [c0, c1] = &quotients[0];
        Some(c0.iter().zip(c1).map(|(&c0, &c1)| ext(c0, c1)).collect())
    }

    #[test]
    fn quotients_are_those_of_the_extension_field() {
        for dispatch in Level::available().into_iter().map(|level| Dispatch::new(level).expect("the level is available")) {
            for length in [1, 2, 4, 16, 128] {
                let mut pairs: Vec<[K; 2]> = (0..length).map(|_| [K::rand(), K::rand()]).collect();
                let expected: Vec<K> = pairs.iter().map(|&[numerator, denominator]| numerator / denominator).collect();
                assert_eq!(quotients_of(&pairs, dispatch), Some(expected));
                let [_, c1] = limbs(pairs[length / 2][1]);
                pairs[length / 2][1] = ext(F::ZERO, c1);
                assert!(quotients_of(&pairs, dispatch).is_some());
                pairs[length / 2][1] = K::ZERO;
                assert_eq!(quotients_of(&pairs, dispatch), None);
            }
        }
    }
}
