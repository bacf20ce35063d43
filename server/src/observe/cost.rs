//! What computing a job has taken, summed over all attempts at it. Pure: it sees the job before and after each change.
//!
//! A job's progress tells the time of each stage of the attempt that runs. When that attempt ends, however it ends, its stages are added to the job's
//! sums: the exact times of the result if it succeeded, else what was reported last: at its end if it failed, at most half a second earlier if its
//! worker was lost. A stage's time is wall time from its first step's begin to its last step's end.

use std::time::Duration;

use zkinfer_proto::v1;

/// A job before a change.
pub struct Before {
    is_running: bool,
    stages: Vec<v1::StageTime>,
}

impl Before {
    /// Looks at it.
    pub fn of(job: &v1::Job) -> Self {
        let stages = job.progress.iter().flat_map(|progress| &progress.stages);
        let stages = stages.map(|stage| v1::StageTime { name: stage.name.clone(), elapsed: stage.elapsed }).collect();
        Self { is_running: is_running(job), stages }
    }
}

/// What one attempt has taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent<'a> {
    /// Wall time by stage.
    pub stage_times: &'a [v1::StageTime],
    /// Where it ran, such as `cpu` or `cuda:0`; empty if that is not told.
    pub device: &'a str,
    /// Largest resident memory of the process; 0 if it cannot be told.
    pub peak_host_bytes: i64,
    /// Largest memory taken on the device; 0 if it cannot be told.
    pub peak_device_bytes: i64,
}

/// Accounts for a change: an attempt that begins is counted, one that has ended is added up.
pub fn account(before: &Before, job: &mut v1::Job) {
    match (before.is_running, is_running(job)) {
        (false, true) => job.cost.get_or_insert_default().runs += 1,
        (true, false) => {
            let spent = match &job.result {
                Some(result) => Spent { stage_times: &result.stage_times, peak_host_bytes: result.peak_host_bytes, ..Spent::default() },
                None => Spent { stage_times: &before.stages, ..Spent::default() },
            };
            add(job.cost.get_or_insert_default(), &spent);
        }
        (true, true) | (false, false) => {}
    }
}

/// Adds what an attempt has taken to the sums of its job.
pub fn add(cost: &mut v1::JobCost, spent: &Spent<'_>) {
    let mut total = Duration::ZERO;
    for stage in spent.stage_times {
        let elapsed = time(stage.elapsed);
        total = total.saturating_add(elapsed);
        match cost.stage_times.iter_mut().find(|sum| sum.name == stage.name) {
            Some(sum) => sum.elapsed = Some(plus(sum.elapsed, elapsed)),
            None => cost.stage_times.push(v1::StageTime { name: stage.name.clone(), elapsed: Some(wire(elapsed)) }),
        }
    }
    cost.compute_time = Some(plus(cost.compute_time, total));
    let is_on_device = !spent.device.is_empty() && !spent.device.starts_with("cpu");
    if is_on_device {
        cost.device_time = Some(plus(cost.device_time, total));
    }
    cost.peak_host_bytes = cost.peak_host_bytes.max(spent.peak_host_bytes);
    cost.peak_device_bytes = cost.peak_device_bytes.max(spent.peak_device_bytes);
}

fn plus(sum: Option<prost_types::Duration>, elapsed: Duration) -> prost_types::Duration {
    wire(time(sum).saturating_add(elapsed))
}

fn is_running(job: &v1::Job) -> bool {
    use v1::job::State;
    match job.state() {
        State::Running | State::Cancelling => true,
        State::Unspecified | State::Queued | State::Succeeded | State::Failed | State::Cancelled | State::Expired => false,
    }
}

fn time(wire: Option<prost_types::Duration>) -> Duration {
    wire.and_then(|wire| Duration::try_from(wire).ok()).unwrap_or_default()
}

fn wire(time: Duration) -> prost_types::Duration {
    time.try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use v1::job::State;

    use super::*;

    fn stage(name: &str, ms: u64) -> v1::Stage {
        v1::Stage { name: name.into(), elapsed: Some(wire(Duration::from_millis(ms))), ..Default::default() }
    }

    fn change(job: &mut v1::Job, change: impl FnOnce(&mut v1::Job)) {
        let before = Before::of(job);
        change(job);
        account(&before, job);
    }

    fn sums(job: &v1::Job) -> Vec<(&str, u64)> {
        let cost = job.cost.as_ref().unwrap();
        let sums = cost.stage_times.iter().map(|stage| (stage.name.as_str(), time(stage.elapsed).as_millis() as u64));
        sums.chain([("", time(cost.compute_time).as_millis() as u64)]).collect()
    }

    #[test]
    fn attempts_that_fail_are_lost_or_succeed_are_all_added_up() {
        let mut job = v1::Job { state: State::Queued as i32, ..Default::default() };
        change(&mut job, |_| {});
        assert_eq!(job.cost, None);
        for _ in 0..2 {
            change(&mut job, |job| job.set_state(State::Running));
            change(&mut job, |job| {
                job.progress = Some(v1::Progress { stages: vec![stage("commit", 5), stage("layer", 20)], ..Default::default() });
            });
            change(&mut job, |job| {
                job.set_state(State::Queued);
                job.progress = None;
            });
        }
        assert_eq!(sums(&job), [("commit", 10), ("layer", 40), ("", 50)]);
        change(&mut job, |job| job.set_state(State::Running));
        change(&mut job, |job| {
            job.set_state(State::Succeeded);
            let times = [stage("commit", 6), stage("outer", 100)];
            let stage_times = times.map(|stage| v1::StageTime { name: stage.name, elapsed: stage.elapsed }).to_vec();
            job.result = Some(v1::JobResult { stage_times, peak_host_bytes: 7, ..Default::default() });
        });
        assert_eq!(sums(&job), [("commit", 16), ("layer", 40), ("outer", 100), ("", 156)]);
        let cost = job.cost.as_ref().unwrap();
        assert_eq!((cost.runs, cost.peak_host_bytes), (3, 7));
    }

    #[test]
    fn time_on_devices_is_told_apart_and_memory_is_the_largest() {
        let stage_times = [v1::StageTime { name: "layer".into(), elapsed: Some(wire(Duration::from_millis(5))) }];
        let mut cost = v1::JobCost::default();
        for (device, peak_host_bytes, peak_device_bytes) in [("cuda:1", 10, 70), ("cpu", 20, 0), ("", 0, 0)] {
            add(&mut cost, &Spent { stage_times: &stage_times, device, peak_host_bytes, peak_device_bytes });
        }
        assert_eq!([cost.compute_time, cost.device_time].map(|sum| time(sum).as_millis()), [15, 5]);
        assert_eq!((cost.peak_host_bytes, cost.peak_device_bytes), (20, 70));
    }

    #[test]
    fn a_job_that_is_cancelled_while_it_runs_keeps_what_it_took() {
        let mut job = v1::Job { state: State::Queued as i32, ..Default::default() };
        change(&mut job, |job| job.set_state(State::Running));
        change(&mut job, |job| job.progress = Some(v1::Progress { stages: vec![stage("layer", 3)], ..Default::default() }));
        change(&mut job, |job| job.set_state(State::Cancelling));
        change(&mut job, |job| job.set_state(State::Cancelled));
        assert_eq!(sums(&job), [("layer", 3), ("", 3)]);
    }
}
