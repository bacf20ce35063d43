//! Request ids: the first answer is kept, and given again to the same request.

use std::collections::BTreeSet;

use super::super::{EngineError, RequestKey};
use super::Writing;
use super::lease::get;
use super::many::{Many, row};

/// A request of a tenant, by its id.
pub(super) type Place = (String, String);

/// A request that is to be answered, and its answer.
pub(super) struct Claim<'a> {
    pub(super) tenant: &'a str,
    pub(super) key: &'a RequestKey,
    pub(super) response: Vec<u8>,
}

/// Keeps the answers to those requests that were not answered yet; tells which.
pub(super) async fn claim_new(
    writing: &mut Writing,
    method: &'static str,
    mut claims: Vec<Claim<'_>>,
) -> Result<BTreeSet<Place>, EngineError> {
    // Rows are locked in one order everywhere.
    claims.sort_by(|a, b| (a.tenant, &a.key.request_id).cmp(&(b.tenant, &b.key.request_id)));
    let now_ms = writing.now_ms;
    let rows: Vec<_> = claims
        .into_iter()
        .map(|claim| row![claim.tenant, method, &claim.key.request_id, claim.key.request_hash, claim.response, now_ms])
        .collect();
    let claimed = Many::new(
        "INSERT INTO idempotency(tenant, method, request_id, request_hash, response, created_ms) VALUES ",
        "(?, ?, ?, ?, ?, ?)",
        " ON CONFLICT DO NOTHING RETURNING tenant, request_id",
    )
    .fetch(writing.connection(), &rows)
    .await?;
    claimed.iter().map(|row| Ok((get(row, "tenant")?, get(row, "request_id")?))).collect()
}

/// Keeps `response` as the first answer to `key`, or answers the first one if there is one. The same key in another transaction waits until this one ends.
pub(super) async fn claim(
    writing: &mut Writing,
    tenant: &str,
    method: &'static str,
    key: Option<&RequestKey>,
    response: &[u8],
) -> Result<Option<Vec<u8>>, EngineError> {
    let Some(key) = key else { return Ok(None) };
    let now_ms = writing.now_ms;
    loop {
        let inserted = sqlx::query(
            "INSERT INTO idempotency(tenant, method, request_id, request_hash, response, created_ms) VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT DO NOTHING",
        )
        .bind(tenant)
        .bind(method)
        .bind(&key.request_id)
        .bind(key.request_hash.to_vec())
        .bind(response.to_vec())
        .bind(now_ms)
        .execute(writing.connection())
        .await?;
        if inserted.rows_affected() > 0 {
            return Ok(None);
        }
        let row: Option<(Vec<u8>, Vec<u8>)> =
            sqlx::query_as("SELECT request_hash, response FROM idempotency WHERE tenant = $1 AND method = $2 AND request_id = $3")
                .bind(tenant)
                .bind(method)
                .bind(&key.request_id)
                .fetch_optional(writing.connection())
                .await?;
        match row {
            // It was forgotten in between.
            None => {}
            Some((hash, response)) if hash == key.request_hash => return Ok(Some(response)),
            Some(_) => return Err(EngineError::RequestIdReused),
        }
    }
}
