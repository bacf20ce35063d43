//! Webhooks, and the outbox: what is to be sent was written with the end of its job, so that nothing that happened is left untold.

use std::time::Duration;

use prost::Message as _;
use sqlx::any::AnyRow;
use zeroize::Zeroizing;
use zkinfer_proto::name::WebhookName;
use zkinfer_proto::v1;

use super::super::{Delivery, DeliveryKey, EngineError, EngineFuture, NewWebhook, Page, PageRequest, Postponed, Webhooks, timestamp};
use super::lease::get;
use super::resources::{ListQuery, Order};
use super::room::count_alone;
use super::{SqlEngine, Writing};

/// Webhooks whose turn it is and that are to be told something, those first that waited longest.
macro_rules! turns {
    () => {
        "SELECT w.tenant, w.id, w.url, w.secret, w.failures FROM webhooks w WHERE w.not_before_ms <= $1 AND EXISTS \
           (SELECT 1 FROM outbox o WHERE o.tenant = w.tenant AND o.webhook = w.id AND o.not_before_ms <= $1) \
         ORDER BY w.not_before_ms, w.tenant, w.id LIMIT $2"
    };
}
const TURNS: &str = turns!();
/// PostgreSQL leaves out what another process is about to take.
const TURNS_LOCKED: &str = concat!(turns!(), " FOR UPDATE SKIP LOCKED");

impl Webhooks for SqlEngine {
    fn create_webhook(&self, new: NewWebhook, limit: u32) -> EngineFuture<'_, v1::Webhook> {
        Box::pin(async move {
            let mut writing = self.begin().await?;
            count_alone(&mut writing, "webhooks", &new.tenant).await?;
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
            self.commit(writing).await?;
            let name = WebhookName { tenant: new.tenant, webhook_id: new.id };
            Ok(v1::Webhook { name: name.to_string(), url: new.url, create_time: Some(timestamp(now_ms)) })
        })
    }

    fn list_webhooks(&self, tenant: &str, page: PageRequest) -> EngineFuture<'_, Page<v1::Webhook>> {
        let tenant = tenant.to_owned();
        let mut query = ListQuery::new("SELECT id, url, created_ms FROM webhooks WHERE tenant = ");
        query.push_text(&tenant);
        Box::pin(async move {
            let webhook = |row: &AnyRow| {
                let name = WebhookName { tenant: tenant.clone(), webhook_id: get(row, "id")? };
                let create_time = Some(timestamp(get(row, "created_ms")?));
                let webhook = v1::Webhook { name: name.to_string(), url: get(row, "url")?, create_time };
                let n_bytes = webhook.encoded_len();
                Ok::<_, EngineError>((webhook, n_bytes))
            };
            self.page_in(Order::OldestFirst, query, page, webhook).await
        })
    }

    fn delete_webhook(&self, tenant: &str, id: &str) -> EngineFuture<'_, bool> {
        let (tenant, id) = (tenant.to_owned(), id.to_owned());
        Box::pin(async move {
            let mut writing = self.begin().await?;
            // The webhook first, as all who write both.
            let deleted = sqlx::query("DELETE FROM webhooks WHERE tenant = $1 AND id = $2")
                .bind(&tenant)
                .bind(&id)
                .execute(writing.connection())
                .await?;
            sqlx::query("DELETE FROM outbox WHERE tenant = $1 AND webhook = $2")
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
            let now_ms = writing.now_ms;
            // Its place in the order is the time of its last turn.
            sqlx::query("UPDATE webhooks SET not_before_ms = $1, failures = 0 WHERE tenant = $2 AND id = $3")
                .bind(now_ms)
                .bind(&key.tenant)
                .bind(&key.webhook)
                .execute(writing.connection())
                .await?;
            forget(&mut writing, &key).await?;
            self.commit(writing).await
        })
    }

    fn postpone(&self, delivery: &DeliveryKey, after: Postponed) -> EngineFuture<'_, u64> {
        let key = delivery.clone();
        Box::pin(async move {
            let mut writing = self.begin().await?;
            let given_up = count_failure(&mut writing, &key, &after).await?;
            self.commit(writing).await?;
            Ok(given_up)
        })
    }
}

/// Counts a failure for the webhook and for all that was due to it; answers how much of that is given up.
async fn count_failure(writing: &mut Writing, key: &DeliveryKey, after: &Postponed) -> Result<u64, EngineError> {
    let now_ms = writing.now_ms;
    sqlx::query("UPDATE webhooks SET not_before_ms = $1, failures = failures + 1 WHERE tenant = $2 AND id = $3")
        .bind(now_ms.saturating_add(milliseconds(after.webhook)))
        .bind(&key.tenant)
        .bind(&key.webhook)
        .execute(writing.connection())
        .await?;
    sqlx::query("UPDATE outbox SET tries = tries + 1 WHERE tenant = $1 AND webhook = $2 AND not_before_ms <= $3")
        .bind(&key.tenant)
        .bind(&key.webhook)
        .bind(now_ms)
        .execute(writing.connection())
        .await?;
    sqlx::query("UPDATE outbox SET not_before_ms = $1 WHERE tenant = $2 AND webhook = $3 AND job = $4 AND seq = $5")
        .bind(now_ms.saturating_add(milliseconds(after.delivery)))
        .bind(&key.tenant)
        .bind(&key.webhook)
        .bind(&key.job)
        .bind(key.sequence)
        .execute(writing.connection())
        .await?;
    let given_up = sqlx::query("DELETE FROM outbox WHERE tenant = $1 AND webhook = $2 AND tries >= $3")
        .bind(&key.tenant)
        .bind(&key.webhook)
        .bind(i64::from(after.max_tries))
        .execute(writing.connection())
        .await?;
    Ok(given_up.rows_affected())
}

/// A webhook whose turn it is.
struct Turn {
    tenant: String,
    webhook: String,
    url: String,
    secret: Zeroizing<Vec<u8>>,
    failures: u32,
}

impl SqlEngine {
    async fn take_due(&self, limit: u32, hold: Duration) -> Result<Vec<Delivery>, EngineError> {
        // Cheap look first: mostly there is nothing to send, and a poll must not write.
        let now_ms = self.clock_ms().await?;
        if sqlx::query(TURNS).bind(now_ms).bind(1i64).fetch_optional(&self.readers).await?.is_none() {
            return Ok(Vec::new());
        }
        let mut writing = self.begin().await?;
        let mut deliveries = Vec::new();
        for turn in turns(&mut writing, limit).await? {
            deliveries.extend(take_oldest(&mut writing, turn, hold).await?);
        }
        self.commit(writing).await?;
        Ok(deliveries)
    }
}

async fn turns(writing: &mut Writing, limit: u32) -> Result<Vec<Turn>, EngineError> {
    let (sql, now_ms) = (writing.dialect.pick(TURNS, TURNS_LOCKED), writing.now_ms);
    let rows: Vec<(String, String, String, Vec<u8>, i64)> =
        sqlx::query_as(sql).bind(now_ms).bind(i64::from(limit)).fetch_all(writing.connection()).await?;
    let turn = |(tenant, webhook, url, secret, failures): (String, String, String, Vec<u8>, i64)| Turn {
        tenant,
        webhook,
        url,
        secret: Zeroizing::new(secret),
        failures: u32::try_from(failures).unwrap_or(u32::MAX),
    };
    Ok(rows.into_iter().map(turn).collect())
}

/// The oldest that a webhook is to be told; until the hold ends, nobody sends it anything.
async fn take_oldest(writing: &mut Writing, turn: Turn, hold: Duration) -> Result<Option<Delivery>, EngineError> {
    let now_ms = writing.now_ms;
    let due: Option<(String, i64, i64, Option<Vec<u8>>)> = sqlx::query_as(
        "SELECT outbox.job, outbox.seq, outbox.tries, jobs.doc FROM outbox LEFT JOIN jobs ON jobs.tenant = outbox.tenant AND jobs.id = outbox.job \
         WHERE outbox.tenant = $1 AND outbox.webhook = $2 AND outbox.not_before_ms <= $3 ORDER BY outbox.not_before_ms LIMIT 1",
    )
    .bind(&turn.tenant)
    .bind(&turn.webhook)
    .bind(now_ms)
    .fetch_optional(writing.connection())
    .await?;
    let Some((job, sequence, tries, document)) = due else { return Ok(None) };
    let Turn { tenant, webhook, url, secret, failures } = turn;
    let key = DeliveryKey { tenant, webhook, job, sequence };
    let Some(job) = document.and_then(|document| v1::Job::decode(document.as_slice()).ok()) else {
        tracing::error!(job = %key.job, "a stored job is missing or damaged; its webhooks are not told");
        forget(writing, &key).await?;
        return Ok(None);
    };
    sqlx::query("UPDATE webhooks SET not_before_ms = $1 WHERE tenant = $2 AND id = $3")
        .bind(now_ms.saturating_add(milliseconds(hold)))
        .bind(&key.tenant)
        .bind(&key.webhook)
        .execute(writing.connection())
        .await?;
    Ok(Some(Delivery { key, url, secret, job, tries: u32::try_from(tries).unwrap_or(u32::MAX), failures }))
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
