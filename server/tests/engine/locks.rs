//! In PostgreSQL many write at the same time: rows are locked in one order, so that no two wait for each other. SQLite has one writer.

use std::sync::Arc;
use std::time::Duration;

use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio_util::sync::CancellationToken;
use zkinfer_proto::v1::job::State;
use zkinfer_server::artifacts::{ArtifactBytes, ArtifactPlace, Collector, UploadRoom, Uploads};
use zkinfer_server::engine::{
    EngineError, EngineFuture, FailedAttempt, FailureCause, Lease, NewJob, NewWebhook, UploadFacts, Usage, now_ms, timestamp,
};
use zkinfer_server::scheduler::Scheduler;

use crate::clock::upload;
use crate::world::{World, diamond, finish, key, limits, new_job, whole};

/// Two running tasks of a session, in the order of their keys, and that session.
async fn two_held(world: &World) -> ([Lease; 2], String) {
    world.ready_model("acme", "net", whole()).await;
    let session = world.session().await;
    let mut held = Vec::new();
    for _ in 0..2 {
        world.job("acme", "net").await;
        held.push(world.lease(&session).await.lease);
    }
    held.sort_by(|a, b| a.task.subject.id.cmp(&b.task.subject.id));
    (held.try_into().unwrap(), session)
}

/// Waits until so many wait for locks. In a transaction the answer would stay what it was at first.
pub(crate) async fn until_they_wait(world: &World, n: i64) {
    let mut looker = PgConnection::connect(world.url().unwrap()).await.unwrap();
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let all_wait = async {
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut looker).await.unwrap() < n {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all_wait).await.expect("they wait for locks");
}

async fn lock(connection: &mut PgConnection, lease: &Lease, how: &str) -> Result<(), sqlx::Error> {
    let sql = format!("SELECT 1 FROM tasks WHERE subject = '{}' AND name = '{}' {how}", lease.task.subject.id, lease.task.name);
    connection.execute(sqlx::AssertSqlSafe(sql)).await.map(drop)
}

/// Runs `work`, which wants both tasks, while the first is locked: it must wait there, without the second.
async fn waits_at_the_first<T>(world: &World, held: &[Lease; 2], work: impl Future<Output = T>) -> T {
    let url = world.url().unwrap();
    let (mut holder, mut looker) = (PgConnection::connect(url).await.unwrap(), PgConnection::connect(url).await.unwrap());
    holder.execute("BEGIN").await.unwrap();
    lock(&mut holder, &held[0], "FOR UPDATE").await.unwrap();
    let look = async {
        until_they_wait(world, 1).await;
        let second = lock(&mut looker, &held[1], "FOR UPDATE NOWAIT").await;
        holder.execute("ROLLBACK").await.unwrap();
        second
    };
    let (done, second) = tokio::join!(work, look);
    second.expect("the second is not locked before the first");
    done
}

#[tokio::test]
async fn renewals_lock_tasks_in_the_order_of_their_keys() {
    let Some(world) = World::postgres("renewals_lock_tasks_in_the_order_of_their_keys").await else { return };
    let (held, session) = two_held(&world).await;
    let backwards = vec![held[1].clone(), held[0].clone()];
    let renewal = waits_at_the_first(&world, &held, world.engine.renew(&session, backwards)).await.unwrap();
    assert!(renewal.lost.is_empty());
}

#[tokio::test]
async fn leases_are_extended_in_the_order_of_their_keys() {
    let Some(world) = World::postgres("leases_are_extended_in_the_order_of_their_keys").await else { return };
    let (held, _) = two_held(&world).await;
    // The later key lies first in the table.
    world.execute(&format!("DELETE FROM attempts WHERE subject = '{}'", held[0].task.subject.id)).await;
    world.execute(&format!("UPDATE tasks SET priority = priority WHERE subject = '{}'", held[0].task.subject.id)).await;
    world.execute("UPDATE reaping SET reaped_ms = 1").await;
    assert_eq!(waits_at_the_first(&world, &held, world.engine.reap()).await.unwrap(), Default::default());
}

/// Two running steps of one job, `left` and `right`.
async fn two_steps(world: &World) -> [Lease; 2] {
    world.ready_model("acme", "net", diamond()).await;
    world.job("acme", "net").await;
    let session = world.session().await;
    let first = world.lease(&session).await.lease;
    finish(world, &first).await.unwrap();
    let mut held = vec![world.lease(&session).await.lease, world.lease(&session).await.lease];
    held.sort_by(|a, b| a.task.name.cmp(&b.task.name));
    held.try_into().unwrap()
}

#[tokio::test]
async fn who_ends_other_steps_too_locks_them_in_the_order_of_their_names() {
    let Some(world) = World::postgres("who_ends_other_steps_too_locks_them_in_the_order_of_their_names").await else { return };
    let held = two_steps(&world).await;
    let failed = FailedAttempt { cause: FailureCause::Internal, reason: String::new(), message: "by a test".into(), damaged: Vec::new() };
    // The job fails with the later one, which takes the earlier one away.
    waits_at_the_first(&world, &held, world.engine.fail(&held[1], failed, Usage::default())).await.unwrap();
    assert_eq!(world.get(&held[0].task.subject).await.state(), State::Failed);
}

#[tokio::test]
async fn what_cannot_be_forgotten_yet_keeps_no_deadline_waiting() {
    let Some(world) = World::postgres("what_cannot_be_forgotten_yet_keeps_no_deadline_waiting").await else { return };
    world.ready_model("acme", "net", whole()).await;
    world.engine.create_job(NewJob { key: key("old", 1), ..new_job("acme", "net") }).await.unwrap();
    world.execute("UPDATE idempotency SET created_ms = 0").await;
    let mut holder = PgConnection::connect(world.url().unwrap()).await.unwrap();
    holder.execute("BEGIN").await.unwrap();
    holder.execute("SELECT 1 FROM idempotency FOR UPDATE").await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let bytes = ArtifactBytes::open(&ArtifactPlace::DataDirectory, None, folder.path()).await.unwrap();
    let (engine, limits) = (world.engine.clone(), limits());
    let room = UploadRoom { bytes: limits.upload_disk_bytes, per_tenant_bytes: limits.upload_disk_per_tenant_bytes };
    let scheduler = Scheduler {
        engine: engine.clone(),
        uploads: Uploads::new(engine.clone(), bytes.clone(), limits.artifact_grace, folder.path(), room),
        collector: Collector::new(engine, bytes, limits.artifact_grace),
        hub: Arc::default(),
        running: Arc::default(),
        limits,
        job_retention: None,
    };
    let draining = CancellationToken::new();
    let keeper = tokio::spawn(scheduler.run(draining.clone()));
    until_they_wait(&world, 1).await;
    // Less than whoever waits for a lock waits.
    let late = world.job_with("acme", "net", |job| job.deadline = Some(timestamp(now_ms()))).await;
    let ended = async {
        while world.get(&late).await.state() != State::Expired {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(7), ended).await.expect("the deadline is looked at");
    holder.execute("ROLLBACK").await.unwrap();
    draining.cancel();
    keeper.await.unwrap();
}

/// How many of four that are asked for at once are taken, while nobody can write to the table until all have come as far as they can.
async fn taken_at_once<T>(world: &World, table: &str, ask: impl Fn(usize) -> EngineFuture<'static, T>) -> usize
where
    T: Send + 'static,
{
    const N: usize = 4;
    let mut holder = PgConnection::connect(world.url().unwrap()).await.unwrap();
    holder.execute("BEGIN").await.unwrap();
    holder.execute(sqlx::AssertSqlSafe(format!("LOCK TABLE {table} IN SHARE MODE"))).await.unwrap();
    let asking: Vec<_> = (0..N).map(|index| tokio::spawn(ask(index))).collect();
    until_they_wait(world, N as i64).await;
    holder.execute("ROLLBACK").await.unwrap();
    let mut n_taken = 0;
    for asked in asking {
        match asked.await.unwrap() {
            Ok(_) => n_taken += 1,
            Err(error) => assert!(matches!(error, EngineError::QuotaExceeded { .. }), "{error}"),
        }
    }
    n_taken
}

#[tokio::test]
async fn what_a_tenant_may_have_is_counted_by_one_at_a_time() {
    let Some(world) = World::postgres("what_a_tenant_may_have_is_counted_by_one_at_a_time").await else { return };
    let webhook = |index: usize| NewWebhook {
        tenant: "acme".into(),
        id: format!("hook-{index}"),
        url: "https://hooks.example/".into(),
        secret: vec![9; 32].into(),
    };
    let hook = |index: usize| -> EngineFuture<'static, _> {
        let (engine, new) = (world.engine.clone(), webhook(index));
        Box::pin(async move { engine.create_webhook(new, 1).await })
    };
    assert_eq!(taken_at_once(&world, "webhooks", hook).await, 1);
    let limit = limits().uploads_per_tenant;
    world
        .execute(&format!(
            "INSERT INTO uploads(tenant, id, digest, size_bytes, media_type, created_ms) \
             SELECT 'acme', 'open-' || n, '\\x07', 1, 'text/plain', 0 FROM generate_series(1, {limit} - 1) AS n"
        ))
        .await;
    let upload = |index: usize| -> EngineFuture<'static, _> {
        let (engine, new) = (world.engine.clone(), UploadFacts { id: format!("upload-{index}"), ..upload() });
        Box::pin(async move { engine.create_upload(new, None).await })
    };
    assert_eq!(taken_at_once(&world, "uploads", upload).await, 1);
}
