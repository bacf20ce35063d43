//! Layer proofs: honest layers verify natively and in circuit.
#![allow(clippy::print_stdout, reason = "figures for whoever runs it with --nocapture")]
#![allow(missing_docs)]

mod support;

use plonky2::field::types::Field;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use plonky2::plonk::circuit_data::CircuitConfig;
use support::{Layer, dense_spec, prove_layer, random_add, random_dense, requantize};
use zkinfer_circuits::backend::reference::Reference;
use zkinfer_circuits::field::{Builder, C, F};
use zkinfer_circuits::kind::Role;
use zkinfer_circuits::layer::circuit::{set_layer, verify_layer};
use zkinfer_circuits::layer::{LayerClaim, LayerProof, LayerShape, OutputRule, verify};

fn check_in_circuit(shape: &LayerShape, claim: &LayerClaim, proof: &LayerProof) {
    let mut builder = Builder::new(CircuitConfig::standard_recursion_config());
    let targets = verify_layer(&mut builder, shape);
    builder.register_public_inputs(&targets.link_weights.elements);
    builder.register_public_inputs(&targets.balance.0);
    println!("{} gates for {}", builder.num_gates(), shape.system.name);
    let data = builder.build::<C>();
    let mut witness = PartialWitness::<F>::new();
    set_layer(&mut witness, &targets, &claim.theta, proof).unwrap();
    let index = F::from_canonical_usize(claim.index);
    witness.set_target(targets.index, index).unwrap();
    if shape.role == Role::Inference {
        witness.set_extension_target(targets.gamma_prime, claim.gamma_prime).unwrap();
        witness.set_extension_target(targets.delta, claim.delta).unwrap();
        witness.set_extension_target(targets.balance, claim.balance).unwrap();
    }
    let proof = data.prove(witness).expect("the circuit accepts an honest layer");
    assert_eq!(proof.public_inputs[..4], claim.link_weights.elements);
    data.verify(proof).unwrap();
}

fn check(layer: &Layer, in_circuit: bool) {
    layer.spec.check_shape().unwrap();
    layer.spec.check_no_wrap([128, 128]).unwrap();
    for role in [Role::Inference, Role::Registration] {
        let (shape, claim, proof) = prove_layer(&Reference, layer, role);
        verify(&shape, &claim, &proof).unwrap();
        if in_circuit {
            check_in_circuit(&shape, &claim, &proof);
        }
    }
}

#[test]
fn dense_layer_is_accepted_natively_and_in_circuit() {
    check(&random_dense(dense_spec(8, 8, 16, 200, 13, requantize(23, 0, 127)), 1), true);
}

#[test]
fn add_layer_is_accepted_natively_and_in_circuit() {
    check(&random_add(8, 200, 2), true);
}

#[test]
fn folded_dense_layer_is_accepted() {
    check(&random_dense(dense_spec(9, 6, 4, 50, 31, requantize(20, -127, 127)), 3), true);
}

#[test]
fn raw_dense_layer_is_accepted() {
    check(&random_dense(dense_spec(8, 8, 16, 64, 10, OutputRule::Raw), 4), false);
}

#[test]
fn clamp_bounds_away_from_zero_are_accepted() {
    check(&random_dense(dense_spec(8, 8, 8, 30, 8, requantize(22, 5, 90)), 5), false);
    check(&random_dense(dense_spec(8, 8, 8, 30, 8, requantize(22, -128, 127)), 6), false);
}
