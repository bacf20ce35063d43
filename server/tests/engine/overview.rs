//! What operators see of all tenants at once.

use zkinfer_proto::v1;
use zkinfer_server::engine::{JobFilter, NewSession, PageRequest};

use crate::world::{World, finish, offer, whole};

pub(crate) async fn operators_see_all_tenants_newest_first(world: World) {
    for tenant in ["acme", "rival"] {
        world.ready_model(tenant, "net", whole()).await;
    }
    let mut created = Vec::new();
    for tenant in ["acme", "rival", "acme"] {
        // Names of equal age sort by a random part.
        tokio::time::sleep(std::time::Duration::from_millis(3)).await;
        created.push(world.job(tenant, "net").await);
    }
    let session = world.session().await;
    let lease = world.lease(&session).await.lease;
    finish(&world, &lease).await.unwrap();

    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = world.engine.recent_jobs(JobFilter::default(), PageRequest { size: 2, after }).await.unwrap();
        listed.extend(page.items.into_iter().map(|job| job.name));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let newest_first = created.iter().rev().map(|job| format!("tenants/{}/jobs/{}", job.tenant, job.id));
    assert_eq!(listed, newest_first.collect::<Vec<_>>());
    let ended = JobFilter { states: vec![v1::job::State::Succeeded], ..JobFilter::default() };
    let ended = world.engine.recent_jobs(ended, PageRequest { size: 9, after: None }).await.unwrap().items;
    assert_eq!(ended.len(), 1);
    assert!(ended[0].name.ends_with(&lease.task.subject.id));
    let models = world.engine.recent_models(PageRequest { size: 9, after: None }).await.unwrap().items;
    assert_eq!(models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>(), ["tenants/rival/models/net", "tenants/acme/models/net"]);
    let census = world.engine.census().await.unwrap();
    assert_eq!(census.jobs, [(v1::job::State::Queued, 2), (v1::job::State::Succeeded, 1)]);
    assert_eq!(census.models, [(v1::model::State::Ready, 2)]);
}

pub(crate) async fn operators_see_what_runs_where(world: World) {
    world.ready_model("acme", "net", whole()).await;
    for _ in 0..3 {
        world.job("acme", "net").await;
    }
    assert!(world.engine.running_tasks(10).await.unwrap().is_empty());
    let first = world.session().await;
    let second = world.engine.open_session(NewSession { worker: "other".into(), ..NewSession::default() }).await.unwrap();
    let mut held = Vec::new();
    for session in [&first, &second, &first] {
        let leased = world.engine.lease(session, offer()).await.unwrap().pop().expect("a task is ready");
        held.push((session.clone(), leased.lease.task.subject));
    }
    let running = world.engine.running_tasks(10).await.unwrap();
    let mut seen: Vec<_> = running.iter().map(|task| (task.session.clone(), task.subject.clone())).collect();
    let (mut expected, by_session) = (held.clone(), running.windows(2).filter(|pair| pair[0].session != pair[1].session).count());
    seen.sort_by_key(|(session, subject)| (session.clone(), subject.id.clone()));
    expected.sort_by_key(|(session, subject)| (session.clone(), subject.id.clone()));
    assert_eq!(seen, expected);
    assert_eq!(by_session, 1, "tasks of a session follow one another");
    assert!(running.iter().all(|task| task.name == "prove" && task.started_ms > 0));
    assert_eq!(world.engine.running_tasks(2).await.unwrap().len(), 2);
}
