//! Clocks that are wrong: those of callers, whose time decides nothing, and that of an embedded engine's machine, if it is set while the engine does not
//! run: no lease and no wait is decided by that.
//!
//! PostgreSQL has one clock for all, its own, and is not restarted with a server.

use std::collections::BTreeSet;
use std::time::Duration;

use zkinfer_proto::v1;
use zkinfer_server::artifacts::{ArtifactId, Class, QUARANTINE};
use zkinfer_server::engine::{Forgotten, NewJob, NewModel, PageRequest, UploadFacts, now_ms, timestamp, timestamp_ms};

use crate::world::{LEASE, World, artifact, finish, key, new_batch, new_job, new_model, subject_of, whole};

/// A day, as a clock may be set by mistake.
const DAY_MS: i64 = 86_400_000;
/// The same.
const DAY: Duration = Duration::from_millis(DAY_MS as u64);

/// A job of a caller whose clock is wrong by so much.
fn skewed(by_ms: i64) -> NewJob {
    let mut new = new_job("acme", "net");
    new.job.create_time = Some(timestamp(now_ms() + by_ms));
    new
}

pub(crate) fn upload() -> UploadFacts {
    UploadFacts {
        tenant: "acme".into(),
        id: uuid::Uuid::now_v7().to_string(),
        digest: [7; 32],
        size_bytes: 10,
        media_type: "application/octet-stream".into(),
        committed_bytes: 0,
        is_complete: false,
    }
}

fn created_ms(job: &v1::Job) -> i64 {
    timestamp_ms(job.create_time.as_ref().expect("every job has it"))
}

pub(crate) async fn the_clocks_of_callers_decide_no_place_in_the_queue(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let from_ms = world.engine.now().await.unwrap();
    let mut created = vec![world.engine.create_job(skewed(DAY_MS)).await.unwrap()];
    let mut batch = new_batch(&["net"], None);
    batch.jobs[0].job.create_time = Some(timestamp(1));
    // The next millisecond, so that the order is that of the times.
    tokio::time::sleep(Duration::from_millis(2)).await;
    created.extend(world.engine.create_jobs(batch).await.unwrap().jobs);
    tokio::time::sleep(Duration::from_millis(2)).await;
    // Those who come at once are admitted together.
    let together = futures::future::join_all((0..4).map(|_| world.engine.create_job(skewed(-DAY_MS)))).await;
    created.extend(together.into_iter().map(Result::unwrap));
    let until_ms = world.engine.now().await.unwrap();
    for job in &created {
        assert!((from_ms..=until_ms).contains(&created_ms(job)), "{job:?}");
        assert_eq!(world.get(&subject_of(job)).await.create_time, job.create_time, "what was answered is what is stored");
        let first = &world.events(&subject_of(job)).await[0];
        assert_eq!(first.time, job.create_time);
    }
    let page = world.engine.list_jobs("acme", Default::default(), PageRequest { size: 10, after: None }).await.unwrap();
    assert_eq!(subject_of(page.items.last().unwrap()), subject_of(&created[0]), "the oldest comes last");
    // Ids begin with the clock of who makes them: of two that wait, the later one has the lesser id.
    let mut behind = new_job("acme", "net");
    behind.job.name = "tenants/acme/jobs/01000000-0000-7000-8000-000000000001".into();
    tokio::time::sleep(Duration::from_millis(2)).await;
    let last = world.engine.create_job(behind).await.unwrap();
    let place = async |job: &v1::Job| world.get(&subject_of(job)).await.progress.unwrap().queue_position;
    assert_eq!((place(&created[0]).await, place(&created[1]).await, place(&last).await), (0, 1, created.len() as i32));
    let session = world.session().await;
    for (place, job) in created.iter().enumerate().take(2) {
        assert_eq!(world.lease(&session).await.lease.task.subject, subject_of(job), "place {place}");
    }
}

pub(crate) async fn a_request_that_is_repeated_is_told_the_first_time(world: World) {
    world.ready_model("acme", "other", whole()).await;
    let model = world.engine.create_model(NewModel { key: key("model", 1), ..new_model("acme", "net") }).await.unwrap();
    let created = timestamp_ms(model.create_time.as_ref().unwrap());
    assert!((created - world.engine.now().await.unwrap()).abs() < DAY_MS / 2);
    tokio::time::sleep(Duration::from_millis(2)).await;
    let again = world.engine.create_model(NewModel { key: key("model", 1), ..new_model("acme", "net") }).await.unwrap();
    assert_eq!(again, model);
    let new = || NewJob { key: key("job", 1), ..new_job("acme", "other") };
    let job = world.engine.create_job(new()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(world.engine.create_job(new()).await.unwrap(), job);
}

/// What is forgotten, all of it in one page.
async fn forgotten(world: &World, age: Duration) -> Vec<String> {
    let forgotten = world.engine.forget_older(age, 100).await.unwrap();
    assert!(forgotten.is_all);
    forgotten.uploads
}

pub(crate) async fn requests_and_uploads_are_forgotten_by_the_engines_clock(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let new = || NewJob { key: key("job", 1), ..new_job("acme", "net") };
    let job = world.engine.create_job(new()).await.unwrap();
    let upload = world.engine.create_upload(upload(), None).await.unwrap();
    let pass = async |ms: i64| {
        world.execute(&format!("UPDATE idempotency SET created_ms = created_ms - {ms}")).await;
        world.execute(&format!("UPDATE uploads SET created_ms = created_ms - {ms}")).await;
    };
    pass(DAY_MS - 60_000).await;
    assert!(forgotten(&world, DAY).await.is_empty());
    assert_eq!(world.engine.create_job(new()).await.unwrap().name, job.name, "it is not a day old");
    assert_eq!(world.engine.upload("acme", &upload.id).await.unwrap().as_ref(), Some(&upload));
    assert_eq!(world.engine.unfinished_uploads("acme").await.unwrap(), std::slice::from_ref(&upload.id));
    assert!(world.engine.unfinished_uploads("other").await.unwrap().is_empty());
    pass(60_001).await;
    assert_eq!(forgotten(&world, DAY).await, [upload.id]);
    assert_ne!(world.engine.create_job(new()).await.unwrap().name, job.name);
}

pub(crate) async fn what_is_old_is_forgotten_page_by_page_the_oldest_first(world: World) {
    let mut ids = Vec::new();
    for index in 0..5u8 {
        let upload = UploadFacts { id: format!("upload-{index}"), ..upload() };
        ids.push(world.engine.create_upload(upload, key(&format!("request-{index}"), index)).await.unwrap().id);
        world.execute("UPDATE uploads SET created_ms = created_ms - 1000").await;
        world.execute("UPDATE idempotency SET created_ms = created_ms - 1000").await;
    }
    world
        .execute(
            "INSERT INTO outbox(tenant, webhook, job, seq, not_before_ms) VALUES ('acme', 'gone', 'a', 1, 0), ('acme', 'gone', 'b', 1, 0)",
        )
        .await;
    let age = Duration::from_millis(500);
    for (page, left) in [(&ids[..2], (3, 0)), (&ids[2..4], (1, 0))] {
        let forgotten = world.engine.forget_older(age, 2).await.unwrap();
        let uploads: BTreeSet<&String> = forgotten.uploads.iter().collect();
        assert_eq!((uploads, forgotten.is_all), (page.iter().collect(), false));
        assert_eq!((world.count("idempotency").await, world.count("outbox").await), left);
    }
    assert_eq!(world.engine.forget_older(age, 2).await.unwrap(), Forgotten { uploads: ids[4..].to_vec(), is_all: true });
    assert_eq!((world.count("idempotency").await, world.count("uploads").await), (0, 0));
}

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

#[tokio::test]
async fn a_clock_that_was_set_forgets_no_request_before_its_time_and_keeps_none_longer() {
    let mut world = World::sqlite().await;
    world.ready_model("acme", "net", whole()).await;
    let new = || NewJob { key: key("job", 1), ..new_job("acme", "net") };
    let job = world.engine.create_job(new()).await.unwrap();
    let upload = world.engine.create_upload(upload(), None).await.unwrap();
    world.engine.reap().await.unwrap();
    for set_by_ms in [2 * DAY_MS, -5 * DAY_MS] {
        let changes: Vec<String> = ["idempotency SET created_ms", "uploads SET created_ms", "reaping SET reaped_ms"]
            .map(|column| format!("UPDATE {column} = {} - {set_by_ms}", column.rsplit(' ').next().unwrap()))
            .into();
        world = restarted(world, &changes.join("; ")).await;
        assert!(forgotten(&world, DAY).await.is_empty(), "set by {set_by_ms} ms");
        assert_eq!(world.engine.create_job(new()).await.unwrap().name, job.name, "set by {set_by_ms} ms");
    }
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert_eq!(forgotten(&world, Duration::from_millis(1)).await, [upload.id], "no time is in the future");
}
