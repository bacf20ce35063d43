//! Circuits for tests of backends.

use plonky2::field::types::Field;
use plonky2::iop::target::Target;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use plonky2::plonk::circuit_data::CircuitConfig;
use zkinfer_circuits::backend::{Backend, BackendError, Circuit, CircuitProof};
use zkinfer_circuits::field::{Builder, F, H};

/// A chain of hashes and products.
pub(crate) struct Chain {
    pub(crate) circuit: Circuit,
    start: Target,
}

impl Chain {
    pub(crate) fn new(config: CircuitConfig, n_hashes: usize) -> Self {
        let mut b = Builder::new(config);
        let start = b.add_virtual_public_input();
        let mut element = b.square(start);
        for _ in 0..n_hashes {
            let digest = b.hash_n_to_hash_no_pad::<H>(vec![start, element]);
            element = b.mul(digest.elements[0], digest.elements[3]);
        }
        b.register_public_input(element);
        Self { circuit: b.build(), start }
    }

    /// A deterministic circuit with few queries and little work, so that a proof is soon made. Its rows are in proportion to the hashes.
    pub(crate) fn quick(n_hashes: usize) -> Self {
        let mut config = CircuitConfig::standard_recursion_config();
        config.fri_config.num_query_rounds = 2;
        config.fri_config.proof_of_work_bits = 3;
        config.security_bits = 9;
        Self::new(config, n_hashes)
    }

    pub(crate) fn prove(&self, backend: &impl Backend) -> Result<CircuitProof, BackendError> {
        backend.prove_circuit(&self.circuit, self.inputs())
    }

    pub(crate) fn prove_blinded(&self, backend: &impl Backend) -> Result<CircuitProof, BackendError> {
        backend.prove_blinded_circuit(&self.circuit, self.inputs())
    }

    pub(crate) fn accepts(&self, proof: CircuitProof) -> bool {
        self.circuit.verify(proof).is_ok()
    }

    fn inputs(&self) -> PartialWitness<F> {
        let mut inputs = PartialWitness::new();
        inputs.set_target(self.start, F::from_canonical_u64(11)).unwrap();
        inputs
    }
}

/// Bytes that the extension of a circuit's wires takes.
pub(crate) fn wire_bytes(circuit: &Circuit) -> u64 {
    let common = &circuit.common;
    8 * (common.config.num_wires << (common.degree_bits() + common.config.fri_config.rate_bits)) as u64
}
