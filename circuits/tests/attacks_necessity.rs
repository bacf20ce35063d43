//! Each constraint and each summand is needed: without it a forged proof of a false statement is accepted, with it the same is refused.
//!
//! The tables of attacks are compared with the systems in both directions, so that no constraint comes or goes without its attack.
#![cfg(feature = "prover")]
#![allow(missing_docs, unreachable_pub)]

mod necessity;
mod support;

use necessity::Attack;
use necessity::inference::inference_attacks;
use necessity::registration::registration_attacks;
use zkinfer_circuits::kind::{Operator, Role};
use zkinfer_circuits::layer::{LayerShape, LayerVerifyError, verify};

fn check(attack: &Attack, operator: Operator) {
    let forgery = (attack.forge)(operator);
    let full = &forgery.shape;
    let (reduced, expected) = without(full, attack.id);
    let (claim, proof) = forgery.prove(&reduced);
    assert!(forgery.is_false(&claim), "{}: the statement is true", attack.id);
    assert_eq!(verify(&reduced, &claim, &proof), Ok(()), "{}: refused although the constraint is gone", attack.id);
    let (claim, proof) = forgery.prove(full);
    assert_eq!(verify(full, &claim, &proof), Err(expected), "{}: not refused by the full system", attack.id);
}

/// The shape without one constraint or summand, and the error that its violation gives.
fn without(shape: &LayerShape, id: &str) -> (LayerShape, LayerVerifyError) {
    let mut reduced = shape.clone();
    let system = &mut reduced.system;
    let before = (system.constraints.len(), system.summands.len());
    system.constraints.retain(|constraint| constraint.id != id);
    system.summands.retain(|summand| summand.id != id);
    let expected = match (before.0 - system.constraints.len(), before.1 - system.summands.len()) {
        (1, 0) => LayerVerifyError::Constraints,
        (0, 1) => LayerVerifyError::Sums,
        removed => panic!("{id} names {removed:?} constraints and summands"),
    };
    (reduced, expected)
}

fn run(operator: Operator, role: Role, attacks: &[Attack]) {
    let shape = (attacks[0].forge)(operator).shape;
    assert_eq!((shape.kind.operator, shape.role), (operator, role));
    let system = &shape.system;
    let mut ids: Vec<&str> = system.constraints.iter().map(|c| c.id.as_str()).collect();
    ids.extend(system.summands.iter().map(|s| s.id.as_str()));
    let mut attacked: Vec<&str> = attacks.iter().map(|attack| attack.id).collect();
    ids.sort_unstable();
    attacked.sort_unstable();
    assert_eq!(ids, attacked, "constraints of {} and attacks differ", system.name);
    for attack in attacks {
        check(attack, operator);
    }
}

#[test]
fn every_constraint_of_dense_inference_is_needed() {
    run(Operator::Dense, Role::Inference, &inference_attacks(Operator::Dense));
}

#[test]
fn every_constraint_of_add_inference_is_needed() {
    run(Operator::Add, Role::Inference, &inference_attacks(Operator::Add));
}

#[test]
fn every_constraint_of_dense_registration_is_needed() {
    run(Operator::Dense, Role::Registration, &registration_attacks(Operator::Dense));
}

#[test]
fn every_constraint_of_add_registration_is_needed() {
    run(Operator::Add, Role::Registration, &registration_attacks(Operator::Add));
}
