//! Exit codes: what a script may rely on.

use zkinfer_client::{ClientError, LocalVerifyError, OtherAnswer, RefusalKind, VerifyError};

/// Shown by `zkinfer --help`.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  success (verify: the proof is accepted)
  1  failure of any other kind
  2  wrong arguments
  3  the proof is refused
  4  the service is not available
  5  the service refused the request
  6  the registration or the job ended without success";

const FAILURE: u8 = 1;
const PROOF_REFUSED: u8 = 3;
const UNAVAILABLE: u8 = 4;
const REQUEST_REFUSED: u8 = 5;
const ENDED: u8 = 6;

/// The exit code of an error.
pub(crate) fn code(error: &anyhow::Error) -> u8 {
    error.chain().find_map(code_of).unwrap_or(FAILURE)
}

fn code_of(error: &(dyn std::error::Error + 'static)) -> Option<u8> {
    if let Some(error) = error.downcast_ref::<ClientError>() {
        return Some(code_of_client(error));
    }
    if error.is::<OtherAnswer>() {
        return Some(PROOF_REFUSED);
    }
    match error.downcast_ref::<LocalVerifyError>() {
        Some(LocalVerifyError::Refused(_)) => Some(PROOF_REFUSED),
        Some(LocalVerifyError::Parameters(_)) => Some(FAILURE),
        None => None,
    }
}

fn code_of_client(error: &ClientError) -> u8 {
    match error {
        _ if error.is_unavailable() => UNAVAILABLE,
        ClientError::Refused(refusal) => match refusal.kind {
            RefusalKind::Internal => FAILURE,
            RefusalKind::Invalid
            | RefusalKind::NotFound
            | RefusalKind::Exists
            | RefusalKind::Precondition
            | RefusalKind::Exhausted
            | RefusalKind::Denied => REQUEST_REFUSED,
            RefusalKind::Unavailable | RefusalKind::Aborted | RefusalKind::Deadline | RefusalKind::Interrupted => UNAVAILABLE,
        },
        ClientError::Ended { .. } => ENDED,
        ClientError::Unreachable { .. }
        | ClientError::Address { .. }
        | ClientError::Plaintext { .. }
        | ClientError::Certificates { .. }
        | ClientError::ApiKey
        | ClientError::Answer(_)
        | ClientError::File { .. }
        | ClientError::Damaged { .. }
        | ClientError::TooLarge { .. } => FAILURE,
    }
}

/// A stable name of an error, for `--json`.
pub(crate) fn reason(error: &anyhow::Error) -> String {
    let of_error = |error: &(dyn std::error::Error + 'static)| {
        if let Some(LocalVerifyError::Refused(refused)) = error.downcast_ref::<LocalVerifyError>() {
            return Some(VerifyError::reason(refused).to_owned());
        }
        if let Some(other) = error.downcast_ref::<OtherAnswer>() {
            return Some(other.reason().to_owned());
        }
        match error.downcast_ref::<ClientError>()? {
            ClientError::Refused(refusal) => Some(refusal.reason.clone()),
            ClientError::Ended { failure: Some(failure), .. } => Some(failure.reason.clone()),
            ClientError::Unreachable { .. } => Some("UNREACHABLE".to_owned()),
            _ => None,
        }
    };
    error.chain().find_map(of_error).unwrap_or_else(|| "FAILURE".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use zkinfer_client::{ALL_PROFILES, ContextNonce, verify_locally};

    #[test]
    fn a_refused_proof_and_a_missing_service_have_their_own_codes() {
        let refused = verify_locally(b"", b"", b"", &ALL_PROFILES, ContextNonce::ZERO).unwrap_err();
        let error = anyhow::Error::from(refused).context("around it");
        assert_eq!((code(&error), reason(&error).as_str()), (PROOF_REFUSED, "KEY_ENCODING"));
        let ended = ClientError::Ended { name: "j".into(), state: "FAILED", failure: None };
        assert_eq!(code(&ended.into()), ENDED);
        assert_eq!(code(&anyhow::anyhow!("other")), FAILURE);
    }
}
