//! Request ids.

use prost::Message;
use zeroize::Zeroizing;

use super::error::ApiError;
use crate::engine::{EngineError, RequestKey};

/// The key of a request. `request` is the request without its id; its encoding is canonical, because maps are ordered.
pub(crate) fn request_key(request_id: &str, request: &impl Message) -> Option<RequestKey> {
    (!request_id.is_empty()).then(|| RequestKey {
        request_id: request_id.to_owned(),
        request_hash: *blake3::hash(&Zeroizing::new(request.encode_to_vec())).as_bytes(),
    })
}

/// As [`ApiError::engine`], and names a request id that was used before.
pub(crate) fn create_error(error: EngineError, request_id: &str, kind: &'static str, name: &str) -> ApiError {
    match error {
        EngineError::RequestIdReused => ApiError::RequestIdReused { request_id: request_id.to_owned() },
        other => ApiError::engine(other, kind, name),
    }
}
