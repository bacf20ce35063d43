//! Sessions that have nothing to do. What has just become ready is left to them for a while by those whose devices are at work: so the layers of a job spread.

use sqlx::any::AnyRow;

use super::super::EngineError;
use super::Writing;
use super::holders::Holders;
use super::lease::{device_of, get};
use super::ready::{Asking, Ready};
use crate::placement::{self, Candidate, DeviceClass, DeviceOffer, WeightsKey};

/// So long it is left to them, in milliseconds. The word that wakes workers of another process takes some tens of them.
pub(super) const LEFT_MS: u64 = 100;
/// The memory of a session without a device, and of a host that is not known.
const ANY: u64 = i64::MAX.unsigned_abs();

/// A session that has nothing to do, unless it is given something now.
struct Idle {
    session: String,
    device: DeviceOffer,
    host_bytes: u64,
    has_task: bool,
}

/// The idle sessions that are looked at.
pub(super) struct IdleSessions(Vec<Idle>);

impl IdleSessions {
    /// Live ones that have told what they have: as many as ask may be among them, and some more.
    pub(super) async fn read(writing: &mut Writing, since_ms: i64, n_asked: usize, holders: &Holders) -> Result<Self, EngineError> {
        const MORE: i64 = 16;
        let rows: Vec<AnyRow> = sqlx::query(
            "SELECT id, device_bytes, host_bytes FROM sessions WHERE seen_ms >= $1 AND is_cordoned = 0 AND device_bytes IS NOT NULL \
               AND NOT EXISTS (SELECT 1 FROM tasks WHERE tasks.session = sessions.id AND tasks.state = 'RUNNING') ORDER BY device_bytes DESC LIMIT $2",
        )
        .bind(since_ms)
        .bind(i64::try_from(n_asked).unwrap_or(i64::MAX).saturating_add(MORE))
        .fetch_all(writing.connection())
        .await?;
        rows.iter().map(|row| idle(row, holders)).collect::<Result<_, EngineError>>().map(Self)
    }

    /// Nothing is left to anybody.
    pub(super) fn none() -> Self {
        Self(Vec::new())
    }

    /// In how many milliseconds a session with something to do may have a task at last: `None` at once, as no other waits for it that could have it before.
    pub(super) fn left_for_ms(&self, ready: &Ready, asking: &Asking<'_>) -> Option<u64> {
        let candidate = &ready.candidate;
        let left_ms = LEFT_MS.checked_sub(candidate.waiting_ms).filter(|&left_ms| left_ms > 0)?;
        let has_device = asking.offer.device_bytes < ANY;
        let takes = |idle: &&Idle| idle.session != asking.session && !idle.has_task && idle.takes(candidate, has_device);
        self.0.iter().find(takes).map(|_| left_ms)
    }

    /// A session was given a task, or was not after all.
    pub(super) fn note(&mut self, session: &str, has_task: bool) {
        self.0.iter_mut().filter(|idle| idle.session == session).for_each(|idle| idle.has_task = has_task);
    }
}

impl Idle {
    /// Whether it has room for a task, and may have it while that is left to it. What was meant for a device is not left to processors.
    fn takes(&self, candidate: &Candidate, for_device: bool) -> bool {
        let is_device = self.device.total_bytes < ANY;
        candidate.need_device_bytes <= self.device.total_bytes
            && candidate.need_host_bytes <= self.host_bytes
            && (is_device || !for_device)
            && placement::wait_to_move_ms(candidate, &self.device, &placement::Limits::default()) < LEFT_MS
    }
}

fn idle(row: &AnyRow, holders: &Holders) -> Result<Idle, EngineError> {
    let session: String = get(row, "id")?;
    let bytes = |column| Ok::<u64, sqlx::Error>(get::<Option<i64>>(row, column)?.map_or(ANY, |bytes| u64::try_from(bytes).unwrap_or(0)));
    let total_bytes = bytes("device_bytes")?;
    let device = DeviceOffer {
        id: device_of(&session),
        class: DeviceClass::Gpu,
        total_bytes,
        free_bytes: total_bytes,
        running: 0,
        runs_alone: false,
        cached: holders.of(&session).into_iter().map(WeightsKey).collect(),
        is_healthy: true,
    };
    Ok(Idle { session, device, host_bytes: bytes("host_bytes")?, has_task: false })
}
