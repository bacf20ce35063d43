//! Cancellation and deadlines.

use zkinfer_proto::v1;
use zkinfer_proto::v1::job::State;
use zkinfer_server::engine::{TaskFlow, Usage, now_ms, timestamp};

use crate::world::{World, diamond, finish, whole};

pub(crate) async fn a_waiting_job_is_cancelled_at_once_and_a_running_one_when_it_stops(world: World) {
    world.ready_model("acme", "net", diamond()).await;
    let (running, waiting) = (world.job("acme", "net").await, world.job("acme", "net").await);
    let session = world.session().await;
    let lease = world.lease(&session).await.lease;
    let cancel = async |subject: &zkinfer_server::engine::Subject| {
        world.engine.cancel_job(&subject.tenant, &subject.id, "no longer needed").await.unwrap().unwrap()
    };
    assert_eq!(cancel(&waiting).await.state(), State::Cancelled);
    assert_eq!(cancel(&running).await.state(), State::Cancelling);
    assert_eq!(cancel(&running).await.state(), State::Cancelling);
    assert_eq!(world.engine.renew(&session, vec![lease.clone()]).await.unwrap().stop, std::slice::from_ref(&lease));
    assert_eq!(world.engine.progress(&lease, v1::Progress::default()).await.unwrap(), TaskFlow::Stop);
    assert!(world.try_lease(&session).await.is_none());
    world.engine.release(&lease, Usage::default()).await.unwrap();
    let ended = world.get(&running).await;
    assert_eq!((ended.state(), ended.failure.unwrap().message.as_str()), (State::Cancelled, "no longer needed"));
    assert_eq!(cancel(&running).await.state(), State::Cancelled, "a final state stays");
    for job in [running, waiting] {
        world.events(&job).await;
        assert!(world.states(&job).await.values().all(|state| state == "CANCELLED"));
    }
}

pub(crate) async fn a_result_that_comes_after_the_cancellation_is_not_published(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let job = world.job("acme", "net").await;
    let session = world.session().await;
    let lease = world.lease(&session).await.lease;
    world.engine.cancel_job(&job.tenant, &job.id, "").await.unwrap();
    finish(&world, &lease).await.unwrap();
    let ended = world.get(&job).await;
    assert_eq!(ended.state(), State::Cancelled);
    assert!(ended.result.is_none());
}

pub(crate) async fn a_passed_deadline_ends_a_job(world: World) {
    world.ready_model("acme", "net", whole()).await;
    let soon = |job: &mut v1::Job| job.deadline = Some(timestamp(now_ms() + 1500));
    let running = world.job_with("acme", "net", soon).await;
    let waiting = world.job_with("acme", "net", soon).await;
    let session = world.session().await;
    let lease = world.lease(&session).await.lease;
    assert!(world.engine.expire().await.unwrap().ended.is_empty());
    tokio::time::sleep(std::time::Duration::from_millis(1600)).await;
    let expired = world.engine.expire().await.unwrap();
    assert_eq!((expired.ended.as_slice(), expired.stopping.as_slice()), (std::slice::from_ref(&waiting), std::slice::from_ref(&running)));
    world.engine.release(&lease, Usage::default()).await.unwrap();
    for job in [running, waiting] {
        let ended = world.get(&job).await;
        assert_eq!((ended.state(), ended.failure.unwrap().reason.as_str()), (State::Expired, "DEADLINE"));
    }
}
