//! Every field of a layer proof and of its claim, changed one at a time: refused with the exact error, natively and in circuit.
#![cfg(feature = "prover")]
#![allow(missing_docs, unreachable_pub)]

mod support;
mod tampering;

use plonky2::field::types::Field;
use support::circuit::{LayerCircuit, Outcome};
use support::forge::{Forgery, attack_config, spread_layer};
use support::{dense_spec, random_add, random_dense, requantize};
use tampering::{Change, field_changes, length_changes};
use zkinfer_circuits::field::{F, K};
use zkinfer_circuits::kind::{Operator, Role};
use zkinfer_circuits::layer::{LayerClaim, LayerProof, LayerShape, LayerVerifyError, verify};

/// A proof of each system, over a folded dense layer and an add layer of 256 rows.
fn proofs() -> Vec<(LayerShape, LayerClaim, LayerProof)> {
    let dense = random_dense(dense_spec(8, 7, 6, 90, 11, requantize(23, -30, 90)), 41);
    let layers = [dense, random_add(8, 99, 42)];
    let pairs = layers.iter().flat_map(|layer| [Role::Inference, Role::Registration].map(|role| (layer.clone(), role)));
    pairs
        .map(|(layer, role)| {
            let forgery = Forgery::with_config(layer, role, &attack_config());
            let (claim, proof) = forgery.prove(&forgery.shape);
            (forgery.shape, claim, proof)
        })
        .collect()
}

/// The error with the text of FRI's reason left out.
fn without_reason(error: LayerVerifyError) -> LayerVerifyError {
    match error {
        LayerVerifyError::Fri(_) => LayerVerifyError::Fri(String::new()),
        other => other,
    }
}

fn check(changes: impl Fn(&LayerShape, &LayerClaim, &LayerProof) -> Vec<Change>) {
    for (shape, claim, proof) in proofs() {
        assert_eq!(verify(&shape, &claim, &proof), Ok(()));
        for Change { name, change, expected } in changes(&shape, &claim, &proof) {
            let (mut claim, mut proof) = (claim.clone(), proof.clone());
            change(&mut claim, &mut proof);
            let got = verify(&shape, &claim, &proof).map_err(without_reason);
            assert_eq!(got, Err(expected), "{name} of {}", shape.system.name);
        }
    }
}

#[test]
fn every_changed_field_is_refused() {
    check(field_changes);
}

#[test]
fn every_wrong_length_is_refused_without_panic() {
    check(length_changes);
}

#[test]
fn proof_of_one_role_is_refused_in_the_other() {
    let proofs = proofs();
    let (inference, registration) = (&proofs[0], &proofs[1]);
    let got = verify(&registration.0, &inference.1, &inference.2);
    assert_eq!(got, Err(LayerVerifyError::RegistrationScalar("gamma_prime")));
    let got = verify(&inference.0, &registration.1, &registration.2);
    assert!(matches!(got, Err(LayerVerifyError::Shape { part: "openings", .. })), "{got:?}");
}

#[test]
fn circuit_refuses_changed_proofs() {
    for (shape, claim, proof) in proofs() {
        let circuit = LayerCircuit::new(&shape);
        assert_eq!(circuit.run(&claim, &proof), Outcome::Accepted(LayerCircuit::expected(&shape, &claim)));
        let bump = |value: &mut K| *value += K::ONE;
        let changes: [fn(&mut LayerClaim, &mut LayerProof, fn(&mut K)); 8] = [
            |_, proof, bump| bump(&mut proof.openings[0][0]),
            |_, proof, bump| bump(proof.openings[0].last_mut().expect("openings")),
            |_, proof, bump| bump(&mut proof.openings[1][0]),
            |_, proof, bump| bump(&mut proof.openings[3][0]),
            |_, proof, bump| bump(&mut proof.openings[4][0]),
            |_, proof, _| proof.caps[0].0[3].elements[1] += F::ONE,
            |claim, _, _| claim.index += 1,
            |claim, _, _| claim.theta[10] += F::ONE,
        ];
        for (number, change) in changes.iter().enumerate() {
            let (mut claim, mut proof) = (claim.clone(), proof.clone());
            change(&mut claim, &mut proof, bump);
            assert_eq!(circuit.run(&claim, &proof), Outcome::Refused, "change {number} of {}", shape.system.name);
        }
    }
}

#[test]
fn circuit_refuses_forged_witnesses() {
    let honest = || Forgery::honest(spread_layer(Operator::Dense, 16, -60, 60, 43), Role::Inference);
    let circuit = LayerCircuit::new(&honest().shape);
    let mut requantized = honest();
    let row = requantized.find(|r| r.overshoot == 0 && (1..100).contains(&r.u));
    requantized.shift("u", row, 1);
    requantized.recount();
    let mut accumulated = honest();
    let accumulator = accumulated.main_cell("acc", row);
    accumulated.set_accumulator(row, accumulator + 20_000);
    accumulated.recount();
    let mut unbalanced = honest();
    unbalanced.balance_error = K::ONE;
    let forgeries = [
        (honest(), Ok(())),
        (requantized, Err(LayerVerifyError::Constraints)),
        (accumulated, Err(LayerVerifyError::Sums)),
        (unbalanced, Err(LayerVerifyError::Sums)),
    ];
    for (forgery, expected) in forgeries {
        let (claim, proof) = forgery.prove(&forgery.shape);
        let native = verify(&forgery.shape, &claim, &proof);
        assert_eq!(native, expected);
        let outcome = circuit.run(&claim, &proof);
        let accepted = Outcome::Accepted(LayerCircuit::expected(&forgery.shape, &claim));
        assert_eq!(outcome, if native.is_ok() { accepted } else { Outcome::Refused });
    }
}

/// A registration has no balance: the circuit knows it to be 0.
#[test]
fn circuit_refuses_registrations_with_a_balance() {
    let mut forgery = Forgery::honest(random_add(8, 99, 44), Role::Registration);
    let circuit = LayerCircuit::new(&forgery.shape);
    forgery.balance_error = K::ONE;
    let (mut claim, proof) = forgery.prove(&forgery.shape);
    assert_eq!(circuit.run(&claim, &proof), Outcome::Refused);
    claim.balance = K::ZERO;
    assert_eq!(circuit.run(&claim, &proof), Outcome::Refused);
}
