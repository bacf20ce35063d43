//! The tenants whose ready tasks are looked at when somebody asks for tasks.

use std::num::NonZeroU32;

use super::super::EngineError;
use super::Writing;
use crate::placement::TenantLoad;

/// Tenants that are looked at, those with the least for their share: so many that have something which can be given now, and as many that have only what
/// a device must be kept free for. Those whose tasks nobody who asks can take keep nobody out.
const MAX_TENANTS: usize = 16;

/// Whether a tenant has something that is due and needs at most so much memory. The order is that of an index with which the answer takes as long whether
/// nothing of much fits or all.
macro_rules! fitting {
    ($bytes:literal) => {
        concat!(
            "(SELECT ordinal FROM tasks WHERE state = 'READY' AND tasks.tenant = ready.tenant AND device_bytes >= 0 AND device_bytes <= ",
            $bytes,
            " AND host_bytes <= $4 AND not_before_ms <= $1 ORDER BY device_bytes, host_bytes, not_before_ms LIMIT 1)"
        )
    };
}

/// `ready(tenant)`: who has something ready, and at last NULL; found by leaps over the index, whose length does not matter.
macro_rules! with_ready {
    () => {
        "WITH RECURSIVE ready(tenant) AS ( \
           SELECT min(tenant) FROM tasks WHERE state = 'READY' \
         UNION ALL \
           SELECT (SELECT min(tenant) FROM tasks WHERE state = 'READY' AND tenant > ready.tenant) FROM ready WHERE ready.tenant IS NOT NULL) "
    };
}
pub(super) use with_ready;

/// Who has something ready, with what it may take.
const READY_TENANTS: &str = concat!(
    with_ready!(),
    "SELECT ready.tenant, coalesce(tenants.share_milli, 1000), coalesce(tenants.max_running, 9223372036854775807), \
       (SELECT count(*) FROM tasks WHERE state = 'RUNNING' AND tasks.tenant = ready.tenant), \
       coalesce((SELECT max(started_ms) FROM attempts WHERE attempts.tenant = ready.tenant AND started_ms > 0), 0), coalesce(tenants.last_leased_ms, 0), ",
    fitting!("$2"),
    ", CASE WHEN $2 < $3 THEN ",
    fitting!("$3"),
    " END FROM ready LEFT JOIN tenants ON tenants.tenant = ready.tenant \
     WHERE ready.tenant IS NOT NULL AND coalesce(tenants.is_paused, 0) = 0"
);

/// A tenant with something ready.
pub(super) struct Tenant {
    pub(super) name: String,
    pub(super) load: TenantLoad,
    pub(super) may_run: u64,
}

/// Memory of a device and of its host, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) free: i64,
    pub(super) all: i64,
    pub(super) host: i64,
}

/// A row of [`READY_TENANTS`].
type ReadyRow = (String, i64, i64, i64, i64, i64, Option<i64>, Option<i64>);

/// Tenants with something that fits and that may run more, those with the least for their share first.
pub(super) async fn ready_tenants(writing: &mut Writing, largest: Memory) -> Result<Vec<Tenant>, EngineError> {
    let rows: Vec<ReadyRow> = sqlx::query_as(READY_TENANTS)
        .bind(writing.now_ms)
        .bind(largest.free)
        .bind(largest.all)
        .bind(largest.host)
        .fetch_all(writing.connection())
        .await?;
    let (mut fitting_now, mut fitting_later) = (Vec::new(), Vec::new());
    for (name, share_milli, may_run, running, leased_ms, deleted_ms, now, later) in rows {
        let load = TenantLoad {
            running: running.unsigned_abs(),
            share: u32::try_from(share_milli).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN),
            // Also of jobs that were deleted: that must not bring a tenant forward.
            last_leased_ms: leased_ms.max(deleted_ms).unsigned_abs(),
        };
        let tenant = Tenant { name, load, may_run: may_run.unsigned_abs() };
        match (now, later) {
            _ if tenant.load.running >= tenant.may_run => {}
            (Some(_), _) => fitting_now.push(tenant),
            (None, Some(_)) => fitting_later.push(tenant),
            (None, None) => {}
        }
    }
    for tenants in [&mut fitting_now, &mut fitting_later] {
        sort_tenants(tenants);
        tenants.truncate(MAX_TENANTS);
    }
    fitting_now.append(&mut fitting_later);
    Ok(fitting_now)
}

/// Those with the least for their share first.
pub(super) fn sort_tenants(tenants: &mut [Tenant]) {
    tenants.sort_by(|a, b| a.load.compare(&b.load).then_with(|| a.name.cmp(&b.name)));
}
