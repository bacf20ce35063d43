//! What is left of an offer while tasks are placed on it.

use super::affinity::{Affinity, affinity, wait_to_move_ms};
use super::fairness::TenantLoad;
use super::limits::Limits;
use super::offer::{DeviceClass, DeviceOffer, Offer};
use super::reserve;
use super::task::{Candidate, Pool, Sharing, TaskKey};

/// What is left of a device.
struct Place<'a> {
    device: &'a DeviceOffer,
    free_bytes: u64,
    running: u32,
    is_closed: bool,
    reserved: Option<Reserved>,
    /// Jobs that were given this device in this call: one task each, so that the layers of a job spread.
    jobs: Vec<u128>,
}

/// Who a device is kept free for.
#[derive(Clone, Copy)]
struct Reserved {
    key: TaskKey,
    /// If its tenant has more than its guarantee, what it has: who has less for its share goes first.
    yields_to: Option<TenantLoad>,
}

/// A device that a task may be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Spot {
    pub(super) device: usize,
    /// What has to be moved there, in milliseconds of work.
    pub(super) moved_ms: u64,
}

/// What is left of an offer.
pub(super) struct Room<'a> {
    places: Vec<Place<'a>>,
    host_total_bytes: u64,
    host_free_bytes: u64,
    loads: &'a [TenantLoad],
    limits: &'a Limits,
}

impl<'a> Room<'a> {
    pub(super) fn new(offer: &'a Offer, loads: &'a [TenantLoad], limits: &'a Limits) -> Self {
        let place = |device: &'a DeviceOffer| Place {
            device,
            free_bytes: device.free_bytes.min(device.total_bytes),
            running: device.running,
            is_closed: !device.is_healthy || device.runs_alone,
            reserved: None,
            jobs: Vec::new(),
        };
        let places = offer.devices.iter().map(place).collect();
        Self { places, host_total_bytes: offer.host_total_bytes, host_free_bytes: offer.host_free_bytes, loads, limits }
    }

    /// Keeps devices free for tasks that need much of one and have waited long; the one that has waited longest comes first.
    pub(super) fn reserve(&mut self, candidates: &[Candidate]) {
        // For one that the host has too little memory for, a device would be kept free in vain.
        let starving = |candidate: &&Candidate| {
            candidate.waiting_ms >= self.limits.reserve_after_ms && candidate.need_host_bytes <= self.host_total_bytes
        };
        let mut starving: Vec<&Candidate> = candidates.iter().filter(starving).collect();
        starving.sort_by_key(|candidate| (std::cmp::Reverse(candidate.waiting_ms), candidate.key));
        for candidate in starving {
            let Some(load) = self.loads.get(candidate.tenant) else { continue };
            let yields_to = if load.is_within_guarantee(self.loads) { None } else { Some(*load) };
            for place in self.places.iter_mut().filter(|place| place.reserved.is_none()) {
                let is_kept = could_fit(place.device, candidate) && reserve::is_large(candidate, place.device.total_bytes, self.limits);
                if is_kept && reserve::is_reserved(candidate, place.device.id, self.limits) {
                    place.reserved = Some(Reserved { key: candidate.key, yields_to });
                }
            }
        }
    }

    /// The best device for a task, if there is one that it may have now: where it moves least, then where least runs, then where least memory stays
    /// unused, so that large devices remain for large tasks; ties by id.
    pub(super) fn best_spot(&self, candidate: &Candidate) -> Option<Spot> {
        let spot = |(index, place): (usize, &Place<'_>)| {
            if self.wait_ms(place, candidate)? > 0 {
                return None;
            }
            let moved_ms = if affinity(candidate, place.device) == Affinity::Home { 0 } else { candidate.move_ms };
            Some(((moved_ms, place.running, place.free_bytes, place.device.id), Spot { device: index, moved_ms }))
        };
        self.places.iter().enumerate().filter_map(spot).min_by_key(|(order, _)| *order).map(|(_, spot)| spot)
    }

    /// In how many milliseconds a task may have one of the devices that it fits on now, if only time keeps it from that.
    pub(super) fn patience_ends_in_ms(&self, candidate: &Candidate) -> Option<u64> {
        self.places.iter().filter_map(|place| self.wait_ms(place, candidate)).min().filter(|&wait_ms| wait_ms > 0)
    }

    /// Whether a device is not kept free for another task.
    fn is_allowed(&self, place: &Place<'_>, candidate: &Candidate) -> bool {
        place.reserved.is_none_or(|reserved| {
            let goes_first = |yields_to: TenantLoad| self.loads.get(candidate.tenant).is_some_and(|load| load.has_less(&yields_to));
            reserved.key == candidate.key || reserved.yields_to.is_some_and(goes_first)
        })
    }

    /// How long a task has to wait yet before it may have a device; `None` if it does not fit there.
    fn wait_ms(&self, place: &Place<'_>, candidate: &Candidate) -> Option<u64> {
        if !fits(place, candidate, self.host_free_bytes, self.limits) || !self.is_allowed(place, candidate) {
            return None;
        }
        let to_share = if place.running > 0 { self.limits.share_after_ms } else { 0 };
        let to_move = wait_to_move_ms(candidate, place.device, self.limits);
        Some(to_share.max(to_move).saturating_sub(candidate.waiting_ms))
    }

    /// Takes what a task needs.
    pub(super) fn place(&mut self, candidate: &Candidate, spot: Spot) {
        self.host_free_bytes = self.host_free_bytes.saturating_sub(candidate.need_host_bytes);
        let Some(place) = self.places.get_mut(spot.device) else { return };
        place.free_bytes = place.free_bytes.saturating_sub(candidate.need_device_bytes);
        place.running = place.running.saturating_add(1);
        place.is_closed |= candidate.sharing == Sharing::Alone;
        place.jobs.push(candidate.key.job);
    }
}

/// Whether an empty device is enough.
fn could_fit(device: &DeviceOffer, candidate: &Candidate) -> bool {
    let is_of_pool = match candidate.pool {
        Pool::Any => true,
        Pool::Cpu => device.class == DeviceClass::Cpu,
    };
    device.is_healthy && is_of_pool && candidate.need_device_bytes <= device.total_bytes
}

fn fits(place: &Place<'_>, candidate: &Candidate, host_free_bytes: u64, limits: &Limits) -> bool {
    let may_share = match candidate.sharing {
        Sharing::Shared => place.running < limits.tasks_per_device,
        Sharing::Alone => place.running == 0,
    };
    !place.is_closed
        && may_share
        && could_fit(place.device, candidate)
        && candidate.need_device_bytes <= place.free_bytes
        && candidate.need_host_bytes <= host_free_bytes
        && !place.jobs.contains(&candidate.key.job)
}
