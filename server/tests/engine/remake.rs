//! Results that are missing or damaged: who reads one says so, and it is made again.

use std::collections::BTreeSet;
use std::time::Duration;

use zkinfer_proto::v1;
use zkinfer_proto::v1::job::State;
use zkinfer_proto::v1::job_event::Detail;
use zkinfer_server::artifacts::Class;
use zkinfer_server::engine::{Digest, EngineError, FailedAttempt, FailureCause, Lease, Leased, Subject, Usage, Work, graph};

use crate::world::{World, artifact, diamond, finish, step_result};

/// Fails an attempt that could not read what these tasks gave.
async fn cannot_read(world: &World, lease: &Lease, makers: &[&str]) {
    fail_with(world, lease, FailureCause::Storage, makers).await.unwrap();
}

async fn fail_with(world: &World, lease: &Lease, cause: FailureCause, makers: &[&str]) -> Result<(), EngineError> {
    let damaged = makers.iter().map(|&name| name.to_owned()).collect();
    let failed = FailedAttempt { cause, reason: String::new(), message: "stored bytes".into(), damaged };
    world.engine.fail(lease, failed, Usage::default()).await
}

/// Whatever waits for a time may be given at once.
async fn skip_backoff(world: &World) {
    world.execute("UPDATE tasks SET not_before_ms = 0").await;
}

/// Leases the task of this name, which is the only one that is ready or the next of its job.
async fn lease(world: &World, session: &str, name: &str) -> Leased {
    skip_backoff(world).await;
    let leased = world.lease(session).await;
    assert_eq!(leased.lease.task.name, name);
    leased
}

async fn do_next(world: &World, session: &str, names: &[&str]) {
    for name in names {
        finish(world, &lease(world, session, name).await.lease).await.unwrap();
    }
}

/// The states of the tasks, in the order of the graph.
async fn states(world: &World, job: &Subject) -> String {
    let states: Vec<String> = world.engine.tasks(job).await.unwrap().into_iter().map(|task| task.state).collect();
    states.join(" ")
}

/// How the attempts at a task ended.
async fn outcomes(world: &World, job: &Subject, name: &str) -> Vec<String> {
    let tasks = world.engine.tasks(job).await.unwrap();
    tasks.into_iter().find(|task| task.name == name).unwrap().attempts.into_iter().map(|attempt| attempt.outcome).collect()
}

async fn is_idle(world: &World, session: &str) -> bool {
    skip_backoff(world).await;
    world.try_lease(session).await.is_none()
}

fn result_of(leased: &Leased, maker: &str) -> Digest {
    let Work::Step { results, .. } = &leased.work else { panic!("a step") };
    results.iter().find(|(name, _)| name == maker).unwrap().1
}

async fn a_job(world: &World) -> (Subject, String) {
    world.ready_model("acme", "net", diamond()).await;
    (world.job("acme", "net").await, world.session().await)
}

pub(crate) async fn a_damaged_result_is_made_again_and_only_who_still_needs_it_waits(world: World) {
    let (job, session) = a_job(&world).await;
    do_next(&world, &session, &["first"]).await;
    // Of its readers one is done; the other finds it damaged.
    let right = lease(&world, &session, "right").await.lease;
    do_next(&world, &session, &["left"]).await;
    let before = world.get(&job).await.progress.unwrap().fraction;
    cannot_read(&world, &right, &["first"]).await;
    assert_eq!(states(&world, &job).await, "READY DONE WAITING WAITING");
    assert!(matches!(finish(&world, &right).await, Err(EngineError::Fenced)));

    let progress = world.get(&job).await.progress.unwrap();
    assert!(progress.fraction < before, "{progress:?}");
    let done: Vec<u32> = progress.stages.iter().map(|stage| stage.done).collect();
    assert_eq!((done, progress.phase.as_str()), (vec![0, 1, 0, 0], "first"));
    let events = world.events(&job).await;
    let note = |event: &v1::JobEvent| match &event.detail {
        Some(Detail::Note(note)) => Some((note.task.clone(), note.attempt, note.outcome.clone())),
        _ => None,
    };
    let notes: Vec<_> = events.iter().filter_map(note).collect();
    let notes: Vec<_> = notes.iter().map(|(task, attempt, outcome)| (task.as_str(), *attempt, outcome.as_str())).collect();
    assert_eq!(notes, [("right", 1, "STORAGE"), ("first", 1, "DAMAGED")]);
    assert_eq!(events.last().unwrap().progress, Some(progress));

    let first = lease(&world, &session, "first").await;
    assert_eq!((first.attempt, first.lease.epoch), (2, 3), "taken back, and given out");
    assert!(is_idle(&world, &session).await);
    finish(&world, &first.lease).await.unwrap();
    assert_eq!(states(&world, &job).await, "DONE DONE READY WAITING");
    do_next(&world, &session, &["right", "last"]).await;
    assert_eq!(states(&world, &job).await, "DONE DONE DONE DONE");
    assert_eq!(outcomes(&world, &job, "first").await, ["DAMAGED", "DONE"]);
    assert_eq!(outcomes(&world, &job, "right").await, ["STORAGE", "DONE"]);
    let ended = world.get(&job).await;
    assert_eq!((ended.state(), ended.progress.unwrap().fraction), (State::Succeeded, 1.0));
    world.events(&job).await;
}

pub(crate) async fn readers_that_run_find_out_by_themselves_and_take_nothing_back_twice(world: World) {
    world.ready_model("acme", "net", diamond()).await;
    // What becomes of the reader that runs, before or after the task is done again.
    for (how, is_late) in [("done", false), ("damaged", false), ("damaged", true), ("released", false), ("released", true), ("lost", false)]
    {
        let (job, session) = (world.job("acme", "net").await, world.session().await);
        do_next(&world, &session, &["first"]).await;
        let right = lease(&world, &session, "right").await.lease;
        let left = lease(&world, &session, "left").await.lease;
        cannot_read(&world, &right, &["first"]).await;
        assert_eq!(states(&world, &job).await, "READY RUNNING WAITING WAITING");
        let other = world.session().await;
        if is_late {
            do_next(&world, &other, &["first"]).await;
        }
        match how {
            "done" => finish(&world, &left).await.unwrap(),
            "damaged" => cannot_read(&world, &left, &["first"]).await,
            "released" => world.engine.release(&left, Usage::default()).await.unwrap(),
            _ => drop(world.reap_ended_leases().await),
        }
        let expected = match (how, is_late) {
            ("done", _) => "READY DONE WAITING WAITING",
            (_, false) => "READY WAITING WAITING WAITING",
            (_, true) => "DONE READY READY WAITING",
        };
        assert_eq!(states(&world, &job).await, expected, "{how} {is_late}");
        if !is_late {
            do_next(&world, &other, &["first"]).await;
        }
        let rest = if how == "done" { vec!["right", "last"] } else { vec!["right", "left", "last"] };
        do_next(&world, &other, &rest).await;
        assert_eq!(world.get(&job).await.state(), State::Succeeded, "{how} {is_late}");
        assert_eq!(outcomes(&world, &job, "first").await, ["DAMAGED", "DONE"], "{how} {is_late}");
        world.events(&job).await;
        world.execute("DELETE FROM sessions").await;
    }
}

pub(crate) async fn who_was_not_heard_is_heard_when_it_is_given_out_anew(world: World) {
    let (job, session) = a_job(&world).await;
    do_next(&world, &session, &["first"]).await;
    let right = lease(&world, &session, "right").await.lease;
    let left = lease(&world, &session, "left").await.lease;
    cannot_read(&world, &right, &["first"]).await;
    do_next(&world, &session, &["first"]).await;
    cannot_read(&world, &left, &["first"]).await;
    assert_eq!(states(&world, &job).await, "DONE READY READY WAITING", "it read what was there before");
    do_next(&world, &session, &["right"]).await;
    let left = lease(&world, &session, "left").await.lease;
    cannot_read(&world, &left, &["first"]).await;
    assert_eq!(states(&world, &job).await, "READY WAITING DONE WAITING");
    do_next(&world, &session, &["first", "left", "last"]).await;
    assert_eq!(world.get(&job).await.state(), State::Succeeded);
}

pub(crate) async fn several_are_made_again_and_what_they_read_is_found_out_by_them(world: World) {
    let (job, session) = a_job(&world).await;
    do_next(&world, &session, &["first", "right", "left"]).await;
    let last = lease(&world, &session, "last").await.lease;
    cannot_read(&world, &last, &["left", "right"]).await;
    assert_eq!(states(&world, &job).await, "DONE READY READY WAITING");
    let right = lease(&world, &session, "right").await.lease;
    cannot_read(&world, &right, &["first"]).await;
    assert_eq!(states(&world, &job).await, "READY WAITING WAITING WAITING");
    do_next(&world, &session, &["first", "right", "left", "last"]).await;
    assert_eq!(world.get(&job).await.state(), State::Succeeded);
    world.events(&job).await;
}

pub(crate) async fn a_task_that_is_to_be_made_again_waits_for_what_is_made_again(world: World) {
    let node = |name: &str, needs: &[u32], estimated_ms| v1::TaskNode {
        name: name.into(),
        step: name.into(),
        needs: needs.to_vec(),
        estimated_ms,
        ..Default::default()
    };
    let nodes = vec![node("a", &[], 1), node("b", &[0], 9), node("c", &[1], 9), node("d", &[0], 1), node("last", &[2, 3], 1)];
    let mut chain = v1::TaskGraph { nodes };
    graph::set_ranks(&mut chain).unwrap();
    world.ready_model("acme", "net", chain).await;
    let (job, session) = (world.job("acme", "net").await, world.session().await);
    do_next(&world, &session, &["a", "b"]).await;
    let c = lease(&world, &session, "c").await.lease;
    let d = lease(&world, &session, "d").await.lease;
    cannot_read(&world, &d, &["a"]).await;
    cannot_read(&world, &c, &["b"]).await;
    assert_eq!(states(&world, &job).await, "READY WAITING WAITING WAITING WAITING");
    do_next(&world, &session, &["a", "b", "c", "d", "last"]).await;
    assert_eq!(world.get(&job).await.state(), State::Succeeded);
    world.events(&job).await;
}

pub(crate) async fn what_is_needed_through_others_is_made_again_with_them(world: World) {
    let (job, session) = a_job(&world).await;
    do_next(&world, &session, &["first", "right", "left"]).await;
    let last = lease(&world, &session, "last").await.lease;
    cannot_read(&world, &last, &["right", "first"]).await;
    assert_eq!(states(&world, &job).await, "READY DONE WAITING WAITING");
    do_next(&world, &session, &["first", "right"]).await;
    finish(&world, &lease(&world, &session, "last").await.lease).await.unwrap();
    assert_eq!(world.get(&job).await.state(), State::Succeeded);
    world.events(&job).await;
}

pub(crate) async fn lies_and_stale_words_take_nothing_back(world: World) {
    let (job, session) = a_job(&world).await;
    let first = lease(&world, &session, "first").await.lease;
    finish(&world, &first).await.unwrap();
    let right = lease(&world, &session, "right").await.lease;
    do_next(&world, &session, &["left"]).await;
    let unchanged = "DONE DONE READY WAITING";
    // What it does not read, what reads it, itself, what is not there.
    cannot_read(&world, &right, &["left", "last", "right", "nothing", ""]).await;
    assert_eq!(states(&world, &job).await, unchanged);
    // An older epoch.
    let late = fail_with(&world, &right, FailureCause::Storage, &["first"]).await;
    assert!(matches!(late, Err(EngineError::Fenced)), "{late:?}");
    // What failed otherwise.
    let right = lease(&world, &session, "right").await.lease;
    fail_with(&world, &right, FailureCause::DeviceLost, &["first"]).await.unwrap();
    assert_eq!(states(&world, &job).await, unchanged);
    assert_eq!(outcomes(&world, &job, "first").await, ["DONE"]);
    // A job that was told to stop ends.
    let right = lease(&world, &session, "right").await.lease;
    world.engine.cancel_job("acme", &job.id, "").await.unwrap();
    cannot_read(&world, &right, &["first"]).await;
    assert_eq!(states(&world, &job).await, "DONE DONE CANCELLED CANCELLED");
    assert_eq!(world.get(&job).await.state(), State::Cancelled);
    world.events(&job).await;
}

pub(crate) async fn a_result_that_is_damaged_again_and_again_ends_the_job(world: World) {
    let (job, session) = a_job(&world).await;
    let mut attempts = 0;
    while world.get(&job).await.state() != State::Failed {
        do_next(&world, &session, &["first"]).await;
        let right = lease(&world, &session, "right").await;
        attempts += 1;
        assert_eq!(right.attempt, attempts);
        cannot_read(&world, &right.lease, &["first"]).await;
    }
    let failure = world.get(&job).await.failure.unwrap();
    assert_eq!((failure.reason.as_str(), failure.stage.as_str(), failure.retryable), ("STORAGE", "right", true));
    assert!((2..=8).contains(&attempts), "{attempts}");
    assert_eq!(failure.attempts, attempts);
    assert_eq!(states(&world, &job).await, "DONE CANCELLED FAILED CANCELLED", "the last failure takes nothing back");
    world.events(&job).await;
}

pub(crate) async fn readers_are_given_the_new_result_and_the_job_gives_both_back_at_its_end(world: World) {
    let (job, session) = a_job(&world).await;
    let old = artifact("acme", Class::Internal, b"old");
    let new = artifact("acme", Class::Internal, b"new");
    for (content, expected) in [("old", old.digest), ("new", new.digest), ("new", new.digest)] {
        let first = lease(&world, &session, "first").await.lease;
        world.engine.complete(&first, step_result("acme", content), Usage::default()).await.unwrap();
        let right = lease(&world, &session, "right").await;
        assert_eq!(result_of(&right, "first"), expected);
        cannot_read(&world, &right.lease, &["first"]).await;
    }
    let doomed = || async {
        let doomed = world.engine.doom(Duration::ZERO, Duration::from_secs(600), 100).await.unwrap();
        doomed.artifacts.into_iter().map(|artifact| artifact.digest).collect::<BTreeSet<_>>()
    };
    assert!(doomed().await.is_empty(), "somebody may be reading them");
    let first = lease(&world, &session, "first").await.lease;
    world.engine.complete(&first, step_result("acme", "new"), Usage::default()).await.unwrap();
    do_next(&world, &session, &["right", "left", "last"]).await;
    assert_eq!(world.get(&job).await.state(), State::Succeeded);
    let others = ["left", "right"].map(|name| artifact("acme", Class::Internal, name.as_bytes()).digest);
    assert_eq!(doomed().await, BTreeSet::from([old.digest, new.digest, others[0], others[1]]));
}
