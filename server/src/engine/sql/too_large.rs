//! Ready tasks that no live session can hold, and those of which that was told. Only these are read, and those that need a host of some size, by indexes:
//! how many others are ready does not matter.

use super::super::{EngineError, Subject, SubjectKind};
use super::tenants::with_ready;
use super::{SqlEngine, subject};

/// Tasks of which something is told in one go, about; the next go comes soon, and finds others: those that were told are not found as new again.
const MAX_AT_ONCE: i64 = 256;

macro_rules! columns {
    () => {
        "kind, tenant, subject, ordinal, name, epoch, attempts, device_bytes, host_bytes, too_large_ms"
    };
}

/// Whether no session seen since $1 has so much memory of its host among those whose device holds the task.
macro_rules! no_host {
    () => {
        "host_bytes > 0 AND NOT EXISTS (SELECT 1 FROM sessions WHERE seen_ms >= $1 AND sessions.device_bytes >= tasks.device_bytes \
           AND coalesce(sessions.host_bytes, 9223372036854775807) >= tasks.host_bytes)"
    };
}

/// Those of which it was told, if they can be held now or have waited since before $3. $2 is the largest device.
const TOLD: &str = concat!(
    "SELECT ",
    columns!(),
    ", is_too_large FROM (SELECT tasks.*, CASE WHEN device_bytes > $2 OR ",
    no_host!(),
    " THEN 1 ELSE 0 END AS is_too_large FROM tasks WHERE state = 'READY' AND too_large_ms IS NOT NULL) AS told \
     WHERE is_too_large = 0 OR too_large_ms <= $3 ORDER BY too_large_ms LIMIT $4"
);

/// Those that no host can hold. $2 is the largest device.
const OF_HOSTS: &str = concat!(
    "SELECT ",
    columns!(),
    ", 1 FROM tasks WHERE state = 'READY' AND too_large_ms IS NULL AND device_bytes <= $2 AND ",
    no_host!(),
    " ORDER BY host_bytes DESC LIMIT $3"
);

/// Who has something ready that needs more than $1 of a device.
const TENANTS: &str = concat!(
    with_ready!(),
    "SELECT tenant FROM ready WHERE tenant IS NOT NULL AND ( \
       SELECT device_bytes FROM tasks WHERE state = 'READY' AND tasks.tenant = ready.tenant AND device_bytes >= 0 \
       ORDER BY device_bytes DESC, host_bytes DESC, not_before_ms DESC LIMIT 1) > $1 ORDER BY tenant"
);

/// A tenant's that need more than $2 of a device.
const OF_DEVICES: &str = concat!(
    "SELECT ",
    columns!(),
    ", 1 FROM tasks WHERE state = 'READY' AND device_bytes >= 0 AND tenant = $1 AND device_bytes > $2 AND too_large_ms IS NULL \
     ORDER BY device_bytes DESC, host_bytes DESC, not_before_ms DESC LIMIT $3"
);

/// A row of these.
type Row = (String, String, String, i64, String, i64, i64, i64, i64, Option<i64>, i64);

/// A ready task that is too large, or was.
#[derive(Debug)]
pub(super) struct TooLarge {
    pub(super) subject: Subject,
    pub(super) ordinal: i64,
    pub(super) name: String,
    pub(super) epoch: i64,
    pub(super) attempts: i64,
    pub(super) device_bytes: i64,
    pub(super) host_bytes: i64,
    /// Since when that is told.
    pub(super) since_ms: Option<i64>,
    /// Whether it still is.
    pub(super) is_so: bool,
}

impl TooLarge {
    fn key(&self) -> (&str, &str, i64) {
        (&self.subject.tenant, &self.subject.id, self.ordinal)
    }
}

impl From<Row> for TooLarge {
    fn from((kind, tenant, id, ordinal, name, epoch, attempts, device_bytes, host_bytes, since_ms, is_so): Row) -> Self {
        let subject = subject(SubjectKind::from_task_kind(&kind), &tenant, &id);
        Self { subject, ordinal, name, epoch, attempts, device_bytes, host_bytes, since_ms, is_so: is_so == 1 }
    }
}

impl SqlEngine {
    /// Those of which something is to be told, in the order of their keys. Sessions seen since then live, and the largest of their devices has so much.
    pub(super) async fn too_large(&self, seen_since_ms: i64, largest: i64, told_before_ms: i64) -> Result<Vec<TooLarge>, EngineError> {
        let told = sqlx::query_as(TOLD).bind(seen_since_ms).bind(largest).bind(told_before_ms).bind(MAX_AT_ONCE);
        let mut rows: Vec<Row> = told.fetch_all(&self.readers).await?;
        let of_hosts = sqlx::query_as(OF_HOSTS).bind(seen_since_ms).bind(largest).bind(MAX_AT_ONCE);
        rows.extend(of_hosts.fetch_all(&self.readers).await?);
        let tenants: Vec<String> = sqlx::query_scalar(TENANTS).bind(largest).fetch_all(&self.readers).await?;
        for tenant in tenants {
            if rows.len() as i64 >= MAX_AT_ONCE {
                break;
            }
            let of_devices = sqlx::query_as(OF_DEVICES).bind(tenant).bind(largest).bind(MAX_AT_ONCE);
            rows.extend(of_devices.fetch_all(&self.readers).await?);
        }
        let mut tasks: Vec<TooLarge> = rows.into_iter().map(TooLarge::from).collect();
        tasks.sort_by(|a, b| a.key().cmp(&b.key()));
        Ok(tasks)
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{AssertSqlSafe, Row as _};

    use super::*;
    use crate::limits::Limits;

    #[tokio::test]
    async fn no_queue_is_read_from_end_to_end() {
        let folder = tempfile::tempdir().unwrap();
        let engine = SqlEngine::open_sqlite(folder.path(), &Limits::default()).await.unwrap();
        for (statement, how) in [
            (TOLD, "tasks_too_large"),
            (OF_HOSTS, "tasks_of_hosts"),
            (TENANTS, "tasks_ready_by_memory (tenant=? AND device_bytes>?)"),
            (OF_DEVICES, "tasks_ready_by_memory (tenant=? AND device_bytes>?)"),
        ] {
            let rows = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"))).fetch_all(&engine.readers).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
            let of_tasks = plan.iter().filter(|line| line.contains(" tasks"));
            // An index that holds only what is looked for may be read from end to end.
            let is_bounded =
                |line: &String| line.starts_with("SEARCH") || line.contains("tasks_too_large") || line.contains("tasks_of_hosts");
            assert!(of_tasks.clone().all(is_bounded) && of_tasks.clone().any(|line| line.contains(how)), "{plan:#?}");
        }
    }
}
