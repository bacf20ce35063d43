//! Verification by the client itself: no server, no prover.

use zkinfer_circuits::key::VerifierKey;
use zkinfer_circuits::recursion::parameters::{Parameters, ParametersError};
use zkinfer_circuits::security::{ProfileName, SecurityFloor};
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

/// What the caller accepts.
#[derive(Debug, Clone)]
pub struct Acceptance {
    /// Profiles whose built-in parameter sets the caller believes in; [`ALL_PROFILES`] takes what the key names.
    pub profiles: Vec<ProfileName>,
    /// Least security of the one that the proof was made with.
    pub min_security: SecurityFloor,
    /// The caller's own nonce.
    pub context_nonce: ContextNonce,
}

/// Verifies a proof of a statement about the model of a key.
///
/// The caller decides two more things: that the key is of the model it means ([`Verified::check_model`]), and that the nonce is its own and
/// fresh. Who asked for the proof compares more: [`Verified::check_answers`].
///
/// # Errors
/// The first rule of acceptance that does not hold.
pub fn verify_accepting(key: &[u8], statement: &[u8], proof: &[u8], acceptance: &Acceptance) -> Result<Verified, LocalVerifyError> {
    let Acceptance { profiles, min_security, context_nonce } = acceptance;
    let parameter_sets = parameter_sets(profiles)?;
    let acceptable = AcceptableParams { parameter_sets, min_security: *min_security, context_nonce: *context_nonce };
    let (key, statement) = verify_bytes(key, statement, &acceptable, proof)?;
    Ok(Verified { statement, key })
}

/// [`verify_accepting`] with the least security that any profile promises: which profiles are accepted says it all
/// ([`ProfileName::Strict`] alone asks for proven security).
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
    let acceptance = Acceptance { profiles: profiles.to_vec(), min_security: SecurityFloor::default(), context_nonce };
    verify_accepting(key, statement, proof, &acceptance)
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
