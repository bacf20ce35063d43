//! Jobs that are over and are deleted: nothing of them stays, and nothing else goes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use prost::Message as _;
use sqlx::{Connection as _, Executor as _, PgConnection};
use zkinfer_proto::name::{ArtifactName, BatchName};
use zkinfer_proto::v1;
use zkinfer_proto::v1::job::State;
use zkinfer_server::artifacts::{Class, QUARANTINE};
use zkinfer_server::engine::{ArtifactFacts, Deletion, Digest, JobFilter, NewJob, NewWebhook, PageRequest, Subject};

use crate::world::{World, artifact, diamond, finish, key, new_batch, new_job, subject_of, whole};

const HOUR: Duration = Duration::from_secs(3600);
const NOW: Duration = Duration::ZERO;

const TABLES: [&str; 12] = [
    "jobs",
    "job_labels",
    "batches",
    "tasks",
    "deps",
    "attempts",
    "results",
    "outbox",
    "events",
    "artifact_references",
    "models",
    "idempotency",
];

/// How many rows each table has.
async fn rows(world: &World) -> BTreeMap<&'static str, i64> {
    let mut rows = BTreeMap::new();
    for table in TABLES {
        rows.insert(table, world.count(table).await);
    }
    rows
}

async fn stored(world: &World, content: &str) -> ArtifactFacts {
    let facts = artifact("acme", Class::Public, content.as_bytes());
    world.engine.add_artifact(facts.clone()).await.unwrap();
    facts
}

fn job_of(input: &ArtifactFacts) -> NewJob {
    let mut new = new_job("acme", "net");
    let name = ArtifactName { tenant: input.tenant.clone(), blake3: input.digest }.to_string();
    new.job.input = Some(v1::Input { source: Some(v1::input::Source::Artifact(name)), ..Default::default() });
    new
}

fn webhook(id: &str) -> NewWebhook {
    NewWebhook { tenant: "acme".into(), id: id.into(), url: format!("https://{id}.example/"), secret: vec![9; 32].into() }
}

async fn delete(world: &World, job: &Subject) -> Deletion {
    world.engine.delete_job(&job.tenant, &job.id).await.unwrap()
}

/// What the collector takes now.
async fn garbage(world: &World) -> BTreeSet<Digest> {
    let doomed = world.engine.doom(NOW, QUARANTINE, 1000).await.unwrap();
    let digests = doomed.artifacts.iter().map(|artifact| artifact.digest).collect();
    world.engine.forget(doomed).await.unwrap();
    digests
}

fn digest(content: &str) -> Digest {
    *blake3::hash(content.as_bytes()).as_bytes()
}

/// A job that was cancelled before anybody began it.
async fn cancelled(world: &World) -> Subject {
    let job = world.job("acme", "net").await;
    world.engine.cancel_job("acme", &job.id, "").await.unwrap();
    job
}

pub(crate) async fn an_old_job_goes_with_all_that_belongs_to_it_and_nothing_else(world: World) {
    world.ready_model("acme", "net", diamond()).await;
    let other = world.job("acme", "net").await;
    let input = stored(&world, "input").await;
    let before = rows(&world).await;
    let session = world.session().await;
    let mut new = job_of(&input);
    new.job.labels = [("kind", "old"), ("more", "")].map(|(key, value)| (key.to_owned(), value.to_owned())).into();
    new.job.priority = 9;
    let job = subject_of(&world.engine.create_job(new).await.unwrap());
    for _ in 0..4 {
        let leased = world.lease(&session).await;
        assert_eq!(leased.lease.task.subject, job);
        finish(&world, &leased.lease).await.unwrap();
    }
    assert_eq!(world.get(&job).await.state(), State::Succeeded);
    assert_eq!(garbage(&world).await, ["first", "left", "right"].map(digest).into(), "results of its tasks are not needed any more");
    assert_eq!(world.engine.delete_ended(HOUR, 100).await.unwrap(), 0, "too young");
    assert!(garbage(&world).await.is_empty());
    assert_eq!(world.engine.delete_ended(NOW, 100).await.unwrap(), 1);
    assert_eq!(rows(&world).await, before);
    assert!(world.engine.job("acme", &job.id).await.unwrap().is_none());
    assert!(world.engine.events(&job, 1, 100).await.unwrap().is_empty());
    assert!(world.engine.cancel_job("acme", &job.id, "").await.unwrap().is_none());
    assert_eq!(delete(&world, &job).await, Deletion::Absent);
    assert_eq!(world.engine.delete_ended(NOW, 100).await.unwrap(), 0);
    assert_eq!(garbage(&world).await, ["input".to_owned(), format!("proof of {}", job.id)].map(|content| digest(&content)).into());
    assert!(garbage(&world).await.is_empty(), "once");
    assert_eq!(world.get(&other).await.state(), State::Queued);
    assert_eq!(world.events(&other).await.len(), 1);
}

pub(crate) async fn a_job_is_as_old_as_its_end(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let young = world.job("acme", "net").await;
    world.engine.cancel_job("acme", &young.id, "").await.unwrap();
    // As a job of an early version, which told only when it was created.
    let old = world.job("acme", "net").await;
    let document = v1::Job { state: State::Failed.into(), ..Default::default() }.encode_to_vec();
    world.execute(&format!("UPDATE jobs SET state = 5, doc = {} WHERE id = '{}'", world.blob(&document), old.id)).await;
    world.execute("UPDATE jobs SET created_ms = 7").await;
    assert_eq!(world.engine.delete_ended(HOUR, 100).await.unwrap(), 1);
    assert_eq!(world.get(&young).await.state(), State::Cancelled, "it was created long ago, and ended just now");
    assert!(world.engine.job("acme", &old.id).await.unwrap().is_none());
}

pub(crate) async fn what_another_job_refers_to_stays_until_that_goes_too(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let input = stored(&world, "input").await;
    let mut jobs = Vec::new();
    for _ in 0..2 {
        let job = subject_of(&world.engine.create_job(job_of(&input)).await.unwrap());
        world.engine.cancel_job("acme", &job.id, "").await.unwrap();
        jobs.push(job);
    }
    assert_eq!(delete(&world, &jobs[0]).await, Deletion::Deleted);
    assert!(garbage(&world).await.is_empty());
    assert!(world.engine.artifact(Class::Public, "acme", input.digest).await.unwrap().is_some());
    assert_eq!(delete(&world, &jobs[1]).await, Deletion::Deleted);
    assert_eq!(garbage(&world).await, [input.digest].into());
}

pub(crate) async fn a_job_that_is_not_over_is_never_deleted(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let job = world.job("acme", "net").await;
    let before = rows(&world).await;
    let session = world.session().await;
    let stays = async |state: State| {
        assert_eq!(delete(&world, &job).await, Deletion::NotFinal(state));
        assert_eq!(world.engine.delete_ended(NOW, 100).await.unwrap(), 0);
        assert_eq!(world.get(&job).await.state(), state);
    };
    stays(State::Queued).await;
    let leased = world.lease(&session).await;
    stays(State::Running).await;
    world.engine.cancel_job("acme", &job.id, "").await.unwrap();
    stays(State::Cancelling).await;
    assert_eq!(rows(&world).await["tasks"], before["tasks"]);
    world.engine.release(&leased.lease, zkinfer_server::engine::Usage::default()).await.unwrap();
    assert_eq!(world.engine.delete_job("other", &job.id).await.unwrap(), Deletion::Absent, "it is of another tenant");
    assert_eq!(delete(&world, &job).await, Deletion::Deleted);
}

pub(crate) async fn a_job_stays_until_its_webhooks_have_heard(world: World) {
    world.ready_model("acme", "net", whole()).await;
    world.engine.create_webhook(webhook("one"), 9).await.unwrap();
    world.engine.create_webhook(webhook("two"), 9).await.unwrap();
    let job = cancelled(&world).await;
    let stays = async || {
        assert_eq!(delete(&world, &job).await, Deletion::Untold);
        assert_eq!(world.engine.delete_ended(NOW, 100).await.unwrap(), 0);
    };
    stays().await;
    let due = world.engine.take_deliveries(9, HOUR).await.unwrap();
    stays().await;
    assert_eq!(due[0].job.name, world.get(&job).await.name);
    world.engine.delivered(&due[0].key).await.unwrap();
    stays().await;
    // Nobody is to hear of it any more.
    assert!(world.engine.delete_webhook("acme", &due[1].key.webhook).await.unwrap());
    assert_eq!(world.engine.delete_ended(NOW, 100).await.unwrap(), 1);
    assert_eq!(world.count("outbox").await, 0);
}

pub(crate) async fn many_are_deleted_page_by_page_and_what_stays_hides_none(world: World) {
    world.ready_model("acme", "net", whole()).await;
    world.engine.create_webhook(webhook("one"), 9).await.unwrap();
    for _ in 0..130 {
        cancelled(&world).await;
    }
    // More than a page of the oldest has still to be told.
    let oldest = "SELECT id FROM jobs ORDER BY created_ms, id LIMIT 60";
    world.execute(&format!("DELETE FROM outbox WHERE job NOT IN ({oldest})")).await;
    for (limit, n) in [(30, 40), (30, 30), (30, 0)] {
        assert_eq!(world.engine.delete_ended(NOW, limit).await.unwrap(), n);
    }
    assert_eq!((world.count("jobs").await, world.count("outbox").await), (60, 60));
    world.execute("DELETE FROM outbox").await;
    assert_eq!(world.engine.delete_ended(NOW, 100).await.unwrap(), 60);
    assert_eq!(world.count("events").await, world.engine.events(&model(), 1, 100).await.unwrap().len() as i64);
}

fn model() -> Subject {
    Subject { kind: zkinfer_server::engine::SubjectKind::Model, tenant: "acme".into(), id: "net".into() }
}

pub(crate) async fn several_who_delete_at_once_share_the_work_and_double_nothing(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let before = rows(&world).await;
    for _ in 0..15 {
        let jobs = world.engine.create_jobs(new_batch(&["net"; 10], None)).await.unwrap().jobs;
        for job in &jobs {
            world.engine.cancel_job("acme", &subject_of(job).id, "").await.unwrap();
        }
    }
    let deleting: Vec<_> = (0..4)
        .map(|_| {
            let engine = world.engine.clone();
            tokio::spawn(async move { engine.delete_ended(NOW, 1000).await.unwrap() })
        })
        .collect();
    let mut n_deleted = 0;
    for deleting in deleting {
        n_deleted += deleting.await.unwrap();
    }
    assert_eq!(n_deleted, 150);
    assert_eq!(rows(&world).await, before, "no batch is left without a job");
}

pub(crate) async fn a_batch_counts_the_jobs_that_are_there_and_goes_with_the_last(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let admitted = world.engine.create_jobs(new_batch(&["net"; 3], key("77", 1))).await.unwrap();
    let id = BatchName::parse(&admitted.batch).unwrap().batch_id;
    let jobs: Vec<Subject> = admitted.jobs.iter().map(subject_of).collect();
    let batch = async || world.engine.batch("acme", &id).await.unwrap();
    for job in &jobs[..2] {
        world.engine.cancel_job("acme", &job.id, "").await.unwrap();
    }
    assert_eq!(delete(&world, &jobs[0]).await, Deletion::Deleted);
    let now = batch().await.unwrap();
    assert_eq!((now.total, now.queued, now.cancelled), (2, 1, 1));
    assert_eq!(world.engine.ended_of_batch("acme", &id).await.unwrap(), [jobs[1].id.clone()]);
    world.engine.cancel_job("acme", &jobs[2].id, "").await.unwrap();
    assert_eq!(world.engine.delete_ended(NOW, 100).await.unwrap(), 2);
    assert_eq!(batch().await, None);
    let again = world.engine.create_jobs(new_batch(&["net"; 3], key("77", 1))).await.unwrap();
    assert_eq!(again, admitted, "the request was answered before");
}

pub(crate) async fn the_same_request_is_answered_as_before_after_its_job_is_gone(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let create = async || {
        let mut new = new_job("acme", "net");
        new.key = key("6f1d", 1);
        world.engine.create_job(new).await.unwrap()
    };
    let first = create().await;
    let job = subject_of(&first);
    world.engine.cancel_job("acme", &job.id, "").await.unwrap();
    assert_eq!(delete(&world, &job).await, Deletion::Deleted);
    assert_eq!(create().await, first);
    assert_eq!(world.count("jobs").await, 0, "it is not admitted anew");
    assert!(world.engine.job("acme", &job.id).await.unwrap().is_none());
}

pub(crate) async fn a_list_goes_on_behind_a_job_that_was_deleted(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let mut jobs = Vec::new();
    for created_ms in 1..=5 {
        let job = world.job("acme", "net").await;
        world.engine.cancel_job("acme", &job.id, "").await.unwrap();
        world.execute(&format!("UPDATE jobs SET created_ms = {created_ms} WHERE id = '{}'", job.id)).await;
        jobs.push(job);
    }
    let page = async |after| world.engine.list_jobs("acme", JobFilter::default(), PageRequest { size: 2, after }).await.unwrap();
    let first = page(None).await;
    assert_eq!(first.items.iter().map(subject_of).collect::<Vec<_>>(), [jobs[4].clone(), jobs[3].clone()]);
    // The one at the place, the one before it and the one behind it.
    for job in &jobs[2..] {
        assert_eq!(delete(&world, job).await, Deletion::Deleted);
    }
    let second = page(first.next).await;
    assert_eq!(second.items.iter().map(subject_of).collect::<Vec<_>>(), [jobs[1].clone(), jobs[0].clone()]);
    assert_eq!(second.next, None);
}

pub(crate) async fn who_deletes_its_jobs_is_not_served_sooner(world: World) {
    for tenant in ["acme", "bcme"] {
        world.ready_model(tenant, "net", whole()).await;
        world.job(tenant, "net").await;
        world.job(tenant, "net").await;
    }
    let session = world.session().await;
    let leased = world.lease(&session).await;
    assert_eq!(leased.lease.task.subject.tenant, "acme", "it was served longest ago");
    finish(&world, &leased.lease).await.unwrap();
    assert_eq!(delete(&world, &leased.lease.task.subject).await, Deletion::Deleted);
    assert_eq!(world.lease(&session).await.lease.task.subject.tenant, "bcme");
    let quota = world.engine.quota("acme").await.unwrap();
    assert_eq!((quota.share_milli, quota.max_queued, quota.max_running, quota.paused), (1000, 0, 0, false), "as if none was set");
}

/// PostgreSQL alone has more than one who writes.
#[tokio::test]
async fn a_job_that_another_has_is_passed_over() {
    let Some(world) = World::postgres("a_job_that_another_has_is_passed_over").await else { return };
    world.ready_model("acme", "net", whole()).await;
    let jobs = [cancelled(&world).await, cancelled(&world).await];
    let mut holder = PgConnection::connect(world.url().unwrap()).await.unwrap();
    holder.execute("BEGIN").await.unwrap();
    let hold = format!("SELECT 1 FROM jobs WHERE id = '{}' FOR UPDATE", jobs[0].id);
    holder.execute(sqlx::AssertSqlSafe(hold)).await.unwrap();
    assert_eq!(world.engine.delete_ended(NOW, 100).await.unwrap(), 1);
    assert_eq!(world.get(&jobs[0]).await.state(), State::Cancelled);
    holder.execute("ROLLBACK").await.unwrap();
    assert_eq!(world.engine.delete_ended(NOW, 100).await.unwrap(), 1);
}

#[tokio::test]
async fn one_damaged_job_keeps_no_others() {
    let world = World::sqlite().await;
    world.ready_model("acme", "net", whole()).await;
    let jobs = [cancelled(&world).await, cancelled(&world).await];
    world.execute(&format!("UPDATE jobs SET doc = x'ff' WHERE id = '{}'", jobs[0].id)).await;
    assert_eq!(world.engine.delete_ended(NOW, 100).await.unwrap(), 1);
    assert_eq!(world.count("jobs").await, 1);
}
