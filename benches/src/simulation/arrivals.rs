//! Which jobs arrive when: tenants with models of their own send evenly or in bursts.

use zkinfer_server::placement::level;

use super::catalog::Network;
use super::chance::Chance;
use super::cluster::{Cluster, Event};
use super::job::{Job, Nature, State, TaskRef, TaskState};
use super::settings::{SECOND, Settings, TENANTS};

/// Models of each tenant, by network.
const MODELS: [usize; 4] = [4, 2, 1, 1];
/// Networks from this one on have long jobs.
const FIRST_LONG: usize = 2;

/// A tenant's model.
#[derive(Debug, Clone, Copy)]
pub(super) struct Model {
    pub(super) network: usize,
    /// The first of its weights among all.
    pub(super) first_weights: usize,
}

/// The models of all tenants, and the bytes of all their weights.
pub(super) fn models(networks: &[Network]) -> (Vec<Model>, Vec<u64>) {
    let (mut models, mut weights_bytes) = (Vec::new(), Vec::new());
    for _ in &TENANTS {
        for (network, n_models) in MODELS.into_iter().enumerate() {
            for _ in 0..n_models {
                models.push(Model { network, first_weights: weights_bytes.len() });
                weights_bytes.extend(&networks[network].weights_bytes);
            }
        }
    }
    (models, weights_bytes)
}

/// What one tenant still sends.
#[derive(Debug)]
struct Source {
    n_left: u64,
    /// Mean time between its jobs while it sends.
    gap_us: u64,
    /// Time in which it sent, so far.
    sent_us: u64,
    chance: Chance,
}

/// What all still send.
#[derive(Debug)]
pub(super) struct Arrivals {
    sources: Vec<Source>,
    n_jobs: usize,
    /// In which all jobs arrive, about.
    pub(super) span_us: u64,
}

impl Arrivals {
    pub(super) fn new(settings: &Settings, networks: &[Network]) -> Self {
        let mean =
            |mix: &[u64; 4]| mix.iter().zip(networks).map(|(part, network)| part * network.micros()).sum::<u64>() / mix.iter().sum::<u64>();
        // Jobs in proportion to work over the mean work of a job.
        let means: Vec<u64> = TENANTS.iter().map(|tenant| mean(&tenant.mix)).collect();
        let weight = |tenant: usize| u128::from(TENANTS[tenant].work_percent) * 1_000_000_000_000 / u128::from(means[tenant]);
        let all: u128 = (0..TENANTS.len()).map(weight).sum();
        let n_jobs = |tenant: usize| (settings.jobs as u128 * weight(tenant) / all) as u64;
        let mut counts: Vec<u64> = (0..TENANTS.len()).map(n_jobs).collect();
        counts[0] += settings.jobs as u64 - counts.iter().sum::<u64>();
        let work_us: u64 = counts.iter().zip(&means).map(|(count, mean)| count * mean).sum();
        let span_us = work_us / settings.devices as u64 * 100 / settings.load_percent;
        let source = |(tenant, &n_left): (usize, &u64)| {
            let sending_us = span_us / TENANTS[tenant].period_s * TENANTS[tenant].on_s;
            Source { n_left, gap_us: sending_us / n_left.max(1), sent_us: 0, chance: Chance::new(settings.seed << 8 | tenant as u64) }
        };
        Self { sources: counts.iter().enumerate().map(source).collect(), n_jobs: settings.jobs, span_us }
    }

    pub(super) fn n_jobs(&self) -> usize {
        self.n_jobs
    }
}

impl Source {
    /// When the next job arrives.
    fn next_us(&mut self, tenant: usize) -> Option<u64> {
        self.n_left = self.n_left.checked_sub(1)?;
        self.sent_us += self.chance.wait(self.gap_us);
        let (on_us, period_us) = (TENANTS[tenant].on_s * SECOND, TENANTS[tenant].period_s * SECOND);
        Some(self.sent_us / on_us * period_us + self.sent_us % on_us)
    }

    /// Network, model of that network, priority.
    fn draw(&mut self, tenant: usize) -> (usize, usize, i32) {
        let tenant = &TENANTS[tenant];
        let mut point = self.chance.below(tenant.mix.iter().sum());
        let mut network = 0;
        while point >= tenant.mix[network] {
            point -= tenant.mix[network];
            network += 1;
        }
        let model = self.chance.below(MODELS[network] as u64) as usize;
        (network, model, tenant.priorities[self.chance.below(tenant.priorities.len() as u64) as usize])
    }
}

impl Cluster {
    pub(super) fn plan_arrival(&mut self, tenant: usize) {
        if let Some(at_us) = self.arrivals.sources[tenant].next_us(tenant) {
            self.plan(at_us, Event::Arrives { tenant });
        }
    }

    pub(super) fn arrive(&mut self, tenant: usize) {
        let (network, nth, priority) = self.arrivals.sources[tenant].draw(tenant);
        let of_tenant: usize = MODELS.iter().sum();
        let model = tenant * of_tenant + MODELS[..network].iter().sum::<usize>() + nth;
        let nature = if self.chance.once_in(self.settings.poisoned_once_in) {
            Nature::Poisoned
        } else if network >= FIRST_LONG && self.chance.once_in(self.settings.memory_once_in) {
            Nature::MuchMemory
        } else {
            Nature::Plain
        };
        let network = &self.networks[network];
        let waiting = |plan: &super::catalog::TaskPlan| TaskState { state: State::Waiting, waiting_on: plan.n_needs, ready_at_us: 0 };
        let job = Job {
            tenant: tenant as u8,
            model: model as u16,
            priority: priority as i8,
            nature,
            is_over: false,
            has_started: false,
            n_left: network.tasks.len() as u16,
            created_us: self.now_us,
            level: level(priority, self.now_us / 1_000, &self.limits),
            tasks: network.tasks.iter().map(waiting).collect(),
            siblings: vec![None; network.n_layers],
        };
        let task = TaskRef { job: self.jobs.len() as u32, task: 0 };
        self.jobs.push(job);
        self.make_ready(task);
        self.plan_arrival(tenant);
    }
}
