//! Request ids: the first answer is kept, and given again to the same request.

use super::super::{EngineError, RequestKey};
use super::{Dialect, Writing};

/// The first answer to `key`, if it is known. Until the transaction ends, no other can look for the same key.
pub(super) async fn replay(
    writing: &mut Writing,
    tenant: &str,
    method: &'static str,
    key: Option<&RequestKey>,
) -> Result<Option<Vec<u8>>, EngineError> {
    let Some(key) = key else { return Ok(None) };
    if writing.dialect == Dialect::Postgres {
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))")
            .bind(format!("{tenant} {method} {}", key.request_id))
            .execute(writing.connection())
            .await?;
    }
    let row: Option<(Vec<u8>, Vec<u8>)> =
        sqlx::query_as("SELECT request_hash, response FROM idempotency WHERE tenant = $1 AND method = $2 AND request_id = $3")
            .bind(tenant)
            .bind(method)
            .bind(&key.request_id)
            .fetch_optional(writing.connection())
            .await?;
    match row {
        None => Ok(None),
        Some((hash, response)) if hash == key.request_hash => Ok(Some(response)),
        Some(_) => Err(EngineError::RequestIdReused),
    }
}

/// Keeps the first answer to `key`.
pub(super) async fn record(
    writing: &mut Writing,
    tenant: &str,
    method: &'static str,
    key: Option<&RequestKey>,
    response: Vec<u8>,
) -> Result<(), EngineError> {
    let Some(key) = key else { return Ok(()) };
    let now_ms = writing.now_ms;
    sqlx::query("INSERT INTO idempotency(tenant, method, request_id, request_hash, response, created_ms) VALUES ($1, $2, $3, $4, $5, $6)")
        .bind(tenant)
        .bind(method)
        .bind(&key.request_id)
        .bind(key.request_hash.to_vec())
        .bind(response)
        .bind(now_ms)
        .execute(writing.connection())
        .await?;
    Ok(())
}
