//! Tasks that share a device: what those that a worker holds are expected to take is not given again, and what they took is asked for.

use std::time::Duration;

use zkinfer_proto::v1;
use zkinfer_proto::v1::job::State;
use zkinfer_server::artifacts::Class;
use zkinfer_server::engine::{FailedAttempt, FailureCause, Leased, Offer, SessionEnd, Subject, Usage};

use crate::proofs::two_at_first;
use crate::world::{World, artifact, finish, offer, whole};

const DEVICE: u64 = 100;

fn device(bytes: u64) -> Offer {
    Offer { n_slots: 3, device_bytes: bytes, ..offer() }
}

/// Models whose jobs are a task each, which needs so much.
async fn models(world: &World, needs: &[(&str, i64)]) {
    for (name, bytes) in needs {
        let mut graph = whole();
        graph.nodes[0].device_bytes = *bytes;
        world.ready_model("acme", name, graph).await;
    }
}

async fn given(world: &World, session: &str, offer: &Offer) -> Vec<Leased> {
    world.engine.lease(session, offer.clone()).await.unwrap()
}

async fn given_one(world: &World, session: &str, bytes: u64) -> Option<Leased> {
    given(world, session, &device(bytes)).await.pop()
}

fn subjects(given: &[Leased]) -> Vec<&Subject> {
    given.iter().map(|leased| &leased.lease.task.subject).collect()
}

/// All that is ready has waited for so long.
pub(crate) async fn wait(world: &World, seconds: u32) {
    let ms = seconds * 1000;
    world
        .execute(&format!("UPDATE tasks SET not_before_ms = not_before_ms - {ms}, created_ms = created_ms - {ms} WHERE state = 'READY'"))
        .await;
}

pub(crate) async fn what_a_worker_holds_is_not_given_again(world: World) {
    models(&world, &[("large", 60), ("small", 30)]).await;
    let large = [world.job("acme", "large").await, world.job("acme", "large").await];
    let [one, two] = [world.session().await, world.session().await];
    let first = given_one(&world, &one, DEVICE).await.unwrap();
    assert!(given_one(&world, &one, DEVICE).await.is_none(), "40 are left");
    let small = world.job("acme", "small").await;
    // So long that it is not left to the one that is idle.
    wait(&world, 1).await;
    let beside = given_one(&world, &one, DEVICE).await.unwrap();
    assert_eq!(beside.lease.task.subject, small, "what fits goes beside it");
    let elsewhere = given_one(&world, &two, DEVICE).await.unwrap();
    assert!(large.contains(&elsewhere.lease.task.subject), "another has a device of its own");
    world.engine.release(&elsewhere.lease, Usage::default()).await.unwrap();
    world.engine.close_session(&two, SessionEnd::InOrder).await.unwrap();
    assert!(given_one(&world, &one, DEVICE).await.is_none());
    finish(&world, &first.lease).await.unwrap();
    assert!(given_one(&world, &one, DEVICE).await.is_some(), "what was held is free again");
}

pub(crate) async fn one_call_gives_no_more_than_fits_and_processors_count_nothing(world: World) {
    models(&world, &[("net", 30)]).await;
    for _ in 0..8 {
        world.job("acme", "net").await;
    }
    let several = |bytes| Offer { max_tasks: 4, ..device(bytes) };
    let session = world.session().await;
    assert_eq!(given(&world, &session, &several(DEVICE)).await.len(), 3);
    assert_eq!(given(&world, &session, &several(DEVICE)).await.len(), 0);
    let processors = world.session().await;
    world.execute(&format!("UPDATE tasks SET device_bytes = {} WHERE state = 'READY'", i64::MAX)).await;
    assert_eq!(given(&world, &processors, &several(u64::MAX)).await.len(), 4);
    assert_eq!(given(&world, &processors, &several(u64::MAX)).await.len(), 1);
}

pub(crate) async fn a_device_is_kept_free_for_what_has_waited_long(world: World) {
    models(&world, &[("large", 90), ("small", 20)]).await;
    let session = world.session().await;
    world.job("acme", "small").await;
    let holds = given_one(&world, &session, DEVICE).await.unwrap();
    // More small ones than are looked at, all before it.
    for _ in 0..20 {
        world.job_with("acme", "small", |job| job.priority = 1).await;
    }
    let large = world.job("acme", "large").await;
    let passed = given_one(&world, &session, DEVICE).await.unwrap();
    assert_ne!(passed.lease.task.subject, large);
    world.engine.release(&passed.lease, Usage::default()).await.unwrap();
    // When jobs have aged it is among those that are looked at, though not the first of them.
    world.execute("UPDATE tasks SET level = level - 1000 WHERE state = 'READY' AND device_bytes = 20").await;
    wait(&world, 60).await;
    assert!(given_one(&world, &session, DEVICE).await.is_none(), "nothing more beside what it holds");
    finish(&world, &holds.lease).await.unwrap();
    assert_eq!(given_one(&world, &session, DEVICE).await.unwrap().lease.task.subject, large);
}

pub(crate) async fn a_device_of_one_task_at_a_time_is_kept_free_for_nobody(world: World) {
    models(&world, &[("large", 90), ("small", 20)]).await;
    world.job("acme", "large").await;
    let urgent = world.job_with("acme", "small", |job| job.priority = 9).await;
    wait(&world, 60).await;
    let session = world.session().await;
    let held = given(&world, &session, &Offer { n_slots: 1, ..device(DEVICE) }).await;
    assert_eq!(subjects(&held), [&urgent], "nothing there can starve it by its size");
}

/// What is ready has just become so, for as long as the test takes.
async fn is_new(world: &World) {
    world.execute("UPDATE tasks SET created_ms = 9000000000000 WHERE state = 'READY'").await;
}

/// A session that has told its memory, and has nothing to do.
async fn idle(world: &World, bytes: u64) -> String {
    let session = world.session().await;
    assert!(given_one(world, &session, bytes).await.is_none(), "nothing is there yet");
    session
}

pub(crate) async fn layers_of_a_job_spread_over_idle_devices(world: World) {
    world.ready_model("acme", "net", two_at_first()).await;
    let [one, two] = [idle(&world, DEVICE).await, idle(&world, DEVICE).await];
    world.job("acme", "net").await;
    is_new(&world).await;
    assert_eq!(given_one(&world, &one, DEVICE).await.expect("it has nothing to do").lease.task.name, "left");
    assert!(given_one(&world, &one, DEVICE).await.is_none(), "the other device has nothing to do");
    assert!(world.engine.look_again(&one).is_some_and(|after| after <= Duration::from_millis(100)));
    let elsewhere = given_one(&world, &two, DEVICE).await.expect("what was left to it");
    assert_eq!(elsewhere.lease.task.name, "right");
    // Nobody is idle: what is new joins others at once.
    world.job("acme", "net").await;
    is_new(&world).await;
    assert!(given_one(&world, &one, DEVICE).await.is_some());
    // What has waited joins others whoever is idle.
    world.engine.release(&elsewhere.lease, Usage::default()).await.unwrap();
    world.execute("UPDATE tasks SET created_ms = 1 WHERE state = 'READY'").await;
    wait(&world, 1).await;
    assert!(given_one(&world, &one, DEVICE).await.is_some());
}

/// In one call too.
pub(crate) async fn layers_of_a_job_spread_over_those_who_ask_at_once(world: World) {
    world.ready_model("acme", "net", two_at_first()).await;
    let [one, _two] = [idle(&world, DEVICE).await, idle(&world, DEVICE).await];
    world.job("acme", "net").await;
    is_new(&world).await;
    assert_eq!(given(&world, &one, &Offer { max_tasks: 2, ..device(DEVICE) }).await.len(), 1);
}

pub(crate) async fn nothing_is_left_to_devices_that_cannot_take_it(world: World) {
    models(&world, &[("net", 10)]).await;
    let one = idle(&world, DEVICE).await;
    let holds = async || {
        world.job("acme", "net").await;
        is_new(&world).await;
        given_one(&world, &one, DEVICE).await.is_some()
    };
    assert!(holds().await);
    world.session().await;
    assert!(holds().await, "it has not told what it has");
    idle(&world, 9).await;
    assert!(holds().await, "it is too small");
    idle(&world, u64::MAX).await;
    assert!(holds().await, "it has no device");
    let closed = idle(&world, DEVICE).await;
    world.engine.close_session(&closed, SessionEnd::InOrder).await.unwrap();
    assert!(holds().await, "it is closed");
    let gone = idle(&world, DEVICE).await;
    world.execute(&format!("UPDATE sessions SET seen_ms = 1 WHERE id = '{gone}'")).await;
    assert!(holds().await, "it gives no sign of life");
    let cordoned = idle(&world, DEVICE).await;
    world.engine.cordon(&cordoned, true).await.unwrap();
    assert!(holds().await, "it is cordoned");
    world.engine.cordon(&cordoned, false).await.unwrap();
    assert!(!holds().await, "it takes tasks again");
}

/// They would load the weights, which takes longer than the task is left to them.
pub(crate) async fn nothing_is_left_to_devices_that_would_load_for_long(world: World) {
    models(&world, &[("net", 10)]).await;
    let digest = artifact("acme", Class::Internal, b"private").digest;
    let [one, _two] = [idle(&world, DEVICE).await, idle(&world, DEVICE).await];
    let holding = Offer { cached_models: vec![digest], ..device(DEVICE) };
    for (load_ms, is_given) in [(5000, true), (5000, true), (20, false)] {
        world.job("acme", "net").await;
        is_new(&world).await;
        world.execute(&format!("UPDATE tasks SET load_ms = {load_ms} WHERE state = 'READY'")).await;
        assert_eq!(given(&world, &one, &holding).await.len(), usize::from(is_given), "{load_ms} ms");
    }
}

pub(crate) async fn what_must_run_alone_is_not_passed_for_ever(world: World) {
    models(&world, &[("net", 0)]).await;
    let session = world.session().await;
    let suspect = world.job("acme", "net").await;
    let held = world.lease(&session).await.lease;
    assert_eq!(held.task.subject, suspect);
    world.engine.release(&held, Usage::default()).await.unwrap();
    world.execute("UPDATE tasks SET deaths = 1, not_before_ms = 9000000000000").await;
    world.job("acme", "net").await;
    let holds = world.lease(&session).await.lease;
    world.execute("UPDATE tasks SET not_before_ms = created_ms WHERE deaths = 1").await;
    let passing = world.job("acme", "net").await;
    let passes = world.lease(&session).await.lease;
    assert_eq!(passes.task.subject, passing, "for a while others go first");
    world.job("acme", "net").await;
    wait(&world, 60).await;
    assert!(world.try_lease(&session).await.is_none());
    finish(&world, &holds).await.unwrap();
    assert!(world.try_lease(&session).await.is_none(), "one is left");
    finish(&world, &passes).await.unwrap();
    assert_eq!(world.lease(&session).await.lease.task.subject, suspect);
}

fn no_memory() -> FailedAttempt {
    FailedAttempt { cause: FailureCause::DeviceMemory, reason: String::new(), message: "none left".into(), damaged: Vec::new() }
}

fn took(peak_device_bytes: i64, is_shared: bool) -> Usage {
    Usage { device: "cuda:0".into(), peak_device_bytes, is_shared, ..Usage::default() }
}

/// What the task asks for after it found no memory on a device of 100, having taken so much; and that it may be given at once.
async fn need_after(world: &World, usage: Usage) -> i64 {
    let session = world.session().await;
    let held = given_one(world, &session, DEVICE).await.unwrap().lease;
    world.engine.fail(&held, no_memory(), usage).await.unwrap();
    world.execute("UPDATE tasks SET not_before_ms = created_ms WHERE state = 'READY'").await;
    world.engine.close_session(&session, SessionEnd::InOrder).await.unwrap();
    world.number("SELECT device_bytes FROM tasks WHERE state = 'READY'").await
}

pub(crate) async fn a_task_without_memory_asks_for_more_than_it_took_and_runs_alone(world: World) {
    models(&world, &[("net", 40), ("small", 10)]).await;
    let job = world.job("acme", "net").await;
    assert_eq!(need_after(&world, took(80, false)).await, 100, "a quarter more than it took");
    let session = world.session().await;
    world.job("acme", "small").await;
    let alone = given_one(&world, &session, 200).await.unwrap().lease;
    assert_eq!(alone.task.subject, job);
    assert!(given_one(&world, &session, 200).await.is_none(), "nothing beside it");
    world.engine.fail(&alone, no_memory(), took(200, false)).await.unwrap();
    let failure = world.get(&job).await.failure.unwrap();
    assert_eq!((failure.reason.as_str(), failure.attempts), ("DEVICE_MEMORY", 2));
    assert_eq!(world.get(&job).await.cost.unwrap().peak_device_bytes, 200);
}

pub(crate) async fn what_others_took_beside_it_does_not_make_a_task_larger(world: World) {
    models(&world, &[("net", 40)]).await;
    world.job("acme", "net").await;
    assert_eq!(need_after(&world, took(90, true)).await, 50, "a quarter more than it asked for");
}

pub(crate) async fn what_the_largest_device_holds_is_tried_there(world: World) {
    models(&world, &[("net", 40)]).await;
    let job = world.job("acme", "net").await;
    let large = world.session().await;
    world.engine.cordon(&large, true).await.unwrap();
    world.execute(&format!("UPDATE sessions SET device_bytes = 110 WHERE id = '{large}'")).await;
    assert_eq!(need_after(&world, took(100, false)).await, 105, "between what it took and what there is");
    world.engine.cordon(&large, false).await.unwrap();
    let held = given_one(&world, &large, 110).await.unwrap().lease;
    finish(&world, &held).await.unwrap();
    assert_eq!(world.get(&job).await.state(), State::Succeeded);
    let notes = world.events(&job).await;
    let told =
        notes.iter().filter(|event| matches!(&event.detail, Some(v1::job_event::Detail::Note(note)) if note.outcome == "DEVICE_MEMORY"));
    assert_eq!(told.count(), 1, "the job is told why");
}
