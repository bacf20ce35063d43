//! What leases promise: order of a graph, epochs, silence, deaths, failures, restarts.

use std::time::Duration;

use zkinfer_proto::v1;
use zkinfer_proto::v1::job::State;
use zkinfer_server::engine::{Crash, EngineError, FailedAttempt, FailureCause, NewSession, SessionEnd, Usage, Work};

use crate::world::{LEASE, World, diamond, finish, proved, step_result, whole};

fn failed(cause: FailureCause) -> FailedAttempt {
    FailedAttempt { cause, reason: String::new(), message: "the device has gone".into(), damaged: Vec::new() }
}

pub(crate) async fn a_task_waits_for_all_it_needs_and_is_given_their_results(world: World) {
    world.ready_model("acme", "net", diamond()).await;
    let job = world.job("acme", "net").await;
    let session = world.session().await;
    let first = world.lease(&session).await;
    assert_eq!(first.lease.task.name, "first");
    assert!(world.try_lease(&session).await.is_none());
    finish(&world, &first.lease).await.unwrap();
    let (a, b) = (world.lease(&session).await, world.lease(&session).await);
    assert_eq!([a.lease.task.name.as_str(), b.lease.task.name.as_str()], ["right", "left"], "the longer way goes first");
    finish(&world, &a.lease).await.unwrap();
    assert!(world.try_lease(&session).await.is_none(), "the last needs both");
    let progress = world.get(&job).await.progress.unwrap();
    assert_eq!(
        progress.stages.iter().map(|stage| (stage.name.as_str(), stage.done)).collect::<Vec<_>>(),
        [("first", 1), ("left", 0), ("right", 1), ("last", 0)]
    );
    finish(&world, &b.lease).await.unwrap();
    let last = world.lease(&session).await;
    let Work::Step { results, .. } = &last.work else { panic!("a step") };
    let expected = ["left", "right"].map(|name| (name.to_owned(), *blake3::hash(name.as_bytes()).as_bytes()));
    assert_eq!(results.as_slice(), expected);
    finish(&world, &last.lease).await.unwrap();
    let job_now = world.get(&job).await;
    assert_eq!(job_now.state(), State::Succeeded);
    let result = job_now.result.unwrap();
    assert_eq!(result.stage_times.iter().map(|time| time.name.as_str()).collect::<Vec<_>>(), ["first", "left", "right", "last"]);
    world.events(&job).await;
}

pub(crate) async fn the_tasks_of_a_job_are_told_with_what_they_need(world: World) {
    const WIDTH: u32 = 500;
    let node = |name: String, needs: Vec<u32>| v1::TaskNode { step: name.clone(), name, needs, estimated_ms: 1, ..Default::default() };
    let mut nodes = vec![node("first".into(), Vec::new())];
    nodes.extend((1..=WIDTH).map(|number| node(format!("middle-{number}"), vec![0])));
    nodes.push(node("last".into(), (1..=WIDTH).rev().collect()));
    let graph = v1::TaskGraph { nodes };
    world.ready_model("acme", "net", graph.clone()).await;
    let job = world.job("acme", "net").await;
    let tasks = world.engine.tasks(&job).await.unwrap();
    assert_eq!(tasks.len(), graph.nodes.len());
    for (task, node) in tasks.iter().zip(&graph.nodes) {
        let mut needs = node.needs.clone();
        needs.sort_unstable();
        let names: Vec<&str> = needs.iter().map(|&needs| graph.nodes[needs as usize].name.as_str()).collect();
        assert_eq!((&task.name, &task.needs.iter().map(String::as_str).collect::<Vec<_>>()), (&node.name, &names));
    }
}

pub(crate) async fn an_older_epoch_changes_nothing(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let job = world.job("acme", "net").await;
    let session = world.session().await;
    let old = world.lease(&session).await.lease;
    world.engine.release(&old, Usage::default()).await.unwrap();
    let new = world.lease(&session).await.lease;
    assert!(new.epoch > old.epoch);
    let engine = &world.engine;
    let before = world.get(&job).await;
    assert!(matches!(engine.progress(&old, v1::Progress::default()).await, Err(EngineError::Fenced)));
    assert!(matches!(engine.complete(&old, proved("acme", "stale"), Usage::default()).await, Err(EngineError::Fenced)));
    assert!(matches!(engine.fail(&old, failed(FailureCause::Internal), Usage::default()).await, Err(EngineError::Fenced)));
    assert!(matches!(engine.release(&old, Usage::default()).await, Err(EngineError::Fenced)));
    assert_eq!(engine.renew(&session, vec![old.clone(), new.clone()]).await.unwrap().lost, [old]);
    assert_eq!(world.get(&job).await, before);
    finish(&world, &new).await.unwrap();
}

pub(crate) async fn a_silent_worker_loses_its_task_and_what_it_sends_later_is_refused(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let job = world.job("acme", "net").await;
    let (silent, other) = (world.session().await, world.session().await);
    let lost = world.lease(&silent).await.lease;
    assert_eq!(world.keep_reaping(LEASE * 3 / 4).await, Default::default(), "its lease has not ended");
    world.engine.renew(&silent, vec![lost.clone()]).await.unwrap();
    assert_eq!(world.keep_reaping(LEASE / 2).await, Default::default(), "it was renewed");
    assert_eq!(world.keep_reaping(LEASE).await.requeued, std::slice::from_ref(&job));
    assert_eq!(world.get(&job).await.state(), State::Queued);
    let again = world.lease(&other).await;
    assert_eq!(again.attempt, 2);
    assert!(matches!(finish(&world, &lost).await, Err(EngineError::Fenced)));
    finish(&world, &again.lease).await.unwrap();
    assert_eq!(world.get(&job).await.state(), State::Succeeded);
    world.events(&job).await;
}

pub(crate) async fn a_task_that_workers_die_of_is_poisoned(world: World) {
    world.ready_model("acme", "net", diamond()).await;
    let (job, healthy) = (world.job("acme", "net").await, world.job("acme", "net").await);
    for n in 1..=2 {
        let session = world.session().await;
        assert_eq!(world.lease(&session).await.lease.task.subject, job);
        let crash = Crash { last_words: format!("death {n}\n"), ..Crash::default() };
        let reaped = world.engine.close_session(&session, SessionEnd::Crashed(crash)).await.unwrap();
        assert_eq!(reaped.ended.len(), usize::from(n == 2));
    }
    let attempts = world.engine.tasks(&job).await.unwrap()[0].attempts.clone();
    let last_words: Vec<&str> = attempts.iter().map(|attempt| attempt.last_words.as_str()).collect();
    assert_eq!(last_words, ["death 1\n", "death 2\n"]);
    let ended = world.get(&job).await;
    assert_eq!(ended.state(), State::Failed);
    let failure = ended.failure.unwrap();
    assert_eq!((failure.reason.as_str(), failure.stage.as_str()), ("POISONED", "first"));
    assert_eq!(ended.notes.iter().map(|note| note.outcome.as_str()).collect::<Vec<_>>(), ["LOST"]);
    let session = world.session().await;
    assert_eq!(world.lease(&session).await.lease.task.subject, healthy, "others go on");
    world.events(&job).await;
}

pub(crate) async fn a_failed_task_is_tried_again_later_until_its_budget_ends(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let job = world.job("acme", "net").await;
    let session = world.session().await;
    for attempt in 1..=2 {
        let leased = world.lease(&session).await;
        assert_eq!(leased.attempt, attempt);
        world.engine.fail(&leased.lease, failed(FailureCause::DeviceMemory), Usage::default()).await.unwrap();
        if attempt < 2 {
            assert_eq!(world.get(&job).await.state(), State::Queued);
            tokio::time::sleep(Duration::from_millis(600 * u64::from(attempt))).await;
        }
    }
    let ended = world.get(&job).await;
    let failure = ended.failure.unwrap();
    assert_eq!((failure.reason.as_str(), failure.attempts, failure.retryable), ("DEVICE_MEMORY", 2, true));
    let attempts = world.engine.tasks(&job).await.unwrap().remove(0).attempts;
    assert_eq!(attempts.iter().map(|attempt| attempt.outcome.as_str()).collect::<Vec<_>>(), ["DEVICE_MEMORY"; 2]);
}

pub(crate) async fn what_the_process_left_is_taken_up_at_its_next_start(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let (mine, others) = (world.job("acme", "net").await, world.job("acme", "net").await);
    let (local, remote) = (world.local_session().await, world.session().await);
    assert_eq!(world.lease(&local).await.lease.task.subject, mine);
    let remote_lease = world.lease(&remote).await.lease;
    let world = world.restart().await;
    assert_eq!(world.engine.recover().await.unwrap().requeued, std::slice::from_ref(&mine));
    assert_eq!(world.get(&mine).await.state(), State::Queued);
    assert_eq!(world.get(&others).await.state(), State::Running, "a worker elsewhere is not disturbed");
    finish(&world, &remote_lease).await.unwrap();
    assert!(matches!(world.engine.renew(&local, Vec::new()).await, Err(EngineError::NoSession)));
}

pub(crate) async fn a_released_task_costs_no_attempt(world: World) {
    world.ready_model("acme", "net", whole()).await;
    world.job("acme", "net").await;
    let session = world.session().await;
    for _ in 0..3 {
        let leased = world.lease(&session).await;
        assert_eq!(leased.attempt, 1);
        world.engine.release(&leased.lease, Usage::default()).await.unwrap();
    }
}

pub(crate) async fn a_failed_step_ends_the_job_and_fences_the_others(world: World) {
    world.ready_model("acme", "net", diamond()).await;
    let job = world.job("acme", "net").await;
    let session = world.session().await;
    let first = world.lease(&session).await;
    finish(&world, &first.lease).await.unwrap();
    let (a, b) = (world.lease(&session).await.lease, world.lease(&session).await.lease);
    world.engine.fail(&a, failed(FailureCause::Internal), Usage::default()).await.unwrap();
    let ended = world.get(&job).await;
    assert_eq!(ended.state(), State::Failed);
    assert!(!ended.failure.unwrap().message.contains("device"), "what went wrong inside is for the log only");
    assert_eq!(world.engine.renew(&session, vec![b.clone()]).await.unwrap().lost, std::slice::from_ref(&b));
    assert!(matches!(world.engine.complete(&b, step_result("acme", "late"), Usage::default()).await, Err(EngineError::Fenced)));
    let states = world.states(&job).await;
    assert_eq!(states["last"], "CANCELLED");
    assert_eq!(states.values().filter(|state| *state == "FAILED").count(), 1);
}

pub(crate) async fn sessions_are_listed_cordoned_and_closed(world: World) {
    world.ready_model("acme", "net", whole()).await;
    world.job("acme", "net").await;
    let new = NewSession { worker: "pod-7".into(), is_local: false, devices: vec!["L4 0".into(), "L4 1".into()] };
    let session = world.engine.open_session(new).await.unwrap();
    assert!(world.engine.cordon(&session, true).await.unwrap());
    assert!(world.try_lease(&session).await.is_none());
    assert!(world.engine.cordon(&session, false).await.unwrap());
    let lease = world.lease(&session).await.lease;
    let facts = world.engine.sessions().await.unwrap();
    let own = facts.iter().find(|facts| facts.id == session).unwrap();
    assert_eq!((own.worker.as_str(), own.devices.len(), own.running, own.is_cordoned), ("pod-7", 2, 1, false));
    world.engine.close_session(&session, SessionEnd::InOrder).await.unwrap();
    assert!(matches!(finish(&world, &lease).await, Err(EngineError::Fenced)));
    assert!(matches!(world.engine.lease(&session, crate::world::offer()).await, Err(EngineError::NoSession)));
    assert!(!world.engine.cordon(&session, true).await.unwrap());
}

pub(crate) async fn a_fallback_is_told_with_its_reason(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let job = world.job("acme", "net").await;
    let session = world.session().await;
    let lease = world.lease(&session).await.lease;
    let usage = Usage { device: "cpu".into(), fallback: "the device failed: Xid 79".into(), ..Usage::default() };
    world.engine.complete(&lease, proved("acme", "proof"), usage).await.unwrap();
    let notes = world.get(&job).await.notes;
    assert_eq!(notes.len(), 1);
    assert_eq!(
        (notes[0].task.as_str(), notes[0].outcome.as_str(), notes[0].message.as_str()),
        ("prove", "FALLBACK", "the device failed: Xid 79")
    );
    let events = world.events(&job).await;
    assert!(events.iter().any(|event| matches!(&event.detail, Some(v1::job_event::Detail::Note(note)) if note.outcome == "FALLBACK")));
}
