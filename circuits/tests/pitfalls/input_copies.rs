//! Cells of an input copy outside the input: no constraint masks them, the ledger does. An output that such a cell changes cannot balance
//! with the producer's tensor.

use plonky2::field::types::Field;
use zkinfer_circuits::field::{F, K};
use zkinfer_circuits::kind::Role;
use zkinfer_circuits::layer::prover::balance;
use zkinfer_circuits::layer::{LayerVerifyError, theta, verify};

use crate::support::forge::Forgery;
use crate::support::{Layer, dense_spec, gamma_delta, random_add, random_dense, requantize};

const INPUTS: usize = 90;
const COLUMNS: usize = 4;

/// 256 rows, two groups of 128.
fn folded() -> Layer {
    random_dense(dense_spec(8, 7, COLUMNS, INPUTS, 8, requantize(20, -120, 120)), 91)
}

/// The output tensor that the columns hold.
fn committed_output(forgery: &Forgery) -> Vec<i64> {
    let (_, lo, _) = forgery.layer.spec.requantization();
    (0..forgery.layer.spec.n_outputs).map(|row| forgery.main_cell("u", row) + lo).collect()
}

/// The balance of the declared inputs and of the committed outputs.
fn declared_balance(forgery: &Forgery) -> K {
    let (gamma_prime, delta) = gamma_delta();
    let inputs = [forgery.layer.inputs[0].as_slice(), forgery.layer.inputs[1].as_slice()];
    balance(&forgery.shape, &forgery.layer.spec.theta(), gamma_prime, delta, inputs, &committed_output(forgery))
}

/// Proves with the balance of the declared tensors: refused; with that of the committed columns: accepted, but it is another balance.
fn check(mut forgery: Forgery, name: &str) {
    let committed = forgery.committed_balance();
    forgery.balance_error = declared_balance(&forgery) - committed;
    assert_ne!(forgery.balance_error, K::ZERO, "{name}");
    let (claim, proof) = forgery.prove(&forgery.shape);
    assert_eq!(verify(&forgery.shape, &claim, &proof), Err(LayerVerifyError::Sums), "{name}");
    forgery.balance_error = K::ZERO;
    let (claim, proof) = forgery.prove(&forgery.shape);
    assert_eq!(verify(&forgery.shape, &claim, &proof), Ok(()), "{name}");
}

/// Accumulators that take an input cell of any row into account: X̂ carries it through all groups.
fn follow(forgery: &mut Forgery, row: usize) {
    let (rows, period) = (forgery.layer.spec.kind.rows(), forgery.layer.spec.period());
    for group in 0..rows / period {
        for column in 0..COLUMNS {
            let output = group * COLUMNS + column;
            let weight = forgery.weight_cell(&format!("w{column}"), (row + group * period) % rows);
            let accumulator = forgery.main_cell("acc", output);
            forgery.set_accumulator(output, accumulator + weight);
        }
    }
    forgery.recount();
}

#[test]
fn cells_past_the_input_of_a_dense_layer_unbalance_the_ledger() {
    for row in [INPUTS, 127, 128, 128 + INPUTS - 1, 128 + INPUTS, 255] {
        let mut forgery = Forgery::honest(folded(), Role::Inference);
        forgery.main("x")[row] = F::ONE;
        follow(&mut forgery, row);
        check(forgery, &format!("row {row}"));
    }
}

#[test]
fn cells_past_the_inputs_of_an_add_layer_unbalance_the_ledger() {
    for name in ["x1", "x2"] {
        for row in [99, 255] {
            let mut forgery = Forgery::honest(random_add(8, 99, 92), Role::Inference);
            forgery.main(name)[row] = F::ONE;
            check(forgery, &format!("{name}, row {row}"));
        }
    }
}

/// Every uncounted cell on its own: the balance moves by exactly δ^edge·γ'^row.
#[test]
fn every_uncounted_cell_moves_the_balance() {
    let layers = [(folded(), INPUTS, "x", theta::EDGE_IN_1), (random_add(8, 99, 92), 99, "x2", theta::EDGE_IN_2)];
    for (layer, inputs, name, edge) in layers {
        let mut forgery = Forgery::honest(layer, Role::Inference);
        let (gamma_prime, delta) = gamma_delta();
        let edge_power = delta.exp_u64(forgery.layer.spec.theta()[edge].0);
        let honest = forgery.honest_balance();
        for row in (inputs..256).step_by(5).chain([255]) {
            forgery.main(name)[row] = F::ONE;
            assert_eq!(honest - forgery.committed_balance(), edge_power * gamma_prime.exp_u64(row as u64), "row {row}");
            forgery.main(name)[row] = F::ZERO;
        }
        assert_eq!(honest, forgery.committed_balance());
    }
}

/// A weight under a row without input multiplies a zero.
#[test]
fn weights_outside_the_layer_change_nothing() {
    let mut forgery = Forgery::honest(folded(), Role::Inference);
    for row in [INPUTS, 127, 128 + INPUTS, 255] {
        forgery.weight("w1")[row] = F::from_canonical_u64(100);
    }
    let (claim, proof) = forgery.prove(&forgery.shape);
    assert_eq!(verify(&forgery.shape, &claim, &proof), Ok(()));
    assert!(!forgery.is_false(&claim));
}
