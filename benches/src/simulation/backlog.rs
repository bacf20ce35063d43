//! The ready tasks, in the indices that the database has, and the bounded list that one request for tasks reads from them:
//! 1. tasks whose oracle was committed on the device;
//! 2. tasks whose weights lie on the device, a few for each of them that has ready tasks;
//! 3. a few of each tenant that may run anywhere by now, in order;
//! 4. those of all that need much memory or a device of their own and have waited longest, so that they are seen where they do not fit yet.

use std::collections::BTreeSet;

use super::job::TaskRef;

/// How many tasks of a kind of list a request reads.
const FEW: usize = 3;
const FEW_LARGE: usize = 16;
/// A task that needs more is in the fourth list: several of the others fit on any device.
const LARGE_BYTES: u64 = 3 << 30;

/// Where a ready task is found. The order is that of the policy: level, rank, age, key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    order: u128,
    pub(super) ready_at_us: u64,
    pub(super) tenant: usize,
    pub(super) weights: Option<usize>,
    pub(super) sibling: Option<usize>,
    pub(super) is_large: bool,
}

/// Sets of bits.
pub(super) type Bits = Vec<u64>;

pub(super) fn bits(n: usize) -> Bits {
    vec![0; n.div_ceil(64)]
}

pub(super) fn set_bit(bits: &mut Bits, index: usize) {
    bits[index / 64] |= 1 << (index % 64);
}

pub(super) fn clear_bit(bits: &mut Bits, index: usize) {
    bits[index / 64] &= !(1 << (index % 64));
}

/// The bits of a word.
pub(super) fn ones(mut word: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let bit = word.trailing_zeros() as usize;
        word &= word.wrapping_sub(1);
        (bit < 64).then_some(bit)
    })
}

impl Entry {
    pub(super) fn new(task: TaskRef, level: i64, rank_ms: u64) -> Self {
        let level = (1 << 31) - level;
        let rank = u64::from(u32::MAX) - rank_ms.min(u64::from(u32::MAX));
        let order = (level as u128) << 80 | u128::from(rank) << 48 | u128::from(task.job) << 16 | u128::from(task.task);
        Self { order, ready_at_us: 0, tenant: 0, weights: None, sibling: None, is_large: false }
    }

    pub(super) fn sized(self, need_device_bytes: u64, is_alone: bool) -> Self {
        Self { is_large: need_device_bytes > LARGE_BYTES || is_alone, ..self }
    }
}

fn task_of(order: u128) -> TaskRef {
    TaskRef { job: (order >> 16) as u32, task: order as u16 }
}

/// All ready tasks.
#[derive(Debug)]
pub(super) struct Backlog {
    anywhere: Vec<BTreeSet<u128>>,
    /// By the time at which they became ready.
    large: BTreeSet<(u64, u128)>,
    by_weights: Vec<BTreeSet<u128>>,
    with_ready: Bits,
    by_sibling: Vec<BTreeSet<u128>>,
    /// Ready tasks of each tenant.
    pub(super) n_ready: Vec<u64>,
}

impl Backlog {
    pub(super) fn new(n_tenants: usize, n_weights: usize, n_devices: usize) -> Self {
        let sets = |n| vec![BTreeSet::new(); n];
        Self {
            anywhere: sets(n_tenants),
            large: BTreeSet::new(),
            by_weights: sets(n_weights),
            with_ready: bits(n_weights),
            by_sibling: sets(n_devices),
            n_ready: vec![0; n_tenants],
        }
    }

    /// Adds a task where only its preferred places find it.
    pub(super) fn insert(&mut self, entry: &Entry) {
        self.n_ready[entry.tenant] += 1;
        if let Some(device) = entry.sibling {
            self.by_sibling[device].insert(entry.order);
        } else if let Some(weights) = entry.weights {
            self.by_weights[weights].insert(entry.order);
            set_bit(&mut self.with_ready, weights);
        }
        if entry.is_large {
            self.large.insert((entry.ready_at_us, entry.order));
        }
    }

    /// From now on it may run anywhere.
    pub(super) fn release(&mut self, entry: &Entry) {
        if !entry.is_large {
            self.anywhere[entry.tenant].insert(entry.order);
        }
    }

    pub(super) fn remove(&mut self, entry: &Entry) {
        self.n_ready[entry.tenant] -= 1;
        self.anywhere[entry.tenant].remove(&entry.order);
        self.large.remove(&(entry.ready_at_us, entry.order));
        if let Some(device) = entry.sibling {
            self.by_sibling[device].remove(&entry.order);
        } else if let Some(weights) = entry.weights {
            self.by_weights[weights].remove(&entry.order);
            if self.by_weights[weights].is_empty() {
                clear_bit(&mut self.with_ready, weights);
            }
        }
    }

    /// Ready tasks whose oracle was committed on a device.
    pub(super) fn waiting_for(&self, device: usize) -> Vec<TaskRef> {
        self.by_sibling[device].iter().copied().map(task_of).collect()
    }

    /// The list of one request, each task once, in order.
    pub(super) fn candidates(&self, device: usize, kept: &Bits) -> Vec<TaskRef> {
        let mut found: Vec<u128> = self.by_sibling[device].iter().take(FEW).copied().collect();
        for (word, (ready, kept)) in self.with_ready.iter().zip(kept).enumerate() {
            for bit in ones(ready & kept) {
                found.extend(self.by_weights[word * 64 + bit].iter().take(FEW - 1));
            }
        }
        for tenant in &self.anywhere {
            found.extend(tenant.iter().take(FEW));
        }
        found.extend(self.large.iter().take(FEW_LARGE).map(|(_, order)| order));
        found.sort_unstable();
        found.dedup();
        found.into_iter().map(task_of).collect()
    }
}
