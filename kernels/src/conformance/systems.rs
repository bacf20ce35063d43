//! The rounds of a layer proof and FRI over them, for every kind of constraint system, on arbitrary columns.

use plonky2::field::types::Field;
use zkinfer_circuits::air::{ConstraintSystem, OracleId};
use zkinfer_circuits::backend::reference::Reference;
use zkinfer_circuits::backend::{Backend, BackendError, CommitShape, OpenedColumns, OpeningBatch, Scalars, SumsChallenges};
use zkinfer_circuits::field::{F, K, scale};
use zkinfer_circuits::kind::{LayerKind, Operator, Role};
use zkinfer_circuits::layer::theta;
use zkinfer_circuits::ops;

use super::Case;
use super::samples::Samples;
use crate::dual::DualBackend;

/// A run of the rounds.
#[derive(Clone, Copy, Debug)]
struct Rounds {
    kind: LayerKind,
    role: Role,
    log_period: usize,
    shape: CommitShape,
    /// Arities of the FRI layers.
    arities: &'static [usize],
}

pub(super) fn cases<B: Backend>() -> Vec<Case<B>> {
    let dense = |log_rows, n_columns| LayerKind { operator: Operator::Dense, log_rows, n_columns };
    let add = |log_rows| LayerKind { operator: Operator::Add, log_rows, n_columns: 0 };
    let shape = |rate_bits, cap_height| CommitShape { rate_bits, cap_height };
    let runs = [
        Rounds { kind: dense(8, 1), role: Role::Inference, log_period: 8, shape: shape(3, 4), arities: &[4] },
        Rounds { kind: dense(8, 9), role: Role::Inference, log_period: 3, shape: shape(3, 4), arities: &[3, 2] },
        Rounds { kind: dense(9, 16), role: Role::Inference, log_period: 7, shape: shape(1, 2), arities: &[1, 1, 2] },
        Rounds { kind: dense(12, 3), role: Role::Inference, log_period: 12, shape: shape(2, 0), arities: &[4, 4] },
        Rounds { kind: add(8), role: Role::Inference, log_period: 8, shape: shape(3, 4), arities: &[4, 3] },
        Rounds { kind: add(10), role: Role::Inference, log_period: 10, shape: shape(2, 3), arities: &[] },
        Rounds { kind: dense(8, 4), role: Role::Registration, log_period: 8, shape: shape(3, 4), arities: &[4] },
        Rounds { kind: dense(9, 67), role: Role::Registration, log_period: 9, shape: shape(2, 4), arities: &[2, 4] },
        Rounds { kind: add(8), role: Role::Registration, log_period: 8, shape: shape(3, 4), arities: &[1] },
    ];
    runs.map(|run| -> Case<B> { (format!("{run:?}"), Box::new(move |dual| rounds(dual, run))) }).into()
}

fn rounds<B: Backend>(dual: &DualBackend<Reference, B>, run: Rounds) -> Result<(), BackendError> {
    let system = ops::system(&run.kind, run.role);
    let mut samples = Samples::new(run.kind.log_rows as u64);
    let (theta, challenges) = (samples.elements(theta::LENGTH), samples.extensions(theta::N_CHALLENGES));
    let scalars = Scalars { theta: &theta, challenges: &challenges, period: 1 << run.log_period };
    let [weights, main] =
        [OracleId::Weights, OracleId::Main].map(|id| dual.commit(&samples.columns(run.kind.rows(), system.width(id)), run.shape));
    let (weights, main) = (weights?, main?);
    let combination = match system.combined_columns {
        0 => None,
        count => Some(dual.combine(&weights, &samples.extensions(count))?),
    };
    let projected = dual.project(&system, scalars, [&weights, &main], run.shape)?;
    let challenges = SumsChallenges { gamma: samples.extension(), xi: samples.extension(), total: samples.extension() };
    let oracles = [&weights, &main, &projected];
    let sums = dual.sums(&system, scalars, challenges, oracles, combination.as_ref(), run.shape)?;
    let oracles = [&weights, &main, &projected, &sums];
    let batches = openings(&system, run.kind.log_rows, run.log_period, &mut samples);
    for opened in batches.iter().flat_map(|batch| batch.opened.iter().map(|opened| (batch.point, opened))) {
        dual.evaluate(oracles[opened.1.oracle], opened.1.columns.clone(), opened.0)?;
    }
    let mut codeword = dual.batch(&oracles, &batches, samples.extension())?;
    for &arity_bits in run.arities {
        let tree = dual.fold_commit(&codeword, arity_bits, run.shape.cap_height)?;
        let n_leaves = 1usize << (run.kind.log_rows + run.shape.rate_bits - run.arities[0].max(arity_bits));
        dual.query_fold(&tree, &[n_leaves >> 8, 0, 1, 0])?;
        codeword = dual.fold(codeword, arity_bits, samples.extension())?;
    }
    dual.final_polynomial(&codeword, run.shape.rate_bits)?;
    Ok(())
}

/// Openings in the manner of a layer: all at ζ, some at gζ and g^m·ζ, whole oracles at other points.
fn openings(system: &ConstraintSystem, log_rows: usize, log_period: usize, samples: &mut Samples) -> Vec<OpeningBatch> {
    let whole = |oracle: OracleId| OpenedColumns { oracle: oracle as usize, columns: 0..system.width(oracle) };
    let part = |oracle: OracleId, from: usize, to: usize| OpenedColumns { oracle: oracle as usize, columns: from..to };
    let zeta = samples.extension();
    let root = F::primitive_root_of_unity(log_rows);
    let rotated = |steps: usize| -> K { scale(zeta, root.exp_u64(steps as u64)) };
    let last_main = system.width(OracleId::Main);
    vec![
        OpeningBatch { point: zeta, opened: [OracleId::Weights, OracleId::Main, OracleId::Projected, OracleId::Sums].map(whole).into() },
        OpeningBatch { point: rotated(1), opened: vec![part(OracleId::Main, last_main - 2, last_main - 1), part(OracleId::Sums, 0, 2)] },
        OpeningBatch { point: rotated(1 << log_period), opened: vec![part(OracleId::Projected, 0, 2)] },
        OpeningBatch { point: samples.extension(), opened: vec![whole(OracleId::Weights)] },
        OpeningBatch { point: samples.extension(), opened: vec![whole(OracleId::Main)] },
    ]
}
