//! In PostgreSQL many write at the same time: rows are locked in one order, so that no two wait for each other. SQLite has one writer.

use sqlx::{Connection as _, Executor as _, PgConnection};
use zkinfer_server::engine::Lease;

use crate::world::{World, whole};

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

async fn lock(connection: &mut PgConnection, lease: &Lease, how: &str) -> Result<(), sqlx::Error> {
    let sql = format!("SELECT 1 FROM tasks WHERE subject = '{}' {how}", lease.task.subject.id);
    connection.execute(sqlx::AssertSqlSafe(sql)).await.map(drop)
}

/// Runs `work`, which wants both tasks, while the first is locked: it must wait there, without the second.
async fn waits_at_the_first<T>(world: &World, held: &[Lease; 2], work: impl Future<Output = T>) -> T {
    let url = world.url().unwrap();
    let (mut holder, mut looker) = (PgConnection::connect(url).await.unwrap(), PgConnection::connect(url).await.unwrap());
    holder.execute("BEGIN").await.unwrap();
    lock(&mut holder, &held[0], "FOR UPDATE").await.unwrap();
    let look = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut looker).await.unwrap() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
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
