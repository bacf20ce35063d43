//! The verifier: whether a proof proves a statement about a registered model (`docs/PROTOCOL.md` §7, same order).

use thiserror::Error;

use crate::encoding::{Canonical, DecodeError, digest_hex};
use crate::field::Digest;
use crate::key::VerifierKey;
use crate::kind::LayerKind;
use crate::program::{ProgramError, Wiring};
use crate::recursion::digest::SizeError;
use crate::recursion::verify::VerifyError as ProofRefusal;
use crate::security::{ProfileName, Security, SecurityFloor, WeakParameters};
use crate::statement::{ContextNonce, Statement, StatementInput};

/// A parameter set: the circuits that a verifier believes in.
pub trait ParameterSet {
    /// Its id.
    fn id(&self) -> Digest;
    /// Its profile.
    fn profile(&self) -> ProfileName;
    /// Its security.
    fn security(&self) -> Security;
    /// Digest of a layer kind; `None` if no circuit proves such layers.
    fn kind_digest(&self, kind: &LayerKind) -> Option<Digest>;
    /// Verifies an outer proof against a statement digest.
    ///
    /// # Errors
    /// Anything but a valid proof of exactly this digest.
    fn verify_outer(&self, statement: Digest, proof: &[u8]) -> Result<(), ProofRefusal>;
    /// Verifies a registration proof against a registration digest.
    ///
    /// # Errors
    /// Anything but a valid proof of exactly this digest.
    fn verify_registration(&self, registration: Digest, proof: &[u8]) -> Result<(), ProofRefusal>;
}

/// What the caller accepts: parameter sets, how strong they must be, and the one use that the proof must have been made for.
#[derive(Clone, Debug)]
pub struct AcceptableParams<P> {
    /// Parameter sets the caller believes in.
    pub parameter_sets: Vec<P>,
    /// Least security, of whichever of them the proof was made with.
    pub min_security: SecurityFloor,
    /// The caller's own nonce.
    pub context_nonce: ContextNonce,
}

/// Why a proof is not accepted.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum VerifyError {
    /// The key's bytes.
    #[error("the verifier key cannot be read")]
    KeyEncoding(#[source] DecodeError),
    /// The statement's bytes.
    #[error("the statement cannot be read")]
    StatementEncoding(#[source] DecodeError),
    /// A parameter set that the caller does not accept.
    #[error("the verifier key is for parameters {}, which are not accepted here; accepted: {}", digest_hex(*.got), list(.accepted))]
    UnknownParameters {
        /// Id in the key.
        got: Digest,
        /// Ids on the caller's list.
        accepted: Vec<Digest>,
    },
    /// A parameter set on the caller's list that gives less security than the caller demands.
    #[error("the verifier key's parameters are too weak")]
    WeakParameters(#[from] WeakParameters),
    /// The key names another profile than its parameter set has.
    #[error("the verifier key says profile {got:?}, but its parameters are of profile {expected:?}")]
    Profile {
        /// Profile of the parameter set.
        expected: ProfileName,
        /// Profile in the key.
        got: ProfileName,
    },
    /// The program breaks a rule.
    #[error("the verifier key's program is not valid")]
    Program(#[from] ProgramError),
    /// A layer that no circuit proves.
    #[error("layer {layer} has kind {kind:?}, which no circuit of the parameters proves")]
    UnknownKind {
        /// Index of the layer.
        layer: usize,
        /// Its kind.
        kind: LayerKind,
    },
    /// The registration proof does not hold.
    #[error("the model is not registered: the key's registration proof is refused")]
    Unregistered(#[source] ProofRefusal),
    /// The statement names other parameters than the key.
    #[error("the statement is for parameters {}, the verifier key for {}", digest_hex(*.got), digest_hex(*.expected))]
    OtherParameters {
        /// Id in the key.
        expected: Digest,
        /// Id in the statement.
        got: Digest,
    },
    /// The statement is about another program.
    #[error("the statement is about another model: its program digest is {}, the verifier key's {}", digest_hex(*.got), digest_hex(*.expected))]
    OtherProgram {
        /// Digest of the key's program.
        expected: Digest,
        /// Digest in the statement.
        got: Digest,
    },
    /// The statement is about other weights.
    #[error("the statement is about another model: its commitment is {}, the verifier key's {}", digest_hex(*.got), digest_hex(*.expected))]
    OtherModel {
        /// Commitment in the key.
        expected: Digest,
        /// Commitment in the statement.
        got: Digest,
    },
    /// The public input has another length than the program reads.
    #[error("the statement's input has {got} bytes; the model reads {expected}")]
    InputLength {
        /// Bytes the program reads.
        expected: usize,
        /// Bytes stated.
        got: usize,
    },
    /// The output has another length than the program computes.
    #[error("the statement has {got} outputs; the model computes {expected}")]
    OutputLength {
        /// Values the program computes.
        expected: usize,
        /// Values stated.
        got: usize,
    },
    /// An output that the program cannot compute.
    #[error("output {index} is {got}; the model's outputs lie in {min} to {max}")]
    OutputRange {
        /// Index of the output.
        index: usize,
        /// Value stated.
        got: i64,
        /// Smallest possible.
        min: i64,
        /// Largest possible.
        max: i64,
    },
    /// An input or output without commitment.
    #[error("the statement has no commitment")]
    Size(#[from] SizeError),
    /// The proof was made for another use.
    #[error("the statement is for context nonce {}, not for the caller's own {}: the proof was made for another use", digest_hex(.got.digest()), digest_hex(.expected.digest()))]
    Nonce {
        /// The caller's.
        expected: ContextNonce,
        /// The statement's.
        got: ContextNonce,
    },
    /// Everything fits, but the proof does not prove it.
    #[error("the proof does not prove this statement: it was made for another output, input, model or nonce, or it is damaged")]
    Proof(#[source] ProofRefusal),
}

fn list(digests: &[Digest]) -> String {
    let digests: Vec<String> = digests.iter().map(|&digest| digest_hex(digest)).collect();
    if digests.is_empty() { "none".to_owned() } else { digests.join(", ") }
}

impl VerifyError {
    /// A stable name of the reason, UPPER_SNAKE.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::KeyEncoding(_) => "KEY_ENCODING",
            Self::StatementEncoding(_) => "STATEMENT_ENCODING",
            Self::UnknownParameters { .. } => "UNKNOWN_PARAMETERS",
            Self::WeakParameters(_) => "WEAK_PARAMETERS",
            Self::Profile { .. } => "PROFILE_MISMATCH",
            Self::Program(_) => "PROGRAM_INVALID",
            Self::UnknownKind { .. } => "UNKNOWN_LAYER_KIND",
            Self::Unregistered(_) => "MODEL_NOT_REGISTERED",
            Self::OtherParameters { .. } => "OTHER_PARAMETERS",
            Self::OtherProgram { .. } => "OTHER_PROGRAM",
            Self::OtherModel { .. } => "OTHER_MODEL",
            Self::InputLength { .. } => "INPUT_LENGTH",
            Self::OutputLength { .. } => "OUTPUT_LENGTH",
            Self::OutputRange { .. } => "OUTPUT_RANGE",
            Self::Size(_) => "SIZE",
            Self::Nonce { .. } => "OTHER_NONCE",
            Self::Proof(_) => "PROOF_INVALID",
        }
    }
}

/// A verifier key whose program is valid and whose registration proof holds, under one parameter set.
#[derive(Clone, Debug)]
pub struct CheckedKey<'a, P> {
    key: &'a VerifierKey,
    parameters: &'a P,
    wiring: Wiring,
    program_digest: Digest,
}

impl<'a, P: ParameterSet> CheckedKey<'a, P> {
    /// Items 1 to 3 of `docs/PROTOCOL.md` §7; once per model.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn new(key: &'a VerifierKey, parameter_sets: &'a [P], min_security: &SecurityFloor) -> Result<Self, VerifyError> {
        let parameters = parameter_sets.iter().find(|set| set.id() == key.parameters_id);
        let parameters = parameters.ok_or_else(|| VerifyError::UnknownParameters {
            got: key.parameters_id,
            accepted: parameter_sets.iter().map(ParameterSet::id).collect(),
        })?;
        min_security.check(&parameters.security())?;
        if parameters.profile() != key.profile {
            return Err(VerifyError::Profile { expected: parameters.profile(), got: key.profile });
        }
        let wiring = key.program.check()?;
        let program_digest = program_digest(key, parameters)?;
        let registered = parameters.verify_registration(key.registration_digest(program_digest), &key.registration_proof);
        registered.map_err(VerifyError::Unregistered)?;
        Ok(Self { key, parameters, wiring, program_digest })
    }

    /// Digest of the key's program.
    pub fn program_digest(&self) -> Digest {
        self.program_digest
    }

    /// What the program's layers read, and the range of its outputs.
    pub fn wiring(&self) -> &Wiring {
        &self.wiring
    }

    /// Items 4 to 6 of `docs/PROTOCOL.md` §7.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn verify(&self, statement: &Statement, context_nonce: ContextNonce, proof: &[u8]) -> Result<(), VerifyError> {
        self.check_model(statement)?;
        self.check_values(statement)?;
        if statement.context_nonce != context_nonce {
            return Err(VerifyError::Nonce { expected: context_nonce, got: statement.context_nonce });
        }
        self.parameters.verify_outer(statement.digest()?, proof).map_err(VerifyError::Proof)
    }

    fn check_model(&self, statement: &Statement) -> Result<(), VerifyError> {
        let (expected, got) = (self.key.parameters_id, statement.parameters_id);
        if got != expected {
            return Err(VerifyError::OtherParameters { expected, got });
        }
        let (expected, got) = (self.program_digest, statement.program_digest);
        if got != expected {
            return Err(VerifyError::OtherProgram { expected, got });
        }
        let (expected, got) = (self.key.model_commitment, statement.model_commitment);
        if got != expected {
            return Err(VerifyError::OtherModel { expected, got });
        }
        Ok(())
    }

    fn check_values(&self, statement: &Statement) -> Result<(), VerifyError> {
        let boundary = &self.key.program.boundary;
        if let StatementInput::Public(input) = &statement.input
            && input.len() != boundary.n_inputs
        {
            return Err(VerifyError::InputLength { expected: boundary.n_inputs, got: input.len() });
        }
        if statement.outputs.len() != boundary.n_outputs {
            return Err(VerifyError::OutputLength { expected: boundary.n_outputs, got: statement.outputs.len() });
        }
        let (min, max) = self.wiring.output_range;
        let mut outputs = statement.outputs.iter().copied().enumerate();
        match outputs.find(|(_, value)| !(min..=max).contains(value)) {
            Some((index, got)) => Err(VerifyError::OutputRange { index, got, min, max }),
            None => Ok(()),
        }
    }
}

/// The digest of the key's program under a parameter set.
fn program_digest<P: ParameterSet>(key: &VerifierKey, parameters: &P) -> Result<Digest, VerifyError> {
    let mut digests: Vec<(LayerKind, Digest)> = Vec::new();
    for (layer, spec) in key.program.layers.iter().enumerate() {
        if !digests.iter().any(|(kind, _)| *kind == spec.kind) {
            let digest = parameters.kind_digest(&spec.kind).ok_or(VerifyError::UnknownKind { layer, kind: spec.kind })?;
            digests.push((spec.kind, digest));
        }
    }
    // Every kind of the program is in the list.
    let of_kind = |kind: &LayerKind| digests.iter().find(|(known, _)| known == kind).map_or(Digest::ZERO, |(_, digest)| *digest);
    Ok(key.program.digest(of_kind))
}

/// Verifies that `proof` proves `statement` about the model of `key`.
///
/// # Errors
/// The first rule of `docs/PROTOCOL.md` §7 that does not hold.
pub fn verify<P: ParameterSet>(
    key: &VerifierKey,
    statement: &Statement,
    acceptable: &AcceptableParams<P>,
    proof: &[u8],
) -> Result<(), VerifyError> {
    CheckedKey::new(key, &acceptable.parameter_sets, &acceptable.min_security)?.verify(statement, acceptable.context_nonce, proof)
}

/// [`verify`] of encoded documents; returns the statement and the key.
///
/// # Errors
/// As [`verify`], or bytes that are no canonical encoding.
pub fn verify_bytes<P: ParameterSet>(
    key: &[u8],
    statement: &[u8],
    acceptable: &AcceptableParams<P>,
    proof: &[u8],
) -> Result<(VerifierKey, Statement), VerifyError> {
    let key = VerifierKey::from_bytes(key).map_err(VerifyError::KeyEncoding)?;
    let statement = Statement::from_bytes(statement).map_err(VerifyError::StatementEncoding)?;
    verify(&key, &statement, acceptable, proof)?;
    Ok((key, statement))
}

mod parameters;
#[cfg(test)]
mod tests;
