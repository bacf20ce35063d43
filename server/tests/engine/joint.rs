//! Many who come at once: what is admitted together is admitted as if each had come alone.

use std::sync::Arc;

use futures::future::join_all;
use futures::poll;
use zkinfer_proto::name::ArtifactName;
use zkinfer_proto::v1;
use zkinfer_server::artifacts::Class;
use zkinfer_server::engine::sql::SqlEngine;
use zkinfer_server::engine::{Engine, EngineError, EngineFuture, Leased, NewJob, Offer, Outcome, PageRequest, Subject, Usage, graph};

use crate::world::{LEASE, World, artifact, finish, key, limits, new_batch, new_job, offer, proved, subject_of, whole};

pub(crate) async fn who_is_refused_keeps_none_of_those_who_come_at_once_out(world: World) {
    world.ready_model("acme", "net", whole()).await;
    world.ready_model("small", "net", whole()).await;
    let quota = v1::Quota { tenant: "tenants/small".into(), share_milli: 1000, max_queued: 1, max_running: 0, paused: false };
    world.engine.set_quota("small", quota).await.unwrap();
    let keyed = |request_id: &str, body: u8| NewJob { key: key(request_id, body), ..new_job("acme", "net") };
    let first = world.engine.create_job(keyed("known", 1)).await.unwrap();
    let plain = (0..20).map(|_| new_job("acme", "net"));
    let others = [
        keyed("known", 1),
        keyed("known", 2),
        keyed("twice", 1),
        keyed("twice", 1),
        keyed("once", 1),
        new_job("acme", "missing"),
        new_job("small", "net"),
        new_job("small", "net"),
        new_job("small", "net"),
    ];
    let mut answers = join_all(plain.chain(others).map(|new| world.engine.create_job(new))).await.into_iter();
    let mut next = || answers.next().unwrap();
    for _ in 0..20 {
        next().unwrap();
    }
    assert_eq!(next().unwrap().name, first.name);
    assert!(matches!(next(), Err(EngineError::RequestIdReused)));
    assert_eq!(next().unwrap().name, next().unwrap().name);
    next().unwrap();
    assert!(matches!(next(), Err(EngineError::ModelNotFound)));
    let of_small = [next(), next(), next()];
    assert_eq!(of_small.iter().filter(|answer| answer.is_ok()).count(), 1);
    assert_eq!(of_small.iter().filter(|answer| matches!(answer, Err(EngineError::QuotaExceeded { .. }))).count(), 2);
    // 20, the known one, the one that came twice, the one that came once, and that of the small tenant.
    assert_eq!(world.engine.queue().await.unwrap().ready, 24);
}

/// What one of them refers to is gone, which is found when all are written.
pub(crate) async fn one_that_cannot_be_written_keeps_none_of_those_who_come_at_once_out(world: World) {
    world.ready_model("acme", "net", whole()).await;
    world.ready_model("small", "net", whole()).await;
    let quota = v1::Quota { tenant: "tenants/small".into(), share_milli: 1000, max_queued: 1, max_running: 0, paused: false };
    world.engine.set_quota("small", quota).await.unwrap();
    let gone = ArtifactName { tenant: "acme".into(), blake3: [9; 32] }.to_string();
    let mut without_input = new_job("acme", "net");
    without_input.job.input = Some(v1::Input { source: Some(v1::input::Source::Artifact(gone)), ..Default::default() });
    let plain = (0..8).map(|_| new_job("acme", "net"));
    let small = (0..3).map(|_| new_job("small", "net"));
    let all = plain.chain([without_input]).chain(small);
    let answers = join_all(all.map(|new| world.engine.create_job(new))).await;
    assert!(answers[..8].iter().all(Result::is_ok));
    assert!(matches!(answers[8], Err(EngineError::ArtifactGone)));
    assert_eq!(answers[9..].iter().filter(|answer| answer.is_ok()).count(), 1, "they do not take each other's room");
    assert_eq!(world.engine.queue().await.unwrap().ready, 9);
}

/// Whoever admits for others may be dropped at any place.
pub(crate) async fn who_goes_away_keeps_none_of_those_who_come_with_it_out(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let mut names = Vec::new();
    for n_yields in 0..40 {
        let create = |new: NewJob| {
            let engine = world.engine.clone();
            tokio::spawn(async move { engine.create_job(new).await })
        };
        let leaving = create(new_job("acme", "net"));
        let staying: Vec<_> = (0..4).map(|_| create(new_job("acme", "net"))).collect();
        for _ in 0..n_yields {
            tokio::task::yield_now().await;
        }
        leaving.abort();
        let _ = leaving.await;
        for created in join_all(staying).await {
            names.push(created.unwrap().unwrap().name);
        }
    }
    let page = PageRequest { size: 1000, after: None };
    let jobs = world.engine.list_jobs("acme", Default::default(), page).await.unwrap().items;
    assert!(names.iter().all(|name| jobs.iter().filter(|job| job.name == *name).count() == 1));
    assert!((names.len()..=names.len() + 40).contains(&jobs.len()));
    assert_eq!(world.engine.queue().await.unwrap().ready, jobs.len() as u64, "each with its task");
}

/// How many tasks are with workers and how many wait for one, as soon as that is so.
pub(crate) async fn comes_to(world: &World, running: u64, ready: u64) {
    let look = async {
        loop {
            let queue = world.engine.queue().await.unwrap();
            if (queue.running, queue.ready) == (running, ready) {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LEASE * 5, look).await.expect("what was given is taken or goes back");
}

/// Three ask: the first is served alone; meanwhile the others wait, and are then served together, by the second.
pub(crate) async fn three_ask<T>(ask: impl Fn() -> EngineFuture<'static, T>) -> [EngineFuture<'static, T>; 2] {
    let [mut first, mut second, mut third] = [ask(), ask(), ask()];
    for asking in [&mut first, &mut second, &mut third] {
        assert!(poll!(asking).is_pending());
    }
    first.await.unwrap();
    [second, third]
}

pub(crate) async fn tasks_of_who_is_dropped_serving_or_unread_go_back(world: World) {
    world.ready_model("acme", "net", whole()).await;
    for _ in 0..8 {
        world.job("acme", "net").await;
    }
    let session = world.session().await;
    // From now on tasks flow: who asks does not look first whether there are any.
    world.lease(&session).await;
    let ask = || -> EngineFuture<'static, Vec<Leased>> {
        let (engine, session) = (world.engine.clone(), session.clone());
        Box::pin(async move { engine.lease(&session, offer()).await })
    };
    let [mut second, third] = three_ask(ask).await;
    assert!(poll!(&mut second).is_pending());
    // It has written what both are given, and has told nobody.
    comes_to(&world, 4, 4).await;
    drop(second);
    assert_eq!(third.await.unwrap().len(), 1);
    comes_to(&world, 3, 5).await;

    let [second, third] = three_ask(ask).await;
    assert_eq!(second.await.unwrap().len(), 1);
    // Its task lies there for it, and it does not look.
    drop(third);
    comes_to(&world, 5, 3).await;
    for n_given in 6..=8 {
        world.lease(&session).await;
        comes_to(&world, n_given, 8 - n_given).await;
    }
}

pub(crate) async fn who_is_dropped_admitting_others_admits_them(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let create = || -> EngineFuture<'static, v1::Job> {
        let engine = world.engine.clone();
        Box::pin(async move { engine.create_job(new_job("acme", "net")).await })
    };
    let [mut second, third] = three_ask(create).await;
    assert!(poll!(&mut second).is_pending());
    comes_to(&world, 0, 3).await;
    drop(second);
    let job = third.await.unwrap();
    assert_eq!(world.get(&subject_of(&job)).await.name, job.name);
    comes_to(&world, 0, 3).await;
}

/// Batches and jobs at once, on every one of the engines: so many are admitted.
async fn rush(world: &World, engines: &[Arc<dyn Engine>], n_batch: usize, n_single: usize) -> usize {
    let batches = (0..3).flat_map(|_| engines).map(|engine| engine.create_jobs(new_batch(&vec!["net"; n_batch], None)));
    let singles = (0..n_single).flat_map(|_| engines).map(|engine| engine.create_job(new_job("acme", "net")));
    let (batches, singles) = tokio::join!(join_all(batches), join_all(singles));
    let refusals =
        batches.iter().filter_map(|answer| answer.as_ref().err()).chain(singles.iter().filter_map(|answer| answer.as_ref().err()));
    for error in refusals {
        let is_quota = |error: &EngineError| matches!(error, EngineError::QuotaExceeded { .. });
        assert!(is_quota(error) || matches!(error, EngineError::InBatch { source, .. } if is_quota(source)), "{error}");
    }
    let n_admitted = batches.iter().flatten().map(|batch| batch.jobs.len()).sum::<usize>() + singles.iter().flatten().count();
    assert_eq!(world.engine.queue().await.unwrap().ready, n_admitted as u64);
    for job in batches.into_iter().flatten().flat_map(|batch| batch.jobs).chain(singles.into_iter().flatten()) {
        world.engine.cancel_job("acme", &subject_of(&job).id, "").await.unwrap();
    }
    n_admitted
}

pub(crate) async fn batches_and_jobs_at_once_keep_to_their_tenants_limit(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let set = async |max_queued| {
        let quota = v1::Quota { tenant: "tenants/acme".into(), share_milli: 1000, max_queued, max_running: 0, paused: false };
        world.engine.set_quota("acme", quota).await.unwrap();
    };
    // So few that every one is counted, by several servers.
    set(9).await;
    let mut engines = vec![world.engine.clone()];
    if let Some(url) = world.url() {
        engines.push(Arc::new(SqlEngine::open_postgres(url, 8, &limits()).await.unwrap()));
    }
    for _ in 0..4 {
        assert_eq!(rush(&world, &engines, 4, 12).await, 9);
    }
    // Some are admitted by a count of before.
    set(40).await;
    for _ in 0..4 {
        let n_admitted = rush(&world, &engines[..1], 15, 30).await;
        assert!(n_admitted <= 40, "{n_admitted}");
    }
}

pub(crate) async fn places_are_told_also_far_from_the_front(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let created = world.engine.create_jobs(new_batch(&["net"; 130], None)).await.unwrap();
    let jobs: Vec<Subject> = created.jobs.iter().map(subject_of).collect();
    let place = async |index: usize| world.get(&jobs[index]).await.progress.unwrap().queue_position;
    for index in [129, 120, 110, 100, 99, 50, 0] {
        assert_eq!(place(index).await, index as i32);
    }
    let session = world.session().await;
    let leased = world.lease(&session).await;
    assert_eq!(leased.lease.task.subject, jobs[0]);
    assert_eq!((place(0).await, place(1).await, place(99).await), (-1, 0, 98));
    // Far from the front a moment may pass.
    tokio::time::sleep(std::time::Duration::from_millis(400)).await;
    assert_eq!((place(129).await, place(120).await), (128, 119));
    let urgent = world.job_with("acme", "net", |job| job.priority = 5).await;
    assert_eq!(world.get(&urgent).await.progress.unwrap().queue_position, 0);
    finish(&world, &leased.lease).await.unwrap();
    // The order of a queue that is gone tells nothing.
    for subject in jobs[1..].iter().chain([&urgent]) {
        world.engine.cancel_job("acme", &subject.id, "").await.unwrap();
    }
    let (first, second) = (world.job("acme", "net").await, world.job("acme", "net").await);
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    for _ in 0..3 {
        assert_eq!(world.get(&first).await.progress.unwrap().queue_position, 0);
        assert_eq!(world.get(&second).await.progress.unwrap().queue_position, 1);
    }
}

/// Two threads of a worker may ask two servers in the same moment: what one gives, the other counts.
pub(crate) async fn two_servers_promise_the_memory_of_a_session_once(world: World) {
    const DEVICE: u64 = 1 << 30;
    world.ready_model("acme", "net", graph::single(graph::PROVE, 100, DEVICE as i64 * 3 / 4)).await;
    let mut engines = [world.engine.clone(), world.engine.clone()];
    if let Some(url) = world.url() {
        engines[1] = Arc::new(SqlEngine::open_postgres(url, 8, &limits()).await.unwrap());
    }
    let session = world.session().await;
    let offer = || Offer { n_slots: 2, device_bytes: DEVICE, ..offer() };
    let mut n_given = 0;
    for _ in 0..30 {
        for _ in 0..4 {
            world.job("acme", "net").await;
        }
        let (one, other) = tokio::join!(engines[0].lease(&session, offer()), engines[1].lease(&session, offer()));
        let given: Vec<Leased> = one.unwrap().into_iter().chain(other.unwrap()).collect();
        assert!(given.len() <= 1, "{} tasks have the device at once", given.len());
        for leased in &given {
            finish(&world, &leased.lease).await.unwrap();
        }
        n_given += given.len();
    }
    assert!(n_given >= 15, "{n_given}");
}

/// A job refers to its model's key without a look at it; to no other.
pub(crate) async fn a_key_that_is_not_the_models_must_be_there(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let session = world.session().await;
    let key = artifact("acme", Class::Public, b"another key");
    let named = ArtifactName { tenant: "acme".into(), blake3: key.digest }.to_string();
    for is_there in [false, true] {
        world.job("acme", "net").await;
        let leased = world.lease(&session).await;
        let Outcome::Proved { mut result, artifacts } = proved("acme", "proof") else { unreachable!("it is proved") };
        result.verifier_key_artifact = named.clone();
        let settled = world.engine.complete(&leased.lease, Outcome::Proved { result, artifacts }, Usage::default()).await;
        match settled {
            Ok(ended) => assert!(is_there && ended.is_some()),
            Err(error) => {
                assert!(!is_there && matches!(error, EngineError::ArtifactGone), "{error:?}");
                world.engine.release(&leased.lease, Usage::default()).await.unwrap();
                finish(&world, &world.lease(&session).await.lease).await.unwrap();
                world.engine.add_artifact(key.clone()).await.unwrap();
            }
        }
    }
}
