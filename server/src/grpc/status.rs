//! The only place where a `tonic::Status` is made. Every error carries `google.rpc.ErrorInfo` with a stable reason in
//! the domain `zkinfer`, and `RequestInfo` with an id that the log has as well and, as its serving data, the call's trace id.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, PreconditionViolation, QuotaViolation, StatusExt as _};

use super::error::ApiError;
use crate::observe;

const DOMAIN: &str = "zkinfer";

/// What goes on the wire.
struct Wire {
    code: Code,
    reason: &'static str,
    message: String,
    details: ErrorDetails,
    metadata: HashMap<String, String>,
}

impl Wire {
    fn new(code: Code, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: ErrorDetails::new(), metadata: HashMap::new() }
    }

    fn with(mut self, add: impl FnOnce(&mut ErrorDetails)) -> Self {
        add(&mut self.details);
        self
    }

    fn retry(self, after: Option<Duration>) -> Self {
        match after {
            Some(after) => self.with(|details| {
                details.set_retry_info(Some(after));
            }),
            None => self,
        }
    }
}

impl From<ApiError> for Status {
    fn from(error: ApiError) -> Self {
        let request_id = uuid::Uuid::now_v7().to_string();
        if let ApiError::Internal { context, source } = &error {
            tracing::error!(request_id, error = &**source as &dyn std::error::Error, "{context}");
        }
        finish(wire(error), request_id)
    }
}

fn finish(mut wire: Wire, request_id: String) -> Status {
    wire.details.set_error_info(wire.reason, DOMAIN, wire.metadata);
    wire.details.set_request_info(request_id, observe::current().map(|trace| trace.trace_id()).unwrap_or_default());
    Status::with_error_details(wire.code, wire.message, wire.details)
}

fn wire(error: ApiError) -> Wire {
    match error {
        ApiError::Invalid(violations) => {
            let list: Vec<String> = violations.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
            let violations: Vec<FieldViolation> = violations.into_iter().map(|v| FieldViolation::new(v.field, v.description)).collect();
            Wire::new(Code::InvalidArgument, "INVALID_FIELDS", list.join("; ")).with(|details| {
                details.set_bad_request(violations);
            })
        }
        ApiError::Rejected { reason, field, message } => {
            let violation = FieldViolation::new(field, message.clone());
            Wire::new(Code::InvalidArgument, reason, message).with(|details| {
                details.set_bad_request(vec![violation]);
            })
        }
        // Others are not deleted, or only by who asks for it.
        ApiError::NotFound { kind: kind @ ("job" | "batch"), name } => {
            resource(Code::NotFound, "NOT_FOUND", kind, name, "does not exist, or was deleted")
        }
        ApiError::NotFound { kind, name } => resource(Code::NotFound, "NOT_FOUND", kind, name, "does not exist"),
        ApiError::AlreadyExists { kind, name } => resource(Code::AlreadyExists, "ALREADY_EXISTS", kind, name, "exists"),
        ApiError::RequestIdReused { request_id } => {
            resource(Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED", "request", request_id, "was used for another request")
        }
        ApiError::Precondition { reason, subject, message } => {
            let violation = PreconditionViolation::new(reason, subject, message.clone());
            Wire::new(Code::FailedPrecondition, reason, message).with(|details| {
                details.set_precondition_failure(vec![violation]);
            })
        }
        ApiError::Exhausted { reason, subject, message, retry } => {
            let violation = QuotaViolation::new(subject, message.clone());
            Wire::new(Code::ResourceExhausted, reason, message)
                .with(|details| {
                    details.set_quota_failure(vec![violation]);
                })
                .retry(retry)
        }
        other => plain_wire(other),
    }
}

/// The errors that need no details of their own.
fn plain_wire(error: ApiError) -> Wire {
    match error {
        ApiError::Unavailable { reason, message, retry } => Wire::new(Code::Unavailable, reason, message).retry(Some(retry)),
        ApiError::Aborted { reason, message, retry } => Wire::new(Code::Aborted, reason, message).retry(Some(retry)),
        ApiError::OutOfRange { reason, message } => Wire::new(Code::OutOfRange, reason, message),
        ApiError::DataLoss { name } => resource(Code::DataLoss, "STORED_BYTES_DAMAGED", "artifact", name, "is damaged or missing on disk"),
        ApiError::Deadline => Wire::new(Code::DeadlineExceeded, "DEADLINE_EXCEEDED", "the call took too long"),
        ApiError::Unauthenticated => {
            let message = "send a valid API key or token as `authorization: Bearer CREDENTIALS`, or a known client certificate";
            Wire::new(Code::Unauthenticated, "UNAUTHENTICATED", message)
        }
        ApiError::ScopeMissing { scope } => {
            let mut wire = Wire::new(Code::PermissionDenied, "SCOPE_MISSING", format!("the call needs the scope {}", scope.name()));
            wire.metadata.insert("scope".to_owned(), scope.name().to_owned());
            wire
        }
        ApiError::NoMethod => Wire::new(Code::Unimplemented, "UNIMPLEMENTED", "there is no such method"),
        ApiError::Internal { .. }
        | ApiError::Invalid(_)
        | ApiError::Rejected { .. }
        | ApiError::NotFound { .. }
        | ApiError::AlreadyExists { .. }
        | ApiError::RequestIdReused { .. }
        | ApiError::Precondition { .. }
        | ApiError::Exhausted { .. } => {
            Wire::new(Code::Internal, "INTERNAL", "internal error; the service's log has it under the request id")
        }
    }
}

fn resource(code: Code, reason: &'static str, kind: &'static str, name: String, description: &'static str) -> Wire {
    Wire::new(code, reason, format!("{kind} {name} {description}")).with(|details| {
        details.set_resource_info(kind, name, "", description);
    })
}

/// Completes an error that the gRPC library made itself (unknown method, undecodable or oversized message).
pub(crate) fn complete(status: &Status) -> Status {
    let request_id = uuid::Uuid::now_v7().to_string();
    let message = status.message();
    let wire = match status.code() {
        // The library answers OUT_OF_RANGE for a message over the limit, before and after decompression.
        Code::OutOfRange | Code::ResourceExhausted => {
            let violation = QuotaViolation::new("message", message);
            Wire::new(Code::ResourceExhausted, "MESSAGE_TOO_LARGE", message).with(|details| {
                details.set_quota_failure(vec![violation]);
            })
        }
        Code::Unimplemented => Wire::new(Code::Unimplemented, "UNIMPLEMENTED", message),
        Code::Internal | Code::InvalidArgument => Wire::new(Code::InvalidArgument, "UNDECODABLE_MESSAGE", "the message cannot be decoded"),
        code => Wire::new(code, "TRANSPORT", message),
    };
    finish(wire, request_id)
}

/// Whether an error carries details already.
pub(crate) fn is_complete(status: &Status) -> bool {
    !status.details().is_empty()
}
