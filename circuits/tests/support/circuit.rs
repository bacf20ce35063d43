//! The in-circuit verifier of one layer, with any proof assigned to its wires.

use std::panic::{AssertUnwindSafe, catch_unwind};

use plonky2::field::types::Field;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use plonky2::plonk::circuit_data::CircuitConfig;
use zkinfer_circuits::backend::Circuit;
use zkinfer_circuits::field::{Builder, C, F};
use zkinfer_circuits::kind::Role;
use zkinfer_circuits::layer::circuit::{LayerTargets, set_layer, verify_layer};
use zkinfer_circuits::layer::{LayerClaim, LayerProof, LayerShape};

/// A circuit that verifies one layer and publishes everything about it.
pub struct LayerCircuit {
    pub data: Circuit,
    targets: LayerTargets,
    role: Role,
}

/// What became of an attempt to prove the circuit.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Proved and verified, with these public inputs: layer key, links of weights and main, γ', δ, balance, index.
    Accepted(Vec<F>),
    /// No proof, or one that does not verify.
    Refused,
}

impl LayerCircuit {
    pub fn new(shape: &LayerShape) -> Self {
        let mut builder = Builder::new(CircuitConfig::standard_recursion_config());
        let targets = verify_layer(&mut builder, shape);
        for digest in [targets.layer_key, targets.link_weights, targets.link_main] {
            builder.register_public_inputs(&digest.elements);
        }
        for value in [targets.gamma_prime, targets.delta, targets.balance] {
            builder.register_public_inputs(&value.0);
        }
        builder.register_public_input(targets.index);
        Self { data: builder.build::<C>(), targets, role: shape.role }
    }

    /// The public inputs of a circuit that agrees with the native verifier on a claim.
    pub fn expected(shape: &LayerShape, claim: &LayerClaim) -> Vec<F> {
        let header = zkinfer_circuits::layer::verifier::header(shape, claim);
        let mut values = [header.layer_key, header.link_weights, header.link_main].concat();
        values.extend([claim.gamma_prime, claim.delta, claim.balance].iter().flat_map(|v| v.0));
        values.push(header.index);
        values
    }

    /// Assigns claim and proof to the wires, proves, verifies.
    pub fn run(&self, claim: &LayerClaim, proof: &LayerProof) -> Outcome {
        let mut witness = PartialWitness::<F>::new();
        if set_layer(&mut witness, &self.targets, &claim.theta, proof).is_err() {
            return Outcome::Refused;
        }
        witness.set_target(self.targets.index, F::from_canonical_usize(claim.index)).expect("unset");
        if self.role == Role::Inference {
            let scalars =
                [(self.targets.gamma_prime, claim.gamma_prime), (self.targets.delta, claim.delta), (self.targets.balance, claim.balance)];
            for (target, value) in scalars {
                witness.set_extension_target(target, value).expect("unset");
            }
        }
        // plonky2's prover panics on some unsatisfiable witnesses.
        match catch_unwind(AssertUnwindSafe(|| self.data.prove(witness))) {
            Ok(Ok(proof)) if self.data.verify(proof.clone()).is_ok() => Outcome::Accepted(proof.public_inputs),
            _ => Outcome::Refused,
        }
    }
}
