//! The witness of a recursion circuit, without the random cells that plonky2 adds.
//!
//! plonky2 fills the unused wires of the public-input gate at random, so that a proof that fails by an unlucky zero denominator can be tried
//! again. That chance is below 2^-40, and it makes equal inputs give different proofs: here those cells hold zero.

use plonky2::field::types::Field;
use plonky2::iop::generator::generate_partial_witness;
use plonky2::iop::witness::{PartialWitness, PartitionWitness};
use plonky2::util::serialization::{Buffer, Read};

use super::{BackendError, Circuit};
use crate::field::F;

/// The id of the generators whose values are random.
const RANDOM_GENERATOR: &str = "RandomValueGenerator";

/// Runs the circuit's generators. Not for circuits with zero knowledge, whose blinding is random by intent.
///
/// # Errors
/// [`BackendError::Witness`] if the inputs contradict each other or the circuit.
pub fn deterministic_witness<'a>(circuit: &'a Circuit, inputs: PartialWitness<F>) -> Result<PartitionWitness<'a, F>, BackendError> {
    let (prover_data, common) = (&circuit.prover_only, &circuit.common);
    let refused = |message: String| BackendError::Witness(message);
    let mut witness = generate_partial_witness(inputs, prover_data, common).map_err(|error| refused(error.to_string()))?;
    for generator in prover_data.generators.iter().filter(|generator| generator.0.id() == RANDOM_GENERATOR) {
        // The generator keeps its target to itself, but serializes it.
        let mut bytes = Vec::new();
        let target = match generator.0.serialize(&mut bytes, common) {
            Ok(()) => Buffer::new(&bytes).read_target().ok(),
            Err(_) => None,
        };
        let target = target.ok_or_else(|| refused("a random cell of the circuit cannot be located".to_owned()))?;
        let cell = witness.representative_map[target.index(common.config.num_wires, common.degree())];
        witness.values[cell] = Some(F::ZERO);
    }
    Ok(witness)
}
