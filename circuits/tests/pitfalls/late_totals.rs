//! A total chosen after ξ could make up for another summand: Σ_k ξ^k·T_k is one equation. The balance is absorbed before ξ is drawn.

use std::sync::Mutex;

use plonky2::field::types::Field;
use zkinfer_circuits::air::Total;
use zkinfer_circuits::field::K;
use zkinfer_circuits::kind::{Operator, Role};
use zkinfer_circuits::layer::scalars::batched_total;
use zkinfer_circuits::layer::{LayerVerifyError, verify};

use crate::support::forge::{Forgery, spread_layer};

#[test]
fn balance_that_makes_up_for_a_wrong_accumulator_is_refused() {
    let mut forgery = Forgery::honest(spread_layer(Operator::Dense, 16, -60, 60, 61), Role::Inference);
    let accumulator = forgery.main_cell("acc", 9);
    forgery.set_accumulator(9, accumulator + 20_000);
    forgery.recount();
    forgery.forger.true_total = Some(Mutex::new(None));
    let (mut claim, mut proof) = forgery.prove(&forgery.shape);
    // The running sum closes with the true total, which is not the claimed one.
    assert_eq!(verify(&forgery.shape, &claim, &proof), Err(LayerVerifyError::Sums));
    let missing = forgery.forger.true_total.as_ref().and_then(|m| *m.lock().unwrap());
    let (xi, missing) = missing.expect("the prover drew xi");
    assert_ne!(missing, K::ZERO);
    // The balance that would close it, had it been sent after ξ.
    let system = &forgery.shape.system;
    let position = system.summands.iter().position(|s| s.total == Total::Balance).expect("a ledger");
    let late = claim.balance + missing / xi.exp_u64(position as u64);
    let total = |balance: K| batched_total(system, &claim.theta, balance, xi);
    assert_eq!(total(late) - total(claim.balance), missing);
    (claim.balance, proof.balance) = (late, late);
    assert_eq!(verify(&forgery.shape, &claim, &proof), Err(LayerVerifyError::Constraints));
}
