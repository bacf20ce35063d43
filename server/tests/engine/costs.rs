//! What jobs cost: the sum over all attempts at their tasks, and the largest memory of any.

use std::collections::BTreeMap;
use std::time::Duration;

use zkinfer_proto::v1;
use zkinfer_proto::v1::job::State;
use zkinfer_server::engine::{EngineError, FailedAttempt, FailureCause, Lease, Outcome, Subject, Usage};

use crate::world::{World, diamond, proved, step_result, whole};

fn failed(cause: FailureCause) -> FailedAttempt {
    FailedAttempt { cause, reason: String::new(), message: "the device has gone".into(), damaged: Vec::new() }
}

fn usage(device: &str, peak_host_bytes: i64, peak_device_bytes: i64) -> Usage {
    Usage { device: device.into(), peak_host_bytes, peak_device_bytes, ..Usage::default() }
}

fn stage(name: &str, ms: i32) -> v1::StageTime {
    v1::StageTime { name: name.into(), elapsed: Some(prost_types::Duration { seconds: 0, nanos: ms * 1_000_000 }) }
}

fn ms(time: Option<prost_types::Duration>) -> i64 {
    time.map_or(0, |time| Duration::try_from(time).unwrap().as_millis() as i64)
}

/// Milliseconds by stage, in all, and on devices.
type Times = (BTreeMap<String, i64>, i64, i64);

fn told(cost: &v1::JobCost) -> Times {
    let stages = cost.stage_times.iter().map(|stage| (stage.name.clone(), ms(stage.elapsed))).collect();
    (stages, ms(cost.compute_time), ms(cost.device_time))
}

/// The sums over the attempts that have ended and were not lost.
async fn summed(world: &World, job: &Subject) -> Times {
    let (mut stages, mut all_ms, mut device_ms) = Times::default();
    for task in world.engine.tasks(job).await.unwrap() {
        for attempt in task.attempts.iter().filter(|attempt| attempt.outcome != "LOST") {
            let Some(ended_ms) = attempt.ended_ms else { continue };
            let time_ms = ended_ms - attempt.started_ms;
            *stages.entry(task.step.clone()).or_default() += time_ms;
            all_ms += time_ms;
            device_ms += if attempt.device.starts_with("cuda") { time_ms } else { 0 };
        }
    }
    (stages, all_ms, device_ms)
}

/// Checks that the job costs what its attempts took, and that this is no less.
async fn check(world: &World, job: &Subject, at_least_ms: i64) -> v1::JobCost {
    let cost = world.get(job).await.cost.unwrap();
    let times = told(&cost);
    assert_eq!(times, summed(world, job).await);
    let attempts = world.engine.tasks(job).await.unwrap().iter().map(|task| task.attempts.len()).sum::<usize>();
    assert_eq!(cost.runs as usize, attempts);
    assert!(times.1 >= at_least_ms, "{times:?}");
    cost
}

/// The attempts that run have taken so many seconds more.
async fn pass(world: &World, seconds: u32) {
    world.execute(&format!("UPDATE attempts SET started_ms = started_ms - {seconds}000 WHERE ended_ms IS NULL")).await;
}

/// Whatever waits for a time may be given at once.
async fn skip_backoff(world: &World) {
    world.execute("UPDATE tasks SET not_before_ms = 0").await;
}

async fn complete(world: &World, lease: &Lease, usage: Usage) {
    let outcome = match lease.task.name.as_str() {
        "last" => proved("acme", "proof"),
        name => step_result("acme", name),
    };
    world.engine.complete(lease, outcome, usage).await.unwrap();
}

pub(crate) async fn a_job_of_steps_costs_what_all_attempts_at_them_took(world: World) {
    world.ready_model("acme", "net", diamond()).await;
    let job = world.job("acme", "net").await;
    let session = world.session().await;
    let first = world.lease(&session).await.lease;
    pass(&world, 1).await;
    world.engine.fail(&first, failed(FailureCause::DeviceLost), usage("cuda:0", 30, 900)).await.unwrap();
    let cost = check(&world, &job, 1000).await;
    assert_eq!((cost.device_time, cost.peak_host_bytes, cost.peak_device_bytes), (cost.compute_time, 30, 900));
    skip_backoff(&world).await;
    let first = world.lease(&session).await.lease;
    pass(&world, 2).await;
    complete(&world, &first, usage("cuda:1", 10, 70)).await;
    check(&world, &job, 3000).await;

    let right = world.lease(&session).await.lease;
    pass(&world, 4).await;
    world.engine.release(&right, usage("cuda:1", 20, 950)).await.unwrap();
    let cost = check(&world, &job, 7000).await;
    assert!(ms(cost.device_time) >= 7000, "what was given back was on a device too");
    // When a worker that is gone worked last is not known.
    let lost = world.lease(&session).await.lease;
    pass(&world, 1000).await;
    assert_eq!(world.reap_ended_leases().await.requeued, std::slice::from_ref(&job));
    skip_backoff(&world).await;
    assert!(told(&check(&world, &job, 7000).await).1 < 1_000_000);
    assert_eq!(lost.task.name, right.task.name);

    let session = world.session().await;
    for (device, peak_host_bytes) in [("cuda:0", 0), ("cpu", 40), ("cuda:0", 20)] {
        let lease = world.lease(&session).await.lease;
        pass(&world, 1).await;
        complete(&world, &lease, usage(device, peak_host_bytes, 50)).await;
    }
    let cost = check(&world, &job, 10_000).await;
    assert_eq!((cost.runs, cost.peak_host_bytes, cost.peak_device_bytes), (7, 40, 950));
    let ended = world.get(&job).await;
    assert_eq!(ended.state(), State::Succeeded);
    let result_ms: i64 = ended.result.unwrap().stage_times.iter().map(|stage| ms(stage.elapsed)).sum();
    assert!(result_ms < ms(cost.compute_time) - 4000, "a result tells of the attempts that gave it");
    world.events(&job).await;
}

pub(crate) async fn what_ends_with_a_job_is_counted_before_it_has_ended(world: World) {
    world.ready_model("acme", "net", diamond()).await;
    let job = world.job("acme", "net").await;
    let session = world.session().await;
    let first = world.lease(&session).await.lease;
    complete(&world, &first, usage("cpu", 0, 0)).await;
    let (right, left) = (world.lease(&session).await.lease, world.lease(&session).await.lease);
    pass(&world, 2).await;
    world.engine.fail(&right, failed(FailureCause::Internal), usage("cuda:0", 5, 0)).await.unwrap();
    assert_eq!(world.get(&job).await.state(), State::Failed);
    let cost = check(&world, &job, 4000).await;
    assert!((2000..4000).contains(&ms(cost.device_time)), "where the other ran is not told");
    let late = world.engine.fail(&left, failed(FailureCause::Internal), usage("cuda:0", 70, 0)).await;
    assert!(matches!(late, Err(EngineError::Fenced)), "{late:?}");
    assert_eq!(world.get(&job).await.cost, Some(cost));
}

pub(crate) async fn what_stops_with_a_job_is_counted_whichever_stops_last(world: World) {
    world.ready_model("acme", "net", diamond()).await;
    let session = world.session().await;
    // How the first of two steps ends once its job is cancelled; the other gives its result.
    for is_released in [false, true] {
        let job = world.job("acme", "net").await;
        let first = world.lease(&session).await.lease;
        complete(&world, &first, usage("cpu", 0, 0)).await;
        let (right, left) = (world.lease(&session).await.lease, world.lease(&session).await.lease);
        pass(&world, 3).await;
        world.engine.cancel_job(&job.tenant, &job.id, "").await.unwrap();
        if is_released {
            world.engine.release(&right, usage("cuda:0", 70, 0)).await.unwrap();
        } else {
            world.engine.fail(&right, failed(FailureCause::Internal), usage("cuda:0", 60, 0)).await.unwrap();
        }
        assert_eq!(world.get(&job).await.state(), State::Cancelling);
        check(&world, &job, 3000).await;
        complete(&world, &left, usage("cuda:1", 50, 0)).await;
        assert_eq!(world.get(&job).await.state(), State::Cancelled);
        let cost = check(&world, &job, 6000).await;
        assert_eq!(cost.peak_host_bytes, if is_released { 70 } else { 60 });
        world.events(&job).await;
    }
}

pub(crate) async fn a_job_of_one_task_counts_each_attempt_once(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let job = world.job("acme", "net").await;
    let session = world.session().await;
    // What its progress tells: of an attempt that is given back, and of one that is lost.
    for is_lost in [false, true] {
        let lease = world.lease(&session).await.lease;
        let commit = v1::Stage { name: "commit".into(), total: 1, done: 1, elapsed: stage("", 3).elapsed };
        world.engine.progress(&lease, v1::Progress { stages: vec![commit], ..Default::default() }).await.unwrap();
        if is_lost {
            world.reap_ended_leases().await;
        } else {
            world.engine.release(&lease, Usage::default()).await.unwrap();
        }
        skip_backoff(&world).await;
    }
    let session = world.session().await;
    // What its worker tells, when it gives it back and when it fails.
    let lease = world.lease(&session).await.lease;
    let taken = Usage { stage_times: vec![stage("commit", 4)], ..usage("cuda:0", 0, 0) };
    world.engine.release(&lease, taken).await.unwrap();
    let lease = world.lease(&session).await.lease;
    let taken = Usage { stage_times: vec![stage("commit", 5)], ..usage("cpu", 90, 0) };
    world.engine.fail(&lease, failed(FailureCause::DeviceLost), taken).await.unwrap();
    skip_backoff(&world).await;
    // What its result tells, and the worker as well.
    let lease = world.lease(&session).await.lease;
    let Outcome::Proved { mut result, artifacts } = proved("acme", "proof") else { panic!("a proof") };
    result.stage_times = vec![stage("commit", 6), stage("outer", 100)];
    result.peak_host_bytes = 70;
    let taken = Usage { stage_times: result.stage_times.clone(), ..usage("cuda:0", 70, 800) };
    world.engine.complete(&lease, Outcome::Proved { result, artifacts }, taken).await.unwrap();
    let cost = world.get(&job).await.cost.unwrap();
    let stages = BTreeMap::from([("commit".into(), 21), ("outer".into(), 100)]);
    assert_eq!(told(&cost), (stages, 121, 110));
    assert_eq!((cost.runs, cost.peak_host_bytes, cost.peak_device_bytes), (5, 90, 800));
}
