//! Webhooks, and the outbox: what is to be sent was written with the end of its job, so that nothing that happened is left untold.

use std::time::Duration;

use prost::Message as _;
use zkinfer_proto::name::WebhookName;
use zkinfer_proto::v1;

use super::super::{Delivery, DeliveryKey, EngineError, EngineFuture, NewWebhook, Webhooks, timestamp};
use super::{SqlEngine, Writing, fixed};

/// What is due. PostgreSQL leaves out what another process is about to take.
const DUE: &str = "SELECT tenant, webhook, job, seq, tries FROM outbox WHERE not_before_ms <= $1 ORDER BY not_before_ms LIMIT $2";
const DUE_LOCKED: &str =
    "SELECT tenant, webhook, job, seq, tries FROM outbox WHERE not_before_ms <= $1 ORDER BY not_before_ms LIMIT $2 FOR UPDATE SKIP LOCKED";

impl Webhooks for SqlEngine {
    fn create_webhook(&self, new: NewWebhook, limit: u32) -> EngineFuture<'_, ()> {
        Box::pin(async move {
            let mut writing = self.begin().await?;
            let known: i64 = sqlx::query_scalar("SELECT count(*) FROM webhooks WHERE tenant = $1")
                .bind(&new.tenant)
                .fetch_one(writing.connection())
                .await?;
            if known >= i64::from(limit) {
                return Err(EngineError::QuotaExceeded { what: "webhooks", limit });
            }
            let now_ms = writing.now_ms;
            sqlx::query("INSERT INTO webhooks(tenant, id, url, secret, created_ms) VALUES ($1, $2, $3, $4, $5)")
                .bind(&new.tenant)
                .bind(&new.id)
                .bind(&new.url)
                .bind(new.secret.to_vec())
                .bind(now_ms)
                .execute(writing.connection())
                .await?;
            self.commit(writing).await
        })
    }

    fn webhooks(&self, tenant: &str) -> EngineFuture<'_, Vec<v1::Webhook>> {
        let tenant = tenant.to_owned();
        Box::pin(async move {
            let rows: Vec<(String, String, i64)> =
                sqlx::query_as("SELECT id, url, created_ms FROM webhooks WHERE tenant = $1 ORDER BY created_ms, id")
                    .bind(&tenant)
                    .fetch_all(&self.readers)
                    .await?;
            let webhook = |(id, url, created_ms)| v1::Webhook {
                name: WebhookName { tenant: tenant.clone(), webhook_id: id }.to_string(),
                url,
                create_time: Some(timestamp(created_ms)),
            };
            Ok(rows.into_iter().map(webhook).collect())
        })
    }

    fn delete_webhook(&self, tenant: &str, id: &str) -> EngineFuture<'_, bool> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        Box::pin(async move {
            let mut writing = self.begin().await?;
            sqlx::query("DELETE FROM outbox WHERE tenant = $1 AND webhook = $2")
                .bind(&tenant)
                .bind(&id)
                .execute(writing.connection())
                .await?;
            let deleted = sqlx::query("DELETE FROM webhooks WHERE tenant = $1 AND id = $2")
                .bind(&tenant)
                .bind(&id)
                .execute(writing.connection())
                .await?;
            self.commit(writing).await?;
            Ok(deleted.rows_affected() > 0)
        })
    }

    fn take_deliveries(&self, limit: u32, hold: Duration) -> EngineFuture<'_, Vec<Delivery>> {
        Box::pin(self.take_due(limit, hold))
    }

    fn delivered(&self, delivery: &DeliveryKey) -> EngineFuture<'_, ()> {
        let key = delivery.clone();
        Box::pin(async move {
            let mut writing = self.begin().await?;
            forget(&mut writing, &key).await?;
            self.commit(writing).await
        })
    }

    fn postpone(&self, delivery: &DeliveryKey, after: Duration) -> EngineFuture<'_, ()> {
        let key = delivery.clone();
        Box::pin(async move {
            let mut writing = self.begin().await?;
            let not_before_ms = writing.now_ms.saturating_add(milliseconds(after));
            sqlx::query(
                "UPDATE outbox SET not_before_ms = $1, tries = tries + 1 WHERE tenant = $2 AND webhook = $3 AND job = $4 AND seq = $5",
            )
            .bind(not_before_ms)
            .bind(&key.tenant)
            .bind(&key.webhook)
            .bind(&key.job)
            .bind(key.sequence)
            .execute(writing.connection())
            .await?;
            self.commit(writing).await
        })
    }
}

impl SqlEngine {
    async fn take_due(&self, limit: u32, hold: Duration) -> Result<Vec<Delivery>, EngineError> {
        let now_ms = self.now().await?;
        let due: Option<i64> = sqlx::query_scalar("SELECT seq FROM outbox WHERE not_before_ms <= $1 LIMIT 1")
            .bind(now_ms)
            .fetch_optional(&self.readers)
            .await?;
        if due.is_none() {
            return Ok(Vec::new());
        }
        let mut writing = self.begin().await?;
        let (sql, now_ms) = (writing.dialect.pick(DUE, DUE_LOCKED), writing.now_ms);
        let rows: Vec<(String, String, String, i64, i64)> =
            sqlx::query_as(sql).bind(now_ms).bind(i64::from(limit)).fetch_all(writing.connection()).await?;
        let mut deliveries = Vec::with_capacity(rows.len());
        for (tenant, webhook, job, sequence, tries) in rows {
            let key = DeliveryKey { tenant, webhook, job, sequence };
            let held_until_ms = now_ms.saturating_add(milliseconds(hold));
            sqlx::query("UPDATE outbox SET not_before_ms = $1 WHERE tenant = $2 AND webhook = $3 AND job = $4 AND seq = $5")
                .bind(held_until_ms)
                .bind(&key.tenant)
                .bind(&key.webhook)
                .bind(&key.job)
                .bind(key.sequence)
                .execute(writing.connection())
                .await?;
            let found: Option<(String, Vec<u8>, Vec<u8>)> = sqlx::query_as(
                "SELECT url, secret, doc FROM webhooks JOIN jobs ON jobs.tenant = webhooks.tenant AND jobs.id = $1 \
                 WHERE webhooks.tenant = $2 AND webhooks.id = $3",
            )
            .bind(&key.job)
            .bind(&key.tenant)
            .bind(&key.webhook)
            .fetch_optional(writing.connection())
            .await?;
            // A webhook that was deleted while its job ended leaves a row behind: nobody is to hear of it, and it must not stop the others.
            let Some((url, secret, document)) = found else {
                forget(&mut writing, &key).await?;
                continue;
            };
            let Ok(job) = v1::Job::decode(document.as_slice()) else {
                tracing::error!(job = %key.job, "a stored job is damaged; its webhooks are not told");
                forget(&mut writing, &key).await?;
                continue;
            };
            deliveries.push(Delivery { key, url, secret: fixed(&secret)?, job, tries: u32::try_from(tries).unwrap_or(u32::MAX) });
        }
        self.commit(writing).await?;
        Ok(deliveries)
    }
}

async fn forget(writing: &mut Writing, key: &DeliveryKey) -> Result<(), EngineError> {
    sqlx::query("DELETE FROM outbox WHERE tenant = $1 AND webhook = $2 AND job = $3 AND seq = $4")
        .bind(&key.tenant)
        .bind(&key.webhook)
        .bind(&key.job)
        .bind(key.sequence)
        .execute(writing.connection())
        .await?;
    Ok(())
}

fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}
