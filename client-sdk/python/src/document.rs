//! Statements and verifier keys, taken apart, and the digests that callers compute themselves.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use zkinfer_circuits::encoding::{Canonical as _, DIGEST_BYTES, DecodeError, digest_bytes, parse_digest};
use zkinfer_circuits::key::{TensorInfo, VerifierKey};
use zkinfer_circuits::recursion::digest;
use zkinfer_circuits::security::ProfileName;
use zkinfer_circuits::statement::{self, ContextNonce, StatementInput};

use crate::verifier::refusal;

/// Bytes of a digest, a salt or a nonce: four words below p.
pub(crate) type Bytes32 = [u8; DIGEST_BYTES];

/// What a proof states.
#[pyclass(frozen, get_all, module = "zkinfer._verify")]
#[derive(Debug)]
pub(crate) struct Statement {
    parameters_id: Bytes32,
    program_digest: Bytes32,
    model_commitment: Bytes32,
    /// The input, if the statement shows it.
    input: Option<Vec<u8>>,
    input_commitment: Bytes32,
    outputs: Vec<i64>,
    context_nonce: Bytes32,
}

impl Statement {
    /// # Errors
    /// An input that has no commitment.
    pub(crate) fn new(statement: &statement::Statement) -> Result<Self, digest::SizeError> {
        Ok(Self {
            parameters_id: digest_bytes(statement.parameters_id),
            program_digest: digest_bytes(statement.program_digest),
            model_commitment: digest_bytes(statement.model_commitment),
            input: match &statement.input {
                StatementInput::Public(bytes) => Some(bytes.clone()),
                StatementInput::Committed(_) => None,
            },
            input_commitment: digest_bytes(statement.input_commitment()?),
            outputs: statement.outputs.clone(),
            context_nonce: statement.context_nonce.to_bytes(),
        })
    }
}

/// Name, shape, scale and zero point of a tensor: real = scale · (integer − zero point).
type Tensor = (String, Vec<usize>, f64, i64);

fn tensor(info: &TensorInfo) -> Tensor {
    (info.name.clone(), info.shape.clone(), info.scale, info.zero_point)
}

/// A registered model, as a verifier sees it.
#[pyclass(frozen, get_all, module = "zkinfer._verify")]
#[derive(Debug)]
pub(crate) struct Key {
    profile: &'static str,
    parameters_id: Bytes32,
    model_commitment: Bytes32,
    layers: usize,
    multiply_accumulates: u64,
    input: Tensor,
    output: Tensor,
}

impl Key {
    pub(crate) fn new(key: &VerifierKey) -> Self {
        Self {
            profile: match key.profile {
                ProfileName::Default => "default",
                ProfileName::Strict => "strict",
            },
            parameters_id: digest_bytes(key.parameters_id),
            model_commitment: digest_bytes(key.model_commitment),
            layers: key.program.layers.len(),
            multiply_accumulates: key.program.n_macs(),
            input: tensor(&key.input),
            output: tensor(&key.output),
        }
    }
}

/// Reads a statement from its canonical bytes. Nothing in it is proved before `verify` has accepted it.
#[pyfunction]
pub(crate) fn read_statement(data: &[u8]) -> PyResult<Statement> {
    let unreadable = |error: &dyn std::error::Error| refusal("STATEMENT_ENCODING", error);
    let statement = statement::Statement::from_bytes(data).map_err(|error| unreadable(&error))?;
    Statement::new(&statement).map_err(|error| unreadable(&error))
}

/// Reads a verifier key from its canonical bytes. Nothing in it is proved before `verify` has accepted it.
#[pyfunction]
pub(crate) fn read_key(data: &[u8]) -> PyResult<Key> {
    VerifierKey::from_bytes(data).map(|key| Key::new(&key)).map_err(|error| refusal("KEY_ENCODING", &error))
}

/// The nonce of a context of any length.
#[pyfunction]
pub(crate) fn context_nonce(context: &[u8]) -> Bytes32 {
    ContextNonce::of_context(context).to_bytes()
}

/// The commitment to an input under a salt.
#[pyfunction]
pub(crate) fn input_commitment(input: &[u8], salt: Bytes32) -> PyResult<Bytes32> {
    let wrong = |error: DecodeError| PyValueError::new_err(format!("salt: {error}"));
    let salt = parse_digest(&salt).map_err(wrong)?;
    let commitment = digest::input_commitment(input, salt).map_err(|error| PyValueError::new_err(error.to_string()))?;
    Ok(digest_bytes(commitment))
}
