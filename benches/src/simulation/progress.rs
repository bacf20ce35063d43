//! How jobs go on: tasks become ready, end well, and end otherwise.

use zkinfer_server::placement::retry::{Cause, Failure, Fleet, History, Session, Verdict, decide};

use super::backlog::ones;
use super::cluster::{Cluster, Event};
use super::device::{Fate, Run};
use super::job::{Sibling, State, TaskRef, Trouble};
use super::settings::{MUCH_MEMORY_BYTES, PROCESS_BACK_US};

/// What there is: the largest devices; no worker on processors.
const FLEET: Fleet = Fleet { device_bytes: 80 << 30, cpu_bytes: 0, host_bytes: 64 << 30 };

impl Cluster {
    pub(super) fn make_ready(&mut self, task: TaskRef) {
        let state = &mut self.jobs[task.job as usize].tasks[task.task as usize];
        (state.state, state.ready_at_us) = (State::Ready, self.now_us);
        let entry = self.entry(task);
        self.backlog.insert(&entry);
        let is_elsewhere = entry.sibling.is_some() || entry.weights.is_some_and(|weights| self.n_holders[weights] > 0);
        let patience_us = if is_elsewhere { (self.move_us(task) / 1_000).min(self.limits.patience_ms) * 1_000 } else { 0 };
        if patience_us > 0 {
            let ready_at_us = self.now_us;
            self.plan(ready_at_us + patience_us, Event::Released { task, ready_at_us });
            self.wake_holder(entry.sibling, entry.weights);
        } else {
            self.backlog.release(&entry);
            self.wake_any(entry.weights);
        }
    }

    pub(super) fn release(&mut self, task: TaskRef, ready_at_us: u64) {
        let state = self.jobs[task.job as usize].tasks.get(task.task as usize);
        if state.is_some_and(|state| state.state == State::Ready && state.ready_at_us == ready_at_us) {
            let entry = self.entry(task);
            self.backlog.release(&entry);
            self.wake_any(entry.weights);
        }
    }

    /// Tells a device that has free slots and what a task needs.
    fn wake_holder(&mut self, sibling: Option<usize>, weights: Option<usize>) {
        let found = match (sibling, weights) {
            (Some(device), _) => {
                let has_slots = |set: &[u64]| set[device / 64] >> (device % 64) & 1 == 1;
                (has_slots(&self.idle) || has_slots(&self.partly_idle)).then_some(device)
            }
            (None, Some(weights)) => self.first_of(&self.idle, Some(weights)).or_else(|| self.first_of(&self.partly_idle, Some(weights))),
            (None, None) => None,
        };
        self.notify(found);
    }

    /// Tells some device that has free slots, empty ones first.
    fn wake_any(&mut self, weights: Option<usize>) {
        let empty = self.first_of(&self.idle, weights).or_else(|| self.first_of(&self.idle, None));
        let found = empty.or_else(|| self.first_of(&self.partly_idle, weights)).or_else(|| self.first_of(&self.partly_idle, None));
        self.notify(found);
    }

    fn notify(&mut self, device: Option<usize>) {
        if let Some(device) = device {
            self.request(device, self.now_us + self.settings.round_trip_us / 2);
        }
    }

    /// A device of a set, one that holds the weights if they are given. Where the search begins depends on the number of jobs, so that not the same
    /// devices are found all the time.
    fn first_of(&self, set: &[u64], weights: Option<usize>) -> Option<usize> {
        let from = self.jobs.len() % set.len();
        let word = |index: usize| set[index] & weights.map_or(u64::MAX, |weights| self.holders[weights][index]);
        let words = (from..set.len()).chain(0..from);
        words.filter_map(|index| ones(word(index)).next().map(|bit| index * 64 + bit)).next()
    }

    /// A task on a device has ended, or more at the same time.
    pub(super) fn end(&mut self, device: usize) {
        while let Some(run) = self.devices[device].take_ended(self.now_us) {
            self.measure.took_slot_free();
            if self.devices[device].running.is_empty() {
                self.measure.idle();
            }
            match run.fate {
                Fate::Done => self.complete(&run, device),
                Fate::Fails => self.failed(run.task, Cause::ProverError, Session::Lives),
                Fate::OutOfMemory => self.failed(run.task, Cause::DeviceOom, Session::Lives),
                Fate::Kills => {
                    let neighbours = self.fall(device, PROCESS_BACK_US);
                    for task in std::iter::once(run.task).chain(neighbours.iter().map(|run| run.task)) {
                        self.failed(task, Cause::DeviceLost, Session::Died);
                    }
                    return;
                }
            }
        }
        self.plan_end(device);
        self.request(device, self.now_us + self.settings.round_trip_us);
    }

    fn complete(&mut self, run: &Run, device: usize) {
        let task = run.task;
        let plan = self.task_plan(task).clone();
        let life = self.devices[device].life;
        let job = &mut self.jobs[task.job as usize];
        self.loads[job.tenant as usize].running -= 1;
        job.tasks[task.task as usize].state = State::Done;
        if job.is_over {
            return;
        }
        self.measure.did(run.useful_us, run.moved_us);
        job.n_left -= 1;
        if let (zkinfer_server::placement::TaskKind::Commit, Some(layer)) = (plan.kind, plan.layer) {
            job.siblings[layer] = Some(Sibling { device: device as u32, life });
        }
        if job.n_left == 0 {
            job.is_over = true;
            job.siblings = Vec::new();
            let network = self.models[job.model as usize].network;
            self.measure.succeeded(job, network);
            self.n_over += 1;
        }
        for &next in &plan.successors {
            let state = &mut self.jobs[task.job as usize].tasks[next as usize];
            state.waiting_on -= 1;
            if state.waiting_on == 0 {
                self.make_ready(TaskRef { task: next, ..task });
            }
        }
        if self.jobs[task.job as usize].is_over {
            self.jobs[task.job as usize].tasks = Vec::new();
        }
    }

    /// An attempt has failed: what then, is the policy's.
    pub(super) fn failed(&mut self, task: TaskRef, cause: Cause, session: Session) {
        let job = &mut self.jobs[task.job as usize];
        self.loads[job.tenant as usize].running -= 1;
        job.tasks[task.task as usize].state = State::Waiting;
        if job.is_over {
            return;
        }
        self.measure.failed_attempt(cause);
        let history = self.trouble.get(&task).map_or(History::default(), |trouble| trouble.history);
        let peak_device_bytes = if cause == Cause::DeviceOom { MUCH_MEMORY_BYTES } else { 0 };
        let failure = Failure { cause, session, peak_device_bytes, peak_host_bytes: 0 };
        match decide(&failure, &history, &self.need(task), &FLEET, &self.budgets, self.chance.next()) {
            Verdict::Requeue { after_ms, need, history } => {
                self.trouble.insert(task, Trouble { history, need });
                self.plan(self.now_us + after_ms * 1_000, Event::Returns { task });
            }
            Verdict::Fail { reason, .. } => self.fail_job(task.job, reason),
        }
    }

    fn fail_job(&mut self, job: u32, reason: &'static str) {
        for task in 0..self.jobs[job as usize].tasks.len() {
            let task = TaskRef { job, task: task as u16 };
            if self.jobs[job as usize].tasks[task.task as usize].state == State::Ready {
                let entry = self.entry(task);
                self.backlog.remove(&entry);
                self.jobs[job as usize].tasks[task.task as usize].state = State::Done;
            }
        }
        let job = &mut self.jobs[job as usize];
        job.is_over = true;
        self.measure.failed_job(reason);
        self.n_over += 1;
    }
}
