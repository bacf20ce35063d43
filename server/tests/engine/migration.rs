//! A database of every earlier version, with jobs in flight, goes on under this one.

use std::time::Duration;

use sqlx::{Connection as _, Executor as _, PgConnection};
use zkinfer_proto::v1;
use zkinfer_proto::v1::job::State;
use zkinfer_server::engine::sql::{PostgresError, SqlEngine};
use zkinfer_server::engine::{JobFilter, Lease, NewJob, PageRequest, SessionEnd, Subject, SubjectKind, TaskKey, Usage, graph};

use crate::earlier::{Earlier, OLD_SESSION, REQUEST, upload, versions};
use crate::world::{Place, World, finish, key, new_job, registered, whole};

fn job(id: &str) -> Subject {
    Subject { kind: SubjectKind::Job, tenant: "acme".into(), id: id.into() }
}

/// As the worker of the earlier service had it.
fn held(id: &str, task: &str) -> Lease {
    Lease { task: TaskKey { subject: job(id), name: task.into() }, epoch: 1 }
}

#[tokio::test]
async fn sqlite_goes_on_from_every_version() {
    for version in versions(&Place::sqlite()) {
        goes_on(Place::sqlite(), version).await;
    }
}

#[tokio::test]
async fn postgresql_goes_on_from_every_version() {
    let Some(any) = Place::postgres("migration") else { return };
    for version in versions(&any) {
        let Some(place) = Place::postgres(&format!("migration {version}")) else { return };
        goes_on(place, version).await;
    }
}

#[tokio::test]
async fn a_migration_does_not_hold_up_all_others_behind_a_long_transaction() {
    let Some(place) = Place::postgres("a long transaction") else { return };
    let earlier = versions(&place).into_iter().rev().nth(1).unwrap();
    Earlier::new(&place, earlier).write().await;
    let url = place.url();
    let mut other = PgConnection::connect(&url).await.unwrap();
    let mut transaction = other.begin().await.unwrap();
    transaction.execute("LOCK TABLE tasks IN ROW EXCLUSIVE MODE").await.unwrap();
    let waited = SqlEngine::migrate_postgres(&url).await.unwrap_err();
    assert!(matches!(waited, PostgresError::Locked(_)) && waited.to_string().contains("try again"), "{waited}");
    transaction.rollback().await.unwrap();
    SqlEngine::migrate_postgres(&url).await.unwrap();
}

async fn goes_on(place: Place, version: i64) {
    let earlier = Earlier::new(&place, version);
    let has_graphs = earlier.has_graphs();
    earlier.write().await;
    let world = place.open().await;
    let recovered = world.engine.recover().await.unwrap();
    assert_eq!(recovered.failed, 0, "from version {version}");
    if has_graphs {
        the_old_worker_goes_on(&world, version).await;
    } else {
        assert_eq!(recovered.ended, [job("stopping")], "from version {version}");
    }
    let next = world.job("acme", "net").await;
    tokio::time::timeout(Duration::from_secs(30), finish_all(&world)).await.expect("all that was in flight ends");
    let mut succeeded = vec!["ready", "running", "done"];
    if has_graphs {
        succeeded.extend(["batched", "steps"]);
    }
    let ends = [("stopping", State::Cancelled), ("failed", State::Failed)];
    for (subject, end) in
        succeeded.iter().map(|id| (job(id), State::Succeeded)).chain(ends.map(|(id, end)| (job(id), end))).chain([(next, State::Succeeded)])
    {
        let found = world.get(&subject).await;
        assert_eq!(found.state(), end, "{subject:?} from version {version}");
        assert_eq!(found.result.is_some(), end == State::Succeeded, "{subject:?} from version {version}");
        let events = world.events(&subject).await;
        let last = events.last().map(|event| (event.sequence, event.state()));
        assert_eq!(last, Some((found.last_sequence, end)), "{subject:?} from version {version}");
    }
    a_registration_has_ended(&world, version).await;
    what_was_kept_is_found(&world, version, succeeded.len() + ends.len()).await;
    if has_graphs {
        what_was_to_be_told_is_told(&world, version).await;
    }
}

/// A worker that lived through the upgrade keeps what it has, is told what is not wanted any more, and hands in what it has done.
async fn the_old_worker_goes_on(world: &World, version: i64) {
    let all = vec![held("running", "prove"), held("stopping", "prove"), held("steps", "left")];
    let renewal = world.engine.renew(OLD_SESSION, all).await.unwrap();
    assert_eq!((renewal.lost, renewal.stop), (Vec::new(), vec![held("stopping", "prove")]), "from version {version}");
    finish(world, &held("running", "prove")).await.unwrap();
    let taken = world.engine.close_session(OLD_SESSION, SessionEnd::InOrder).await.unwrap();
    assert_eq!((taken.requeued, taken.ended), (vec![job("steps")], vec![job("stopping")]), "from version {version}");
}

async fn finish_all(world: &World) {
    let session = world.session().await;
    loop {
        if let Some(leased) = world.try_lease(&session).await {
            match leased.lease.task.name.as_str() {
                graph::REGISTER => drop(world.engine.complete(&leased.lease, registered("acme", whole()), Usage::default()).await.unwrap()),
                _ => finish(world, &leased.lease).await.unwrap(),
            }
            continue;
        }
        let queue = world.engine.queue().await.unwrap();
        if queue.waiting + queue.ready + queue.running == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn a_registration_has_ended(world: &World, version: i64) {
    let model = world.engine.model("acme", "fresh").await.unwrap().unwrap();
    assert_eq!(model.state(), v1::model::State::Ready, "from version {version}");
    let subject = Subject { kind: SubjectKind::Model, tenant: "acme".into(), id: "fresh".into() };
    let events: Vec<i64> = world.engine.events(&subject, 1, 100).await.unwrap().iter().map(|event| event.sequence).collect();
    assert_eq!(events, (1..=model.last_sequence).collect::<Vec<_>>(), "from version {version}");
    assert!(events.len() > 1, "from version {version}");
}

async fn what_was_kept_is_found(world: &World, version: i64, n_jobs: usize) {
    let filter = JobFilter { labels: vec![("kind".into(), "old".into())], ..Default::default() };
    let page = world.engine.list_jobs("acme", filter, PageRequest { size: 100, after: None }).await.unwrap();
    assert_eq!(page.items.len(), n_jobs, "labels are found as before, from version {version}");
    assert_eq!(world.engine.upload("acme", &upload().id).await.unwrap(), Some(upload()), "from version {version}");
    let again = world.engine.create_job(NewJob { key: key(REQUEST, 1), ..new_job("acme", "net") }).await.unwrap();
    assert_eq!(again.name, "tenants/acme/jobs/ready", "the request counts once, from version {version}");
}

async fn what_was_to_be_told_is_told(world: &World, version: i64) {
    let batch = world.engine.batch("acme", "old-batch").await.unwrap().unwrap();
    assert_eq!((batch.total, batch.succeeded), (1, 1), "from version {version}");
    let mut told = Vec::new();
    while let Some(delivery) = world.engine.take_deliveries(1, Duration::from_secs(60)).await.unwrap().pop() {
        world.engine.delivered(&delivery.key).await.unwrap();
        told.push(delivery.key.job);
    }
    assert_eq!(told.first().map(String::as_str), Some("done"), "what was due first, from version {version}");
    told.sort();
    told.dedup();
    // The one that failed was told of before; one was created since.
    assert_eq!(told.len(), 7, "{told:?} from version {version}");
}
