//! A request for tasks: what the server reads, what the policy chooses, what then runs.

use zkinfer_server::placement::cost::load_micros;
use zkinfer_server::placement::retry::Need;
use zkinfer_server::placement::{Candidate, DeviceId, Pool, Sharing, TaskKey, TaskKind, choose};

use super::backlog::{Entry, clear_bit, set_bit};
use super::cluster::{Cluster, Event};
use super::device::{Fate, Run, weights_key};
use super::job::{Nature, State, TaskRef};
use super::settings::MUCH_MEMORY_BYTES;

impl Cluster {
    /// What a task asks for: what was estimated, or what its failures made of it.
    pub(super) fn need(&self, task: TaskRef) -> Need {
        if let Some(trouble) = self.trouble.get(&task) {
            return trouble.need;
        }
        let estimate = self.task_plan(task).estimate;
        Need { device_bytes: estimate.device_bytes, host_bytes: estimate.host_bytes, pool: Pool::Any, sharing: Sharing::Shared }
    }

    /// The device, still living the same life, on which the oracle lies that a task opens.
    fn sibling(&self, task: TaskRef) -> Option<usize> {
        let plan = self.task_plan(task);
        let (TaskKind::Layer, Some(layer)) = (plan.kind, plan.layer) else { return None };
        let sibling = self.jobs[task.job as usize].siblings[layer]?;
        let device = &self.devices[sibling.device as usize];
        (device.is_up && device.life == sibling.life).then_some(sibling.device as usize)
    }

    /// What a task takes longer where nothing is.
    pub(super) fn move_us(&self, task: TaskRef) -> u64 {
        let load_us = self.weights_of(task).map_or(0, |weights| load_micros(self.weights_bytes[weights]));
        load_us + if self.sibling(task).is_some() { self.task_plan(task).commit_again_us } else { 0 }
    }

    pub(super) fn entry(&self, task: TaskRef) -> Entry {
        let (job, need) = (&self.jobs[task.job as usize], self.need(task));
        let mut entry = Entry::new(task, job.level, self.task_plan(task).rank_ms);
        entry.ready_at_us = job.tasks[task.task as usize].ready_at_us;
        entry.tenant = job.tenant as usize;
        entry.weights = self.weights_of(task);
        entry.sibling = self.sibling(task);
        entry.sized(need.device_bytes, need.sharing == Sharing::Alone)
    }

    fn candidate(&self, task: TaskRef) -> Candidate {
        let (job, plan, need) = (&self.jobs[task.job as usize], self.task_plan(task), self.need(task));
        let weights = self.weights_of(task);
        Candidate {
            key: TaskKey { job: u128::from(task.job), number: u32::from(task.task) },
            tenant: job.tenant as usize,
            kind: plan.kind,
            rank_ms: plan.rank_ms,
            priority: i32::from(job.priority),
            job_created_ms: job.created_us / 1_000,
            estimated_ms: plan.estimate.micros / 1_000,
            need_device_bytes: need.device_bytes,
            need_host_bytes: need.host_bytes,
            pool: need.pool,
            sharing: need.sharing,
            weights: weights.map(weights_key),
            n_holders: weights.map_or(0, |weights| self.n_holders[weights]),
            sibling: self.sibling(task).map(|device| DeviceId(device as u128)),
            move_ms: self.move_us(task) / 1_000,
            waiting_ms: (self.now_us - job.tasks[task.task as usize].ready_at_us) / 1_000,
        }
    }

    /// Plans the next request of a device; one that was planned for later is forgotten.
    pub(super) fn request(&mut self, device: usize, at_us: u64) {
        self.devices[device].requests += 1;
        let request = self.devices[device].requests;
        self.devices[device].request = request;
        clear_bit(&mut self.idle, device);
        clear_bit(&mut self.partly_idle, device);
        self.plan(at_us, Event::Requests { device, request });
    }

    /// Answers a request.
    pub(super) fn serve(&mut self, device: usize) {
        self.devices[device].request = 0;
        let slots = self.devices[device].free_slots(self.limits.tasks_per_device);
        if slots == 0 {
            return;
        }
        let found = self.backlog.candidates(device, &self.kept[device]);
        let candidates: Vec<Candidate> = found.iter().map(|&task| self.candidate(task)).collect();
        self.devices[device].offer.slots = slots;
        let chosen = choose(&candidates, &self.devices[device].offer, &self.loads, &self.limits);
        self.measure.served(chosen.choices.len());
        for choice in &chosen.choices {
            self.start(found[choice.candidate], device);
        }
        if chosen.choices.len() == slots as usize {
            return;
        }
        // There may be more for it: tasks of the same jobs, or such as wait for another place yet. Meanwhile it can be woken.
        if !chosen.choices.is_empty() {
            self.request(device, self.now_us + self.settings.round_trip_us);
        } else if let Some(wait_ms) = chosen.look_again_ms {
            self.request(device, self.now_us + wait_ms * 1_000);
        }
        let set = if self.devices[device].running.is_empty() { &mut self.idle } else { &mut self.partly_idle };
        set_bit(set, device);
    }

    fn start(&mut self, task: TaskRef, device: usize) {
        let entry = self.entry(task);
        self.backlog.remove(&entry);
        let (need, plan, weights) = (self.need(task), self.task_plan(task).clone(), self.weights_of(task));
        let ready_at_us = self.jobs[task.job as usize].tasks[task.task as usize].ready_at_us;
        self.jobs[task.job as usize].tasks[task.task as usize].state = State::Running;
        let load = &mut self.loads[entry.tenant];
        load.running += 1;
        load.last_leased_ms = self.now_us / 1_000;
        // Estimates are off by a fifth either way.
        let useful_us = plan.estimate.micros * (80 + self.chance.below(41)) / 100;
        let mut moved_us = 0;
        if plan.kind == TaskKind::Layer && entry.sibling != Some(device) {
            moved_us += plan.commit_again_us;
        }
        let works_with = weights.filter(|_| matches!(plan.kind, TaskKind::Layer | TaskKind::Prove));
        let missing = works_with.filter(|&weights| !self.devices[device].touch(weights));
        moved_us += missing.map_or(0, |weights| load_micros(self.weights_bytes[weights]));
        let fate = self.fate(task, device, &need);
        let work_us = if fate == Fate::Done { useful_us + moved_us } else { (useful_us + moved_us) / 2 };
        let mut run = Run::new(task, work_us, fate);
        (run.useful_us, run.moved_us) = (useful_us, moved_us);
        (run.need_device_bytes, run.need_host_bytes, run.sharing) = (need.device_bytes, need.host_bytes, need.sharing);
        if self.devices[device].running.is_empty() {
            self.measure.busy();
        }
        self.devices[device].start(run, self.now_us);
        if let Some(weights) = missing {
            self.keep(device, weights);
        }
        self.plan_end(device);
        let job = &mut self.jobs[task.job as usize];
        self.measure.started(job, ready_at_us);
        job.has_started = true;
        if entry.is_large {
            self.measure.large_started(ready_at_us);
        }
        if let Some(sibling) = entry.sibling {
            self.measure.opened_oracle(sibling == device);
        }
        if works_with.is_some() {
            self.measure.used_weights(missing.is_none());
        }
    }

    fn fate(&mut self, task: TaskRef, device: usize, need: &Need) -> Fate {
        let (job, plan) = (&self.jobs[task.job as usize], self.task_plan(task));
        let is_last = matches!(plan.kind, TaskKind::Outer | TaskKind::Prove);
        let is_large_layer = plan.kind == TaskKind::Layer && plan.layer == Some(task.job as usize % job.siblings.len().max(1));
        match job.nature {
            Nature::Poisoned if is_last => return Fate::Kills,
            Nature::MuchMemory if is_large_layer && need.device_bytes < MUCH_MEMORY_BYTES => {
                if self.devices[device].offer.devices[0].free_bytes < MUCH_MEMORY_BYTES {
                    return Fate::OutOfMemory;
                }
            }
            Nature::Plain | Nature::Poisoned | Nature::MuchMemory => {}
        }
        if self.chance.once_in(self.settings.task_fails_once_in) { Fate::Fails } else { Fate::Done }
    }

    /// Weights were brought to a device.
    fn keep(&mut self, device: usize, weights: usize) {
        for dropped in self.devices[device].keep(weights, self.weights_bytes[weights]) {
            self.drop_weights(device, dropped);
        }
        if self.devices[device].kept().any(|kept| kept == weights) {
            set_bit(&mut self.kept[device], weights);
            set_bit(&mut self.holders[weights], device);
            self.n_holders[weights] += 1;
        }
    }

    pub(super) fn drop_weights(&mut self, device: usize, weights: usize) {
        clear_bit(&mut self.kept[device], weights);
        clear_bit(&mut self.holders[weights], device);
        self.n_holders[weights] -= 1;
    }

    pub(super) fn plan_end(&mut self, device: usize) {
        if let Some(at_us) = self.devices[device].next_end_us() {
            let change = self.devices[device].change;
            self.plan(at_us, Event::Ends { device, change });
        }
    }
}
