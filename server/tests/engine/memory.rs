//! Tasks that need more device memory than there is.

use zkinfer_proto::v1;
use zkinfer_proto::v1::job::State;
use zkinfer_server::engine::{NewModel, Offer, SessionEnd, Subject, Usage};

use crate::world::{World, diamond, finish, new_model, offer, whole};

const NEED: i64 = 1 << 30;
const SMALL: u64 = 1 << 20;

fn with_device(bytes: u64) -> Offer {
    Offer { device_bytes: bytes, ..offer() }
}

/// A job of which `left` and `right` are ready and large, and a session with a small device that did what comes before them.
async fn large_job(world: &World) -> (Subject, String) {
    let mut graph = diamond();
    graph.nodes[1].device_bytes = NEED;
    graph.nodes[2].device_bytes = NEED;
    world.ready_model("acme", "net", graph).await;
    let job = world.job("acme", "net").await;
    let session = world.session().await;
    let first = world.engine.lease(&session, with_device(SMALL)).await.unwrap().remove(0);
    finish(world, &first.lease).await.unwrap();
    assert!(world.engine.lease(&session, with_device(SMALL)).await.unwrap().is_empty());
    (job, session)
}

/// Looks for tasks that are too large, while these sessions live and no outage was.
pub(crate) async fn look(world: &World, alive: &[&str]) -> Vec<Subject> {
    world.execute("UPDATE reaping SET grace_until_ms = 0").await;
    for session in alive {
        world.engine.renew(session, Vec::new()).await.unwrap();
    }
    let mut told = world.engine.reap().await.unwrap().too_large;
    // If that one found that nobody had looked for long.
    world.execute("UPDATE reaping SET grace_until_ms = 0").await;
    told.extend(world.engine.reap().await.unwrap().too_large);
    told
}

async fn notes(world: &World, job: &Subject) -> Vec<v1::TaskNote> {
    let events = world.events(job).await;
    let note = |event: v1::JobEvent| match event.detail {
        Some(v1::job_event::Detail::Note(note)) => Some(note),
        _ => None,
    };
    events.into_iter().filter_map(note).collect()
}

pub(crate) async fn a_task_that_no_device_can_hold_is_told_of_once_and_fails_after_a_wait(world: World) {
    let (job, session) = large_job(&world).await;
    assert!(look(&world, &[&session]).await.contains(&job));
    assert!(look(&world, &[&session]).await.is_empty());
    let notes = notes(&world, &job).await;
    assert_eq!(notes.iter().map(|note| (note.task.as_str(), note.outcome.as_str())).collect::<Vec<_>>(), [("left", "TOO_LARGE")]);
    assert!(notes[0].message.contains(&NEED.to_string()) && notes[0].message.contains(&SMALL.to_string()), "{}", notes[0].message);
    assert_eq!(world.get(&job).await.state(), State::Running, "a larger device may come");
    world.execute("UPDATE tasks SET too_large_ms = 1 WHERE too_large_ms IS NOT NULL").await;
    assert_eq!(look(&world, &[&session]).await, std::slice::from_ref(&job));
    let failure = world.get(&job).await.failure.unwrap();
    assert_eq!((failure.reason.as_str(), failure.stage.as_str()), ("DEVICE_MEMORY", "left"));
    assert!(failure.message.contains(&NEED.to_string()) && failure.message.contains(&SMALL.to_string()), "{}", failure.message);
    let states = world.states(&job).await;
    assert_eq!([&states["left"], &states["right"], &states["last"]], ["FAILED", "CANCELLED", "CANCELLED"]);
}

pub(crate) async fn tasks_that_are_too_large_are_found_in_the_queue_of_every_tenant(world: World) {
    let mut large = whole();
    large.nodes[0].device_bytes = NEED;
    let tenants = ["acme", "beta", "gamma"];
    for tenant in tenants {
        world.ready_model(tenant, "small", whole()).await;
        world.ready_model(tenant, "large", large.clone()).await;
    }
    for tenant in tenants {
        world.job(tenant, "small").await;
        world.job(tenant, "small").await;
    }
    let too_large = [world.job("acme", "large").await, world.job("gamma", "large").await];
    let session = world.session().await;
    assert_eq!(world.engine.lease(&session, with_device(SMALL)).await.unwrap().len(), 1);
    assert_eq!(look(&world, &[&session]).await, too_large, "in the order of their keys, and no others");
    assert!(look(&world, &[&session]).await.is_empty(), "it was told");
}

pub(crate) async fn a_registration_asks_for_memory_by_the_size_of_its_file(world: World) {
    for (id, source_bytes) in [("small", 1_000_000), ("large", 100_000_000)] {
        world.engine.create_model(NewModel { source_bytes, ..new_model("acme", id) }).await.unwrap();
    }
    let session = world.session().await;
    let gigabyte = world.engine.lease(&session, Offer { max_tasks: 2, ..with_device(1 << 30) }).await.unwrap();
    assert_eq!(gigabyte.iter().map(|leased| leased.lease.task.subject.id.as_str()).collect::<Vec<_>>(), ["small"]);
    assert!(look(&world, &[&session]).await.iter().any(|subject| subject.id == "large"));
    let large = world.session().await;
    assert_eq!(world.engine.lease(&large, with_device(6 << 30)).await.unwrap()[0].lease.task.subject.id, "large");
    let needs = world.number("SELECT max(device_bytes) FROM tasks").await as u64;
    assert_eq!(needs, zkinfer_server::placement::cost::register(100_000_000).device_bytes);
}

pub(crate) async fn a_larger_device_ends_the_wait_and_nothing_is_decided_without_workers(world: World) {
    let (job, small) = large_job(&world).await;
    assert!(look(&world, &[&small]).await.contains(&job));
    world.execute("UPDATE tasks SET too_large_ms = 1 WHERE too_large_ms IS NOT NULL").await;
    let large = world.session().await;
    let held = world.engine.lease(&large, with_device(NEED as u64)).await.unwrap().remove(0);
    assert!(look(&world, &[&small, &large]).await.is_empty());
    world.engine.release(&held.lease, Usage::default()).await.unwrap();
    world.engine.close_session(&large, SessionEnd::InOrder).await.unwrap();
    assert_eq!(look(&world, &[&small]).await, [job.clone(), job.clone()], "the wait begins again");
    world.execute("UPDATE tasks SET too_large_ms = 1 WHERE too_large_ms IS NOT NULL").await;
    world.execute("UPDATE sessions SET seen_ms = 1").await;
    assert!(look(&world, &[]).await.is_empty());
    assert_eq!((world.get(&job).await.state(), notes(&world, &job).await.len()), (State::Running, 1));
}

pub(crate) async fn what_no_device_can_hold_is_done_on_processors_with_the_reason(world: World) {
    let (job, small) = large_job(&world).await;
    let processors = world.session().await;
    let held = world.lease(&processors).await.lease;
    assert!(look(&world, &[&small, &processors]).await.is_empty());
    finish(&world, &held).await.unwrap();
    finish(&world, &world.lease(&processors).await.lease).await.unwrap();
    let notes = notes(&world, &job).await;
    assert_eq!(notes.iter().map(|note| (note.task.as_str(), note.outcome.as_str())).collect::<Vec<_>>(), [("right", "TOO_LARGE")]);
    assert!(notes[0].message.contains("processors") && notes[0].message.contains(&NEED.to_string()), "{}", notes[0].message);
    finish(&world, &world.lease(&small).await.lease).await.unwrap();
    assert_eq!(world.get(&job).await.state(), State::Succeeded);
}
