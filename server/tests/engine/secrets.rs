//! Salts and seeds of models and jobs: as they lie in the database, and as workers are told them.

use std::collections::BTreeMap;

use zkinfer_proto::v1::job::State;
use zkinfer_server::engine::{Lease, NewJob, NewModel, Usage, Work};

use crate::world::{World, diamond, finish, log, new_batch, new_job, new_model, offer, registered, seal, subject_of, whole};

type Secrets = [[u8; 32]; 2];

/// Salt and seed that nothing else in a database has.
fn secrets(of: &str) -> Secrets {
    ["salt", "seed"].map(|kind| *blake3::hash(format!("{kind} of {of}").as_bytes()).as_bytes())
}

fn job_of(tenant: &str, model: &str, of: &str) -> NewJob {
    let [salt, seed] = secrets(of);
    NewJob { input_salt: salt.into(), seed: seed.into(), ..new_job(tenant, model) }
}

/// What a worker is told.
fn told(work: &Work) -> Secrets {
    let (salt, seed) = match work {
        Work::Register { salt, seed, .. } => (salt, seed),
        Work::Prove(proof) | Work::Step { proof, .. } => (&proof.input_salt, &proof.seed),
    };
    [*salt.expose(), *seed.expose()]
}

async fn are_readable(world: &World, secrets: &Secrets) -> [bool; 2] {
    [world.tells(&secrets[0]).await, world.tells(&secrets[1]).await]
}

async fn register(world: &World, tenant: &str, id: &str, graph: zkinfer_proto::v1::TaskGraph) {
    let [salt, seed] = secrets(id);
    world.engine.create_model(NewModel { salt: salt.into(), seed: seed.into(), ..new_model(tenant, id) }).await.unwrap();
    let leased = world.lease(&world.session().await).await;
    assert_eq!(told(&leased.work), secrets(id));
    world.engine.complete(&leased.lease, registered(tenant, graph), Usage::default()).await.unwrap();
}

pub(crate) async fn salts_and_seeds_lie_encrypted_and_workers_are_told_them(world: World) {
    register(&world, "acme", "net", whole()).await;
    let clear = world.engine.create_job(job_of("acme", "net", "clear")).await.unwrap().name;
    assert_eq!(are_readable(&world, &secrets("clear")).await, [true; 2], "they would be found");
    let world = world.close().await.open_with(seal(&["first"])).await;
    register(&world, "acme", "steps", diamond()).await;
    let mut awaited = BTreeMap::from([(clear, "clear")]);
    // Those that come at once are admitted together.
    let at_once = ["first", "second", "third", "fourth"].map(|of| world.engine.create_job(job_of("acme", "net", of)));
    for (created, of) in futures::future::join_all(at_once).await.into_iter().zip(["first", "second", "third", "fourth"]) {
        awaited.insert(created.unwrap().name, of);
    }
    let mut batch = new_batch(&[], None);
    batch.jobs = vec![job_of("acme", "net", "batched"), job_of("acme", "steps", "stepped")];
    for (job, of) in world.engine.create_jobs(batch).await.unwrap().jobs.into_iter().zip(["batched", "stepped"]) {
        awaited.insert(job.name, of);
    }
    for of in awaited.values().filter(|of| **of != "clear").chain([&"steps"]) {
        assert_eq!(are_readable(&world, &secrets(of)).await, [false; 2], "{of}");
    }
    let session = world.session().await;
    let mut n_told = BTreeMap::new();
    while let Some(leased) = world.try_lease(&session).await {
        let subject = &leased.lease.task.subject;
        let of = awaited[&format!("tenants/{}/jobs/{}", subject.tenant, subject.id)];
        assert_eq!(told(&leased.work), secrets(of), "{of}");
        *n_told.entry(of).or_insert(0) += 1;
        end(&world, &leased.lease).await;
    }
    assert_eq!((n_told.len(), n_told["stepped"]), (7, 4));
    assert_eq!(world.count("jobs WHERE input_salt IS NOT NULL OR seed IS NOT NULL").await, 0, "they are erased at the end");
    for of in awaited.values().filter(|of| **of != "clear") {
        assert_eq!(are_readable(&world, &secrets(of)).await, [false; 2], "{of}");
    }
}

async fn end(world: &World, lease: &Lease) {
    finish(world, lease).await.unwrap();
}

pub(crate) async fn a_job_whose_key_is_not_there_waits_for_it_and_holds_up_no_other(world: World) {
    let before = log().text().len();
    let world = world.close().await.open_with(seal(&["first"])).await;
    // It was served first, so that it is behind in nothing else.
    for tenant in ["acme", "other"] {
        register(&world, tenant, "net", whole()).await;
    }
    // More than are looked at for one call.
    let mut waiting = Vec::new();
    for number in 0..20 {
        let created = world.engine.create_job(job_of("acme", "net", &format!("job {number}"))).await.unwrap();
        waiting.push(subject_of(&created));
    }
    let world = world.close().await.open_with(seal(&["another"])).await;
    let after = [("acme", "late"), ("other", "others")];
    let [late, others] = after.map(|(tenant, of)| world.engine.create_job(job_of(tenant, "net", of)));
    let (late, others) = (subject_of(&late.await.unwrap()), subject_of(&others.await.unwrap()));
    // One whose bytes were changed.
    let damaged = subject_of(&world.engine.create_job(job_of("other", "net", "damaged")).await.unwrap());
    let bytes = world.blob(&[7; 7]);
    world.execute(&format!("UPDATE jobs SET seed = {bytes} WHERE id = '{}'", damaged.id)).await;

    let session = world.session().await;
    let leased = world.lease(&session).await;
    assert_eq!((&leased.lease.task.subject, told(&leased.work)), (&others, secrets("others")), "the first call gives what can be given");
    end(&world, &leased.lease).await;
    let leased = world.lease(&session).await;
    assert_eq!((&leased.lease.task.subject, told(&leased.work)), (&late, secrets("late")), "those before it in the queue do not hide it");
    end(&world, &leased.lease).await;
    assert!(world.engine.lease(&session, offer()).await.unwrap().is_empty());
    let text = log().text().split_off(before);
    let missing = "the job's input salt is encrypted with an artifact key that is not there; add that key to --artifact-key again";
    assert!(text.contains(missing) && text.contains(&waiting[0].id) && text.contains(&damaged.id), "{text}");
    assert!(text.contains("the job's seed is damaged as it is stored; the job must be cancelled and sent again"), "{text}");
    for subject in waiting.iter().chain([&damaged]) {
        assert_eq!(world.get(subject).await.state(), State::Queued);
    }

    // The new key stays the first; the old one is there again.
    let world = world.close().await.open_with(seal(&["another", "first"])).await;
    world.execute("UPDATE tasks SET not_before_ms = 0 WHERE state = 'READY'").await;
    let session = world.session().await;
    for (number, subject) in waiting.iter().enumerate() {
        let leased = world.lease(&session).await;
        assert_eq!((&leased.lease.task.subject, leased.attempt), (subject, 1), "the wait costs no attempt, and no place");
        assert_eq!(told(&leased.work), secrets(&format!("job {number}")));
        end(&world, &leased.lease).await;
        assert_eq!(world.get(subject).await.state(), State::Succeeded);
    }
    let cancelled = world.engine.cancel_job("other", &damaged.id, "").await.unwrap().unwrap();
    assert_eq!(cancelled.state(), State::Cancelled);
}
