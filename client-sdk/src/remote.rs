//! Verification by the service, for who trusts it. Who does not takes [`verify_locally`](crate::verify_locally), which needs none.

use zkinfer_circuits::encoding::{Canonical as _, DecodeError};
use zkinfer_circuits::statement::{ContextNonce, Statement};
use zkinfer_proto::v1;
use zkinfer_proto::v1::verify_proof_request;

use crate::client::Client;
use crate::status::ClientError;

/// The verifier key that the service is to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteKey<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// That of the READY model of this full name.
    Model(&'a str),
}

/// Why [`Client::verify_remotely`] does not accept.
#[derive(Debug, thiserror::Error)]
pub enum RemoteVerifyError {
    /// The service verified nothing.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The service refuses the proof.
    #[error("{message} [{reason}]")]
    Refused {
        /// Stable, UPPER_SNAKE.
        reason: String,
        /// For people.
        message: String,
    },
    /// The service accepts the proof, and it was made for another use.
    #[error("the statement is for another context nonce: the proof was made for another use")]
    OtherNonce,
    /// The service accepts a statement that this version cannot read.
    #[error("the service accepts the statement, but it cannot be read here: {0}")]
    Unreadable(DecodeError),
}

impl Client {
    /// Has the service verify a proof, and answers the statement that it accepted. The proof, statement and key go in one message, so all together are bound
    /// by `Limits.max_message_bytes`.
    ///
    /// Any parameter set that the service knows is accepted: who wants certain ones compares [`Statement::parameters_id`].
    /// That it is about the expected model the caller decides, as with [`verify_accepting`](crate::verify_accepting): [`RemoteKey::Model`] says which it is.
    ///
    /// # Errors
    /// See [`RemoteVerifyError`].
    pub async fn verify_remotely(
        &self,
        proof: &[u8],
        statement: &[u8],
        key: RemoteKey<'_>,
        context_nonce: ContextNonce,
    ) -> Result<Statement, RemoteVerifyError> {
        let verifier_key = match key {
            RemoteKey::Bytes(bytes) => verify_proof_request::VerifierKey::VerifierKeyBytes(bytes.to_vec()),
            RemoteKey::Model(name) => verify_proof_request::VerifierKey::Model(name.to_owned()),
        };
        let message = v1::VerifyProofRequest {
            proof: Some(verify_proof_request::Proof::ProofBytes(proof.to_vec())),
            statement: Some(verify_proof_request::Statement::StatementBytes(statement.to_vec())),
            verifier_key: Some(verifier_key),
        };
        let call = async || Ok(self.proof_service().verify_proof(self.request(message.clone())).await?.into_inner());
        let v1::VerifyProofResponse { valid, reason, message, .. } = self.repeat(call).await?;
        if !valid {
            return Err(RemoteVerifyError::Refused { reason, message });
        }
        // The service does not know which use the caller has in mind.
        let accepted = Statement::from_bytes(statement).map_err(RemoteVerifyError::Unreadable)?;
        if accepted.context_nonce == context_nonce { Ok(accepted) } else { Err(RemoteVerifyError::OtherNonce) }
    }
}
