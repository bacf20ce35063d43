//! What a session of a worker offers: devices, memory, slots.

use std::collections::BTreeSet;

use super::task::{DeviceId, KindSet, WeightsKey};

/// What computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceClass {
    /// A GPU; its memory is its own.
    Gpu,
    /// The processors; what would be device memory is host memory too.
    Cpu,
}

/// One device of an offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceOffer {
    /// Identity.
    pub id: DeviceId,
    /// What it is.
    pub class: DeviceClass,
    /// All memory that tasks may take.
    pub total_bytes: u64,
    /// Of it, what no leased task was promised. Weights that are merely kept count as free: they make room.
    pub free_bytes: u64,
    /// Leased tasks on it.
    pub running: u32,
    /// Whether one of them must run alone.
    pub runs_alone: bool,
    /// Weights that lie on it.
    pub cached: BTreeSet<WeightsKey>,
    /// Whether it may be given tasks: not cordoned, no error reported.
    pub is_healthy: bool,
}

/// What a session asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Tasks that it takes at most, now.
    pub slots: u32,
    /// Its devices.
    pub devices: Vec<DeviceOffer>,
    /// Host memory, promised or not.
    pub host_total_bytes: u64,
    /// Of it, what no leased task was promised.
    pub host_free_bytes: u64,
    /// What it does.
    pub kinds: KindSet,
}
