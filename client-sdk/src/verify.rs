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

/// The parameter sets of these profiles that are built into this version.
///
/// # Errors
/// A damaged build.
pub fn parameter_sets(profiles: &[ProfileName]) -> Result<Vec<Parameters>, ParametersError> {
    profiles.iter().map(|&profile| Parameters::embedded(profile)).collect()
}

/// Verifies a proof of a statement about the model of a key, made for the context of `context_nonce`, under any of the
/// profiles that the caller accepts ([`ProfileName::Strict`] alone asks for proven security; `&ALL_PROFILES` takes what the key names).
///
/// The caller decides two things: that the key is of the model it means (compare its commitment with one from a source it trusts), and
/// that the nonce is its own and fresh.
///
/// # Errors
/// The first rule of acceptance that does not hold.
pub fn verify_locally(
    key: &[u8],
    statement: &[u8],
    proof: &[u8],
    profiles: &[ProfileName],
    context_nonce: ContextNonce,
) -> Result<Verified, LocalVerifyError> {
    let acceptable = AcceptableParams { parameter_sets: parameter_sets(profiles)?, context_nonce };
    let (key, statement) = verify_bytes(key, statement, &acceptable, proof)?;
    Ok(Verified { statement, key })
}

/// Every profile, the default first.
pub const ALL_PROFILES: [ProfileName; 2] = [ProfileName::Default, ProfileName::Strict];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_document_that_cannot_be_read() {
        match verify_locally(b"not a key", b"", b"", &ALL_PROFILES, ContextNonce::ZERO) {
            Err(LocalVerifyError::Refused(VerifyError::KeyEncoding(error))) => assert_eq!(error.field, "magic"),
            other => panic!("{other:?}"),
        }
    }
}
