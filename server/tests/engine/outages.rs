//! The database or all servers are away, and come back.

use zkinfer_proto::v1::job::State;

use crate::world::{World, finish, whole};

/// Nobody renewed a lease or looked for silent workers for a long time.
async fn be_away(world: &World) {
    for change in [
        "UPDATE reaping SET reaped_ms = 1, grace_until_ms = 1",
        "UPDATE tasks SET lease_until_ms = 2 WHERE state = 'RUNNING'",
        "UPDATE sessions SET opened_ms = 1, seen_ms = 2",
    ] {
        world.execute(change).await;
    }
}

pub(crate) async fn a_worker_that_outlives_an_outage_keeps_its_task(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let job = world.job("acme", "net").await;
    let session = world.session().await;
    let lease = world.lease(&session).await.lease;
    for _ in 0..3 {
        be_away(&world).await;
        for _ in 0..2 {
            assert_eq!(world.engine.reap().await.unwrap(), Default::default(), "it has a lease to come back");
        }
        assert!(world.engine.renew(&session, vec![lease.clone()]).await.unwrap().lost.is_empty(), "its session is not forgotten either");
    }
    finish(&world, &lease).await.unwrap();
    assert!(world.get(&job).await.notes.is_empty());
}

pub(crate) async fn who_is_not_heard_of_after_an_outage_did_not_die_of_its_task(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let job = world.job("acme", "net").await;
    for _ in 0..3 {
        let session = world.session().await;
        world.lease(&session).await;
        be_away(&world).await;
        assert_eq!(world.engine.reap().await.unwrap(), Default::default());
        world.execute("UPDATE tasks SET lease_until_ms = lease_until_ms - 60000 WHERE state = 'RUNNING'").await;
        assert_eq!(world.engine.reap().await.unwrap().requeued, std::slice::from_ref(&job), "its lease has ended again");
    }
    assert_eq!(world.get(&job).await.state(), State::Queued, "that is no POISONED one");
}

pub(crate) async fn the_end_of_a_server_is_no_death_of_what_its_workers_held(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let job = world.job("acme", "net").await;
    for _ in 0..3 {
        let session = world.local_session().await;
        world.lease(&session).await;
        assert_eq!(world.reap_ended_leases().await.requeued, std::slice::from_ref(&job));
    }
    for _ in 0..3 {
        let session = world.local_session().await;
        world.lease(&session).await;
        assert_eq!(world.engine.recover().await.unwrap().requeued, std::slice::from_ref(&job));
    }
    assert_eq!(world.get(&job).await.state(), State::Queued);
}

pub(crate) async fn a_silent_worker_is_a_death_and_one_that_still_gives_signs_is_not(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let job = world.job("acme", "net").await;
    let alive = world.session().await;
    for _ in 0..3 {
        world.lease(&alive).await;
        // It never heard of the task, and so does not name it.
        world.engine.renew(&alive, Vec::new()).await.unwrap();
        world.execute("UPDATE sessions SET opened_ms = opened_ms - 1000").await;
        assert_eq!(world.reap_ended_leases().await.requeued, std::slice::from_ref(&job));
    }
    for n in 1..=2 {
        let silent = world.session().await;
        world.lease(&silent).await;
        let reaped = world.reap_ended_leases().await;
        assert_eq!((reaped.requeued.len(), reaped.ended.len()), if n < 2 { (1, 0) } else { (0, 1) });
    }
    assert_eq!(world.get(&job).await.failure.unwrap().reason, "POISONED");
}
