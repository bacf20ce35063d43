//! Why bytes cannot be read or written, as callers need to tell it.

use std::error::Error;
use std::io::ErrorKind;

use super::seal::Unopened;

/// Why bytes cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum BytesError {
    /// The record is there and the bytes are not.
    #[error("the stored bytes are missing")]
    Missing,
    /// The bytes do not have the hash that names them, or are not what was encrypted.
    #[error("the stored bytes are damaged")]
    Damaged,
    /// No space is left.
    #[error("no space is left for artifacts")]
    Full(#[source] Box<dyn Error + Send + Sync>),
    /// The store does not answer, or not in time. Another attempt may succeed.
    #[error("the artifact store does not answer")]
    Unavailable(#[source] Box<dyn Error + Send + Sync>),
    /// Anything else of the store.
    #[error("the artifact store failed")]
    Store(#[source] object_store::Error),
    /// A local file cannot be read or written.
    #[error("a file of the data directory cannot be read or written")]
    File(#[source] std::io::Error),
}

impl From<Unopened> for BytesError {
    fn from(_: Unopened) -> Self {
        Self::Damaged
    }
}

impl From<object_store::Error> for BytesError {
    fn from(error: object_store::Error) -> Self {
        if matches!(error, object_store::Error::NotFound { .. }) {
            return Self::Missing;
        }
        match io_kind(&error) {
            Some(kind) if is_full(kind) => Self::Full(error.into()),
            Some(kind) if may_pass(kind) => Self::Unavailable(error.into()),
            // A request that a remote store did not answer although it was repeated; what it does answer and refuses has another kind.
            None if matches!(error, object_store::Error::Generic { .. }) => Self::Unavailable(error.into()),
            _ => Self::Store(error),
        }
    }
}

impl From<std::io::Error> for BytesError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            kind if is_full(kind) => Self::Full(error.into()),
            _ => Self::File(error),
        }
    }
}

/// The error of the operating system that is the cause, if one is.
fn io_kind(error: &object_store::Error) -> Option<ErrorKind> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(inner) = cause {
        if let Some(io) = inner.downcast_ref::<std::io::Error>() {
            return Some(io.kind());
        }
        cause = inner.source();
    }
    None
}

fn is_full(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge)
}

fn may_pass(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::TimedOut
            | ErrorKind::Interrupted
            | ErrorKind::ConnectionRefused
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe
            | ErrorKind::NotConnected
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::UnexpectedEof
            | ErrorKind::StaleNetworkFileHandle
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(source: impl Into<Box<dyn Error + Send + Sync>>) -> BytesError {
        object_store::Error::Generic { store: "test", source: source.into() }.into()
    }

    #[test]
    fn causes_are_told_apart() {
        let io = |kind: ErrorKind| generic(std::io::Error::from(kind));
        assert!(matches!(io(ErrorKind::StorageFull), BytesError::Full(_)));
        assert!(matches!(io(ErrorKind::QuotaExceeded), BytesError::Full(_)));
        assert!(matches!(io(ErrorKind::TimedOut), BytesError::Unavailable(_)));
        assert!(matches!(io(ErrorKind::ConnectionRefused), BytesError::Unavailable(_)));
        assert!(matches!(io(ErrorKind::PermissionDenied), BytesError::Store(_)));
        assert!(matches!(generic("503 after 5 attempts"), BytesError::Unavailable(_)));
        let denied = object_store::Error::PermissionDenied { path: String::new(), source: "403".into() };
        assert!(matches!(BytesError::from(denied), BytesError::Store(_)));
        let missing = object_store::Error::NotFound { path: String::new(), source: "404".into() };
        assert!(matches!(BytesError::from(missing), BytesError::Missing));
    }
}
