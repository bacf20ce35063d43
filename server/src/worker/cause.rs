//! What a failure of the prover is to the engine.

use crate::engine::{FailedAttempt, FailureCause};
use crate::prover::{ProverError, Rejection};

/// The failed attempt, as the engine is told.
pub(super) fn failed_attempt(error: &ProverError) -> FailedAttempt {
    let (cause, reason) = match error {
        ProverError::Rejected { rejection, .. } => (FailureCause::InvalidInput, rejection_reason(*rejection)),
        ProverError::HostMemory(_) => (FailureCause::HostMemory, ""),
        ProverError::DeviceMemory(_) => (FailureCause::DeviceMemory, ""),
        ProverError::DeviceLost(_) => (FailureCause::DeviceLost, ""),
        ProverError::ProofInvalid(_) => (FailureCause::VerifyFailed, ""),
        ProverError::Storage(_) | ProverError::ResultsDamaged(_) => (FailureCause::Storage, ""),
        ProverError::Internal(_) | ProverError::Stopped(_) => (FailureCause::Internal, ""),
    };
    let damaged = match error {
        ProverError::ResultsDamaged(tasks) => tasks.clone(),
        _ => Vec::new(),
    };
    FailedAttempt { cause, reason: reason.to_owned(), message: error.to_string(), damaged }
}

/// Stable reason of a rejection.
pub(crate) fn rejection_reason(rejection: Rejection) -> &'static str {
    match rejection {
        Rejection::UnsupportedOp => "UNSUPPORTED_OP",
        Rejection::ModelInvalid => "MODEL_INVALID",
        Rejection::ShapeMismatch => "SHAPE_MISMATCH",
        Rejection::RangeOverflow => "RANGE_OVERFLOW",
        Rejection::InputCorrupt => "INPUT_CORRUPT",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_callers_fault_has_its_own_reason_and_other_failures_their_causes() {
        let message = "input has 3 elements, the model takes 784".to_owned();
        let failed = failed_attempt(&ProverError::Rejected { rejection: Rejection::ShapeMismatch, message: message.clone() });
        assert_eq!(
            failed,
            FailedAttempt { cause: FailureCause::InvalidInput, reason: "SHAPE_MISMATCH".into(), message, damaged: Vec::new() }
        );
        let failed = failed_attempt(&ProverError::DeviceLost("gone".into()));
        assert_eq!((failed.cause, failed.reason.as_str()), (FailureCause::DeviceLost, ""));
        let tasks = vec!["witness".to_owned(), "bind".to_owned()];
        let failed = failed_attempt(&ProverError::ResultsDamaged(tasks.clone()));
        assert_eq!((failed.cause, failed.damaged), (FailureCause::Storage, tasks));
    }
}
