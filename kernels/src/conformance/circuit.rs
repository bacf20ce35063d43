//! Proofs of recursion circuits.

use plonky2::field::types::Field;
use plonky2::iop::target::Target;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use plonky2::plonk::circuit_data::CircuitConfig;
use zkinfer_circuits::backend::reference::Reference;
use zkinfer_circuits::backend::{Backend, BackendError, Circuit, CircuitProof};
use zkinfer_circuits::field::{Builder, F, H};

use super::{Case, require};
use crate::dual::DualBackend;

pub(super) fn cases<B: Backend>() -> Vec<Case<B>> {
    let config = CircuitConfig::standard_recursion_config();
    let mut one_challenge = config.clone();
    one_challenge.num_challenges = 1;
    let mut three_challenges = config.clone();
    three_challenges.num_challenges = 3;
    let blinded = CircuitConfig::standard_recursion_zk_config();
    vec![
        ("circuit, standard configuration".to_owned(), Box::new(move |dual| unblinded(dual, config.clone(), 200))),
        ("circuit, one challenge".to_owned(), Box::new(move |dual| unblinded(dual, one_challenge.clone(), 20))),
        ("circuit, three challenges".to_owned(), Box::new(move |dual| unblinded(dual, three_challenges.clone(), 50))),
        ("circuit, blinded".to_owned(), Box::new(move |dual| blinding(dual, blinded.clone()))),
    ]
}

/// A circuit of several gate types: a hash chain, arithmetic in F and K, range checks, random access.
struct Example {
    circuit: Circuit,
    start: Target,
}

impl Example {
    fn new(config: CircuitConfig, n_hashes: usize) -> Self {
        let mut b = Builder::new(config);
        let start = b.add_virtual_public_input();
        let mut digest = b.hash_n_to_hash_no_pad::<H>(vec![start]);
        for _ in 1..n_hashes {
            let product = b.mul(digest.elements[0], digest.elements[1]);
            let list = vec![product, digest.elements[2], start, digest.elements[3]];
            let two = b.two();
            let chosen = b.random_access(two, list);
            digest = b.hash_n_to_hash_no_pad::<H>(vec![chosen, product]);
        }
        b.range_check(start, 20);
        let seventeen = b.constant(F::from_canonical_u64(17));
        b.connect(start, seventeen);
        b.register_public_inputs(&digest.elements);
        Self { circuit: b.build(), start }
    }

    fn inputs(&self, value: u64) -> PartialWitness<F> {
        let mut inputs = PartialWitness::new();
        inputs.set_target(self.start, F::from_canonical_u64(value)).expect("a target is set once");
        inputs
    }

    fn accepts(&self, proof: &CircuitProof) -> bool {
        self.circuit.verify(proof.clone()).is_ok()
    }
}

fn unblinded<B: Backend>(dual: &DualBackend<Reference, B>, config: CircuitConfig, n_hashes: usize) -> Result<(), BackendError> {
    let example = Example::new(config, n_hashes);
    dual.prove_circuit(&example.circuit, example.inputs(17))?;
    let proof = dual.second().prove_circuit(&example.circuit, example.inputs(17))?;
    require(example.accepts(&proof), "verification of a circuit proof")?;
    let again = dual.second().prove_circuit(&example.circuit, example.inputs(17))?;
    require(proof == again, "repetition of a circuit proof")?;
    let refused = dual.second().prove_circuit(&example.circuit, example.inputs(18));
    require(matches!(refused, Err(BackendError::Witness(_))), "refusal of an unsatisfiable witness")
}

fn blinding<B: Backend>(dual: &DualBackend<Reference, B>, config: CircuitConfig) -> Result<(), BackendError> {
    let example = Example::new(config, 5);
    let proof = dual.prove_blinded_circuit(&example.circuit, example.inputs(17))?;
    let again = dual.second().prove_blinded_circuit(&example.circuit, example.inputs(17))?;
    require(example.accepts(&proof) && example.accepts(&again), "verification of a blinded proof")?;
    require(proof.proof.wires_cap != again.proof.wires_cap, "fresh blinding")
}
