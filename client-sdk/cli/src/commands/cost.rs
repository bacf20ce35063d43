//! What a job has taken, for people and for scripts.

use std::time::Duration;

use serde_json::{Value, json};
use zkinfer_client::WireDuration;
use zkinfer_client::proto::Job;

use crate::table;

/// Seconds by stage and in all, attempts, memory; null if the service does not tell.
pub(super) fn view(job: &Job) -> Value {
    let Some(cost) = &job.cost else { return Value::Null };
    let stages = cost.stage_times.iter().map(|stage| json!({ "name": stage.name, "seconds": time(stage.elapsed).as_secs_f64() }));
    json!({
        "runs": cost.runs,
        "compute_seconds": time(cost.compute_time).as_secs_f64(),
        "stages": stages.collect::<Vec<_>>(),
        "device_seconds": time(cost.device_time).as_secs_f64(),
        "peak_host_bytes": cost.peak_host_bytes,
        "peak_device_bytes": cost.peak_device_bytes,
    })
}

/// The same in a sentence.
pub(super) fn line(job: &Job) -> String {
    let Some(cost) = &job.cost else { return "the service does not tell what it took".to_owned() };
    let time = table::time(time(cost.compute_time));
    match cost.runs {
        0 | 1 => format!("computed for {time}"),
        runs => format!("computed for {time} in {runs} attempts"),
    }
}

fn time(wire: Option<WireDuration>) -> Duration {
    wire.and_then(|wire| Duration::try_from(wire).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use zkinfer_client::proto::{JobCost, StageTime};

    use super::*;

    #[test]
    fn what_a_job_took_is_told_with_its_attempts() {
        assert_eq!(view(&Job::default()), Value::Null);
        let elapsed = Some(WireDuration { seconds: 3, nanos: 500_000_000 });
        let stage_times = vec![StageTime { name: "outer".into(), elapsed }];
        let cost = JobCost { runs: 2, stage_times, compute_time: elapsed, ..JobCost::default() };
        let job = Job { cost: Some(cost), ..Job::default() };
        assert_eq!(line(&job), "computed for 3.50 s in 2 attempts");
        let view = view(&job);
        assert_eq!((view["stages"][0]["seconds"].as_f64(), view["runs"].as_u64()), (Some(3.5), Some(2)));
    }
}
