//! One run of all rounds of a layer proof on arbitrary columns, with everything that the host sees of it.

use plonky2::field::extension::FieldExtension;
use plonky2::field::types::{Field, PrimeField64};
use plonky2::iop::challenger::Challenger;
use zkinfer_circuits::air::{ConstraintSystem, ORACLES, OracleId};
use zkinfer_circuits::backend::{Backend, BackendError, CommitShape, OpenedColumns, OpeningBatch, QueryAnswer, Scalars, SumsChallenges};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{F, H, K, ext};
use zkinfer_circuits::kind::{LayerKind, Operator, Role};
use zkinfer_circuits::layer::theta;
use zkinfer_circuits::ops;

const LOG_ROWS: usize = 8;
const SHAPE: CommitShape = CommitShape { rate_bits: 2, cap_height: 2 };

/// The n-th element of a fixed sequence.
fn sample(n: usize) -> F {
    let word = (n as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    F::from_noncanonical_u64(word ^ word >> 29)
}

fn sample_extension(n: usize) -> K {
    ext(sample(1000 + 2 * n), sample(1001 + 2 * n))
}

/// Columns of a fixed sequence.
pub(crate) fn sample_columns(rows: usize, n_columns: usize) -> Columns {
    Columns::from_flat(rows, (0..rows * n_columns).map(sample).collect())
}

/// What the host sees, word after word.
#[derive(Default, PartialEq, Eq)]
pub(crate) struct Seen(Vec<u64>);

impl Seen {
    fn add(&mut self, values: &[F]) {
        self.0.extend(values.iter().map(PrimeField64::to_canonical_u64));
    }

    fn add_extension(&mut self, values: &[K]) {
        values.iter().for_each(|value| self.add(&<K as FieldExtension<2>>::to_basefield_array(value)));
    }

    fn add_oracle<B: Backend>(&mut self, backend: &B, oracle: &B::Oracle) {
        backend.cap(oracle).0.iter().for_each(|digest| self.add(&digest.elements));
    }

    fn add_answers(&mut self, answers: &[QueryAnswer]) {
        for (row, path) in answers {
            self.add(row);
            path.siblings.iter().for_each(|digest| self.add(&digest.elements));
        }
    }
}

/// Columns of a layer's weights.
const N_COLUMNS: usize = 3;

fn system(n_columns: usize) -> ConstraintSystem {
    ops::system(&LayerKind { operator: Operator::Dense, log_rows: LOG_ROWS, n_columns }, Role::Inference)
}

/// Commits the weights of a layer of `n_columns` columns; every model has others.
pub(crate) fn weights<B: Backend>(backend: &B, n_columns: usize, model: usize) -> Result<B::Oracle, BackendError> {
    let n_values = system(n_columns).width(OracleId::Weights) << LOG_ROWS;
    let values = (0..n_values).map(|n| sample(n + (model << 24))).collect();
    backend.commit(&Columns::from_flat(1 << LOG_ROWS, values), SHAPE)
}

/// Commits, projects, sums, opens, folds, grinds and queries.
pub(crate) fn rounds<B: Backend>(backend: &B) -> Result<Seen, BackendError> {
    rounds_over(backend, N_COLUMNS, &weights(backend, N_COLUMNS, 0)?)
}

/// The same over the weights of a layer of `n_columns` columns.
pub(crate) fn rounds_over<B: Backend>(backend: &B, n_columns: usize, weights: &B::Oracle) -> Result<Seen, BackendError> {
    let mut seen = Seen::default();
    let system = system(n_columns);
    let (theta, challenges): (Vec<F>, Vec<K>) =
        ((0..theta::LENGTH).map(sample).collect(), (0..theta::N_CHALLENGES).map(sample_extension).collect());
    let scalars = Scalars { theta: &theta, challenges: &challenges, period: 8 };
    let main = backend.commit(&sample_columns(1 << LOG_ROWS, system.width(OracleId::Main)), SHAPE)?;
    let coefficients: Vec<K> = (0..system.combined_columns).map(sample_extension).collect();
    let combination = backend.combine(weights, &coefficients)?;
    let projected = backend.project(&system, scalars, [weights, &main], SHAPE)?;
    let challenges = SumsChallenges { gamma: sample_extension(50), xi: sample_extension(51), total: sample_extension(52) };
    let sums = backend.sums(&system, scalars, challenges, [weights, &main, &projected], Some(&combination), SHAPE)?;
    let oracles = [weights, &main, &projected, &sums];
    let (zeta, other) = (sample_extension(60), sample_extension(61));
    for (oracle, id) in oracles.into_iter().zip(ORACLES) {
        seen.add_oracle(backend, oracle);
        seen.add_extension(&backend.evaluate(oracle, 0..system.width(id), zeta)?);
        seen.add_answers(&backend.query(oracle, &[77, 0])?);
    }
    let whole = |oracle: usize, columns: usize| OpenedColumns { oracle, columns: 0..columns };
    let batches = [
        OpeningBatch { point: zeta, opened: vec![whole(0, 2), whole(1, 3), whole(2, 2), whole(3, 8)] },
        OpeningBatch { point: other, opened: vec![whole(0, 2)] },
    ];
    let mut codeword = backend.batch(&oracles, &batches, sample_extension(70))?;
    for arity_bits in [3, 2] {
        let tree = backend.fold_commit(&codeword, arity_bits, 1)?;
        backend.fold_cap(&tree).0.iter().for_each(|digest| seen.add(&digest.elements));
        seen.add_answers(&backend.query_fold(&tree, &[5, 1])?);
        codeword = backend.fold(codeword, arity_bits, sample_extension(80 + arity_bits))?;
    }
    seen.add_extension(&backend.final_polynomial(&codeword, SHAPE.rate_bits)?);
    let mut challenger = Challenger::<F, H>::new();
    challenger.observe_elements(&[sample(1), sample(2), sample(3)]);
    seen.0.push(backend.grind(&challenger, 6)?);
    let restored = backend.load(&backend.save(&sums)?)?;
    seen.add_answers(&backend.query(&restored, &[3])?);
    Ok(seen)
}
