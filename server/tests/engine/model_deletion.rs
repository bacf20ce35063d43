//! Models that are deleted: nothing of them stays but what their jobs that are over need, and no job is left without its model.

use std::collections::BTreeSet;
use std::time::Duration;

use sqlx::{Connection as _, Executor as _, PgConnection};
use zkinfer_proto::name::ArtifactName;
use zkinfer_proto::v1;
use zkinfer_proto::v1::job::State;
use zkinfer_server::artifacts::{Class, QUARANTINE};
use zkinfer_server::engine::{
    ArtifactFacts, Deletion, EngineError, ModelDeletion, NewModel, Outcome, SessionEnd, Subject, SubjectKind, Usage,
};

use crate::world::{World, artifact, finish, key, new_job, new_model, proved, registered, subject_of, whole};

const NOW: Duration = Duration::ZERO;

fn model() -> Subject {
    Subject { kind: SubjectKind::Model, tenant: "acme".into(), id: "net".into() }
}

async fn delete(world: &World) -> ModelDeletion {
    world.engine.delete_model("acme", "net").await.unwrap()
}

fn public(content: &str) -> ArtifactFacts {
    artifact("acme", Class::Public, content.as_bytes())
}

fn name(facts: &ArtifactFacts) -> String {
    ArtifactName { tenant: facts.tenant.clone(), blake3: facts.digest }.to_string()
}

/// Registers a model with a source, a report and a key of these names.
async fn register(world: &World, source: &str, verifier_key: &str) {
    world.engine.add_artifact(public(source)).await.unwrap();
    let NewModel { model, .. } = new_model("acme", "net");
    let model = v1::Model { source_artifact: name(&public(source)), ..model };
    world.engine.create_model(NewModel { model, ..new_model("acme", "net") }).await.unwrap();
    let session = world.session().await;
    let leased = world.lease(&session).await;
    let Outcome::Registered { registered, private_digest, graph, mut artifacts } = registered("acme", whole()) else { unreachable!() };
    artifacts.extend([public(verifier_key), public("report")]);
    let outcome = Outcome::Registered { registered, private_digest, graph, artifacts };
    world.engine.complete(&leased.lease, outcome, Usage::default()).await.unwrap();
    world.engine.close_session(&session, SessionEnd::InOrder).await.unwrap();
}

/// Has a job of the model proved, whose result names the key.
async fn prove(world: &World, verifier_key: &str) -> (Subject, Result<(), EngineError>) {
    let job = world.job("acme", "net").await;
    let session = world.session().await;
    let leased = world.lease(&session).await;
    let Outcome::Proved { mut result, artifacts } = proved("acme", &format!("proof of {}", job.id)) else { unreachable!() };
    result.verifier_key_artifact = name(&public(verifier_key));
    let settled = world.engine.complete(&leased.lease, Outcome::Proved { result, artifacts }, Usage::default()).await;
    if settled.is_err() {
        world.engine.release(&leased.lease, Usage::default()).await.unwrap();
    }
    world.engine.close_session(&session, SessionEnd::InOrder).await.unwrap();
    (job, settled.map(drop))
}

/// What the collector takes now.
async fn garbage(world: &World) -> BTreeSet<[u8; 32]> {
    let doomed = world.engine.doom(NOW, QUARANTINE, 1000).await.unwrap();
    let digests = doomed.artifacts.iter().map(|artifact| artifact.digest).collect();
    world.engine.forget(doomed).await.unwrap();
    digests
}

fn digests<const N: usize>(contents: [&str; N]) -> BTreeSet<[u8; 32]> {
    contents.map(|content| *blake3::hash(content.as_bytes()).as_bytes()).into()
}

pub(crate) async fn a_model_goes_with_all_that_belongs_to_it_and_jobs_that_are_over_stay(world: World) {
    register(&world, "source", "key").await;
    let (job, settled) = prove(&world, "key").await;
    settled.unwrap();
    let before = world.get(&job).await;
    assert!(garbage(&world).await.is_empty());
    assert_eq!(world.engine.delete_model("other", "net").await.unwrap(), ModelDeletion::Absent, "it is of another tenant");
    assert_eq!(delete(&world).await, ModelDeletion::Deleted);
    assert_eq!(delete(&world).await, ModelDeletion::Absent);
    assert!(world.engine.model("acme", "net").await.unwrap().is_none());
    assert!(world.engine.events(&model(), 1, 100).await.unwrap().is_empty());
    for table in ["models", "tasks WHERE kind = 'REGISTER'", "attempts WHERE kind = 'REGISTER'", "artifact_references WHERE kind = 'MODEL'"]
    {
        assert_eq!(world.count(table).await, 0, "{table}");
    }
    assert_eq!(garbage(&world).await, digests(["source", "private", "report"]));
    assert_eq!(world.get(&job).await, before);
    assert_eq!(world.engine.tasks(&job).await.unwrap().len(), 1);
    assert!(!world.events(&job).await.is_empty());
    assert_eq!(world.engine.delete_job("acme", &job.id).await.unwrap(), Deletion::Deleted);
    assert_eq!(garbage(&world).await, digests(["key", &format!("proof of {}", job.id)]));
}

pub(crate) async fn a_model_that_is_registered_or_has_jobs_is_not_deleted(world: World) {
    world.engine.create_model(new_model("acme", "net")).await.unwrap();
    assert_eq!(delete(&world).await, ModelDeletion::NotFinal);
    let session = world.session().await;
    let leased = world.lease(&session).await;
    assert_eq!(delete(&world).await, ModelDeletion::NotFinal);
    world.engine.complete(&leased.lease, registered("acme", whole()), Usage::default()).await.unwrap();
    let (first, second) = (world.job("acme", "net").await, world.job("acme", "net").await);
    assert_eq!(delete(&world).await, ModelDeletion::HasJobs(2));
    let leased = world.lease(&session).await;
    assert_eq!(delete(&world).await, ModelDeletion::HasJobs(2), "one is running");
    for job in [&first, &second] {
        world.engine.cancel_job("acme", &job.id, "").await.unwrap();
    }
    assert_eq!(world.get(&leased.lease.task.subject).await.state(), State::Cancelling);
    assert_eq!(delete(&world).await, ModelDeletion::HasJobs(1));
    world.engine.release(&leased.lease, Usage::default()).await.unwrap();
    assert_eq!(delete(&world).await, ModelDeletion::Deleted);
    for job in [&first, &second] {
        assert_eq!(world.get(job).await.state(), State::Cancelled);
    }
}

pub(crate) async fn no_job_is_created_of_a_deleted_model_and_its_name_is_free(world: World) {
    let quota = v1::Quota { tenant: "tenants/acme".into(), share_milli: 1000, max_queued: 1, max_running: 0, paused: false };
    world.engine.set_quota("acme", quota).await.unwrap();
    let create = async || {
        let key = key("6f1d", 1);
        world.engine.create_model(NewModel { key, ..new_model("acme", "net") }).await
    };
    let first = create().await.unwrap();
    let session = world.session().await;
    let leased = world.lease(&session).await;
    world.engine.complete(&leased.lease, registered("acme", whole()), Usage::default()).await.unwrap();
    let old = world.job("acme", "net").await;
    world.engine.cancel_job("acme", &old.id, "").await.unwrap();
    assert_eq!(delete(&world).await, ModelDeletion::Deleted);
    assert!(matches!(world.engine.create_job(new_job("acme", "net")).await, Err(EngineError::ModelNotFound)));
    let batch = world.engine.create_jobs(crate::world::new_batch(&["net"], None)).await;
    assert!(matches!(batch, Err(EngineError::InBatch { source, .. }) if matches!(*source, EngineError::ModelNotFound)));
    assert_eq!(create().await.unwrap(), first, "the request was answered before");
    assert!(world.engine.model("acme", "net").await.unwrap().is_none(), "and is not admitted anew");
    world.ready_model("acme", "net", whole()).await;
    let new = world.job("acme", "net").await;
    finish(&world, &world.lease(&session).await.lease).await.unwrap();
    assert_eq!((world.get(&new).await.state(), world.get(&old).await.state()), (State::Succeeded, State::Cancelled));
}

pub(crate) async fn a_key_of_the_model_before_must_be_there(world: World) {
    register(&world, "source", "key").await;
    let (job, settled) = prove(&world, "key").await;
    settled.unwrap();
    assert_eq!(delete(&world).await, ModelDeletion::Deleted);
    assert_eq!(world.engine.delete_job("acme", &job.id).await.unwrap(), Deletion::Deleted);
    assert!(garbage(&world).await.is_superset(&digests(["key"])));
    register(&world, "another source", "another key").await;
    let (_, settled) = prove(&world, "key").await;
    assert!(matches!(settled, Err(EngineError::ArtifactGone)), "{settled:?}");
    let session = world.session().await;
    finish(&world, &world.lease(&session).await.lease).await.unwrap();
    let (_, settled) = prove(&world, "another key").await;
    settled.unwrap();
}

pub(crate) async fn of_a_job_and_the_deletion_of_its_model_at_once_one_is_refused(world: World) {
    for _ in 0..20 {
        world.ready_model("acme", "net", whole()).await;
        let (creator, deleter) = (world.engine.clone(), world.engine.clone());
        let creating = tokio::spawn(async move { creator.create_job(new_job("acme", "net")).await });
        let deleting = tokio::spawn(async move { deleter.delete_model("acme", "net").await.unwrap() });
        match (creating.await.unwrap(), deleting.await.unwrap()) {
            (Err(EngineError::ModelNotFound), ModelDeletion::Deleted) => {}
            (Ok(job), ModelDeletion::HasJobs(1)) => {
                world.engine.cancel_job("acme", &subject_of(&job).id, "").await.unwrap();
                assert_eq!(delete(&world).await, ModelDeletion::Deleted);
            }
            (created, deletion) => panic!("{created:?}, {deletion:?}"),
        }
    }
}

pub(crate) async fn who_deletes_its_models_is_not_served_sooner(world: World) {
    for model in ["other", "net"] {
        for tenant in ["bcme", "acme"] {
            world.ready_model(tenant, model, whole()).await;
        }
    }
    for tenant in ["bcme", "acme"] {
        world.job(tenant, "other").await;
    }
    assert_eq!(delete(&world).await, ModelDeletion::Deleted);
    let session = world.session().await;
    assert_eq!(world.lease(&session).await.lease.task.subject.tenant, "bcme", "it was served longest ago");
}

/// Runs `work` while another transaction has done `sql`, and commits that once `work` waits for it.
async fn meanwhile<T>(world: &World, sql: String, work: impl Future<Output = T>) -> T {
    let url = world.url().unwrap();
    let (mut other, mut looker) = (PgConnection::connect(url).await.unwrap(), PgConnection::connect(url).await.unwrap());
    other.execute(sqlx::AssertSqlSafe(format!("BEGIN; {sql}"))).await.unwrap();
    let commit = async {
        let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut looker).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        other.execute("COMMIT").await.unwrap();
    };
    let (done, ()) = tokio::join!(work, async { tokio::time::timeout(Duration::from_secs(20), commit).await.expect("it waits") });
    done
}

/// PostgreSQL alone has more than one who writes.
#[tokio::test]
async fn who_creates_a_job_waits_for_who_deletes_its_model_and_the_other_way_round() {
    let Some(world) = World::postgres("who_creates_a_job_waits_for_who_deletes_its_model").await else { return };
    world.ready_model("acme", "net", whole()).await;
    let job = world.job("acme", "net").await;
    world.engine.cancel_job("acme", &job.id, "").await.unwrap();
    // As if it were admitted: whoever does so holds the model's row until its end.
    let admission = format!("SELECT 1 FROM models WHERE id = 'net' FOR KEY SHARE; UPDATE jobs SET state = 1 WHERE id = '{}'", job.id);
    assert_eq!(meanwhile(&world, admission, delete(&world)).await, ModelDeletion::HasJobs(1));
    let creating = world.engine.create_job(new_job("acme", "net"));
    let created = meanwhile(&world, "DELETE FROM models WHERE id = 'net'".to_owned(), creating).await;
    assert!(matches!(created, Err(EngineError::ModelNotFound)), "{created:?}");
}
