//! Oracles that may leave the device: one that no running call uses is moved to host memory when a buffer finds no room, the one used longest ago
//! first, and comes back when it is used again.
//!
//! An oracle in use is held by an [`Arc`] of its own and never moved. Locks: an oracle's own while it moves, either way; [`Residents::making_room`]
//! while a caller moves others. Who holds the latter only tries the former and allocates nothing on the device, so that callers that need memory at
//! the same time wait for each other in one direction only. Nobody waits for a call to end: with nothing to move, there is no memory.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};

use plonky2::hash::merkle_tree::MerkleCap;
use zkinfer_circuits::backend::{BackendError, OracleSizes};
use zkinfer_circuits::field::{F, H};

use super::lane::Lane;
use super::oracle::{HostOracle, Oracle};

/// A committed oracle: on the device, or on the host while its memory is needed.
#[derive(Debug)]
pub struct KeptOracle {
    resident: Arc<Resident>,
    cap: MerkleCap<F, H>,
    sizes: OracleSizes,
}

#[derive(Debug)]
struct Resident {
    place: Mutex<Place>,
    /// By [`Residents::clock`].
    last_use: AtomicU64,
}

/// Where an oracle lies.
#[derive(Debug)]
enum Place {
    /// A further reference is held by every call that uses it.
    Device(Arc<Oracle>),
    Host(HostOracle),
}

/// Every oracle of a device.
#[derive(Debug, Default)]
pub(crate) struct Residents {
    all: Mutex<Vec<Weak<Resident>>>,
    clock: AtomicU64,
    making_room: Mutex<()>,
}

impl Residents {
    /// Takes an oracle into care.
    pub(crate) fn keep(&self, oracle: Oracle) -> KeptOracle {
        let cap = oracle.tree.cap.clone();
        let sizes = OracleSizes { log_rows: oracle.log_rows, n_columns: oracle.n_columns, shape: oracle.shape };
        let resident = Resident { place: Mutex::new(Place::Device(Arc::new(oracle))), last_use: AtomicU64::new(self.tick()) };
        let resident = Arc::new(resident);
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|known| known.strong_count() > 0);
        all.push(Arc::downgrade(&resident));
        KeptOracle { resident, cap, sizes }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// One caller at a time moves oracles away.
    pub(crate) fn making_room(&self) -> MutexGuard<'_, ()> {
        self.making_room.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the oracle used longest ago, of those that no call uses, to the host; false if there is none. The caller is [`Self::making_room`].
    pub(crate) fn evict(&self, lane: Lane<'_>) -> Result<bool, BackendError> {
        let mut candidates: Vec<Arc<Resident>> =
            self.all.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
        candidates.sort_by_key(|resident| resident.last_use.load(Ordering::Relaxed));
        for resident in candidates {
            if resident.evict(lane)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

impl Resident {
    /// Moves the oracle to the host unless it is there, is in use, or is about to be.
    fn evict(&self, lane: Lane<'_>) -> Result<bool, BackendError> {
        let mut place = match self.place.try_lock() {
            Ok(place) => place,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Ok(false),
        };
        let Place::Device(oracle) = &*place else {
            return Ok(false);
        };
        // References are made under the lock: there is no other now, and none can come.
        if Arc::strong_count(oracle) > 1 {
            return Ok(false);
        }
        let bytes = oracle.size_bytes();
        let host = oracle.download(lane)?;
        *place = Place::Host(host);
        lane.device.note_eviction(bytes);
        tracing::debug!(device = lane.device.name(), bytes, "an idle oracle was moved to the host");
        Ok(true)
    }
}

impl KeptOracle {
    pub(crate) fn cap(&self) -> &MerkleCap<F, H> {
        &self.cap
    }

    pub(crate) fn sizes(&self) -> OracleSizes {
        self.sizes
    }

    /// The oracle on the device, uploaded if it is not there; it stays as long as the reference is held.
    pub(crate) fn on_device(&self, lane: Lane<'_>) -> Result<Arc<Oracle>, BackendError> {
        self.resident.last_use.store(lane.device.residents.tick(), Ordering::Relaxed);
        let mut place = self.place();
        let oracle = match &*place {
            Place::Device(oracle) => return Ok(Arc::clone(oracle)),
            Place::Host(host) => Arc::new(host.upload(lane)?),
        };
        *place = Place::Device(Arc::clone(&oracle));
        Ok(oracle)
    }

    /// The bytes that the CPU backend writes; an oracle on the host stays there.
    pub(crate) fn save(&self, lane: Lane<'_>) -> Result<Vec<u8>, BackendError> {
        let place = self.place();
        let oracle = match &*place {
            Place::Host(host) => return Ok(host.save()),
            Place::Device(oracle) => Arc::clone(oracle),
        };
        drop(place);
        Ok(oracle.download(lane)?.save())
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        self.resident.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
