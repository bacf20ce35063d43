use zkinfer_proto::v1;
use zkinfer_proto::v1::job::State;
use zkinfer_server::engine::{EngineError, JobFilter, PageRequest, SubjectKind, Work};

use crate::world::{World, finish, key, new_job, new_model, whole};

pub(crate) async fn a_model_and_a_job_end_with_their_results_and_counted_events(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let model = world.engine.model("acme", "net").await.unwrap().unwrap();
    assert_eq!(model.state(), v1::model::State::Ready);
    let job = world.job("acme", "net").await;
    assert_eq!(world.get(&job).await.progress.unwrap().queue_position, 0);
    let session = world.session().await;
    let leased = world.lease(&session).await;
    let Work::Prove(work) = &leased.work else { panic!("a graph of one task is proved as a whole") };
    assert_eq!((work.input_salt, work.seed, leased.attempt), ([3; 32], [4; 32], 1));
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
    let batch = |models: &[&str]| models.iter().map(|model| new_job("acme", model)).collect();
    let refused = world.engine.create_jobs("acme", batch(&["net", "missing"]), None).await;
    let Err(EngineError::InBatch { index: 1, source }) = refused else { panic!("{refused:?}") };
    assert!(matches!(*source, EngineError::ModelNotFound));
    assert_eq!(world.engine.queue().await.unwrap().ready, 0);
    let first = world.engine.create_jobs("acme", batch(&["net", "net"]), key("77", 1)).await.unwrap();
    let again = world.engine.create_jobs("acme", batch(&["net", "net"]), key("77", 1)).await.unwrap();
    assert_eq!(first, again);
    assert_eq!(world.engine.queue().await.unwrap().ready, 2);
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

pub(crate) async fn a_tenant_has_a_place_for_so_many(world: World) {
    world.ready_model("acme", "net", whole()).await;
    world.execute("INSERT INTO tenants(tenant, max_queued) VALUES ('acme', 2)").await;
    let first = world.job("acme", "net").await;
    world.job("acme", "net").await;
    let refused = world.engine.create_job(new_job("acme", "net")).await;
    assert!(matches!(refused, Err(EngineError::QuotaExceeded { limit: 2, .. })), "{refused:?}");
    let batch = world.engine.create_jobs("acme", vec![new_job("acme", "net")], None).await;
    assert!(matches!(batch, Err(EngineError::InBatch { index: 0, .. })), "{batch:?}");
    assert_eq!(first.kind, SubjectKind::Job);
    let session = world.session().await;
    world.lease(&session).await;
    world.job("acme", "net").await;
}
