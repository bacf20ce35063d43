//! Columns of degree n: FRI admits n + 1 coefficients, so c·(X^n − 1) can be added to any column. It vanishes on all rows:
//! a true statement stays what it was, a false one is refused.

use plonky2::field::types::Field;
use zkinfer_circuits::air::{ORACLES, OracleId};
use zkinfer_circuits::field::{F, K};
use zkinfer_circuits::kind::Role;
use zkinfer_circuits::layer::prover::{LinkedOracle, commit_linked, commit_shape, open_linked, prove};
use zkinfer_circuits::layer::{LayerClaim, LayerProof, LayerVerifyError, verify};

use crate::support::forge::Forgery;
use crate::support::forger::{Forger, Polynomials};
use crate::support::{Layer, dense_spec, random_add, random_dense, requantize};

fn layers() -> [Layer; 2] {
    [random_dense(dense_spec(8, 7, 4, 90, 7, requantize(23, -30, 90)), 51), random_add(8, 99, 52)]
}

/// Commits weights or main, perhaps with one column of degree n.
fn commit(forgery: &Forgery, oracle: OracleId, raised: (OracleId, usize)) -> LinkedOracle<Forger> {
    let columns = if oracle == OracleId::Weights { &forgery.weights } else { &forgery.main };
    if raised.0 != oracle {
        return commit_linked(&forgery.forger, &forgery.shape, columns).expect("commit");
    }
    let c = F::from_canonical_u64(123_456_789);
    let polynomials = Polynomials::raised(columns, raised.1, c, commit_shape(&forgery.shape));
    assert_eq!(polynomials.coefficients[raised.1].len(), columns.rows() + 1);
    open_linked(&forgery.forger, &forgery.shape, polynomials, columns.n_columns()).expect("open")
}

fn prove_raised(forgery: &mut Forgery, oracle: OracleId, column: usize) -> (LayerClaim, LayerProof) {
    forgery.forger.raised = Some((oracle, column, F::from_canonical_u64(987_654_321)));
    let [weights, main] = [OracleId::Weights, OracleId::Main].map(|which| commit(forgery, which, (oracle, column)));
    let claim = forgery.claim(&weights, &main);
    let proof = prove(&forgery.forger, &forgery.shape, &claim, &weights, &main).expect("prove");
    (claim, proof)
}

/// What a raised column of round 3 violates by itself: q_S the sums, q_0 and q_1 the constraints; S enters as S(gX) − S alone.
fn violated_by_raising(oracle: OracleId, column: usize) -> Option<LayerVerifyError> {
    match (oracle, column) {
        (OracleId::Sums, 2 | 3) => Some(LayerVerifyError::Sums),
        (OracleId::Sums, 4..) => Some(LayerVerifyError::Constraints),
        _ => None,
    }
}

fn for_each_column(role: Role, spoil: impl Fn(&mut Forgery), expected: Option<LayerVerifyError>) {
    for layer in layers() {
        let mut forgery = Forgery::honest(layer, role);
        spoil(&mut forgery);
        for oracle in ORACLES {
            for column in 0..forgery.shape.system.width(oracle) {
                let (claim, proof) = prove_raised(&mut forgery, oracle, column);
                let by_raising = violated_by_raising(oracle, column);
                // The constraints are looked at first.
                let expected = match (&expected, by_raising) {
                    (Some(LayerVerifyError::Sums), Some(raising)) => Some(raising),
                    (Some(false_statement), _) => Some(false_statement.clone()),
                    (None, raising) => raising,
                };
                let got = verify(&forgery.shape, &claim, &proof).err();
                assert_eq!(got, expected, "column {column} of {oracle:?} in {}", forgery.shape.system.name);
                if expected.is_none() {
                    assert!(!forgery.is_false(&claim), "the statement proved has changed");
                }
            }
        }
    }
}

#[test]
fn true_inferences_with_a_column_of_degree_n_state_the_same() {
    for_each_column(Role::Inference, |_| (), None);
}

#[test]
fn true_registrations_with_a_column_of_degree_n_state_the_same() {
    for_each_column(Role::Registration, |_| (), None);
}

#[test]
fn false_balances_with_a_column_of_degree_n_are_refused() {
    for_each_column(Role::Inference, |forgery| forgery.balance_error = K::ONE, Some(LayerVerifyError::Sums));
}

#[test]
fn false_outputs_with_a_column_of_degree_n_are_refused() {
    let spoil = |forgery: &mut Forgery| {
        let range = forgery.range();
        let row = forgery.find(|r| r.overshoot == 0 && r.u < range);
        forgery.shift("u", row, 1);
        forgery.recount();
    };
    for_each_column(Role::Inference, spoil, Some(LayerVerifyError::Constraints));
}

#[test]
fn false_registrations_with_a_column_of_degree_n_are_refused() {
    let spoil = |forgery: &mut Forgery| {
        let end = forgery.layer.spec.n_outputs;
        forgery.weight("active")[end - 1] = F::ZERO;
    };
    for_each_column(Role::Registration, spoil, Some(LayerVerifyError::Sums));
}
