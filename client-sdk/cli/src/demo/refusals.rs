//! Lies about a proof, which a verifier must refuse.

use anyhow::Context as _;
use serde::Serialize;
use zkinfer_client::encoding::Canonical;
use zkinfer_client::key::VerifierKey;
use zkinfer_client::{ContextNonce, Documents, LocalVerifyError, SecurityFloor, Statement, StatementInput, Verified, verify_locally};

/// A lie and its refusal.
#[derive(Debug, Serialize)]
pub(super) struct Refusal {
    /// What was changed.
    pub(super) lie: String,
    /// Stable name of the reason.
    pub(super) reason: &'static str,
    /// For people.
    pub(super) message: String,
}

/// Tells all lies; every one of them must be refused.
pub(super) fn all(documents: &Documents, other_key: &[u8], verified: &Verified, nonce: ContextNonce) -> anyhow::Result<Vec<Refusal>> {
    let other = VerifierKey::from_bytes(other_key).context("the other model's key")?;
    let refusal = |lie: &str, statement: &Statement, key: &[u8]| {
        refuse(lie, verify_locally(key, &statement.to_bytes(), &documents.proof, &super::PROFILES, nonce))
    };
    let honest = &verified.statement;
    let mut changed_output = honest.clone();
    changed_output.outputs.reverse();
    let mut changed_input = honest.clone();
    changed_input.input = StatementInput::Committed(honest.model_commitment);
    let mut claims_other = honest.clone();
    claims_other.model_commitment = other.model_commitment;
    claims_other.program_digest = program_digest(&other)?;
    Ok(vec![
        refusal("A changed output: the same proof, the ten outputs in reverse order.", &changed_output, &documents.key)?,
        refusal("A changed input: the same proof, another input commitment.", &changed_input, &documents.key)?,
        refusal("A proof for another model: this proof and statement, the other model's key.", honest, other_key)?,
        refusal("The same, and the statement names the other model.", &claims_other, other_key)?,
    ])
}

/// The program digest that a verifier computes for a key.
fn program_digest(key: &VerifierKey) -> anyhow::Result<zkinfer_circuits::field::Digest> {
    let parameters = zkinfer_client::parameter_sets(&super::PROFILES)?;
    let checked = zkinfer_circuits::verify::CheckedKey::new(key, &parameters, &SecurityFloor::default())?;
    Ok(checked.program_digest())
}

fn refuse(lie: &str, result: Result<Verified, LocalVerifyError>) -> anyhow::Result<Refusal> {
    match result {
        Ok(_) => anyhow::bail!("the verifier accepted a lie ({lie}); this must never happen: please report it"),
        Err(LocalVerifyError::Refused(error)) => Ok(Refusal { lie: lie.to_owned(), reason: error.reason(), message: error.to_string() }),
        Err(error @ LocalVerifyError::Parameters(_)) => Err(error.into()),
    }
}
