//! Admission, results, batches, lists, quotas, webhooks.

use std::time::Duration;

use zkinfer_proto::name::BatchName;
use zkinfer_proto::v1;
use zkinfer_proto::v1::job::State;
use zkinfer_server::engine::{EngineError, JobFilter, NewWebhook, PageRequest, Postponed, SubjectKind, Usage, Work};

use crate::world::{World, diamond, finish, key, new_batch, new_job, new_model, subject_of, whole};

pub(crate) async fn a_model_and_a_job_end_with_their_results_and_counted_events(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let model = world.engine.model("acme", "net").await.unwrap().unwrap();
    assert_eq!(model.state(), v1::model::State::Ready);
    let job = world.job("acme", "net").await;
    assert_eq!(world.get(&job).await.progress.unwrap().queue_position, 0);
    let session = world.session().await;
    let leased = world.lease(&session).await;
    let Work::Prove(work) = &leased.work else { panic!("a graph of one task is proved as a whole") };
    assert_eq!((*work.input_salt.expose(), *work.seed.expose(), leased.attempt), ([3; 32], [4; 32], 1));
    world.engine.progress(&leased.lease, v1::Progress { fraction: 0.5, ..Default::default() }).await.unwrap();
    finish(&world, &leased.lease).await.unwrap();
    let ended = world.get(&job).await;
    assert_eq!(ended.state(), State::Succeeded);
    assert!(ended.result.is_some());
    let events = world.events(&job).await;
    let states: Vec<i32> = events.iter().map(|event| event.state).collect();
    assert_eq!(states, [State::Queued, State::Running, State::Running, State::Succeeded].map(|state| state as i32));
    assert!(matches!(finish(&world, &leased.lease).await, Err(EngineError::Fenced)), "it is published once");
}

pub(crate) async fn the_same_request_is_admitted_once_also_at_the_same_time(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let create = |body: u8| {
        let mut new = new_job("acme", "net");
        new.key = key("6f1d", body);
        world.engine.create_job(new)
    };
    let (a, b, c) = tokio::join!(create(1), create(1), create(1));
    let names = [a, b, c].map(|job| job.unwrap().name);
    assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
    assert!(matches!(create(2).await, Err(EngineError::RequestIdReused)));
    let (a, b) = tokio::join!(world.engine.create_model(new_model("acme", "twin")), world.engine.create_model(new_model("acme", "twin")));
    assert_eq!(a.is_ok() as u8 + b.is_ok() as u8, 1);
    let refused = a.err().or(b.err());
    assert!(matches!(refused, Some(EngineError::AlreadyExists)), "{refused:?}");
}

pub(crate) async fn a_batch_is_admitted_as_a_whole_or_not_at_all(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let refused = world.engine.create_jobs(new_batch(&["net", "missing"], None)).await;
    let Err(EngineError::InBatch { index: 1, source }) = refused else { panic!("{refused:?}") };
    assert!(matches!(*source, EngineError::ModelNotFound));
    assert_eq!(world.engine.queue().await.unwrap().ready, 0);
    let first = world.engine.create_jobs(new_batch(&["net", "net"], key("77", 1))).await.unwrap();
    let again = world.engine.create_jobs(new_batch(&["net", "net"], key("77", 1))).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(world.engine.queue().await.unwrap().ready, 2);
}

pub(crate) async fn a_batch_counts_its_jobs(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let created = world.engine.create_jobs(new_batch(&["net", "net", "net"], None)).await.unwrap();
    world.job("acme", "net").await;
    let id = BatchName::parse(&created.batch).unwrap().batch_id;
    let session = world.session().await;
    let (done, running) = (world.lease(&session).await, world.lease(&session).await);
    finish(&world, &done.lease).await.unwrap();
    let batch = world.engine.batch("acme", &id).await.unwrap().unwrap();
    assert_eq!((batch.total, batch.queued, batch.running, batch.succeeded), (3, 1, 1, 1));
    assert_eq!(world.engine.ended_of_batch("acme", &id).await.unwrap(), [done.lease.task.subject.id]);
    world.engine.release(&running.lease, Usage::default()).await.unwrap();
    let of_batch = JobFilter { batch_id: Some(id.clone()), ..JobFilter::default() };
    let page = world.engine.list_jobs("acme", of_batch, PageRequest { size: 10, after: None }).await.unwrap();
    assert!(page.items.len() == 3 && page.items.iter().all(|job| job.batch == created.batch));
    assert_eq!(world.engine.batch("other", &id).await.unwrap(), None);
}

pub(crate) async fn the_end_of_a_job_is_told_until_it_was_heard(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let new =
        |id: &str| NewWebhook { tenant: "acme".into(), id: id.into(), url: format!("https://{id}.example/"), secret: vec![9; 32].into() };
    world.engine.create_webhook(new("one"), 2).await.unwrap();
    world.engine.create_webhook(new("two"), 2).await.unwrap();
    assert!(matches!(world.engine.create_webhook(new("three"), 2).await, Err(EngineError::QuotaExceeded { limit: 2, .. })));
    let job = world.job("acme", "net").await;
    let (hold, now) = (Duration::from_secs(60), Duration::ZERO);
    assert!(world.engine.take_deliveries(10, hold).await.unwrap().is_empty());
    let session = world.session().await;
    let leased = world.lease(&session).await;
    finish(&world, &leased.lease).await.unwrap();
    let due = world.engine.take_deliveries(10, hold).await.unwrap();
    assert_eq!(due.len(), 2);
    assert!(due.iter().all(|delivery| delivery.job.state() == State::Succeeded && delivery.key.job == job.id && delivery.tries == 0));
    assert!(world.engine.take_deliveries(10, hold).await.unwrap().is_empty(), "nobody else sends them meanwhile");
    world.engine.delivered(&due[0].key).await.unwrap();
    let after = Postponed { delivery: now, webhook: now, max_tries: 3 };
    assert_eq!(world.engine.postpone(&due[1].key, after).await.unwrap(), 0);
    let again = world.engine.take_deliveries(10, now).await.unwrap();
    assert_eq!(again.iter().map(|delivery| (&delivery.key, delivery.tries)).collect::<Vec<_>>(), [(&due[1].key, 1)]);
    assert_eq!(again[0].failures, 1);
    for given_up in [0, 1] {
        assert_eq!(world.engine.postpone(&due[1].key, after).await.unwrap(), given_up);
    }
    assert!(world.engine.take_deliveries(10, now).await.unwrap().is_empty(), "it had its tries");
    assert!(world.engine.delete_webhook("acme", &due[1].key.webhook).await.unwrap());
    assert!(world.engine.take_deliveries(10, now).await.unwrap().is_empty());
    assert!(!world.engine.delete_webhook("acme", "missing").await.unwrap());
}

pub(crate) async fn what_was_to_be_told_to_a_deleted_webhook_stops_no_other(world: World) {
    world.ready_model("acme", "net", whole()).await;
    for id in ["a-deleted", "b-there"] {
        let new = NewWebhook { tenant: "acme".into(), id: id.into(), url: format!("https://{id}.example/"), secret: vec![9; 32].into() };
        world.engine.create_webhook(new, 16).await.unwrap();
    }
    let session = world.session().await;
    let job = world.job("acme", "net").await;
    finish(&world, &world.lease(&session).await.lease).await.unwrap();
    // As when it is deleted at the moment in which the job ends.
    world.execute("DELETE FROM webhooks WHERE id = 'a-deleted'").await;
    let (hold, now) = (Duration::from_secs(60), Duration::ZERO);
    let mut due = world.engine.take_deliveries(1, hold).await.unwrap();
    due.extend(world.engine.take_deliveries(1, hold).await.unwrap());
    assert_eq!(due.iter().map(|delivery| (delivery.key.webhook.as_str(), &delivery.key.job)).collect::<Vec<_>>(), [("b-there", &job.id)]);
    world.execute("UPDATE outbox SET not_before_ms = 0").await;
    world.execute("UPDATE webhooks SET not_before_ms = 0").await;
    assert_eq!(world.engine.take_deliveries(9, now).await.unwrap().len(), 1, "the other is no more");
}

pub(crate) async fn a_quota_is_set_and_read(world: World) {
    let usual = world.engine.quota("acme").await.unwrap();
    assert_eq!((usual.share_milli, usual.max_queued, usual.max_running, usual.paused), (1000, 0, 0, false));
    let quota = v1::Quota { tenant: "tenants/acme".into(), share_milli: 2500, max_queued: 7, max_running: 3, paused: true };
    for _ in 0..2 {
        world.engine.set_quota("acme", quota.clone()).await.unwrap();
        assert_eq!(world.engine.quota("acme").await.unwrap(), quota);
    }
}

pub(crate) async fn lists_are_filtered_and_paged(world: World) {
    world.ready_model("acme", "net", whole()).await;
    world.ready_model("other", "net", whole()).await;
    for i in 0..5 {
        world.job_with("acme", "net", |job| drop(job.labels.insert("parity".into(), if i % 2 == 0 { "even" } else { "odd" }.into()))).await;
    }
    world.job("other", "net").await;
    let list = async |filter: JobFilter, size, after| world.engine.list_jobs("acme", filter, PageRequest { size, after }).await.unwrap();
    let even = JobFilter { labels: vec![("parity".into(), "even".into())], ..JobFilter::default() };
    assert_eq!(list(even.clone(), 10, None).await.items.len(), 3);
    let ended = JobFilter { states: vec![State::Succeeded, State::Failed], ..JobFilter::default() };
    assert!(list(ended, 10, None).await.items.is_empty());
    let mut names = Vec::new();
    let mut after = None;
    loop {
        let page = list(JobFilter { model_id: Some("net".into()), ..JobFilter::default() }, 2, after).await;
        names.extend(page.items.into_iter().map(|job| job.name));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(names.len(), 5);
    let mut sorted = names.clone();
    sorted.sort_by(|a, b| b.cmp(a));
    assert_eq!(names, sorted, "newest first");
}

pub(crate) async fn webhooks_are_paged_oldest_first(world: World) {
    for id in ["b", "a", "d", "c", "e"] {
        let new = NewWebhook { tenant: "acme".into(), id: id.into(), url: format!("https://{id}.example/"), secret: vec![9; 32].into() };
        world.engine.create_webhook(new, 9).await.unwrap();
    }
    // Some are of the same moment.
    world.execute("UPDATE webhooks SET created_ms = CASE id WHEN 'b' THEN 1 WHEN 'a' THEN 2 WHEN 'd' THEN 2 ELSE 3 END").await;
    let (mut urls, mut sizes, mut after) = (Vec::new(), Vec::new(), None);
    loop {
        let page = world.engine.list_webhooks("acme", PageRequest { size: 2, after }).await.unwrap();
        sizes.push(page.items.len());
        urls.extend(page.items.into_iter().map(|webhook| webhook.url));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(urls, ["b", "a", "d", "c", "e"].map(|id| format!("https://{id}.example/")));
    assert_eq!(sizes, [2, 2, 1]);
    assert!(world.engine.list_webhooks("other", PageRequest { size: 2, after: None }).await.unwrap().items.is_empty());
}

pub(crate) async fn a_tenant_has_a_place_for_so_many(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let quota = v1::Quota { tenant: "tenants/acme".into(), share_milli: 1000, max_queued: 2, max_running: 0, paused: false };
    world.engine.set_quota("acme", quota).await.unwrap();
    let first = world.job("acme", "net").await;
    world.job("acme", "net").await;
    let refused = world.engine.create_job(new_job("acme", "net")).await;
    assert!(matches!(refused, Err(EngineError::QuotaExceeded { limit: 2, .. })), "{refused:?}");
    let batch = world.engine.create_jobs(new_batch(&["net"], None)).await;
    assert!(matches!(batch, Err(EngineError::InBatch { index: 0, .. })), "{batch:?}");
    assert_eq!(first.kind, SubjectKind::Job);
    let session = world.session().await;
    world.lease(&session).await;
    world.job("acme", "net").await;
}

pub(crate) async fn calls_that_are_dropped_or_cut_leave_nothing_behind(world: World) {
    world.ready_model("acme", "net", whole()).await;
    // More than there are connections, dropped at many places.
    for n_yields in 0..60 {
        let (engine, job) = (world.engine.clone(), new_job("acme", "net"));
        let creating = tokio::spawn(async move { engine.create_job(job).await.map(drop) });
        for _ in 0..n_yields {
            tokio::task::yield_now().await;
        }
        creating.abort();
        let _ = creating.await;
    }
    world.cut_connections().await;
    let job = world.job("acme", "net").await;
    // Nothing is locked, and a job is admitted with its task or not at all.
    let session = world.session().await;
    let mut n_done = 0;
    while let Some(leased) = world.try_lease(&session).await {
        finish(&world, &leased.lease).await.unwrap();
        n_done += 1;
    }
    let page = PageRequest { size: 100, after: None };
    let jobs = world.engine.list_jobs("acme", JobFilter::default(), page).await.unwrap().items;
    assert!(jobs.iter().all(|job| job.state() == State::Succeeded), "{jobs:?}");
    assert_eq!(jobs.len(), n_done);
    assert_eq!(world.get(&job).await.state(), State::Succeeded);
}

pub(crate) async fn a_batch_of_many_is_admitted_with_all_its_tasks(world: World) {
    world.ready_model("acme", "net", diamond()).await;
    let mut batch = new_batch(&["net"; 150], None);
    for (index, new) in batch.jobs.iter_mut().enumerate() {
        new.job.labels.insert("index".into(), index.to_string());
    }
    let created = world.engine.create_jobs(batch).await.unwrap();
    assert_eq!(created.jobs.len(), 150);
    for job in [&created.jobs[0], &created.jobs[149]] {
        let subject = subject_of(job);
        let states = world.states(&subject).await;
        let wanted = [("first", "READY"), ("last", "WAITING"), ("left", "WAITING"), ("right", "WAITING")];
        assert!(states.iter().map(|(name, state)| (name.as_str(), state.as_str())).eq(wanted), "{states:?}");
        assert_eq!(world.engine.tasks(&subject).await.unwrap()[3].needs, ["left", "right"]);
        assert_eq!((world.events(&subject).await.len(), world.get(&subject).await.labels), (1, job.labels.clone()));
    }
    let filter = JobFilter { labels: vec![("index".into(), "77".into())], ..JobFilter::default() };
    let found = world.engine.list_jobs("acme", filter, PageRequest { size: 10, after: None }).await.unwrap();
    assert_eq!(found.items, [created.jobs[77].clone()]);
}
