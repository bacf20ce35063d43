//! What to do about a failed attempt. The only table of causes and reasons.

use std::time::Duration;

use zkinfer_proto::v1;

use crate::prover::{ProverError, Rejection};

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict {
    /// Try again after a while.
    Retry { after: Duration },
    /// Give up.
    Fail(v1::Failure),
}

/// Decides about attempt number `attempt` of `max_attempts`.
pub(super) fn decide(error: &ProverError, attempt: u32, max_attempts: u32, backoff: Duration) -> Verdict {
    let cause = cause(error);
    if cause.may_pass && attempt < max_attempts {
        let doublings = attempt.saturating_sub(1).min(10);
        return Verdict::Retry { after: backoff.saturating_mul(1 << doublings) };
    }
    Verdict::Fail(v1::Failure {
        reason: cause.reason.into(),
        message: cause.message,
        retryable: cause.may_pass,
        attempts: attempt,
        stage: String::new(),
    })
}

struct Cause {
    reason: &'static str,
    message: String,
    /// Another attempt may succeed.
    may_pass: bool,
}

fn cause(error: &ProverError) -> Cause {
    let cause = |reason, may_pass| Cause { reason, message: error.to_string(), may_pass };
    match error {
        ProverError::Rejected { rejection, .. } => cause(rejection_reason(*rejection), false),
        ProverError::HostMemory(_) => cause("HOST_MEMORY", true),
        ProverError::DeviceMemory(_) => cause("DEVICE_MEMORY", true),
        ProverError::DeviceLost(_) => cause("DEVICE_LOST", true),
        ProverError::ProofInvalid(_) => cause("PROOF_INVALID", true),
        ProverError::Storage(_) => cause("STORAGE", true),
        // What went wrong inside is for the log only.
        ProverError::Internal(_) | ProverError::Stopped(_) => {
            Cause { reason: "INTERNAL", message: "an internal error of the prover; the service's log has it".into(), may_pass: false }
        }
    }
}

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

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_may_pass_is_tried_again_with_growing_waits() {
        let error = ProverError::DeviceLost("gone".into());
        assert_eq!(decide(&error, 1, 3, SECOND), Verdict::Retry { after: SECOND });
        assert_eq!(decide(&error, 2, 3, SECOND), Verdict::Retry { after: 2 * SECOND });
        let Verdict::Fail(failure) = decide(&error, 3, 3, SECOND) else { panic!("gives up") };
        assert_eq!(failure.reason, "DEVICE_LOST");
        assert_eq!(failure.attempts, 3);
        assert!(failure.retryable);
    }

    #[test]
    fn the_callers_fault_fails_at_once_and_bugs_tell_nothing() {
        let error =
            ProverError::Rejected { rejection: Rejection::ShapeMismatch, message: "input has 3 elements, the model takes 784".into() };
        let Verdict::Fail(failure) = decide(&error, 1, 3, SECOND) else { panic!("fails") };
        assert_eq!(failure.reason, "SHAPE_MISMATCH");
        let error = ProverError::Internal("weights: 1, 2, 3".into());
        let Verdict::Fail(failure) = decide(&error, 1, 3, SECOND) else { panic!("fails") };
        assert_eq!(failure.reason, "INTERNAL");
        assert!(!failure.message.contains("weights"));
    }
}
