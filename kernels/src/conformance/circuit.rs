//! Proofs of recursion circuits.

use std::any::TypeId;

use plonky2::field::types::Field;
use plonky2::iop::target::Target;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use plonky2::plonk::circuit_data::CircuitConfig;
use zkinfer_circuits::backend::reference::Reference;
use zkinfer_circuits::backend::{Backend, BackendError, Circuit, CircuitProof};
use zkinfer_circuits::field::{Builder, C, Digest, F, H};

use super::gates::every_gate;
use super::{Case, Run, require};
use crate::dual::{DualBackend, agree_up_to_nonce};

pub(super) fn cases<B: Backend>() -> Vec<Case<B>> {
    let config = CircuitConfig::standard_recursion_config();
    let with_challenges = |num_challenges: usize| CircuitConfig { num_challenges, ..CircuitConfig::standard_recursion_config() };
    let mut low_rate = config.clone();
    low_rate.fri_config.rate_bits = 4;
    let mut few_queries = config.clone();
    few_queries.fri_config.num_query_rounds = 2;
    few_queries.security_bits = 22;
    let blinded = CircuitConfig::standard_recursion_zk_config();
    let unusual = config.clone();
    let cases: [(&str, Run<B>); 8] = [
        ("few rows", unblinded_case(config.clone(), 0)),
        ("an unusual gate", Box::new(move |dual| unusual_gate(dual, &unusual))),
        ("standard configuration", unblinded_case(config, 200)),
        ("one challenge", unblinded_case(with_challenges(1), 20)),
        ("three challenges", unblinded_case(with_challenges(3), 50)),
        ("rate 1/16", unblinded_case(low_rate, 20)),
        ("verification of another", Box::new(move |dual| verification(dual, &few_queries))),
        ("blinded", Box::new(move |dual| blinding(dual, &blinded))),
    ];
    cases.into_iter().map(|(name, run)| (format!("circuit, {name}"), run)).chain([gates_case()]).collect()
}

/// Every gate, in a circuit whose proofs are soon made.
pub(super) fn gates_case<B: Backend>() -> Case<B> {
    let mut config = CircuitConfig::standard_recursion_config();
    config.fri_config.num_query_rounds = 2;
    config.fri_config.proof_of_work_bits = 3;
    config.security_bits = 9;
    ("circuit, every gate".to_owned(), Box::new(move |dual| gates(dual, &config)))
}

fn unblinded_case<B: Backend>(config: CircuitConfig, n_hashes: usize) -> Run<B> {
    Box::new(move |dual| unblinded(dual, config.clone(), n_hashes))
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
        let mut elements = vec![start];
        for _ in 0..n_hashes {
            let digest = b.hash_n_to_hash_no_pad::<H>(elements);
            let product = b.mul(digest.elements[0], digest.elements[1]);
            let list = vec![product, digest.elements[2], start, digest.elements[3]];
            let two = b.two();
            let chosen = b.random_access(two, list);
            elements = vec![chosen, product];
        }
        b.range_check(start, 20);
        let seventeen = b.constant(F::from_canonical_u64(17));
        b.connect(start, seventeen);
        b.register_public_inputs(&elements);
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
    require(repeats::<B>(&proof, &again), "repetition of a circuit proof")?;
    let refused = dual.second().prove_circuit(&example.circuit, example.inputs(18));
    require(matches!(refused, Err(BackendError::Witness(_))), "refusal of an unsatisfiable witness")
}

/// Whether a second proof of one witness is the first again. plonky2's own prover, which the reference runs, takes any nonce.
fn repeats<B: Backend>(proof: &CircuitProof, again: &CircuitProof) -> bool {
    let is_reference = TypeId::of::<B>() == TypeId::of::<Reference>();
    proof == again || (is_reference && agree_up_to_nonce(proof, again))
}

fn gates<B: Backend>(dual: &DualBackend<Reference, B>, config: &CircuitConfig) -> Result<(), BackendError> {
    let (circuit, inputs) = every_gate(config);
    dual.prove_circuit(&circuit, inputs.clone())?;
    let proof = dual.second().prove_circuit(&circuit, inputs)?;
    require(circuit.verify(proof).is_ok(), "verification of a proof of every gate")
}

/// A circuit with a gate that no circuit of this project has.
fn unusual_gate<B: Backend>(dual: &DualBackend<Reference, B>, config: &CircuitConfig) -> Result<(), BackendError> {
    let mut b = Builder::new(config.clone());
    let base = b.add_virtual_public_input();
    let exponent = b.constant(F::from_canonical_u64(77));
    let power = b.exp(base, exponent, 10);
    b.register_public_input(power);
    let circuit = b.build::<C>();
    let mut inputs = PartialWitness::new();
    inputs.set_target(base, F::from_canonical_u64(3)).map_err(|error| BackendError::Witness(error.to_string()))?;
    dual.prove_circuit(&circuit, inputs.clone())?;
    let proof = dual.second().prove_circuit(&circuit, inputs)?;
    require(proof.public_inputs[1] == F::from_canonical_u64(3).exp_u64(77), "an exponentiation")?;
    require(circuit.verify(proof).is_ok(), "verification of a proof of an unusual gate")
}

/// A circuit with the gates of recursion: folding, interpolation, reduction.
fn verification<B: Backend>(dual: &DualBackend<Reference, B>, config: &CircuitConfig) -> Result<(), BackendError> {
    let example = Example::new(config.clone(), 5);
    let inner = dual.prove_circuit(&example.circuit, example.inputs(17))?;
    let mut b = Builder::new(config.clone());
    let common = &example.circuit.common;
    let target = b.add_virtual_proof_with_pis(common);
    let verifier_data = b.constant_verifier_data(&example.circuit.verifier_only);
    b.verify_proof::<C>(&target, &verifier_data, common);
    let circuit = b.build::<C>();
    let mut inputs = PartialWitness::new();
    inputs.set_proof_with_pis_target(&target, &inner).map_err(|error| BackendError::Witness(error.to_string()))?;
    dual.prove_circuit(&circuit, inputs.clone())?;
    let proof = dual.second().prove_circuit(&circuit, inputs)?;
    require(circuit.verify(proof).is_ok(), "verification of a proof of verification")
}

fn blinding<B: Backend>(dual: &DualBackend<Reference, B>, config: &CircuitConfig) -> Result<(), BackendError> {
    let example = Example::new(config.clone(), 5);
    let proof = dual.prove_blinded_circuit(&example.circuit, example.inputs(17))?;
    let again = dual.second().prove_blinded_circuit(&example.circuit, example.inputs(17))?;
    let third = dual.second().prove_blinded_circuit(&example.circuit, example.inputs(17))?;
    require([&proof, &again, &third].iter().all(|proof| example.accepts(proof)), "verification of a blinded proof")?;
    for (one, other) in [(&proof, &again), (&proof, &third), (&again, &third)] {
        let [one, other] = [one, other].map(digests_of_caps);
        require(one.iter().all(|digest| !other.contains(digest)), "fresh blinding")?;
    }
    let refused = dual.second().prove_blinded_circuit(&example.circuit, example.inputs(18));
    require(matches!(refused, Err(BackendError::Witness(_))), "refusal of an unsatisfiable witness")
}

/// Every digest of every cap of a proof.
fn digests_of_caps(proof: &CircuitProof) -> Vec<Digest> {
    let proof = &proof.proof;
    let caps = [&proof.wires_cap, &proof.plonk_zs_partial_products_cap, &proof.quotient_polys_cap];
    caps.into_iter().chain(&proof.opening_proof.commit_phase_merkle_caps).flat_map(|cap| cap.0.iter().copied()).collect()
}
