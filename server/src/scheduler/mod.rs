//! Keeps time for the engine: takes tasks away from workers that went silent, ends jobs whose deadline has passed, forgets what is old, deletes
//! jobs that ended long ago, and artifacts that nothing refers to. Beside it the hub that wakes who waits, and the threads for short computations.

mod cpu_pool;
mod deletion;
mod forgetting;
mod garbage;
mod hub;
mod sweeps;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub use cpu_pool::{CpuPool, CpuPoolError};
pub use hub::{Hub, Subscription};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::artifacts::{Collector, Uploads};
use crate::engine::{Engine, Subject};
use crate::limits::Limits;
use crate::worker::{Running, StopReason};

/// How often deadlines are looked at.
const POLL: Duration = Duration::from_millis(500);
/// How often workers that went silent are looked for, at least.
const REAP_EVERY: Duration = Duration::from_secs(5);

/// What the scheduler works with.
#[derive(Clone)]
pub struct Scheduler {
    /// Memory.
    pub engine: Arc<dyn Engine>,
    /// Uploads, to clean up after.
    pub uploads: Uploads,
    /// Deletes artifacts.
    pub collector: Collector,
    /// Who waits for what.
    pub hub: Arc<Hub>,
    /// What runs in this process.
    pub running: Arc<Running>,
    /// Lease, retention.
    pub limits: Limits,
    /// How long jobs are kept after their end; `None`: for good.
    pub job_retention: Option<Duration>,
}

impl Scheduler {
    /// Keeps time until `draining`; answers when all that it started has ended.
    pub async fn run(self, draining: CancellationToken) {
        // Beside the rest: a slow store must not keep deadlines waiting.
        let mut beside = JoinSet::new();
        beside.spawn(garbage::collect(self.collector.clone(), draining.clone()));
        let (uploads, age) = (self.uploads.clone(), self.limits.retention);
        beside.spawn(forgetting::forget_old(self.engine.clone(), uploads, age, draining.clone()));
        if let Some(age) = self.job_retention {
            beside.spawn(deletion::delete_old_jobs(self.engine.clone(), age, draining.clone()));
        }
        self.keep_time(draining).await;
        while beside.join_next().await.is_some() {}
    }

    async fn keep_time(&self, draining: CancellationToken) {
        // Far below half a lease, which would be taken for an outage.
        let reap_every = REAP_EVERY.min(self.limits.lease / 6);
        let mut last_reap: Option<Instant> = None;
        loop {
            self.expire().await;
            if last_reap.is_none_or(|at| at.elapsed() >= reap_every) {
                last_reap = Some(Instant::now());
                self.reap().await;
            }
            tokio::select! {
                () = tokio::time::sleep(POLL.min(reap_every / 2)) => {}
                () = draining.cancelled() => return,
            }
        }
    }

    async fn expire(&self) {
        match self.engine.expire().await {
            Ok(expired) => {
                for subject in expired.stopping.iter().chain(&expired.ended) {
                    self.running.stop(subject, StopReason::Ended);
                    self.hub.changed(subject);
                }
            }
            Err(error) => tracing::warn!(%error, "cannot look for passed deadlines"),
        }
    }

    async fn reap(&self) {
        match self.engine.reap().await {
            Ok(reaped) => {
                let told = |subject: &Subject, what: &str| {
                    tracing::warn!(id = subject.id, "a worker went silent; {what}");
                    self.hub.changed(subject);
                };
                reaped.requeued.iter().for_each(|subject| told(subject, "its task waits for another"));
                reaped.ended.iter().for_each(|subject| told(subject, "its task is not given to another"));
                for subject in &reaped.too_large {
                    tracing::warn!(id = subject.id, "no worker can hold a task of this job");
                    self.hub.changed(subject);
                }
                if !reaped.requeued.is_empty() {
                    self.hub.task_ready();
                }
            }
            Err(error) => tracing::warn!(%error, "cannot look for workers that went silent"),
        }
    }
}
