//! Whether what was proved is what was asked for.

use std::borrow::Cow;

use zkinfer_circuits::encoding::digest_bytes;
use zkinfer_circuits::input::{InputError, input_bytes};
use zkinfer_circuits::statement::StatementInput;
use zkinfer_proto::v1::Privacy;

use crate::jobs::{JobInput, JobRequest};
use crate::verify::Verified;

/// Why a proof that verifies is not about a request.
#[derive(Debug, thiserror::Error)]
pub enum OtherAnswer {
    /// The verifier key is of another model.
    #[error("the verifier key is of another model than the expected one")]
    Model,
    /// The statement shows an input that was to be hidden.
    #[error("the statement shows the input, which was to be private: do not hand it on")]
    InputShown,
    /// The statement hides an input that was to be shown.
    #[error("the statement hides its input, which was to be public")]
    InputHidden,
    /// The statement shows another input, or holds the commitment of another one or of another salt.
    #[error("the statement is about another input")]
    Input,
    /// The request's own input cannot be read.
    #[error("the input cannot be compared: {0}")]
    Unreadable(#[from] InputError),
}

impl OtherAnswer {
    /// A stable name, the same as the Python client's.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Model => "OTHER_MODEL",
            Self::InputShown | Self::InputHidden | Self::Input | Self::Unreadable(_) => "OTHER_INPUT",
        }
    }
}

impl Verified {
    /// Whether this is about the model with this commitment: 32 bytes, from a source that the caller trusts.
    ///
    /// # Errors
    /// [`OtherAnswer::Model`].
    pub fn check_model(&self, commitment: &[u8]) -> Result<(), OtherAnswer> {
        if digest_bytes(self.key.model_commitment) == commitment { Ok(()) } else { Err(OtherAnswer::Model) }
    }

    /// Whether this shows the request's input, or hides one if the request says so. That it hides the request's input can be told only if the request
    /// brought its salt: else the service drew it.
    ///
    /// # Errors
    /// All others.
    pub fn check_answers(&self, request: &JobRequest) -> Result<(), OtherAnswer> {
        match (&self.statement.input, request.privacy) {
            (StatementInput::Committed(commitment), Privacy::InputCommitted) => {
                let Some(salt) = &request.input_salt else { return Ok(()) };
                let input = self.bytes_of(&request.input)?;
                if salt.commit(&input) == Some(*commitment) { Ok(()) } else { Err(OtherAnswer::Input) }
            }
            (StatementInput::Public(_), Privacy::InputCommitted) => Err(OtherAnswer::InputShown),
            (StatementInput::Committed(_), Privacy::InputPublic | Privacy::Unspecified) => Err(OtherAnswer::InputHidden),
            (StatementInput::Public(shown), Privacy::InputPublic | Privacy::Unspecified) => {
                let is_same = self.bytes_of(&request.input)? == *shown;
                if is_same { Ok(()) } else { Err(OtherAnswer::Input) }
            }
        }
    }

    /// The bytes that the network reads.
    fn bytes_of<'a>(&self, input: &'a JobInput) -> Result<Cow<'a, [u8]>, InputError> {
        match input {
            JobInput::Uint8(bytes) => Ok(Cow::Borrowed(bytes)),
            JobInput::Npy(file) => input_bytes(file, &self.key.input).map(Cow::Owned),
        }
    }
}
