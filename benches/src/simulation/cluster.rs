//! The cluster: its state, and the loop over events in the order of time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::num::NonZeroU32;

use zkinfer_server::placement::retry::Budgets;
use zkinfer_server::placement::{Limits, TenantLoad};

use super::arrivals::{Arrivals, Model, models};
use super::backlog::{Backlog, Bits, bits, set_bit};
use super::catalog::{Network, TaskPlan, networks};
use super::chance::Chance;
use super::device::Device;
use super::job::{Job, TaskRef, Trouble};
use super::measure::Measure;
use super::settings::{MEMORY_GIB, SECOND, Settings, TENANTS};

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// A tenant sends its next job.
    Arrives { tenant: usize },
    /// A device's request for tasks reaches the server.
    Requests { device: usize, request: u32 },
    /// A task on a device ends, if the device has not changed since.
    Ends { device: usize, change: u32 },
    /// A ready task need not wait for its preferred place any longer.
    Released { task: TaskRef, ready_at_us: u64 },
    /// A backoff ends.
    Returns { task: TaskRef },
    /// Some device fails.
    DeviceFails,
    /// Some worker is killed.
    WorkerKilled,
    /// The lease of a task ends whose worker was killed.
    LeaseEnds { task: TaskRef },
    /// A device is back.
    Back { device: usize },
    /// A minute is over.
    Minute,
}

/// Events of one moment, in the order in which they were planned.
#[derive(Debug, PartialEq, Eq)]
struct Planned {
    at_us: u64,
    number: u64,
    event: Event,
}

impl PartialOrd for Planned {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Planned {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at_us, self.number).cmp(&(other.at_us, other.number))
    }
}

/// Everything.
pub(super) struct Cluster {
    pub(super) settings: Settings,
    pub(super) limits: Limits,
    pub(super) budgets: Budgets,
    pub(super) networks: Vec<Network>,
    pub(super) models: Vec<Model>,
    pub(super) weights_bytes: Vec<u64>,
    pub(super) arrivals: Arrivals,
    pub(super) devices: Vec<Device>,
    pub(super) jobs: Vec<Job>,
    pub(super) backlog: Backlog,
    pub(super) loads: Vec<TenantLoad>,
    pub(super) trouble: BTreeMap<TaskRef, Trouble>,
    /// By weights: the devices that hold them, and how many.
    pub(super) holders: Vec<Bits>,
    pub(super) n_holders: Vec<u32>,
    /// By device: the weights on it.
    pub(super) kept: Vec<Bits>,
    /// Devices without a task and without a request, and those with tasks and free slots.
    pub(super) idle: Bits,
    pub(super) partly_idle: Bits,
    pub(super) chance: Chance,
    pub(super) measure: Measure,
    pub(super) now_us: u64,
    pub(super) n_over: usize,
    events: BinaryHeap<Reverse<Planned>>,
    n_events: u64,
}

impl Cluster {
    pub(super) fn new(settings: &Settings) -> anyhow::Result<Self> {
        let networks = networks()?;
        let (models, weights_bytes) = models(&networks);
        let (n_devices, n_weights) = (settings.devices, weights_bytes.len());
        let load = |share| TenantLoad { running: 0, share: NonZeroU32::new(share).unwrap_or(NonZeroU32::MIN), last_leased_ms: 0 };
        let mut idle = bits(n_devices);
        (0..n_devices).for_each(|device| set_bit(&mut idle, device));
        Ok(Self {
            limits: Settings::limits(),
            budgets: Budgets::default(),
            arrivals: Arrivals::new(settings, &networks),
            models,
            weights_bytes,
            devices: (0..n_devices).map(|id| Device::new(id, MEMORY_GIB[id % MEMORY_GIB.len()] << 30)).collect(),
            jobs: Vec::with_capacity(settings.jobs),
            backlog: Backlog::new(TENANTS.len(), n_weights, n_devices),
            loads: TENANTS.iter().map(|tenant| load(tenant.share)).collect(),
            trouble: BTreeMap::new(),
            holders: vec![bits(n_devices); n_weights],
            n_holders: vec![0; n_weights],
            kept: vec![bits(n_weights); n_devices],
            partly_idle: bits(n_devices),
            idle,
            chance: Chance::new(settings.seed),
            measure: Measure::new(n_devices, networks.len()),
            now_us: 0,
            n_over: 0,
            events: BinaryHeap::new(),
            n_events: 0,
            networks,
            settings: settings.clone(),
        })
    }

    /// Until every job is over.
    pub(super) fn run(&mut self) {
        for tenant in 0..TENANTS.len() {
            self.plan_arrival(tenant);
        }
        self.plan_fault(Event::DeviceFails);
        self.plan_fault(Event::WorkerKilled);
        self.plan(60 * SECOND, Event::Minute);
        while self.n_over < self.arrivals.n_jobs() {
            let Some(Reverse(next)) = self.events.pop() else { break };
            self.measure.pass(next.at_us, &self.backlog.n_ready, &self.loads);
            self.now_us = next.at_us;
            self.happen(next.event);
        }
        self.measure.n_events = self.n_events;
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Arrives { tenant } => self.arrive(tenant),
            Event::Requests { device, request } => {
                if self.devices[device].request == request {
                    self.serve(device);
                }
            }
            Event::Ends { device, change } => {
                if self.devices[device].change == change {
                    self.end(device);
                }
            }
            Event::Released { task, ready_at_us } => self.release(task, ready_at_us),
            Event::Returns { task } => {
                if !self.jobs[task.job as usize].is_over {
                    self.make_ready(task);
                }
            }
            Event::DeviceFails => self.fail_some_device(),
            Event::WorkerKilled => self.kill_some_worker(),
            Event::LeaseEnds { task } => self.end_lease(task),
            Event::Back { device } => self.bring_back(device),
            Event::Minute => {
                self.measure.minute();
                self.plan(self.now_us + 60 * SECOND, Event::Minute);
            }
        }
    }

    pub(super) fn plan(&mut self, at_us: u64, event: Event) {
        self.n_events += 1;
        self.events.push(Reverse(Planned { at_us, number: self.n_events, event }));
    }

    pub(super) fn task_plan(&self, task: TaskRef) -> &TaskPlan {
        let model = self.models[self.jobs[task.job as usize].model as usize];
        &self.networks[model.network].tasks[task.task as usize]
    }

    /// The weights that a task works with.
    pub(super) fn weights_of(&self, task: TaskRef) -> Option<usize> {
        let model = self.models[self.jobs[task.job as usize].model as usize];
        self.networks[model.network].tasks[task.task as usize].weights.map(|weights| model.first_weights + weights)
    }
}
