//! What is counted while the simulation runs. Integers alone; the report divides.

use std::collections::BTreeMap;

use zkinfer_server::placement::TenantLoad;
use zkinfer_server::placement::retry::Cause;

use super::histogram::Histogram;
use super::job::Job;
use super::settings::TENANTS;

/// Of one tenant.
#[derive(Debug, Clone, Default)]
pub(super) struct OfTenant {
    pub(super) n_succeeded: u64,
    /// From the creation of a job to its first task.
    pub(super) wait: Histogram,
    /// From the creation of a job to its end.
    pub(super) total: Histogram,
    pub(super) longest_task_wait_us: u64,
    /// How much later a job was created that had a task started before this one's first.
    pub(super) overtaken_us: u64,
    latest_started_us: u64,
    /// Leased tasks times time, in this minute.
    occupied_us: u64,
    wanted_less: bool,
}

/// All that is counted.
#[derive(Debug)]
pub(super) struct Measure {
    pub(super) tenants: Vec<OfTenant>,
    pub(super) of_network: Vec<Histogram>,
    /// Time of devices: with a task; with a task or with one that could be there; and while as many tasks are ready as there are devices.
    pub(super) busy_us: u64,
    pub(super) demand_us: u64,
    pub(super) full_us: u64,
    pub(super) busy_while_full_us: u64,
    pub(super) useful_us: u64,
    pub(super) moved_us: u64,
    pub(super) ended_us: u64,
    n_up: u64,
    n_busy: u64,
    n_running: u64,
    at_us: u64,
    pub(super) failures: BTreeMap<&'static str, u64>,
    pub(super) failed_jobs: BTreeMap<&'static str, u64>,
    pub(super) large_wait_us: u64,
    pub(super) n_requests: u64,
    pub(super) n_empty_requests: u64,
    pub(super) n_attempts: u64,
    pub(super) n_with_sibling: u64,
    pub(super) n_at_sibling: u64,
    pub(super) n_with_weights: u64,
    pub(super) n_at_weights: u64,
    pub(super) n_device_failures: u64,
    pub(super) n_workers_killed: u64,
    pub(super) n_events: u64,
    /// Jain's index by minute, in millionths: least, sum, minutes.
    pub(super) fairness: (u64, u64, u64),
    pub(super) most_ready: u64,
}

/// Jain's index of fairness, `(Σx)² / (n Σx²)`, in millionths; 1,000,000 is perfectly even.
fn jain(values: &[u64]) -> u64 {
    let sum: u128 = values.iter().map(|&value| u128::from(value)).sum();
    let squares: u128 = values.iter().map(|&value| u128::from(value) * u128::from(value)).sum();
    if squares == 0 { 1_000_000 } else { (sum * sum * 1_000_000 / (values.len() as u128 * squares)) as u64 }
}

impl Measure {
    pub(super) fn new(n_devices: usize, n_networks: usize) -> Self {
        Self {
            tenants: vec![OfTenant::default(); TENANTS.len()],
            of_network: vec![Histogram::default(); n_networks],
            busy_us: 0,
            demand_us: 0,
            full_us: 0,
            busy_while_full_us: 0,
            useful_us: 0,
            moved_us: 0,
            ended_us: 0,
            n_up: n_devices as u64,
            n_busy: 0,
            n_running: 0,
            at_us: 0,
            failures: BTreeMap::new(),
            failed_jobs: BTreeMap::new(),
            large_wait_us: 0,
            n_requests: 0,
            n_empty_requests: 0,
            n_attempts: 0,
            n_with_sibling: 0,
            n_at_sibling: 0,
            n_with_weights: 0,
            n_at_weights: 0,
            n_device_failures: 0,
            n_workers_killed: 0,
            n_events: 0,
            fairness: (1_000_000, 0, 0),
            most_ready: 0,
        }
    }

    /// Time passes until the next event.
    pub(super) fn pass(&mut self, at_us: u64, n_ready: &[u64], loads: &[TenantLoad]) {
        let passed_us = at_us - self.at_us;
        self.at_us = at_us;
        let ready: u64 = n_ready.iter().sum();
        self.most_ready = self.most_ready.max(ready);
        self.busy_us += self.n_busy * passed_us;
        self.demand_us += self.n_up.min(ready + self.n_running) * passed_us;
        if ready >= self.n_up {
            self.full_us += self.n_up * passed_us;
            self.busy_while_full_us += self.n_busy * passed_us;
        }
        for ((tenant, load), ready) in self.tenants.iter_mut().zip(loads).zip(n_ready) {
            tenant.occupied_us += load.running * passed_us;
            // Who wants much more has at least as many ready tasks as leased ones.
            tenant.wanted_less |= *ready < load.running.max(1);
        }
    }

    /// A minute is over: how even was it for those who wanted more all the time?
    pub(super) fn minute(&mut self) {
        let wanted_more = |(tenant, of): (usize, &OfTenant)| (!of.wanted_less).then(|| of.occupied_us / u64::from(TENANTS[tenant].share));
        let values: Vec<u64> = self.tenants.iter().enumerate().filter_map(wanted_more).collect();
        if values.len() > 1 {
            let index = jain(&values);
            let (least, sum, n) = self.fairness;
            self.fairness = (least.min(index), sum + index, n + 1);
        }
        for tenant in &mut self.tenants {
            (tenant.occupied_us, tenant.wanted_less) = (0, false);
        }
    }

    pub(super) fn busy(&mut self) {
        self.n_busy += 1;
    }

    pub(super) fn idle(&mut self) {
        self.n_busy -= 1;
    }

    pub(super) fn down(&mut self, n_lost: usize) {
        self.n_up -= 1;
        self.n_running -= n_lost as u64;
    }

    pub(super) fn up(&mut self) {
        self.n_up += 1;
    }

    pub(super) fn served(&mut self, n_chosen: usize) {
        self.n_requests += 1;
        self.n_empty_requests += u64::from(n_chosen == 0);
    }

    pub(super) fn started(&mut self, job: &Job, ready_at_us: u64) {
        self.n_attempts += 1;
        self.n_running += 1;
        let tenant = &mut self.tenants[job.tenant as usize];
        tenant.longest_task_wait_us = tenant.longest_task_wait_us.max(self.at_us - ready_at_us);
        tenant.latest_started_us = tenant.latest_started_us.max(job.created_us);
        if !job.has_started {
            tenant.wait.add(self.at_us - job.created_us);
            tenant.overtaken_us = tenant.overtaken_us.max(tenant.latest_started_us - job.created_us);
        }
    }

    pub(super) fn large_started(&mut self, ready_at_us: u64) {
        self.large_wait_us = self.large_wait_us.max(self.at_us - ready_at_us);
    }

    pub(super) fn took_slot_free(&mut self) {
        self.n_running -= 1;
    }

    pub(super) fn opened_oracle(&mut self, is_there: bool) {
        self.n_with_sibling += 1;
        self.n_at_sibling += u64::from(is_there);
    }

    pub(super) fn used_weights(&mut self, are_there: bool) {
        self.n_with_weights += 1;
        self.n_at_weights += u64::from(are_there);
    }

    pub(super) fn did(&mut self, useful_us: u64, moved_us: u64) {
        self.useful_us += useful_us;
        self.moved_us += moved_us;
    }

    pub(super) fn succeeded(&mut self, job: &Job, network: usize) {
        let tenant = &mut self.tenants[job.tenant as usize];
        tenant.n_succeeded += 1;
        tenant.total.add(self.at_us - job.created_us);
        self.of_network[network].add(self.at_us - job.created_us);
        self.ended_us = self.at_us;
    }

    pub(super) fn failed_attempt(&mut self, cause: Cause) {
        *self.failures.entry(cause.name()).or_default() += 1;
    }

    pub(super) fn failed_job(&mut self, reason: &'static str) {
        *self.failed_jobs.entry(reason).or_default() += 1;
        self.ended_us = self.at_us;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_is_one_and_one_of_four_is_a_quarter() {
        assert_eq!(jain(&[5, 5, 5]), 1_000_000);
        assert_eq!(jain(&[7, 0, 0, 0]), 250_000);
        assert_eq!(jain(&[0, 0]), 1_000_000);
    }
}
