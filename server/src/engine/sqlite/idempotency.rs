//! Request ids: the first answer is kept, and given again to the same request.

use sqlx::SqliteConnection;

use super::super::{EngineError, RequestKey, now_ms};

/// The first answer to `key`, if it is known.
pub(super) async fn replay(
    connection: &mut SqliteConnection,
    tenant: &str,
    method: &'static str,
    key: Option<&RequestKey>,
) -> Result<Option<Vec<u8>>, EngineError> {
    let Some(key) = key else { return Ok(None) };
    let row: Option<(Vec<u8>, Vec<u8>)> = sqlx::query_as(
        "SELECT request_hash, response FROM idempotency \
         WHERE tenant = ? AND method = ? AND request_id = ?",
    )
    .bind(tenant)
    .bind(method)
    .bind(&key.request_id)
    .fetch_optional(connection)
    .await?;
    match row {
        None => Ok(None),
        Some((hash, response)) if hash == key.request_hash => Ok(Some(response)),
        Some(_) => Err(EngineError::RequestIdReused),
    }
}

/// Keeps the first answer to `key`.
pub(super) async fn record(
    connection: &mut SqliteConnection,
    tenant: &str,
    method: &'static str,
    key: Option<&RequestKey>,
    response: Vec<u8>,
) -> Result<(), EngineError> {
    let Some(key) = key else { return Ok(()) };
    sqlx::query(
        "INSERT INTO idempotency(tenant, method, request_id, request_hash, response, created_ms) \
         VALUES (?, ?, ?, ?, ?, ?)",
    )
    .bind(tenant)
    .bind(method)
    .bind(&key.request_id)
    .bind(key.request_hash.as_slice())
    .bind(response)
    .bind(now_ms())
    .execute(connection)
    .await?;
    Ok(())
}
