//! Verification: the same verifier, with the same answers, as `zkinfer verify`.

use std::error::Error;

use pyo3::create_exception;
use pyo3::exceptions::{PyException, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use zkinfer_circuits::recursion::parameters::Parameters;
use zkinfer_circuits::security::{ProfileName, SecurityFloor};
use zkinfer_circuits::statement::ContextNonce;
use zkinfer_circuits::verify::{AcceptableParams, VerifyError, verify_bytes};

use crate::document::{Bytes32, Key, Statement};

create_exception!(zkinfer._verify, Refusal, PyException, "A document or a proof is refused; its arguments are reason and message.");

/// The refusal for a reason, with all that lies under the error.
pub(crate) fn refusal(reason: &'static str, error: &dyn Error) -> PyErr {
    let mut message = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        message += &format!(": {inner}");
        source = inner.source();
    }
    Refusal::new_err((reason, message))
}

/// What the caller accepts: profiles by name, least bits of security (heuristic, proven), and its own nonce.
#[pyclass(frozen, module = "zkinfer._verify")]
#[derive(Debug)]
pub(crate) struct Acceptance {
    profiles: Vec<ProfileName>,
    min_security: SecurityFloor,
    context_nonce: ContextNonce,
}

#[pymethods]
impl Acceptance {
    /// Bits of security that are not given are what the default profile promises.
    #[new]
    fn new(profiles: Vec<String>, heuristic_bits: Option<f64>, proven_bits: Option<f64>, context_nonce: Bytes32) -> PyResult<Self> {
        let least = SecurityFloor::default();
        let min_security = SecurityFloor {
            heuristic_bits: heuristic_bits.unwrap_or(least.heuristic_bits),
            proven_bits: proven_bits.unwrap_or(least.proven_bits),
        };
        // A comparison with NaN would hold no proof back.
        if min_security.heuristic_bits.is_nan() || min_security.proven_bits.is_nan() {
            return Err(PyValueError::new_err("the least bits of security must be numbers"));
        }
        let context_nonce = ContextNonce::from_bytes(&context_nonce).map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok(Self { profiles: profiles.iter().map(|name| parse_profile(name)).collect::<PyResult<_>>()?, min_security, context_nonce })
    }
}

fn parse_profile(name: &str) -> PyResult<ProfileName> {
    match name {
        "default" => Ok(ProfileName::Default),
        "strict" => Ok(ProfileName::Strict),
        other => Err(PyValueError::new_err(format!("profiles: {other:?} is neither \"default\" nor \"strict\""))),
    }
}

/// Verifies that a proof proves a statement about the model of a key; answers both documents, read. Other Python threads run meanwhile.
#[pyfunction]
pub(crate) fn verify(
    py: Python<'_>,
    key: &[u8],
    statement: &[u8],
    proof: &[u8],
    acceptance: &Bound<'_, Acceptance>,
) -> PyResult<(Statement, Key)> {
    let accepted = acceptance.get();
    let parameter_sets = accepted.profiles.iter().map(|&profile| Parameters::embedded(profile)).collect::<Result<_, _>>();
    let damaged = |error: &dyn Error| PyRuntimeError::new_err(format!("this build has no usable parameters: {error}"));
    let parameter_sets = parameter_sets.map_err(|error| damaged(&error))?;
    let acceptable = AcceptableParams { parameter_sets, min_security: accepted.min_security, context_nonce: accepted.context_nonce };
    let outcome = py.detach(|| verify_bytes(key, statement, &acceptable, proof));
    let (key, statement) = outcome.map_err(|error| refusal(VerifyError::reason(&error), &error))?;
    // An accepted statement has all its commitments.
    let statement = Statement::new(&statement).map_err(|error| refusal("SIZE", &error))?;
    Ok((statement, Key::new(&key)))
}
