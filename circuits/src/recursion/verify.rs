//! Verification of published proofs. Builds no circuit and needs nothing of the prover.

use thiserror::Error;

use crate::field::Digest;
use crate::recursion::parameters::{OuterKey, Parameters};
use crate::recursion::proof::{DecodeError, ProofKind, decode_proof, encode_proof};

/// A proof that is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum VerifyError {
    /// No proof of these parameters.
    #[error("the proof cannot be decoded")]
    Decode(#[from] DecodeError),
    /// The bytes are not the one encoding of the proof.
    #[error("the proof is not canonically encoded")]
    NotCanonical,
    /// A well-formed proof of something else, or of nothing.
    #[error("the proof does not prove this statement: {reason}")]
    Invalid {
        /// The check that failed.
        reason: String,
    },
}

fn verify(kind: ProofKind, key: &OuterKey, parameters_id: Digest, statement: Digest, bytes: &[u8]) -> Result<(), VerifyError> {
    let proof = decode_proof(kind, parameters_id, &key.common, statement.elements.to_vec(), bytes)?;
    if encode_proof(kind, parameters_id, &proof.proof) != bytes {
        return Err(VerifyError::NotCanonical);
    }
    key.verify(proof).map_err(|error| VerifyError::Invalid { reason: error.to_string() })
}

/// Verifies the proof of an inference: `statement` is the digest that the verifier computed from the readable statement.
///
/// # Errors
/// Anything but a valid proof of exactly this statement.
pub fn verify_outer(parameters: &Parameters, statement: Digest, bytes: &[u8]) -> Result<(), VerifyError> {
    verify(ProofKind::Inference, parameters.outer(), parameters.id(), statement, bytes)
}

/// Verifies the proof of a registration: `registration` is `digest::registration_digest` of the parameters id, program and model.
///
/// # Errors
/// Anything but a valid proof of exactly this registration.
pub fn verify_registration(parameters: &Parameters, registration: Digest, bytes: &[u8]) -> Result<(), VerifyError> {
    verify(ProofKind::Registration, parameters.registration(), parameters.id(), registration, bytes)
}
