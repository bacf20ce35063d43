//! What computing a job has taken, summed over all attempts at its tasks. Pure.
//!
//! An attempt is added to the job's sums when it ends, however it ends, by whoever writes that end. Of an attempt at a whole proof the times are those of
//! its stages: the exact ones if its worker told them, else what the job's progress told last: at its end if it was given back, at most half a second
//! earlier if its worker was lost. A stage's time is wall time from its first step's begin to its last step's end. An attempt at one step of a proof
//! counts as one stage.

use std::time::Duration;

use zkinfer_proto::v1;

/// What one attempt has taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent<'a> {
    /// Wall time by stage.
    pub stage_times: &'a [v1::StageTime],
    /// Where it ran, such as `cpu` or `cuda:0`; empty if that is not told.
    pub device: &'a str,
    /// Largest resident memory of the process; 0 if it cannot be told.
    pub peak_host_bytes: i64,
    /// Largest memory that the process took on the device; 0 if it has none of its own.
    pub peak_device_bytes: i64,
}

/// The times that a job's progress tells of the attempt that runs.
pub fn reported(job: &v1::Job) -> Vec<v1::StageTime> {
    let stages = job.progress.iter().flat_map(|progress| &progress.stages);
    stages.map(|stage| v1::StageTime { name: stage.name.clone(), elapsed: stage.elapsed }).collect()
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

fn time(wire: Option<prost_types::Duration>) -> Duration {
    wire.and_then(|wire| Duration::try_from(wire).ok()).unwrap_or_default()
}

fn wire(time: Duration) -> prost_types::Duration {
    time.try_into().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage(name: &str, ms: u64) -> v1::StageTime {
        v1::StageTime { name: name.into(), elapsed: Some(wire(Duration::from_millis(ms))) }
    }

    fn sums(cost: &v1::JobCost) -> Vec<(&str, u64)> {
        let sums = cost.stage_times.iter().map(|stage| (stage.name.as_str(), time(stage.elapsed).as_millis() as u64));
        sums.chain([("", time(cost.compute_time).as_millis() as u64)]).collect()
    }

    #[test]
    fn attempts_are_added_up_by_stage() {
        let mut cost = v1::JobCost::default();
        for stage_times in [vec![stage("commit", 5), stage("layer", 20)], vec![stage("commit", 6), stage("outer", 100)], Vec::new()] {
            add(&mut cost, &Spent { stage_times: &stage_times, ..Spent::default() });
        }
        assert_eq!(sums(&cost), [("commit", 11), ("layer", 20), ("outer", 100), ("", 131)]);
        assert_eq!(cost.device_time, None);
    }

    #[test]
    fn time_on_devices_is_told_apart_and_memory_is_the_largest() {
        let stage_times = [stage("layer", 5)];
        let mut cost = v1::JobCost::default();
        for (device, peak_host_bytes, peak_device_bytes) in [("cuda:1", 10, 70), ("cpu", 20, 0), ("", 0, 0)] {
            add(&mut cost, &Spent { stage_times: &stage_times, device, peak_host_bytes, peak_device_bytes });
        }
        assert_eq!([cost.compute_time, cost.device_time].map(|sum| time(sum).as_millis()), [15, 5]);
        assert_eq!((cost.peak_host_bytes, cost.peak_device_bytes), (20, 70));
    }

    #[test]
    fn a_progress_tells_the_times_so_far() {
        let mut job = v1::Job::default();
        assert_eq!(reported(&job), []);
        let layer = v1::Stage { name: "layer".into(), total: 2, done: 1, elapsed: Some(wire(Duration::from_millis(3))) };
        job.progress = Some(v1::Progress { stages: vec![layer], ..Default::default() });
        assert_eq!(reported(&job), [stage("layer", 3)]);
    }
}
