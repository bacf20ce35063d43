//! Which task is given to whom.

use zkinfer_proto::v1;
use zkinfer_server::artifacts::Class;
use zkinfer_server::engine::{Crash, EngineError, Offer, SessionEnd, Usage, graph};

use crate::sharing::wait;
use crate::world::{World, artifact, diamond, finish, offer, whole};

pub(crate) async fn tenants_share_by_their_weights(world: World) {
    for tenant in ["a", "b", "c"] {
        world.ready_model(tenant, "net", whole()).await;
    }
    world.execute("INSERT INTO tenants(tenant, share_milli) VALUES ('b', 3000)").await;
    world.execute("INSERT INTO tenants(tenant, is_paused) VALUES ('c', 1)").await;
    for tenant in ["a", "b", "c"] {
        for _ in 0..12 {
            world.job(tenant, "net").await;
        }
    }
    let session = world.session().await;
    let mut given = Vec::new();
    for _ in 0..8 {
        given.push(world.lease(&session).await.lease.task.subject.tenant);
    }
    let count = |tenant: &str| given.iter().filter(|given| *given == tenant).count();
    assert_eq!([count("a"), count("b"), count("c")], [2, 6, 0], "three to one, and nothing to who is paused");
    world.execute("UPDATE tenants SET max_running = 6 WHERE tenant = 'b'").await;
    for _ in 0..3 {
        assert_eq!(world.lease(&session).await.lease.task.subject.tenant, "a", "b runs as many as it may");
    }
}

pub(crate) async fn the_oldest_job_of_the_highest_priority_goes_first_along_its_longest_way(world: World) {
    world.ready_model("acme", "net", diamond()).await;
    let old = world.job("acme", "net").await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let young = world.job("acme", "net").await;
    let urgent = world.job_with("acme", "net", |job| job.priority = 5).await;
    let session = world.session().await;
    let mut order = Vec::new();
    for _ in 0..5 {
        let lease = world.lease(&session).await.lease;
        finish(&world, &lease).await.unwrap();
        order.push((lease.task.subject, lease.task.name));
    }
    let expected = [(&urgent, "first"), (&urgent, "right"), (&urgent, "left"), (&urgent, "last"), (&old, "first")];
    assert_eq!(order, expected.map(|(subject, name)| (subject.clone(), name.to_owned())));
    assert_eq!(world.get(&young).await.progress.unwrap().queue_position, 0);
}

pub(crate) async fn a_layer_waits_a_little_for_who_committed_it(world: World) {
    let node = |name: &str, step: &str, needs: &[u32], estimated_ms| v1::TaskNode {
        name: name.into(),
        step: step.into(),
        needs: needs.to_vec(),
        estimated_ms,
        ..Default::default()
    };
    let nodes = vec![
        node("commit-0000", "commit", &[], 10),
        node("commit-0001", "commit", &[], 10),
        node("layer-0000", "layer", &[0, 1], 60_000),
        node("layer-0001", "layer", &[0, 1], 60_000),
        node("last", "outer", &[2, 3], 10),
    ];
    let mut graph = v1::TaskGraph { nodes };
    graph::set_ranks(&mut graph).unwrap();
    world.ready_model("acme", "net", graph).await;
    world.job("acme", "net").await;
    let (one, two) = (world.session().await, world.session().await);
    let commits = [world.lease(&one).await.lease, world.lease(&two).await.lease];
    for commit in &commits {
        finish(&world, commit).await.unwrap();
    }
    let number = |name: &str| name.rsplit('-').next().unwrap().to_owned();
    for (session, commit) in [(&one, &commits[0]), (&two, &commits[1])] {
        let layer = world.lease(session).await.lease;
        assert_eq!(number(&layer.task.name), number(&commit.task.name), "each proves what it committed");
        world.engine.release(&layer, Usage::default()).await.unwrap();
    }
    let third = world.session().await;
    assert!(world.try_lease(&third).await.is_none(), "not at once");
    tokio::time::sleep(std::time::Duration::from_millis(2500)).await;
    assert!(world.try_lease(&third).await.is_some(), "but nothing waits for long");
}

pub(crate) async fn a_task_waits_a_little_for_who_holds_its_model(world: World) {
    let mut graph = whole();
    graph.nodes[0].load_ms = 60_000;
    world.ready_model("acme", "net", graph).await;
    let (one, two) = (world.session().await, world.session().await);
    let model = artifact("acme", Class::Internal, b"private").digest;
    let holding = Offer { cached_models: vec![model], ..offer() };
    assert!(world.engine.lease(&one, holding.clone()).await.unwrap().is_empty());
    assert_eq!(
        world.number(&format!("SELECT length(models) FROM sessions WHERE id = '{one}'")).await,
        32,
        "kept though it was given nothing"
    );
    let job = world.job("acme", "net").await;
    assert!(world.try_lease(&two).await.is_none(), "not at once");
    let soon = world.engine.look_again(&two).unwrap();
    assert!(soon <= std::time::Duration::from_secs(2), "{soon:?}");
    let given = world.engine.lease(&one, holding.clone()).await.unwrap().remove(0);
    assert_eq!(given.lease.task.subject, job);
    world.engine.release(&given.lease, Usage::default()).await.unwrap();
    assert!(world.try_lease(&two).await.is_none());
    wait(&world, 3).await;
    let stolen = world.lease(&two).await;
    assert_eq!(world.engine.look_again(&two), None);
    world.engine.release(&stolen.lease, Usage::default()).await.unwrap();
    // Who holds it no longer says so with its next request.
    assert!(world.engine.lease(&one, Offer { max_tasks: 0, ..offer() }).await.unwrap().is_empty());
    assert!(world.try_lease(&two).await.is_some(), "no place has it");
}

pub(crate) async fn a_model_at_hand_and_free_memory_decide(world: World) {
    let mut large = whole();
    large.nodes[0].device_bytes = 1 << 30;
    world.ready_model("acme", "large", large).await;
    world.ready_model("acme", "small", whole()).await;
    let large_job = world.job("acme", "large").await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let session = world.session().await;
    let tight = Offer { device_bytes: 1 << 20, ..offer() };
    assert!(world.engine.lease(&session, tight.clone()).await.unwrap().is_empty(), "it does not fit");
    let small_job = world.job("acme", "small").await;
    let given = world.engine.lease(&session, tight).await.unwrap();
    assert_eq!(given[0].lease.task.subject, small_job, "the one that does is given");
    world.engine.release(&given[0].lease, Usage::default()).await.unwrap();
    let given = world.engine.lease(&session, Offer { max_tasks: 4, ..offer() }).await.unwrap();
    assert_eq!(given.iter().map(|leased| leased.lease.task.subject.clone()).collect::<Vec<_>>(), [large_job, small_job]);
}

pub(crate) async fn many_who_ask_at_once_are_given_a_task_each(world: World) {
    world.ready_model("acme", "net", whole()).await;
    for _ in 0..40 {
        world.job("acme", "net").await;
    }
    let closed = world.session().await;
    world.engine.close_session(&closed, SessionEnd::InOrder).await.unwrap();
    let mut asking = Vec::new();
    for index in 0..40 {
        let session = if index % 10 == 5 { closed.clone() } else { world.session().await };
        let engine = world.engine.clone();
        asking.push(tokio::spawn(async move { engine.lease(&session, offer()).await }));
    }
    // Some do not wait for the answer.
    for asking in asking.iter().skip(30) {
        asking.abort();
    }
    let (mut given, mut n_refused) = (Vec::new(), 0);
    for asking in asking {
        match asking.await {
            Ok(Ok(leased)) => given.extend(leased.into_iter().map(|leased| leased.lease)),
            Ok(Err(EngineError::NoSession)) => n_refused += 1,
            Ok(Err(error)) => panic!("{error}"),
            Err(_) => {}
        }
    }
    let distinct: std::collections::HashSet<_> = given.iter().map(|lease| lease.task.clone()).collect();
    assert_eq!(distinct.len(), given.len(), "no task is given twice");
    assert!(given.len() >= 27 && n_refused >= 3, "{} and {n_refused}", given.len());
    for lease in given {
        finish(&world, &lease).await.unwrap();
    }
}

pub(crate) async fn a_task_that_a_worker_died_with_runs_alone(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let suspect = world.job("acme", "net").await;
    let killed = world.session().await;
    world.lease(&killed).await;
    world.engine.close_session(&killed, SessionEnd::Crashed(Crash::default())).await.unwrap();
    let (one, two) = (world.session().await, world.session().await);
    assert_eq!(world.lease(&one).await.lease.task.subject, suspect);
    let other = world.job("acme", "net").await;
    assert!(world.try_lease(&one).await.is_none(), "nothing joins it");
    let shared = world.lease(&two).await.lease;
    assert_eq!(shared.task.subject, other);
    world.engine.close_session(&one, SessionEnd::InOrder).await.unwrap();
    assert!(world.try_lease(&two).await.is_none(), "it joins nothing");
    finish(&world, &shared).await.unwrap();
    assert_eq!(world.lease(&two).await.lease.task.subject, suspect);
}

pub(crate) async fn tasks_that_are_too_large_hide_none_that_fit(world: World) {
    let mut large = whole();
    large.nodes[0].device_bytes = 1 << 30;
    for (model, graph) in [("large", large), ("small", whole())] {
        world.ready_model("acme", model, graph).await;
    }
    // More than are looked at.
    for _ in 0..20 {
        world.job_with("acme", "large", |job| job.priority = 9).await;
    }
    let small = world.job("acme", "small").await;
    let session = world.session().await;
    let tight = Offer { device_bytes: 1 << 20, ..offer() };
    let given = world.engine.lease(&session, tight).await.unwrap();
    assert_eq!(given.iter().map(|leased| &leased.lease.task.subject).collect::<Vec<_>>(), [&small]);
}

pub(crate) async fn tenants_whose_tasks_nobody_can_take_keep_no_other_out(world: World) {
    const LARGE: u64 = 1 << 30;
    let mut large = whole();
    large.nodes[0].device_bytes = LARGE as i64;
    // More than are looked at, with nothing that runs.
    let crowd: Vec<String> = (0..20).map(|index| format!("crowd-{index:02}")).collect();
    for tenant in &crowd {
        world.ready_model(tenant, "net", large.clone()).await;
    }
    world.ready_model("other", "net", whole()).await;
    for tenant in &crowd {
        world.job(tenant, "net").await;
    }
    for _ in 0..3 {
        world.job("other", "net").await;
    }
    // So long that nothing is left to those that are idle.
    wait(&world, 1).await;
    let [tight, roomy, third] = [world.session().await, world.session().await, world.session().await];
    let of = async |session: &str, device_bytes: u64| {
        let given = world.engine.lease(session, Offer { n_slots: 3, device_bytes, ..offer() }).await.unwrap();
        given.into_iter().next().map(|leased| leased.lease.task.subject.tenant)
    };
    assert_eq!(of(&tight, 1 << 20).await.as_deref(), Some("other"), "no other fits");
    let first = of(&roomy, LARGE).await.expect("it fits");
    assert!(crowd.contains(&first), "{first} has nothing that runs");
    assert_eq!(of(&roomy, LARGE).await.as_deref(), Some("other"), "no other fits beside it");
    world.execute("UPDATE tasks SET not_before_ms = 9000000000000000 WHERE state = 'READY' AND tenant LIKE 'crowd-%'").await;
    assert_eq!(of(&third, LARGE).await.as_deref(), Some("other"), "no other is due");
    assert_eq!(of(&third, LARGE).await, None);
}
