//! Forgetting what is old: request ids, uploads, and what nobody is to hear of any more. Page by page: each transaction is short, however much there is.

use std::time::Duration;

use super::super::{EngineError, Forgotten};
use super::SqlEngine;

/// The oldest answers to requests.
const REQUESTS: &str = "DELETE FROM idempotency WHERE (tenant, method, request_id) IN \
   (SELECT tenant, method, request_id FROM idempotency WHERE created_ms < $1 ORDER BY created_ms LIMIT $2)";
/// A webhook that was deleted while a job ended may leave something behind that nobody is to hear of.
const UNHEARD: &str = "DELETE FROM outbox WHERE (tenant, webhook, job, seq) IN \
   (SELECT tenant, webhook, job, seq FROM outbox \
    WHERE NOT EXISTS (SELECT 1 FROM webhooks WHERE webhooks.tenant = outbox.tenant AND webhooks.id = outbox.webhook) LIMIT $1)";
/// The oldest uploads.
const UPLOADS: &str = "DELETE FROM uploads WHERE (tenant, id) IN \
   (SELECT tenant, id FROM uploads WHERE created_ms < $1 ORDER BY created_ms LIMIT $2) RETURNING id";

impl SqlEngine {
    pub(super) async fn forget_page(&self, age: Duration, limit: u32) -> Result<Forgotten, EngineError> {
        let mut writing = self.begin().await?;
        let created_ms = writing.now_ms.saturating_sub(i64::try_from(age.as_millis()).unwrap_or(i64::MAX));
        let page = i64::from(limit);
        let requests = sqlx::query(REQUESTS).bind(created_ms).bind(page).execute(writing.connection()).await?.rows_affected();
        let unheard = sqlx::query(UNHEARD).bind(page).execute(writing.connection()).await?.rows_affected();
        let uploads: Vec<String> = sqlx::query_scalar(UPLOADS).bind(created_ms).bind(page).fetch_all(writing.connection()).await?;
        self.commit(writing).await?;
        let is_all = [requests, unheard, uploads.len() as u64].into_iter().all(|n| n < u64::from(limit));
        Ok(Forgotten { uploads, is_all })
    }
}
