//! An engine that outlives its runtime: whoever holds it may be dropped last.

use std::future::Future;
use std::task::{Context, Waker};

use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::runtime::Runtime;

use crate::world::{World, finish, whole};

/// A runtime with an engine that has written and read, on connections that are kept for the next.
fn used(world: impl Future<Output = Option<World>>) -> Option<(Runtime, World)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let world = runtime.block_on(async {
        let world = world.await?;
        world.ready_model("acme", "net", whole()).await;
        let jobs = [world.job("acme", "net").await, world.job("acme", "net").await];
        let session = world.session().await;
        finish(&world, &world.lease(&session).await.lease).await.unwrap();
        futures::future::join_all(jobs.iter().map(|job| world.get(job))).await;
        Some(world)
    });
    Some((runtime, world?))
}

/// Without a runtime around it, once while that lives and once after it.
fn may_be_dropped_last(world: impl AsyncFn() -> Option<World>) {
    if let Some((runtime, world)) = used(world()) {
        drop(world);
        drop(runtime);
    }
    if let Some((runtime, world)) = used(world()) {
        drop(runtime);
        drop(world);
    }
}

#[test]
fn an_engine_on_sqlite_may_be_dropped_after_its_runtime() {
    may_be_dropped_last(async || Some(World::sqlite().await));
}

#[test]
fn an_engine_on_postgresql_may_be_dropped_after_its_runtime() {
    let n_worlds = std::cell::Cell::new(0);
    may_be_dropped_last(async || {
        n_worlds.set(n_worlds.get() + 1);
        World::postgres(&format!("an_engine_on_postgresql_may_be_dropped_after_its_runtime {}", n_worlds.get())).await
    });
}

/// It was begun on SQLite, at its first step, and waits for a lock on PostgreSQL.
#[test]
fn a_transaction_may_be_dropped_after_its_runtime() {
    if let Some((runtime, world)) = used(async { Some(World::sqlite().await) }) {
        let entered = runtime.enter();
        // SQLite has a thread of its own, which may answer before it is asked whether it has.
        let mut calls = std::iter::repeat_with(|| world.engine.cancel_job("acme", "none", ""));
        let open = calls.find_map(|mut open| open.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending().then_some(open));
        drop(entered);
        drop(runtime);
        drop(open);
    }
    let Some((runtime, world)) = used(World::postgres("a_transaction_may_be_dropped_after_its_runtime")) else { return };
    let (job, url) = (runtime.block_on(world.job("acme", "net")), world.url().unwrap());
    let mut open = world.engine.cancel_job("acme", &job.id, "");
    runtime.block_on(async {
        let (mut holder, mut looker) = (PgConnection::connect(url).await.unwrap(), PgConnection::connect(url).await.unwrap());
        holder.execute("BEGIN; SELECT 1 FROM jobs FOR UPDATE").await.unwrap();
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut looker).await.unwrap() == 0 {
            assert!(futures::poll!(&mut open).is_pending());
        }
    });
    drop(runtime);
    drop(open);
}
