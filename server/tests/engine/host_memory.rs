//! Workers that end because their host has too little memory.

use zkinfer_proto::v1::job::State;
use zkinfer_server::engine::{Crash, Leased, Offer, SessionEnd, Subject};

use crate::memory::look;
use crate::world::{World, finish, offer, whole};

/// The smaller of two hosts, and the larger.
const SMALL: u64 = 100;
const LARGE: u64 = 200;

async fn given(world: &World, session: &str, host_bytes: u64) -> Option<Leased> {
    world.engine.lease(session, Offer { host_bytes, n_slots: 3, ..offer() }).await.unwrap().pop()
}

async fn starve(world: &World, session: &str, peak_host_bytes: u64) {
    let crash = Crash { last_words: "the end".into(), is_out_of_memory: true, peak_host_bytes };
    world.engine.close_session(session, SessionEnd::Crashed(crash)).await.unwrap();
    world.execute("UPDATE tasks SET not_before_ms = created_ms WHERE state = 'READY'").await;
}

async fn need(world: &World) -> i64 {
    world.number("SELECT max(host_bytes) FROM tasks WHERE state = 'READY'").await
}

/// A job of one task, and a live session on a large host.
async fn job_and_large_host(world: &World) -> (Subject, String) {
    world.ready_model("acme", "net", whole()).await;
    let large = world.session().await;
    assert!(given(world, &large, LARGE).await.is_none());
    (world.job("acme", "net").await, large)
}

pub(crate) async fn a_task_that_a_host_had_no_memory_for_is_done_where_there_is_more(world: World) {
    let (job, large) = job_and_large_host(&world).await;
    let small = world.session().await;
    given(&world, &small, SMALL).await.unwrap();
    starve(&world, &small, SMALL).await;
    assert_eq!(need(&world).await, 125, "a quarter more than it took");
    // The same worker, started again.
    let small = world.session().await;
    assert!(given(&world, &small, SMALL).await.is_none());
    let held = given(&world, &large, LARGE).await.unwrap();
    assert_eq!(held.lease.task.subject, job);
    world.job("acme", "net").await;
    assert!(given(&world, &large, LARGE).await.is_none(), "nothing beside it");
    finish(&world, &held.lease).await.unwrap();
    let ended = world.get(&job).await;
    assert_eq!(ended.state(), State::Succeeded);
    assert_eq!(ended.notes.iter().map(|note| note.outcome.as_str()).collect::<Vec<_>>(), ["HOST_MEMORY"]);
    let attempts = world.engine.tasks(&job).await.unwrap()[0].attempts.clone();
    let told: Vec<_> = attempts.iter().map(|attempt| (attempt.outcome.as_str(), attempt.last_words.as_str())).collect();
    assert_eq!(told, [("HOST_MEMORY", "the end"), ("DONE", "")]);
}

pub(crate) async fn the_second_time_the_job_fails_and_nothing_is_poisoned(world: World) {
    let (job, large) = job_and_large_host(&world).await;
    given(&world, &large, LARGE).await.unwrap();
    starve(&world, &large, LARGE).await;
    assert_eq!(need(&world).await, LARGE as i64, "no more than the largest host has");
    assert_eq!(world.number("SELECT max(deaths) FROM tasks").await, 0);
    let large = world.session().await;
    given(&world, &large, LARGE).await.unwrap();
    starve(&world, &large, LARGE).await;
    let failure = world.get(&job).await.failure.unwrap();
    assert_eq!((failure.reason.as_str(), failure.attempts, failure.retryable), ("HOST_MEMORY", 2, true));
}

pub(crate) async fn what_others_took_beside_it_is_not_a_tasks_own(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let jobs = [world.job("acme", "net").await, world.job("acme", "net").await];
    let session = world.session().await;
    for _ in &jobs {
        given(&world, &session, SMALL).await.unwrap();
    }
    starve(&world, &session, SMALL).await;
    assert_eq!(need(&world).await, 0, "each may be done by the same worker");
    let session = world.session().await;
    for _ in &jobs {
        let held = given(&world, &session, SMALL).await.unwrap();
        assert!(given(&world, &session, SMALL).await.is_none(), "but alone");
        finish(&world, &held.lease).await.unwrap();
    }
    for job in &jobs {
        assert_eq!(world.get(job).await.state(), State::Succeeded);
    }
}

pub(crate) async fn a_task_that_no_host_can_hold_any_more_is_told_of_and_fails_after_a_wait(world: World) {
    let (job, large) = job_and_large_host(&world).await;
    given(&world, &large, LARGE).await.unwrap();
    starve(&world, &large, LARGE).await;
    let small = world.session().await;
    assert!(given(&world, &small, SMALL).await.is_none());
    assert_eq!(look(&world, &[&small]).await, std::slice::from_ref(&job));
    let notes = world.get(&job).await.notes;
    assert_eq!(notes[1].outcome, "TOO_LARGE");
    assert!(notes[1].message.contains("needs 200 bytes") && notes[1].message.contains("has 100"), "{}", notes[1].message);
    world.execute("UPDATE tasks SET too_large_ms = 1 WHERE too_large_ms IS NOT NULL").await;
    assert_eq!(look(&world, &[&small]).await, std::slice::from_ref(&job));
    assert_eq!(world.get(&job).await.failure.unwrap().reason, "HOST_MEMORY");
}

pub(crate) async fn a_host_that_is_not_known_takes_any_task(world: World) {
    let (job, large) = job_and_large_host(&world).await;
    given(&world, &large, LARGE).await.unwrap();
    let unknown = world.session().await;
    assert!(given(&world, &unknown, u64::MAX).await.is_none());
    starve(&world, &large, LARGE).await;
    assert_eq!(need(&world).await, 250);
    assert!(look(&world, &[&unknown]).await.is_empty());
    let held = given(&world, &unknown, u64::MAX).await.unwrap();
    finish(&world, &held.lease).await.unwrap();
    assert_eq!(world.get(&job).await.state(), State::Succeeded);
}
