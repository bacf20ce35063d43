//! The only place where a `tonic::Status` is read: it becomes a [`ClientError`].

use std::path::PathBuf;
use std::time::Duration;

use tonic::{Code, Status, TimeoutExpired};
use tonic_types::StatusExt as _;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address is no URL, or one that this client cannot speak to.
    #[error("{address:?} is not an address of the form http://HOST:PORT or https://HOST:PORT")]
    Address {
        /// What was given.
        address: String,
    },
    /// Certificates were given for an address without TLS.
    #[error("{address} is without TLS, where certificates protect nothing; write https:// or leave them out")]
    Plaintext {
        /// What was given.
        address: String,
    },
    /// The certificates or the private key cannot be used.
    #[error("the certificates cannot be used for TLS")]
    Certificates {
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// Nobody answers.
    #[error("no service answers at {address}")]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: tonic::transport::Error,
    },
    /// The API key cannot stand in a header.
    #[error("the API key holds characters that cannot be sent")]
    ApiKey,
    /// The service answered with an error.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The service's answer makes no sense.
    #[error("the service's answer is not valid: {0}")]
    Answer(String),
    /// A file cannot be read.
    #[error("cannot read {path}")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What was downloaded is not what its name says.
    #[error("artifact {name} arrived damaged: {problem}")]
    Damaged {
        /// The artifact.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
    /// The artifact is larger than the caller allows.
    #[error("artifact {name} has more than {limit} bytes")]
    TooLarge {
        /// The artifact.
        name: String,
        /// The caller's limit.
        limit: u64,
    },
    /// A registration or a job ended without success.
    #[error("{name} ended {state}: {}", reason(.failure.as_ref()))]
    Ended {
        /// Model or job.
        name: String,
        /// Its final state.
        state: &'static str,
        /// Why.
        failure: Option<zkinfer_proto::v1::Failure>,
    },
}

fn reason(failure: Option<&zkinfer_proto::v1::Failure>) -> String {
    match failure {
        None => "the service gave no reason".to_owned(),
        Some(failure) if failure.stage.is_empty() => format!("{}, {}", failure.reason, failure.message),
        Some(failure) => format!("{} in stage {}, {}", failure.reason, failure.stage, failure.message),
    }
}

/// An error that the service answered with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message} [{reason}]{}{}", request(.request_id), again(*.retry_after))]
pub struct Refusal {
    /// What to do about it.
    pub kind: RefusalKind,
    /// Stable, UPPER_SNAKE.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Fields of the request that are wrong.
    pub fields: Vec<FieldProblem>,
    /// Id under which the service's log has it; may be empty.
    pub request_id: String,
    /// When another attempt makes sense, as the service says.
    pub retry_after: Option<Duration>,
}

fn request(request_id: &str) -> String {
    if request_id.is_empty() { String::new() } else { format!(" (request {request_id})") }
}

fn again(retry_after: Option<Duration>) -> String {
    // What says "at once" need not be said.
    let seconds = retry_after.map_or(0.0, |after| after.as_secs_f64().ceil());
    if seconds > 0.0 { format!("; try again in {seconds} s") } else { String::new() }
}

/// A field of a request that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldProblem {
    /// Path in the request.
    pub field: String,
    /// What is wrong.
    pub description: String,
}

/// Who is at fault, and whether waiting helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The request is wrong.
    Invalid,
    /// It does not exist, or belongs to somebody else.
    NotFound,
    /// It exists already.
    Exists,
    /// Not in this state.
    Precondition,
    /// A limit or a quota.
    Exhausted,
    /// Missing or wrong API key, token or certificate, or not allowed.
    Denied,
    /// The service is not there, or not now; another attempt may succeed.
    Unavailable,
    /// Two calls met; whether another attempt may succeed, the service says.
    Aborted,
    /// An attempt at the call took too long.
    Deadline,
    /// The call was cancelled.
    Interrupted,
    /// The service is at fault.
    Internal,
}

impl Refusal {
    /// Whether the same call may succeed if repeated (docs/CLIENTS.md).
    pub fn is_transient(&self) -> bool {
        match self.kind {
            RefusalKind::Unavailable | RefusalKind::Deadline => true,
            RefusalKind::Exhausted | RefusalKind::Aborted => self.retry_after.is_some(),
            RefusalKind::Invalid
            | RefusalKind::NotFound
            | RefusalKind::Exists
            | RefusalKind::Precondition
            | RefusalKind::Denied
            | RefusalKind::Interrupted
            | RefusalKind::Internal => false,
        }
    }
}

fn kind(code: Code) -> RefusalKind {
    match code {
        Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented => RefusalKind::Invalid,
        Code::NotFound => RefusalKind::NotFound,
        Code::AlreadyExists => RefusalKind::Exists,
        Code::FailedPrecondition => RefusalKind::Precondition,
        Code::ResourceExhausted => RefusalKind::Exhausted,
        Code::PermissionDenied | Code::Unauthenticated => RefusalKind::Denied,
        Code::Unavailable => RefusalKind::Unavailable,
        Code::Aborted => RefusalKind::Aborted,
        Code::DeadlineExceeded => RefusalKind::Deadline,
        Code::Cancelled => RefusalKind::Interrupted,
        Code::Ok | Code::Unknown | Code::Internal | Code::DataLoss => RefusalKind::Internal,
    }
}

/// What is wrong. The service gives details with every error. An error without them is of the transport below, if it has a source, whatever its code says;
/// and `INTERNAL` and `UNKNOWN` without them are of the connection, which broke, or of a proxy.
fn kind_of(status: &Status) -> RefusalKind {
    if !status.details().is_empty() {
        return kind(status.code());
    }
    let source = std::error::Error::source(status);
    let mut causes = std::iter::successors(source, |cause| cause.source());
    match (source, status.code()) {
        // The client's own deadline, which tonic calls a cancellation.
        (Some(_), _) if causes.any(|cause| cause.is::<TimeoutExpired>()) => RefusalKind::Deadline,
        (Some(_), _) | (None, Code::Internal | Code::Unknown) => RefusalKind::Unavailable,
        (None, code) => kind(code),
    }
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let fields = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
        let fields = fields.iter().map(|v| FieldProblem { field: v.field.clone(), description: v.description.clone() });
        if let Some(info) = details.request_info() {
            tracing::debug!(request_id = info.request_id, trace_id = info.serving_data, "refused");
        }
        let kind = kind_of(&status);
        Self {
            kind,
            reason: details.error_info().map_or_else(|| default_reason(kind).to_owned(), |info| info.reason.clone()),
            message: status.message().to_owned(),
            fields: fields.collect(),
            request_id: details.request_info().map(|info| info.request_id.clone()).unwrap_or_default(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }
    }
}

fn default_reason(kind: RefusalKind) -> &'static str {
    match kind {
        RefusalKind::Invalid => "INVALID",
        RefusalKind::NotFound => "NOT_FOUND",
        RefusalKind::Exists => "ALREADY_EXISTS",
        RefusalKind::Precondition => "PRECONDITION",
        RefusalKind::Exhausted => "EXHAUSTED",
        RefusalKind::Denied => "DENIED",
        RefusalKind::Unavailable => "UNAVAILABLE",
        RefusalKind::Aborted => "ABORTED",
        RefusalKind::Deadline => "DEADLINE_EXCEEDED",
        RefusalKind::Interrupted => "INTERRUPTED",
        RefusalKind::Internal => "INTERNAL",
    }
}

impl From<Status> for ClientError {
    fn from(status: Status) -> Self {
        Self::Refused(status.into())
    }
}

impl ClientError {
    /// Whether the service is not there, or not now.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused(refusal) => refusal.kind == RefusalKind::Unavailable,
            Self::Address { .. }
            | Self::Plaintext { .. }
            | Self::Certificates { .. }
            | Self::ApiKey
            | Self::Answer(_)
            | Self::File { .. }
            | Self::Damaged { .. }
            | Self::TooLarge { .. }
            | Self::Ended { .. } => false,
        }
    }

    /// The refusal, if another attempt may succeed.
    pub(crate) fn transient(&self) -> Option<&Refusal> {
        match self {
            Self::Refused(refusal) if refusal.is_transient() => Some(refusal),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::{ErrorDetails, FieldViolation};

    #[test]
    fn details_of_the_service_are_read() {
        let mut details = ErrorDetails::new();
        details.set_error_info("MODEL_NOT_READY", "zkinfer", std::collections::HashMap::new());
        details.set_bad_request(vec![FieldViolation::new("job.model", "is compiling")]);
        details.set_request_info("r-1", "4bf92f3577b34da6a3ce929d0e0e4736");
        details.set_retry_info(Some(Duration::from_secs(2)));
        let refusal = Refusal::from(Status::with_error_details(Code::FailedPrecondition, "not ready", details));
        assert_eq!((refusal.kind, refusal.reason.as_str()), (RefusalKind::Precondition, "MODEL_NOT_READY"));
        assert_eq!(refusal.fields, [FieldProblem { field: "job.model".into(), description: "is compiling".into() }]);
        assert_eq!(refusal.retry_after, Some(Duration::from_secs(2)));
        assert!(!refusal.is_transient());
        assert_eq!(refusal.to_string(), "not ready [MODEL_NOT_READY] (request r-1); try again in 2 s");
    }

    #[test]
    fn reasons_of_bare_codes_are_the_kinds() {
        let reason = |code| Refusal::from(Status::new(code, "")).reason;
        assert_eq!((reason(Code::Unavailable), reason(Code::Aborted)), ("UNAVAILABLE".to_owned(), "ABORTED".to_owned()));
        assert_eq!((reason(Code::DeadlineExceeded), reason(Code::Cancelled)), ("DEADLINE_EXCEEDED".to_owned(), "INTERRUPTED".to_owned()));
    }

    #[test]
    fn what_the_transport_says_is_told_from_what_the_service_says() {
        let kind_from = |source: Box<dyn std::error::Error + Send + Sync>| Refusal::from(Status::from_error(source)).kind;
        assert_eq!(kind_from(Box::new(TimeoutExpired(()))), RefusalKind::Deadline, "the own time is over");
        assert_eq!(kind_from(Box::new(std::io::Error::other("broken pipe"))), RefusalKind::Unavailable);
        for code in [Code::Internal, Code::Unknown] {
            let mut details = ErrorDetails::new();
            details.set_request_info("r-1", "");
            assert_eq!(Refusal::from(Status::with_error_details(code, "by the service", details)).kind, RefusalKind::Internal);
            assert_eq!(Refusal::from(Status::new(code, "by a proxy")).kind, RefusalKind::Unavailable);
        }
        assert_eq!(Refusal::from(Status::cancelled("")).kind, RefusalKind::Interrupted);
        assert_eq!(Refusal::from(Status::data_loss("")).kind, RefusalKind::Internal);
    }
}
