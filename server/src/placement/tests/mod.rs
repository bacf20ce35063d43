//! Tests of the choice: cases by name, and what must hold of random ones and of random histories.

mod cases;
mod histories;
mod properties;

use std::collections::BTreeSet;
use std::num::NonZeroU32;

use proptest::prelude::ProptestConfig;
use proptest::test_runner::RngSeed;

use super::*;

/// Fixed: every run tries the same cases.
pub(super) fn config(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, rng_seed: RngSeed::Fixed(2026), failure_persistence: None, ..ProptestConfig::default() }
}

pub(super) const GIB: u64 = 1 << 30;

/// A small task that may run anywhere.
pub(super) fn candidate(job: u128, tenant: usize) -> Candidate {
    Candidate {
        key: TaskKey { job, number: 0 },
        tenant,
        kind: TaskKind::Layer,
        rank_ms: 1_000,
        priority: 0,
        job_created_ms: 1_000_000,
        estimated_ms: 100,
        need_device_bytes: GIB,
        need_host_bytes: 0,
        pool: Pool::Any,
        sharing: Sharing::Shared,
        weights: None,
        n_holders: 0,
        sibling: None,
        move_ms: 0,
        waiting_ms: 100,
    }
}

pub(super) fn device(id: u128) -> DeviceOffer {
    DeviceOffer {
        id: DeviceId(id),
        class: DeviceClass::Gpu,
        total_bytes: 8 * GIB,
        free_bytes: 8 * GIB,
        running: 0,
        runs_alone: false,
        cached: BTreeSet::new(),
        is_healthy: true,
    }
}

fn offer(slots: u32, devices: Vec<DeviceOffer>) -> Offer {
    Offer { slots, devices, host_total_bytes: 64 * GIB, host_free_bytes: 64 * GIB, kinds: KindSet::ALL }
}

fn load(running: u64, share: u32) -> TenantLoad {
    TenantLoad { running, share: NonZeroU32::new(share).unwrap(), last_leased_ms: 0 }
}

/// Which candidate goes to which device.
fn pairs(chosen: &Chosen) -> Vec<(usize, usize)> {
    chosen.choices.iter().map(|choice| (choice.candidate, choice.device)).collect()
}
