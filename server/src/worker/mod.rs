//! Does tasks: takes them from a source, runs the prover on threads of its own, settles the outcome. One loop for workers in the service's process
//! and for those elsewhere.
//!
//! A prover call never runs on the async runtime. Each worker is a thread; it leases a task, runs it with a `reporter::Reporter` as its sink, and writes
//! what came out. A panic inside the prover is an outcome like any other. Cancelling, expiring and shutting down raise a flag that the sink passes on.
//! Signs of life are given by one more thread.

pub(crate) mod again;
mod attempt;
mod cause;
mod heartbeat;
mod link;
mod local;
mod material;
mod remote;
mod reporter;
mod running;
mod session;
mod source;
mod suspicion;
pub(crate) mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use again::again;
use attempt::Worker;
pub(crate) use cause::rejection_reason;
use heartbeat::Heartbeat;
pub use heartbeat::OnBeat;
pub use link::{RemoteError, RemoteFiles, RemoteOptions};
pub use local::LocalSource;
pub use remote::RemoteSource;
pub use running::{Running, StopReason, WorkDone};
pub use session::OnSession;
use session::Session;
pub use source::{Holding, SourceError, SourceFuture, TaskSource, Terms};
use suspicion::Suspicion;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::engine::{NewSession, SessionEnd};
use crate::prover::Prover;

/// The service is told of the end of a session for at most so long.
const CLOSE: Duration = Duration::from_secs(5);

/// What a worker does after its device has failed, or computed wrongly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterDeviceLoss {
    /// It goes on, on the CPU.
    GoOn,
    /// It takes no more tasks: whoever started its process starts another.
    End,
}

/// What workers work with.
pub struct WorkerParts {
    /// Tasks.
    pub source: Arc<dyn TaskSource>,
    /// The mathematics.
    pub prover: Arc<dyn Prover>,
    /// What runs, for whoever wants to stop it.
    pub running: Arc<Running>,
    /// Who asks.
    pub session: NewSession,
    /// Memory of the device, for all workers together; `None`: there is none.
    pub device_bytes: Option<u64>,
    /// After its device has failed.
    pub after_device_loss: AfterDeviceLoss,
    /// Told of each session.
    pub on_session: Option<OnSession>,
    /// Told of each sign of life.
    pub on_beat: Option<OnBeat>,
}

/// The running workers.
pub struct WorkerPool {
    source: Arc<dyn TaskSource>,
    session: Arc<Session>,
    running: Arc<Running>,
    draining: CancellationToken,
    has_lost_device: Arc<AtomicBool>,
    // Nobody waits for the workers any more: signs of life end, and so does what cannot be written.
    over: CancellationToken,
    // Closes when the heartbeat has ended.
    heartbeat_ended: mpsc::Receiver<()>,
    // Every worker holds a sender: the channel closes when the last has ended.
    ended: mpsc::Receiver<()>,
}

impl WorkerPool {
    /// Starts `n_workers` threads, and the one that gives signs of life; on the runtime that it is called on.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(parts: WorkerParts, n_workers: usize) -> std::io::Result<Self> {
        let WorkerParts { source, prover, running, session, device_bytes, after_device_loss, on_session, on_beat } = parts;
        let session = Arc::new(Session::new(session, on_session));
        let host_bytes = crate::process::host_bytes();
        let (draining, over) = (CancellationToken::new(), CancellationToken::new());
        let has_lost_device = Arc::new(AtomicBool::new(false));
        let suspicion = Arc::new(Suspicion::default());
        let (alive, ended) = mpsc::channel(1);
        let (beating, heartbeat_ended) = mpsc::channel(1);
        let beats = Heartbeat {
            source: source.clone(),
            session: session.clone(),
            running: running.clone(),
            ended: over.clone(),
            on_beat,
            _alive: beating,
        };
        beats.start()?;
        for i in 0..n_workers {
            let worker = Worker {
                source: source.clone(),
                prover: prover.clone(),
                running: running.clone(),
                session: session.clone(),
                n_slots: u32::try_from(n_workers).unwrap_or(u32::MAX),
                device_bytes,
                host_bytes,
                after_device_loss,
                has_lost_device: has_lost_device.clone(),
                suspicion: suspicion.clone(),
                draining: draining.clone(),
                over: over.clone(),
                runtime: tokio::runtime::Handle::current(),
            };
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
        Ok(Self { source, session, running, draining, has_lost_device, over, heartbeat_ended, ended })
    }

    /// Waits until all workers have ended by themselves: their device is lost.
    pub async fn ended(&mut self) {
        let _ = self.ended.recv().await;
    }

    /// Whether the device was lost, or is suspected to compute wrongly.
    pub fn has_lost_device(&self) -> bool {
        self.has_lost_device.load(Ordering::Acquire)
    }

    /// Takes no new task, waits for running ones up to `patience`, then asks them to stop and gives them back to the queue, and waits up to `grace` more.
    /// Answers whether all workers have ended and the session is closed: else some of its tasks may seem to have died with it, until it is closed by somebody.
    pub async fn drain(mut self, patience: Duration, grace: Duration) -> bool {
        self.draining.cancel();
        let mut is_idle = tokio::time::timeout(patience, self.ended.recv()).await.is_ok();
        if !is_idle {
            self.running.stop_all(StopReason::Release);
            is_idle = tokio::time::timeout(grace, self.ended.recv()).await.is_ok();
        }
        self.over.cancel();
        // The heartbeat holds the source, and so what the source holds.
        let heartbeat_ended = tokio::time::timeout(grace, self.heartbeat_ended.recv());
        let (is_closed, _) = tokio::join!(close(&*self.source, self.session.terms(), CLOSE.min(grace)), heartbeat_ended);
        is_idle && is_closed
    }
}

/// Closes the session, if there is one, within `patience`. Answers whether none is open any more.
async fn close(source: &dyn TaskSource, terms: Option<Terms>, patience: Duration) -> bool {
    let Some(Terms { session, .. }) = terms else { return true };
    let closed = tokio::time::timeout(patience, again(|| source.close(&session, SessionEnd::InOrder), || false)).await;
    let is_closed = matches!(closed, Ok(Ok(()) | Err(SourceError::NoSession)));
    if !is_closed {
        tracing::warn!(session, "the session could not be closed; it ends with its lease");
    }
    is_closed
}

/// Signs of life end with the pool, however it ends: what still runs is taken away, and given to others.
impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.draining.cancel();
        self.over.cancel();
    }
}
