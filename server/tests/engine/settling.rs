//! What is settled wrongly, or cannot be settled, and what stays as it is.

use zkinfer_proto::v1;
use zkinfer_proto::v1::job::State;
use zkinfer_server::engine::{Crash, EngineError, Leased, NewSession, Offer, Outcome, SessionEnd, Subject, Usage, now_ms, timestamp};

use crate::proofs::two_at_first;
use crate::world::{World, diamond, finish, new_model, offer, proved, registered, step_result, whole};

async fn refused(world: &World, leased: &Leased, outcomes: [Outcome; 2]) {
    let subject = &leased.lease.task.subject;
    let n_events = world.engine.events(subject, 1, 100).await.unwrap().len();
    for outcome in outcomes {
        let name = outcome.name();
        let settled = world.engine.complete(&leased.lease, outcome, Usage::default()).await;
        let Err(EngineError::OtherOutcome { task, got, .. }) = settled else { panic!("{settled:?}") };
        assert_eq!((task, got), (leased.lease.task.name.clone(), name));
    }
    assert_eq!(world.engine.events(subject, 1, 100).await.unwrap().len(), n_events);
    assert_eq!(world.states(subject).await[&leased.lease.task.name], "RUNNING");
}

pub(crate) async fn what_a_task_of_another_kind_gives_is_refused_and_changes_nothing(world: World) {
    let session = world.session().await;
    world.engine.create_model(new_model("acme", "new")).await.unwrap();
    let register = world.lease(&session).await;
    refused(&world, &register, [step_result("acme", "a"), proved("acme", "b")]).await;
    world.engine.complete(&register.lease, registered("acme", whole()), Usage::default()).await.unwrap();
    world.ready_model("acme", "net", diamond()).await;
    for model in ["new", "net"] {
        let job = world.job("acme", model).await;
        while let Some(leased) = world.try_lease(&session).await {
            let wrong = match leased.lease.task.name.as_str() {
                "prove" | "last" => step_result("acme", "a"),
                _ => proved("acme", "b"),
            };
            refused(&world, &leased, [wrong, registered("acme", whole())]).await;
            finish(&world, &leased.lease).await.unwrap();
        }
        assert_eq!(world.get(&job).await.state(), State::Succeeded);
    }
}

pub(crate) async fn a_job_that_has_its_result_keeps_it(world: World) {
    world.ready_model("acme", "net", diamond()).await;
    let job = world.job("acme", "net").await;
    let session = world.session().await;
    let mut given: Vec<Leased> = Vec::new();
    for _ in 0..4 {
        let leased = world.lease(&session).await;
        if leased.lease.task.name == "last" {
            // As a bug could leave it.
            world.execute("UPDATE tasks SET state = 'READY' WHERE name = 'left'").await;
        }
        finish(&world, &leased.lease).await.unwrap();
        given.push(leased);
    }
    assert_eq!(world.states(&job).await["left"], "CANCELLED", "nothing is left to be done");
    let left = &given.iter().find(|leased| leased.lease.task.name == "left").unwrap().lease;
    world.execute(&format!("UPDATE tasks SET state = 'RUNNING', session = '{session}', epoch = {} WHERE name = 'left'", left.epoch)).await;
    world.execute("UPDATE jobs SET stop_cause = 'CANCEL'").await;
    let before = world.get(&job).await;
    assert!(matches!(world.engine.release(left, Usage::default()).await, Err(EngineError::Fenced)));
    assert!(matches!(finish(&world, left).await, Err(EngineError::Fenced)));
    world.engine.close_session(&session, SessionEnd::Crashed(Crash::default())).await.unwrap();
    world.engine.cancel_job(&job.tenant, &job.id, "").await.unwrap();
    assert_eq!(world.get(&job).await, before);
    assert_eq!(before.state(), State::Succeeded);
}

/// SQLite stores it; PostgreSQL has no NUL in texts, which is no failure of the database.
pub(crate) async fn a_text_that_cannot_be_stored_is_the_callers_fault(world: World) {
    let opened = world.engine.open_session(NewSession { worker: "a\0b".into(), ..NewSession::default() }).await;
    assert!(matches!(opened, Ok(_) | Err(EngineError::Text(_))), "{opened:?}");
    let named = world.engine.job("acme", "a\0b").await;
    assert!(matches!(named, Ok(None) | Err(EngineError::Text(_))), "{named:?}");
}

/// Two running jobs with a passed deadline, the document of the first damaged.
async fn one_damaged(world: &World, sessions: [&str; 2]) -> [Subject; 2] {
    let late = |job: &mut v1::Job| job.deadline = Some(timestamp(now_ms() + 1));
    let jobs = [world.job_with("a", "net", late).await, world.job_with("b", "net", late).await];
    for session in sessions {
        world.lease(session).await;
    }
    world.execute(&format!("UPDATE jobs SET doc = seed WHERE id = '{}'", jobs[0].id)).await;
    jobs
}

pub(crate) async fn one_damaged_row_keeps_no_other_from_being_taken_up(world: World) {
    for tenant in ["a", "b"] {
        world.ready_model(tenant, "net", whole()).await;
    }
    let session = world.session().await;
    let jobs = one_damaged(&world, [&session, &session]).await;
    let reaped = world.reap_ended_leases().await;
    assert_eq!((reaped.requeued.as_slice(), reaped.failed), (&jobs[1..], 1));
    world.execute("DELETE FROM tasks").await;

    let jobs = one_damaged(&world, [&session, &session]).await;
    let reaped = world.engine.close_session(&session, SessionEnd::InOrder).await.unwrap();
    assert_eq!((reaped.requeued.as_slice(), reaped.failed), (&jobs[1..], 1));
    world.execute("DELETE FROM tasks").await;

    let local = world.local_session().await;
    let jobs = one_damaged(&world, [&local, &local]).await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    assert!(world.engine.expire().await.unwrap().stopping.contains(&jobs[1]), "nor from being told to stop");
    let reaped = world.engine.recover().await.unwrap();
    assert_eq!((reaped.ended.as_slice(), reaped.failed), (&jobs[1..], 1));
}

pub(crate) async fn one_damaged_row_keeps_no_other_from_workers(world: World) {
    for tenant in ["a", "b"] {
        world.ready_model(tenant, "net", whole()).await;
    }
    world.ready_model("c", "net", two_at_first()).await;
    let damaged = [world.job("a", "net").await, world.job("a", "net").await, world.job("c", "net").await];
    let well = world.job("b", "net").await;
    let session = world.session().await;
    // Its own document; its model's; what the step before gave.
    world.execute(&format!("UPDATE jobs SET doc = seed WHERE id = '{}'", damaged[0].id)).await;
    world.execute("UPDATE models SET private_digest = doc WHERE tenant = 'a'").await;
    world.execute(&format!("UPDATE tasks SET state = 'DONE', output = NULL WHERE subject = '{}' AND ordinal < 2", damaged[2].id)).await;
    world.execute(&format!("UPDATE tasks SET state = 'READY', waiting_on = 0 WHERE subject = '{}' AND ordinal = 2", damaged[2].id)).await;
    let given = world.engine.lease(&session, Offer { max_tasks: 4, ..offer() }).await.unwrap();
    assert_eq!(given.iter().map(|leased| &leased.lease.task.subject).collect::<Vec<_>>(), [&well]);
    for job in &damaged {
        let later = format!("SELECT count(*) FROM tasks WHERE subject = '{}' AND state = 'READY' AND not_before_ms > created_ms", job.id);
        assert_eq!(world.number(&later).await, 1, "it waits, and cost no attempt");
    }
}
