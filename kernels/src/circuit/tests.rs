//! The prover of circuits: levels, witnesses, refusals.

use plonky2::iop::target::Target;
use plonky2::iop::witness::WitnessWrite;
use plonky2::plonk::circuit_data::CircuitConfig;
use zkinfer_circuits::backend::witness::deterministic_witness;
use zkinfer_circuits::field::Builder;

use super::*;
use crate::CpuBackend;
use crate::vector::Level;

/// A hash chain over two targets, of which the second may be left to a generator.
struct Chain {
    circuit: Circuit,
    start: Target,
    square: Target,
}

impl Chain {
    fn new(config: CircuitConfig) -> Self {
        let mut b = Builder::new(config);
        let start = b.add_virtual_public_input();
        let square = b.square(start);
        b.range_check(start, 20);
        let digest = b.hash_n_to_hash_no_pad::<H>(vec![start, square]);
        let digest = b.hash_n_to_hash_no_pad::<H>(digest.elements.to_vec());
        b.register_public_inputs(&digest.elements);
        Self { circuit: b.build(), start, square }
    }

    fn inputs(&self, start: u64) -> PartialWitness<F> {
        let mut inputs = PartialWitness::new();
        inputs.set_target(self.start, F::from_canonical_u64(start)).unwrap();
        inputs
    }
}

/// A backend with plans of its own.
fn cpu(level: Level) -> CpuBackend {
    CpuBackend::with_level(level).unwrap()
}

#[test]
fn every_level_gives_the_same_proof() {
    let chain = Chain::new(CircuitConfig::standard_recursion_config());
    let of_level = |level| {
        let backend = cpu(level);
        prove(&backend, backend.host(), &chain.circuit, &chain.inputs(5)).unwrap()
    };
    let portable = of_level(Level::Portable);
    chain.circuit.verify(portable.clone()).unwrap();
    for level in Level::available() {
        assert_eq!(of_level(level), portable, "level {}", level.name());
    }
}

#[test]
fn a_planned_witness_is_the_one_that_plonky2_finds() {
    let chain = Chain::new(CircuitConfig::standard_recursion_config());
    let plans = Plans::default();
    let check = |inputs: PartialWitness<F>| {
        let planned = plans.witness(&chain.circuit, &inputs, Blinding::Absent).unwrap();
        assert_eq!(planned.values, deterministic_witness(&chain.circuit, inputs).unwrap().values);
    };
    let with_square = |start: u64| {
        let mut inputs = chain.inputs(start);
        inputs.set_target(chain.square, F::from_canonical_u64(start * start)).unwrap();
        inputs
    };
    // Searched, followed; then with a target given that a generator finds, and without it again.
    for start in [3, 4] {
        check(chain.inputs(start));
    }
    check(with_square(6));
    check(chain.inputs(7));
    let other = Chain::new(CircuitConfig { num_challenges: 1, ..CircuitConfig::standard_recursion_config() });
    let planned = plans.witness(&other.circuit, &other.inputs(8), Blinding::Absent).unwrap();
    assert_eq!(planned.values, deterministic_witness(&other.circuit, other.inputs(8)).unwrap().values);
}

#[test]
fn refuses_witnesses_that_are_wrong_or_incomplete_with_and_without_a_plan() {
    let chain = Chain::new(CircuitConfig::standard_recursion_config());
    let blinded = Chain::new(CircuitConfig::standard_recursion_zk_config());
    let backend = cpu(Level::detect());
    type Prove = fn(&CpuBackend, Host<'_>, &Circuit, &PartialWitness<F>) -> Result<CircuitProof, BackendError>;
    for (chain, prove) in [(&chain, prove as Prove), (&blinded, prove_blinded as Prove)] {
        let proved = |inputs: &PartialWitness<F>| prove(&backend, backend.host(), &chain.circuit, inputs);
        let refused = |inputs: &PartialWitness<F>| matches!(proved(inputs), Err(BackendError::Witness(_)));
        let mut contradicting = chain.inputs(5);
        contradicting.set_target(chain.square, F::from_canonical_u64(26)).unwrap();
        for _ in 0..2 {
            assert!(refused(&PartialWitness::new()), "no input");
            assert!(refused(&contradicting), "a square that is none");
            // No generator notices this one: its constraints do not divide.
            assert!(refused(&chain.inputs(1 << 30)), "a value out of range");
            chain.circuit.verify(proved(&chain.inputs(5)).unwrap()).unwrap();
        }
    }
}

#[test]
fn refuses_to_blind_or_to_repeat_where_the_circuit_says_otherwise() {
    let chain = Chain::new(CircuitConfig::standard_recursion_config());
    let blinded = Chain::new(CircuitConfig::standard_recursion_zk_config());
    let backend = cpu(Level::detect());
    let unsupported = |result: Result<CircuitProof, BackendError>| matches!(result, Err(BackendError::Unsupported(_)));
    assert!(unsupported(prove(&backend, backend.host(), &blinded.circuit, &blinded.inputs(5))));
    assert!(unsupported(prove_blinded(&backend, backend.host(), &chain.circuit, &chain.inputs(5))));
}
