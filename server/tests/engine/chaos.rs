//! Workers that crash, fall silent, come back late and find results damaged, on many jobs at once: every job ends once, in order.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use zkinfer_proto::v1::job::State;
use zkinfer_server::engine::{Crash, EngineError, FailedAttempt, FailureCause, Leased, SessionEnd, Usage, Work};

use crate::world::{World, diamond, finish, whole};

const JOBS: usize = 30;
const WORKERS: u64 = 6;
const PATIENCE: Duration = Duration::from_secs(120);

/// A seeded generator: xorshift64.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

pub(crate) async fn crashing_workers_lose_and_double_nothing(world: World) {
    world.ready_model("acme", "net", diamond()).await;
    world.ready_model("other", "net", whole()).await;
    let mut jobs = Vec::new();
    for i in 0..JOBS {
        jobs.push(world.job(if i % 3 == 0 { "other" } else { "acme" }, "net").await);
    }
    let (world, published) = (Arc::new(world), Arc::new(AtomicUsize::new(0)));
    let workers: Vec<_> = (0..WORKERS).map(|seed| tokio::spawn(work(world.clone(), published.clone(), seed))).collect();
    for worker in workers {
        worker.await.unwrap();
    }
    let mut succeeded = 0;
    for job in &jobs {
        let ended = world.get(job).await;
        match ended.state() {
            State::Succeeded => succeeded += 1,
            State::Failed => assert!(["POISONED", "DEVICE_LOST", "STORAGE"].contains(&ended.failure.as_ref().unwrap().reason.as_str())),
            state => panic!("{job:?} is {state:?}"),
        }
        let events = world.events(job).await;
        assert_eq!(events.iter().filter(|event| event.state == State::Succeeded as i32).count(), usize::from(ended.result.is_some()));
        assert_eq!(ended.last_sequence, events.len() as i64);
    }
    assert_eq!(published.load(Ordering::Relaxed), succeeded, "each accepted result is a job's end");
    assert!(succeeded > JOBS / 2, "{succeeded} of {JOBS}");
    let queue = world.engine.queue().await.unwrap();
    assert_eq!((queue.ready, queue.running, queue.waiting), (0, 0, 0));
}

async fn work(world: Arc<World>, published: Arc<AtomicUsize>, seed: u64) {
    let (mut dice, started) = (Dice(0x9e37_79b9 + seed), Instant::now());
    let mut late: Vec<Leased> = Vec::new();
    let mut session = world.session().await;
    loop {
        assert!(started.elapsed() < PATIENCE, "the queue does not empty");
        let queue = world.engine.queue().await.unwrap();
        if queue.ready + queue.running + queue.waiting == 0 {
            break;
        }
        let Some(leased) = world.try_lease(&session).await else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        tokio::time::sleep(Duration::from_millis(dice.roll(10))).await;
        match dice.roll(12) {
            // Crashes; what it had done comes too late.
            0 => {
                world.engine.close_session(&session, SessionEnd::Crashed(Crash::default())).await.unwrap();
                session = world.session().await;
                late.push(leased);
            }
            1 => world.engine.release(&leased.lease, Usage::default()).await.unwrap(),
            2 => find_damaged(&world, &leased).await,
            _ => settle(&world, &published, &leased).await,
        }
        for leased in late.drain(..) {
            assert!(matches!(finish(&world, &leased.lease).await, Err(EngineError::Fenced)));
        }
    }
}

/// It reads nothing of what others gave.
async fn find_damaged(world: &World, leased: &Leased) {
    let damaged = match &leased.work {
        Work::Step { results, .. } => results.iter().map(|(name, _)| name.clone()).collect(),
        Work::Register { .. } | Work::Prove(_) => Vec::new(),
    };
    let failed = FailedAttempt { cause: FailureCause::Storage, reason: String::new(), message: "a disk".into(), damaged };
    match world.engine.fail(&leased.lease, failed, Usage::default()).await {
        Ok(()) | Err(EngineError::Fenced) => {}
        Err(error) => panic!("{error}"),
    }
}

async fn settle(world: &World, published: &AtomicUsize, leased: &Leased) {
    let is_last = matches!(leased.lease.task.name.as_str(), "prove" | "last");
    match finish(world, &leased.lease).await {
        Ok(()) if is_last => drop(published.fetch_add(1, Ordering::Relaxed)),
        Ok(()) => {}
        // The job failed meanwhile by another task of it.
        Err(EngineError::Fenced) => {}
        Err(error) => panic!("{error}"),
    }
}
