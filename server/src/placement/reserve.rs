//! Devices that are kept free for a task that needs much memory, or a device for itself: else small tasks, of which one always fits, starve it.
//!
//! No place remembers who waits for what. Task and device draw a lot, always the same; the device is kept free if the lot is below a bound that doubles
//! with every step that the task has waited: first one device of about a thousand, after ten steps all. Shares hold: a task whose tenant has more than its
//! guaranteed part keeps no device from tenants that have less for their shares.

use super::limits::Limits;
use super::task::{Candidate, DeviceId, Sharing, TaskKey};

/// Lots are below this; all devices are kept free after log₂ of it steps.
const LOTS: u64 = 1024;

/// Whether a task needs more than the even part of a device: others on it may leave too little for it.
pub(super) fn is_large(candidate: &Candidate, total_bytes: u64, limits: &Limits) -> bool {
    candidate.sharing == Sharing::Alone || candidate.need_device_bytes.saturating_mul(u64::from(limits.tasks_per_device)) > total_bytes
}

/// Whether a device is kept free for a task that does not fit yet.
pub(super) fn is_reserved(candidate: &Candidate, device: DeviceId, limits: &Limits) -> bool {
    let Some(waited) = candidate.waiting_ms.checked_sub(limits.reserve_after_ms) else { return false };
    let steps = (waited / limits.reserve_step_ms.max(1)).min(u64::from(LOTS.ilog2()));
    lot(candidate.key, device) < 1 << steps
}

/// A number below [`LOTS`] that depends on nothing but task and device.
fn lot(key: TaskKey, device: DeviceId) -> u64 {
    let words = [key.job as u64, (key.job >> 64) as u64, u64::from(key.number), device.0 as u64, (device.0 >> 64) as u64];
    words.into_iter().fold(0, |state, word| mix(state ^ word)) % LOTS
}

/// The finalizer of SplitMix64 after its increment (Steele, Lea, Flood, OOPSLA 2014).
pub(super) const fn mix(state: u64) -> u64 {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    state ^ (state >> 31)
}

#[cfg(test)]
mod tests {
    use super::super::tests::candidate;
    use super::*;

    #[test]
    fn twice_as_many_devices_are_kept_free_with_every_step_until_all_are() {
        let limits = Limits::default();
        let kept = |waiting_ms| {
            let candidate = Candidate { waiting_ms, ..candidate(7, 0) };
            (0..4096).filter(|&device| is_reserved(&candidate, DeviceId(device), &limits)).count()
        };
        assert_eq!(kept(limits.reserve_after_ms - 1), 0);
        let by_step: Vec<usize> = (0..=10).map(|step| kept(limits.reserve_after_ms + step * limits.reserve_step_ms)).collect();
        assert!(by_step.is_sorted(), "{by_step:?}");
        for (step, kept) in by_step.iter().enumerate().skip(5) {
            let expected = 4 << step;
            assert!(expected * 3 / 4 <= *kept && *kept <= expected * 5 / 4, "{kept} of {expected} at step {step}");
        }
        assert_eq!(by_step[10], 4096);
    }
}
