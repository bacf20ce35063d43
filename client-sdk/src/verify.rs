//! Verification by the client itself: no server, no prover.

use zkinfer_circuits::key::VerifierKey;
use zkinfer_circuits::recursion::parameters::{Parameters, ParametersError};
use zkinfer_circuits::security::ProfileName;
use zkinfer_circuits::statement::{ContextNonce, Statement};
use zkinfer_circuits::verify::{AcceptableParams, VerifyError, verify_bytes};

/// A statement that was proved.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// What was proved.
    pub statement: Statement,
    /// Of which model.
    pub key: VerifierKey,
}

/// Why [`verify_locally`] does not accept.
#[derive(Debug, thiserror::Error)]
pub enum LocalVerifyError {
    /// This build holds no usable parameters.
    #[error("this build has no usable parameters")]
    Parameters(#[from] ParametersError),
    /// The proof is refused.
    #[error(transparent)]
    Refused(#[from] VerifyError),
}

/// The parameter sets built into this version.
///
/// # Errors
/// A damaged build.
pub fn accepted_parameters() -> Result<Vec<Parameters>, ParametersError> {
    Ok(vec![Parameters::embedded(ProfileName::Default)?])
}

/// Verifies a proof of a statement about the model of a key, made for the context of `context_nonce`.
///
/// The caller decides two things: that the key is of the model it means (compare its commitment with one from a source it trusts), and
/// that the nonce is its own and fresh.
///
/// # Errors
/// The first rule of acceptance that does not hold.
pub fn verify_locally(key: &[u8], statement: &[u8], proof: &[u8], context_nonce: ContextNonce) -> Result<Verified, LocalVerifyError> {
    let acceptable = AcceptableParams { parameter_sets: accepted_parameters()?, context_nonce };
    let (key, statement) = verify_bytes(key, statement, &acceptable, proof)?;
    Ok(Verified { statement, key })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_document_that_cannot_be_read() {
        // Without parameters nothing is accepted; with them, the key is read first.
        match verify_locally(b"not a key", b"", b"", ContextNonce::ZERO) {
            Err(LocalVerifyError::Refused(VerifyError::KeyEncoding(error))) => assert_eq!(error.field, "magic"),
            Err(LocalVerifyError::Parameters(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}
