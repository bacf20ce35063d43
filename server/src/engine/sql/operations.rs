//! What operators see and set.

use zkinfer_proto::v1;

use super::super::{EngineFuture, Operations, QueueFacts, SessionFacts};
use super::SqlEngine;

/// The weight of a tenant that none was set for.
const USUAL_SHARE: i64 = 1000;

impl Operations for SqlEngine {
    fn now(&self) -> EngineFuture<'_, i64> {
        Box::pin(self.clock_ms())
    }

    fn queue(&self) -> EngineFuture<'_, QueueFacts> {
        Box::pin(self.queue_facts())
    }

    fn sessions(&self) -> EngineFuture<'_, Vec<SessionFacts>> {
        Box::pin(self.session_facts())
    }

    fn cordon(&self, session: &str, cordoned: bool) -> EngineFuture<'_, bool> {
        let session = session.to_owned();
        Box::pin(async move { self.set_cordoned(&session, cordoned).await })
    }

    fn quota(&self, tenant: &str) -> EngineFuture<'_, v1::Quota> {
        let tenant = tenant.to_owned();
        Box::pin(async move {
            let row: Option<(i64, Option<i64>, Option<i64>, i64)> =
                sqlx::query_as("SELECT share_milli, max_queued, max_running, is_paused FROM tenants WHERE tenant = $1")
                    .bind(&tenant)
                    .fetch_optional(&self.readers)
                    .await?;
            let (share_milli, max_queued, max_running, is_paused) = row.unwrap_or((USUAL_SHARE, None, None, 0));
            let limit = |column: Option<i64>| column.map_or(0, |value| i32::try_from(value).unwrap_or(i32::MAX));
            Ok(v1::Quota {
                tenant: format!("tenants/{tenant}"),
                share_milli,
                max_queued: limit(max_queued),
                max_running: limit(max_running),
                paused: is_paused != 0,
            })
        })
    }

    fn set_quota(&self, tenant: &str, quota: v1::Quota) -> EngineFuture<'_, ()> {
        let tenant = tenant.to_owned();
        Box::pin(async move {
            let mut writing = self.begin().await?;
            let limit = |value: i32| (value > 0).then_some(i64::from(value));
            sqlx::query(
                "INSERT INTO tenants(tenant, share_milli, max_queued, max_running, is_paused) VALUES ($1, $2, $3, $4, $5) \
                 ON CONFLICT (tenant) DO UPDATE SET share_milli = excluded.share_milli, max_queued = excluded.max_queued, \
                   max_running = excluded.max_running, is_paused = excluded.is_paused",
            )
            .bind(&tenant)
            .bind(if quota.share_milli > 0 { quota.share_milli } else { USUAL_SHARE })
            .bind(limit(quota.max_queued))
            .bind(limit(quota.max_running))
            .bind(i64::from(quota.paused))
            .execute(writing.connection())
            .await?;
            self.commit(writing).await?;
            self.counts.forget(&tenant);
            Ok(())
        })
    }
}
