//! Artifacts that nothing refers to, and those that something does.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use zkinfer_proto::name::ArtifactName;
use zkinfer_proto::v1;
use zkinfer_server::artifacts::{ArtifactId, Class, Doomed, QUARANTINE};
use zkinfer_server::engine::{ArtifactFacts, Engine, EngineError, NewJob, UploadFacts};

use crate::world::{World, artifact, diamond, finish, new_job, new_model, whole};

const HOUR: Duration = Duration::from_secs(3600);

fn id(facts: &ArtifactFacts) -> ArtifactId {
    ArtifactId { class: facts.class, tenant: facts.tenant.clone(), digest: facts.digest }
}

fn name(facts: &ArtifactFacts) -> String {
    ArtifactName { tenant: facts.tenant.clone(), blake3: facts.digest }.to_string()
}

fn job_of(input: &ArtifactFacts) -> NewJob {
    let mut new = new_job(&input.tenant, "net");
    new.job.input = Some(v1::Input { source: Some(v1::input::Source::Artifact(name(input))), ..Default::default() });
    new
}

async fn stored(world: &World, content: &str) -> ArtifactFacts {
    let facts = artifact("acme", Class::Public, content.as_bytes());
    world.engine.add_artifact(facts.clone()).await.unwrap();
    facts
}

/// Dooms what is garbage, however young it is.
async fn doom(engine: &dyn Engine) -> Doomed {
    engine.doom(Duration::ZERO, QUARANTINE, 100).await.unwrap()
}

async fn is_there(world: &World, facts: &ArtifactFacts) -> bool {
    world.engine.artifact(facts.class, &facts.tenant, facts.digest).await.unwrap().is_some()
}

pub(crate) async fn what_is_held_or_referred_to_is_not_deleted(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let mut kept = Vec::new();
    for content in ["source", "calibration", "input", "uploaded", "held"] {
        kept.push(stored(&world, content).await);
    }
    let mut model = new_model("acme", "other");
    model.model.source_artifact = name(&kept[0]);
    model.model.calibration_artifact = name(&kept[1]);
    world.engine.create_model(model).await.unwrap();
    world.engine.create_job(job_of(&kept[2])).await.unwrap();
    let ArtifactFacts { tenant, digest, size_bytes, media_type, .. } = kept[3].clone();
    let upload = UploadFacts { tenant, id: "upload".into(), digest, size_bytes, media_type, committed_bytes: 0, is_complete: false };
    world.engine.create_upload(upload, None).await.unwrap();
    assert!(world.engine.hold(vec![id(&kept[4])], HOUR).await.unwrap());
    let bare = stored(&world, "bare").await;
    assert!(world.engine.doom(HOUR, QUARANTINE, 100).await.unwrap().artifacts.is_empty(), "too young");
    assert_eq!(doom(&*world.engine).await.artifacts, [id(&bare)]);
    for facts in &kept {
        assert!(is_there(&world, facts).await);
    }
}

pub(crate) async fn garbage_is_found_behind_pages_of_what_is_used(world: World) {
    let content = |number: usize| artifact("acme", Class::Public, format!("content {number}").as_bytes());
    let facts: Vec<ArtifactFacts> = (0..700).map(content).collect();
    let used: Vec<ArtifactId> = facts[..600].iter().map(id).collect();
    assert!(world.engine.hold(used.clone(), HOUR).await.unwrap());
    // All of one age: the place on a page is told by more than that.
    let rows: Vec<String> = facts.iter().map(|facts| format!("('acme', 'PUBLIC', {}, 1, '', 7, 1)", world.blob(&facts.digest))).collect();
    let columns = "tenant, class, digest, size_bytes, media_type, created_ms, is_counted";
    world.execute(&format!("INSERT INTO artifacts({columns}) VALUES {}", rows.join(", "))).await;
    let unused: BTreeSet<ArtifactId> = facts[600..].iter().map(id).collect();
    let mut found = BTreeSet::new();
    // So many at a time.
    for n in [40, 40, 20, 0] {
        let doomed = world.engine.doom(Duration::ZERO, QUARANTINE, 40).await.unwrap();
        assert_eq!(doomed.artifacts.len(), n);
        found.extend(doomed.artifacts);
    }
    assert_eq!(found, unused);
    // Their holds end, more than a page of them.
    world.execute("UPDATE artifact_holds SET until_ms = 0").await;
    let doomed = world.engine.doom(Duration::ZERO, QUARANTINE, 1000).await.unwrap();
    assert_eq!(doomed.artifacts.iter().cloned().collect::<BTreeSet<_>>(), used.into_iter().collect());
    world.engine.forget(doomed).await.unwrap();
    assert!(!is_there(&world, &facts[0]).await);
}

pub(crate) async fn garbage_before_the_place_of_the_last_sweep_is_found_too(world: World) {
    let content = |number: usize| artifact("acme", Class::Public, format!("content {number}").as_bytes());
    let facts: Vec<ArtifactFacts> = (0..302).map(content).collect();
    assert!(world.engine.hold(facts[..300].iter().map(id).collect(), HOUR).await.unwrap());
    let row = |(age, facts): (usize, &ArtifactFacts)| format!("('acme', 'PUBLIC', {}, 1, '', {age}, 1)", world.blob(&facts.digest));
    let rows: Vec<String> = facts.iter().enumerate().map(row).collect();
    let columns = "tenant, class, digest, size_bytes, media_type, created_ms, is_counted";
    world.execute(&format!("INSERT INTO artifacts({columns}) VALUES {}", rows.join(", "))).await;
    // It stops behind a page of what is used.
    let doomed = world.engine.doom(Duration::ZERO, QUARANTINE, 1).await.unwrap();
    assert_eq!(doomed.artifacts, [id(&facts[300])]);
    world.execute(&format!("UPDATE artifact_holds SET until_ms = 0 WHERE digest = {}", world.blob(&facts[7].digest))).await;
    let doomed = world.engine.doom(Duration::ZERO, QUARANTINE, 100).await.unwrap();
    assert_eq!(doomed.artifacts, [id(&facts[301]), id(&facts[7])]);
}

pub(crate) async fn what_is_being_deleted_is_not_there_until_it_is_stored_again(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let bare = stored(&world, "bare").await;
    let doomed = doom(&*world.engine).await;
    assert_eq!(doomed.artifacts, [id(&bare)]);
    assert!(!is_there(&world, &bare).await);
    assert!(!world.engine.hold(vec![id(&bare)], HOUR).await.unwrap());
    assert!(matches!(world.engine.add_artifact(bare.clone()).await, Err(EngineError::ArtifactGone)));
    assert!(matches!(world.engine.create_job(job_of(&bare)).await, Err(EngineError::ArtifactGone)));
    world.engine.forget(doomed).await.unwrap();
    assert!(matches!(world.engine.create_job(job_of(&bare)).await, Err(EngineError::ArtifactGone)), "it is gone");
    assert!(world.engine.hold(vec![id(&bare)], HOUR).await.unwrap());
    world.engine.add_artifact(bare.clone()).await.unwrap();
    world.engine.create_job(job_of(&bare)).await.unwrap();
    assert!(is_there(&world, &bare).await);
}

pub(crate) async fn a_deletion_that_broke_off_is_taken_up_and_a_late_one_forgets_nothing(world: World) {
    let bare = stored(&world, "bare").await;
    let first = doom(&*world.engine).await;
    assert!(doom(&*world.engine).await.artifacts.is_empty(), "the first may still delete");
    let second = loop {
        let again = world.engine.doom(Duration::ZERO, Duration::ZERO, 100).await.unwrap();
        // Not in the same millisecond: the two must be told apart.
        if !again.artifacts.is_empty() {
            break again;
        }
    };
    assert_eq!(first.artifacts, second.artifacts);
    assert_ne!(first.at_ms, second.at_ms);
    world.engine.forget(first).await.unwrap();
    assert!(!world.engine.hold(vec![id(&bare)], HOUR).await.unwrap());
    world.engine.forget(second).await.unwrap();
    assert!(world.engine.hold(vec![id(&bare)], HOUR).await.unwrap());
}

pub(crate) async fn what_was_put_and_never_recorded_is_deleted(world: World) {
    let lost = artifact("acme", Class::Internal, b"of an attempt that failed");
    assert!(world.engine.hold(vec![id(&lost)], HOUR).await.unwrap());
    assert!(doom(&*world.engine).await.artifacts.is_empty(), "it may still be recorded");
    let other = artifact("acme", Class::Internal, b"of another");
    assert!(world.engine.hold(vec![id(&other)], Duration::ZERO).await.unwrap());
    let doomed = doom(&*world.engine).await;
    assert_eq!(doomed.artifacts, [id(&other)]);
    assert!(matches!(world.engine.add_artifact(other.clone()).await, Err(EngineError::ArtifactGone)));
    assert!(!world.engine.hold(vec![id(&lost), id(&other)], HOUR).await.unwrap(), "all or none");
    world.engine.forget(doomed).await.unwrap();
    assert!(world.engine.hold(vec![id(&other)], HOUR).await.unwrap());
}

pub(crate) async fn results_of_tasks_are_deleted_when_their_job_is_final(world: World) {
    world.ready_model("acme", "net", diamond()).await;
    let session = world.session().await;
    for ending in ["proved", "cancelled"] {
        let job = world.job("acme", "net").await;
        let mut results = BTreeSet::new();
        for _ in 0..3 {
            let leased = world.lease(&session).await;
            finish(&world, &leased.lease).await.unwrap();
            results.insert(id(&artifact("acme", Class::Internal, leased.lease.task.name.as_bytes())));
            assert!(doom(&*world.engine).await.artifacts.is_empty(), "another task may read it");
        }
        match ending {
            "proved" => finish(&world, &world.lease(&session).await.lease).await.unwrap(),
            _ => drop(world.engine.cancel_job("acme", &job.id, "").await.unwrap()),
        }
        assert!(world.engine.doom(HOUR, QUARANTINE, 100).await.unwrap().artifacts.is_empty(), "the grace");
        let doomed = doom(&*world.engine).await;
        assert_eq!(doomed.artifacts.iter().cloned().collect::<BTreeSet<_>>(), results, "{ending}: and neither proof nor model");
        world.engine.forget(doomed).await.unwrap();
    }
}

pub(crate) async fn artifacts_of_an_earlier_version_stay(world: World) {
    let new = stored(&world, "content").await;
    let old = ArtifactFacts { class: Class::Internal, ..new.clone() };
    // As that version writes: it knows of no references.
    let columns = "digest, size_bytes, media_type, created_ms";
    world.execute(&format!("INSERT INTO artifacts(tenant, class, {columns}) SELECT tenant, 'INTERNAL', {columns} FROM artifacts")).await;
    assert_eq!(doom(&*world.engine).await.artifacts, [id(&new)]);
    world.engine.add_artifact(old.clone()).await.unwrap();
    assert!(doom(&*world.engine).await.artifacts.is_empty(), "the first record stays");
    assert!(is_there(&world, &old).await);
}

/// Holds, puts, records and refers, and again while it is being deleted. `bytes` are what the store has.
async fn store(engine: Arc<dyn Engine>, bytes: Arc<Mutex<BTreeSet<ArtifactId>>>, facts: ArtifactFacts) {
    while !engine.hold(vec![id(&facts)], HOUR).await.unwrap() {
        tokio::task::yield_now().await;
    }
    bytes.lock().unwrap().insert(id(&facts));
    tokio::task::yield_now().await;
    engine.add_artifact(facts.clone()).await.unwrap();
    engine.create_job(job_of(&facts)).await.unwrap();
}

async fn sweep(engine: Arc<dyn Engine>, bytes: Arc<Mutex<BTreeSet<ArtifactId>>>) {
    let doomed = doom(&*engine).await;
    tokio::task::yield_now().await;
    for artifact in &doomed.artifacts {
        bytes.lock().unwrap().remove(artifact);
    }
    engine.forget(doomed).await.unwrap();
}

pub(crate) async fn a_put_that_races_with_a_deletion_loses_nothing(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let bytes = Arc::new(Mutex::new(BTreeSet::new()));
    for number in 0..40 {
        let facts = stored(&world, &format!("garbage {number}")).await;
        bytes.lock().unwrap().insert(id(&facts));
        let tasks = [
            tokio::spawn(sweep(world.engine.clone(), bytes.clone())),
            tokio::spawn(store(world.engine.clone(), bytes.clone(), facts.clone())),
            tokio::spawn(sweep(world.engine.clone(), bytes.clone())),
        ];
        for task in tasks {
            task.await.unwrap();
        }
        assert!(is_there(&world, &facts).await && bytes.lock().unwrap().contains(&id(&facts)), "{number}");
    }
}

pub(crate) async fn a_reference_that_races_with_a_deletion_is_made_or_refused(world: World) {
    world.ready_model("acme", "net", whole()).await;
    for number in 0..40 {
        let facts = stored(&world, &format!("garbage {number}")).await;
        let (engine, job) = (world.engine.clone(), job_of(&facts));
        let referring = tokio::spawn(async move { engine.create_job(job).await });
        let engine = world.engine.clone();
        let dooming = tokio::spawn(async move { doom(&*engine).await });
        let (made, doomed) = (referring.await.unwrap(), dooming.await.unwrap());
        match made {
            Ok(_) => assert!(is_there(&world, &facts).await && doomed.artifacts.is_empty(), "{number}"),
            Err(EngineError::ArtifactGone) => assert_eq!(doomed.artifacts, [id(&facts)], "{number}"),
            Err(error) => panic!("{number}: {error}"),
        }
    }
}
