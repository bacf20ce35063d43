//! A device: what it offers, what runs on it, what it keeps. Tasks that share it share its time evenly; nothing is gained by sharing.

use std::collections::BTreeSet;

use zkinfer_server::placement::{DeviceClass, DeviceId, DeviceOffer, KindSet, Offer, Sharing, WeightsKey};

use super::job::TaskRef;

/// Work is counted in shares of a microsecond, so that up to four tasks divide time without remainder.
const PARTS: u64 = 12;
/// Host memory that goes with a device.
const HOST_BYTES: u64 = 64 << 30;

/// A task on a device.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub(super) task: TaskRef,
    /// What the device's counter of work shows when it is done.
    ends: u64,
    pub(super) work_us: u64,
    /// Of the work, what would be done anywhere, and what is moved.
    pub(super) useful_us: u64,
    pub(super) moved_us: u64,
    pub(super) need_device_bytes: u64,
    pub(super) need_host_bytes: u64,
    pub(super) sharing: Sharing,
    pub(super) fate: Fate,
}

/// How a run will end, unless its device does before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Well.
    Done,
    /// The prover fails.
    Fails,
    /// Memory runs out.
    OutOfMemory,
    /// The process of the device dies.
    Kills,
}

/// One device, which is a session of its own.
#[derive(Debug)]
pub(super) struct Device {
    pub(super) offer: Offer,
    pub(super) running: Vec<Run>,
    /// Work that each running task was given so far, since the beginning.
    counter: u64,
    counted_at_us: u64,
    /// Counts changes, so that an end that was foreseen before the last is not taken for one.
    pub(super) change: u32,
    /// Counts lives, so that oracles of an earlier one are not looked for.
    pub(super) life: u32,
    pub(super) is_up: bool,
    /// The number of the next request for tasks; 0 if none is under way.
    pub(super) request: u32,
    pub(super) requests: u32,
    /// Weights with their bytes, those used last at the end.
    kept: Vec<(usize, u64)>,
}

pub(super) fn weights_key(weights: usize) -> WeightsKey {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&(weights as u64).to_be_bytes());
    WeightsKey(key)
}

impl Device {
    pub(super) fn new(id: usize, total_bytes: u64) -> Self {
        let device = DeviceOffer {
            id: DeviceId(id as u128),
            class: DeviceClass::Gpu,
            total_bytes,
            free_bytes: total_bytes,
            running: 0,
            runs_alone: false,
            cached: BTreeSet::new(),
            is_healthy: true,
        };
        let (host_total_bytes, host_free_bytes) = (HOST_BYTES, HOST_BYTES);
        let offer = Offer { slots: 0, devices: vec![device], host_total_bytes, host_free_bytes, kinds: KindSet::ALL };
        let (running, kept) = (Vec::new(), Vec::new());
        Self { offer, running, counter: 0, counted_at_us: 0, change: 0, life: 0, is_up: true, request: 0, requests: 0, kept }
    }

    pub(super) fn free_slots(&self, tasks_per_device: u32) -> u32 {
        if self.is_up { tasks_per_device.saturating_sub(self.running.len() as u32) } else { 0 }
    }

    /// Gives the running tasks the time that has passed.
    fn advance(&mut self, now_us: u64) {
        if !self.running.is_empty() {
            self.counter += (now_us - self.counted_at_us) * PARTS / self.running.len() as u64;
        }
        self.counted_at_us = now_us;
    }

    pub(super) fn start(&mut self, mut run: Run, now_us: u64) {
        self.advance(now_us);
        run.ends = self.counter + run.work_us * PARTS;
        self.running.push(run);
        self.changed();
    }

    /// When the next of the running tasks ends, if nothing changes before.
    pub(super) fn next_end_us(&self) -> Option<u64> {
        let least = self.running.iter().map(|run| run.ends).min()?;
        let parts = (least - self.counter.min(least)) * self.running.len() as u64;
        Some(self.counted_at_us + parts.div_ceil(PARTS))
    }

    /// Takes a task that has ended.
    pub(super) fn take_ended(&mut self, now_us: u64) -> Option<Run> {
        self.advance(now_us);
        let ended = self.running.iter().position(|run| run.ends <= self.counter)?;
        let run = self.running.remove(ended);
        self.changed();
        Some(run)
    }

    /// Takes everything: its process ends.
    pub(super) fn fall(&mut self, now_us: u64) -> Vec<Run> {
        self.advance(now_us);
        self.is_up = false;
        self.life += 1;
        self.kept.clear();
        self.offer.devices[0].cached.clear();
        let runs = std::mem::take(&mut self.running);
        self.changed();
        runs
    }

    fn changed(&mut self) {
        self.change += 1;
        let device = &mut self.offer.devices[0];
        let promised: u64 = self.running.iter().map(|run| run.need_device_bytes).sum();
        device.free_bytes = device.total_bytes.saturating_sub(promised);
        device.running = self.running.len() as u32;
        device.runs_alone = self.running.iter().any(|run| run.sharing == Sharing::Alone);
        self.offer.host_free_bytes = HOST_BYTES - self.running.iter().map(|run| run.need_host_bytes).sum::<u64>().min(HOST_BYTES);
    }

    /// The weights that lie on it.
    pub(super) fn kept(&self) -> impl Iterator<Item = usize> + '_ {
        self.kept.iter().map(|(weights, _)| *weights)
    }

    /// Whether they lie on it; they are the last then to make room.
    pub(super) fn touch(&mut self, weights: usize) -> bool {
        let Some(position) = self.kept.iter().position(|(known, _)| *known == weights) else { return false };
        let entry = self.kept.remove(position);
        self.kept.push(entry);
        true
    }

    /// Keeps weights, in the memory that no running task was promised; answers which had to go.
    pub(super) fn keep(&mut self, weights: usize, bytes: u64) -> Vec<usize> {
        let room = self.offer.devices[0].free_bytes;
        let mut dropped = Vec::new();
        let mut taken: u64 = self.kept.iter().map(|(_, bytes)| bytes).sum();
        while taken + bytes > room && !self.kept.is_empty() {
            let (oldest, size) = self.kept.remove(0);
            taken -= size;
            self.offer.devices[0].cached.remove(&weights_key(oldest));
            dropped.push(oldest);
        }
        if bytes <= room {
            self.kept.push((weights, bytes));
            self.offer.devices[0].cached.insert(weights_key(weights));
        }
        dropped
    }
}

impl Run {
    pub(super) fn new(task: TaskRef, work_us: u64, fate: Fate) -> Self {
        Self { task, ends: 0, work_us, useful_us: 0, moved_us: 0, need_device_bytes: 0, need_host_bytes: 0, sharing: Sharing::Shared, fate }
    }
}
