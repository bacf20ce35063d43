//! An embedded engine whose machine's clock is set while it is not running: no lease and no wait is decided by that.
//!
//! PostgreSQL has one clock for all, its own, and is not restarted with a server.

use std::time::Duration;

use zkinfer_server::artifacts::{ArtifactId, Class, QUARANTINE};

use crate::world::{LEASE, World, artifact, finish, whole};

/// A day, as a clock may be set by mistake.
const DAY_MS: i64 = 86_400_000;

async fn restarted(world: World, change: &str) -> World {
    world.execute(change).await;
    let world = world.restart().await;
    let reaped = world.engine.recover().await.unwrap();
    assert!(reaped.requeued.is_empty() && reaped.ended.is_empty(), "{reaped:?}");
    world
}

#[tokio::test]
async fn a_clock_set_forward_takes_no_task_from_a_living_worker() {
    let world = World::sqlite().await;
    world.ready_model("acme", "net", whole()).await;
    let job = world.job("acme", "net").await;
    let session = world.session().await;
    let leased = world.lease(&session).await;
    let world = restarted(
        world,
        &format!("UPDATE tasks SET lease_until_ms = lease_until_ms - {DAY_MS}; UPDATE sessions SET seen_ms = seen_ms - {DAY_MS}"),
    )
    .await;
    assert!(world.engine.reap().await.unwrap().requeued.is_empty());
    assert!(world.engine.renew(&session, vec![leased.lease.clone()]).await.unwrap().lost.is_empty());
    finish(&world, &leased.lease).await.unwrap();
    assert!(world.get(&job).await.result.is_some());
}

#[tokio::test]
async fn a_clock_set_back_leaves_no_task_with_a_dead_worker_and_none_waiting() {
    let world = World::sqlite().await;
    world.ready_model("acme", "net", whole()).await;
    world.job("acme", "net").await;
    let session = world.session().await;
    world.lease(&session).await;
    let waiting = world.job("acme", "net").await;
    let world = restarted(
        world,
        &format!("UPDATE tasks SET lease_until_ms = lease_until_ms + {DAY_MS}, not_before_ms = not_before_ms + created_ms + {DAY_MS}"),
    )
    .await;
    let other = world.session().await;
    assert_eq!(world.lease(&other).await.lease.task.subject, waiting);
    assert_eq!(world.keep_reaping(LEASE + LEASE / 4).await.requeued.len(), 2, "both are silent for longer than a lease");
}

#[tokio::test]
async fn a_clock_set_forward_makes_no_garbage_of_what_is_about_to_be_recorded() {
    let world = World::sqlite().await;
    let facts = artifact("acme", Class::Internal, b"put, and not recorded yet");
    let id = ArtifactId { class: facts.class, tenant: facts.tenant.clone(), digest: facts.digest };
    assert!(world.engine.hold(vec![id], Duration::from_secs(60)).await.unwrap());
    let world = restarted(world, &format!("UPDATE artifact_holds SET until_ms = until_ms - {DAY_MS}")).await;
    assert!(world.engine.doom(Duration::ZERO, QUARANTINE, 100).await.unwrap().artifacts.is_empty());
    world.engine.add_artifact(facts).await.unwrap();
}
