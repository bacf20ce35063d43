//! Devices fail, workers are killed, and come back with nothing on them.

use zkinfer_server::placement::retry::{Cause, Session};

use super::backlog::{clear_bit, set_bit};
use super::cluster::{Cluster, Event};
use super::device::Run;
use super::job::{State, TaskRef};
use super::settings::{DEVICE_BACK_US, LEASE_US, SECOND, WORKER_BACK_US};

impl Cluster {
    /// Plans the next fault of a kind, somewhere.
    pub(super) fn plan_fault(&mut self, event: Event) {
        let (every_s, n) = match event {
            Event::DeviceFails => (self.settings.device_fails_every_s, self.devices.len()),
            _ => (self.settings.worker_killed_every_s, self.devices.len().div_ceil(self.settings.devices_per_worker)),
        };
        let wait_us = self.chance.wait(every_s * SECOND / n as u64);
        self.plan(self.now_us + wait_us, event);
    }

    pub(super) fn fail_some_device(&mut self) {
        let device = self.chance.below(self.devices.len() as u64) as usize;
        if self.devices[device].is_up {
            self.measure.n_device_failures += 1;
            for run in self.fall(device, DEVICE_BACK_US) {
                self.failed(run.task, Cause::DeviceLost, Session::Died);
            }
        }
        self.plan_fault(Event::DeviceFails);
    }

    /// Nobody tells the server: the tasks come back when their leases end.
    pub(super) fn kill_some_worker(&mut self) {
        let per_worker = self.settings.devices_per_worker;
        let worker = self.chance.below(self.devices.len().div_ceil(per_worker) as u64) as usize;
        self.measure.n_workers_killed += 1;
        for device in worker * per_worker..((worker + 1) * per_worker).min(self.devices.len()) {
            if self.devices[device].is_up {
                for run in self.fall(device, WORKER_BACK_US) {
                    let left_us = LEASE_US * 2 / 3 + self.chance.below(LEASE_US / 3);
                    self.plan(self.now_us + left_us, Event::LeaseEnds { task: run.task });
                }
            }
        }
        self.plan_fault(Event::WorkerKilled);
    }

    pub(super) fn end_lease(&mut self, task: TaskRef) {
        self.failed(task, Cause::LeaseLost, Session::Died);
    }

    /// A device's process ends; answers what ran on it. Ready tasks whose oracle lay there look for another place.
    pub(super) fn fall(&mut self, device: usize, back_us: u64) -> Vec<Run> {
        let homeless = self.backlog.waiting_for(device);
        for &task in &homeless {
            let entry = self.entry(task);
            self.backlog.remove(&entry);
        }
        if !self.devices[device].running.is_empty() {
            self.measure.idle();
        }
        for weights in self.devices[device].kept().collect::<Vec<_>>() {
            self.drop_weights(device, weights);
        }
        let runs = self.devices[device].fall(self.now_us);
        self.devices[device].request = 0;
        clear_bit(&mut self.idle, device);
        clear_bit(&mut self.partly_idle, device);
        self.measure.down(runs.len());
        self.plan(self.now_us + back_us, Event::Back { device });
        for task in homeless {
            self.jobs[task.job as usize].tasks[task.task as usize].state = State::Waiting;
            self.make_ready(task);
        }
        runs
    }

    pub(super) fn bring_back(&mut self, device: usize) {
        self.devices[device].is_up = true;
        self.measure.up();
        set_bit(&mut self.idle, device);
        self.request(device, self.now_us);
    }
}
