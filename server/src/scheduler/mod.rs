//! Does the work that the engine remembers: takes tasks, runs the prover on threads of its own, settles the outcome.
//!
//! A prover call never runs on the async runtime. Each worker is a thread; it claims a task, runs it with a
//! `reporter::Reporter` as its sink, and writes what came out. A panic inside the prover is an outcome like any
//! other. Cancelling, expiring and shutting down raise a flag that the sink passes on.

mod causes;
mod cpu_pool;
mod hub;
mod reporter;
mod running;
mod worker;

use std::sync::Arc;
use std::time::{Duration, Instant};

pub(crate) use causes::rejection_reason;
pub use cpu_pool::{CpuPool, CpuPoolError};
pub use hub::{Hub, Subscription};
pub use running::{Running, StopReason};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use worker::Worker;

use crate::artifacts::{ArtifactBytes, Uploads};
use crate::engine::{Engine, now_ms};
use crate::limits::Limits;
use crate::prover::Prover;

/// How often deadlines are looked at, and an idle worker looks for tasks unasked.
const POLL: Duration = Duration::from_millis(500);
/// How often old request ids and uploads are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(600);

/// What the scheduler works with.
#[derive(Clone)]
pub struct SchedulerParts {
    /// Memory.
    pub engine: Arc<dyn Engine>,
    /// Bytes of both classes.
    pub bytes: ArtifactBytes,
    /// Uploads, to clean up after.
    pub uploads: Uploads,
    /// The mathematics.
    pub prover: Arc<dyn Prover>,
    /// Who waits for what.
    pub hub: Arc<Hub>,
    /// What runs.
    pub running: Arc<Running>,
    /// Attempts, backoff, retention.
    pub limits: Limits,
}

/// The running workers.
pub struct Scheduler {
    running: Arc<Running>,
    draining: CancellationToken,
    // Every worker holds a sender: the channel closes when the last has ended.
    ended: mpsc::Receiver<()>,
}

impl Scheduler {
    /// Starts `n_workers` threads and the keeper of deadlines.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(parts: SchedulerParts, n_workers: usize) -> std::io::Result<Self> {
        let draining = CancellationToken::new();
        let (alive, ended) = mpsc::channel(1);
        for i in 0..n_workers {
            let worker = Worker { parts: parts.clone(), draining: draining.clone(), runtime: tokio::runtime::Handle::current() };
            let alive = alive.clone();
            std::thread::Builder::new()
                .name(format!("prover-{i}"))
                // Recursion circuits are built with deep call chains.
                .stack_size(16 << 20)
                .spawn(move || {
                    worker.run();
                    drop(alive);
                })?;
        }
        let running = parts.running.clone();
        tokio::spawn(keep_deadlines(parts, draining.clone()));
        Ok(Self { running, draining, ended })
    }

    /// Takes no new task, waits for running ones up to `patience`, then asks them to stop and gives them back to the
    /// queue, and waits up to `grace` more. Answers whether all workers have ended.
    pub async fn drain(mut self, patience: Duration, grace: Duration) -> bool {
        self.draining.cancel();
        if tokio::time::timeout(patience, self.ended.recv()).await.is_ok() {
            return true;
        }
        self.running.stop_all(StopReason::Release);
        tokio::time::timeout(grace, self.ended.recv()).await.is_ok()
    }
}

async fn keep_deadlines(parts: SchedulerParts, draining: CancellationToken) {
    let mut last_forget: Option<Instant> = None;
    loop {
        match parts.engine.expire().await {
            Ok(expired) => {
                for subject in expired.stopping.iter().chain(&expired.ended) {
                    parts.running.stop(subject, StopReason::Ended);
                    parts.hub.changed(subject);
                }
            }
            Err(error) => tracing::warn!(%error, "cannot look for passed deadlines"),
        }
        if last_forget.is_none_or(|at| at.elapsed() > FORGET_EVERY) {
            last_forget = Some(Instant::now());
            let retention = i64::try_from(parts.limits.retention.as_millis()).unwrap_or(i64::MAX);
            match parts.engine.forget_before(now_ms().saturating_sub(retention)).await {
                Ok(uploads) => parts.uploads.remove_files(&uploads).await,
                Err(error) => tracing::warn!(%error, "cannot forget old uploads"),
            }
        }
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = draining.cancelled() => return,
        }
    }
}
