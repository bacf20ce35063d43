//! Whether a task would have to move something to a device, and how long it waits for one where it need not.
//!
//! A task waits `min(move_ms, patience_ms)` for its preferred place and is then anybody's: it is *stolen*. Who waits as long as the move costs, and no
//! longer, loses at most twice what the best choice would have cost (the ski-rental argument), without knowing when the place gets free.

use super::limits::Limits;
use super::offer::DeviceOffer;
use super::task::Candidate;

/// What a task finds on a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Affinity {
    /// Everything, or it needs nothing.
    Home,
    /// Not everything; another place has it.
    Elsewhere,
    /// Not everything; no place has it.
    Nowhere,
}

pub(super) fn affinity(candidate: &Candidate, device: &DeviceOffer) -> Affinity {
    match (candidate.sibling, candidate.weights) {
        (Some(sibling), _) if sibling == device.id => Affinity::Home,
        (Some(_), _) => Affinity::Elsewhere,
        (None, Some(weights)) if device.cached.contains(&weights) => Affinity::Home,
        (None, Some(_)) if candidate.n_holders > 0 => Affinity::Elsewhere,
        (None, Some(_)) => Affinity::Nowhere,
        (None, None) => Affinity::Home,
    }
}

/// How long a task has to have been ready, in milliseconds, before a device may have it for which something would have to be moved that another place has.
pub fn wait_to_move_ms(candidate: &Candidate, device: &DeviceOffer, limits: &Limits) -> u64 {
    match affinity(candidate, device) {
        Affinity::Elsewhere => candidate.move_ms.min(limits.patience_ms),
        Affinity::Home | Affinity::Nowhere => 0,
    }
}
