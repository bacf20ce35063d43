//! Signs of life, from a thread and a runtime of their own: however busy the rest of the process is, they are given.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::running::{Running, StopReason};
use super::session::Session;
use super::source::{Holding, SourceError, TaskSource, Terms};
use crate::engine::{FailedAttempt, FailureCause, Usage};

/// Called after each sign of life, or attempt at one; not any more once a task hangs, so that who listens ends this process.
pub type OnBeat = Box<dyn Fn() + Send + Sync>;

/// Until there is a session.
const PATIENCE: Duration = Duration::from_millis(50);
/// A task that was ended because it ran for too long has this long to notice.
const UNTIL_HUNG: Duration = Duration::from_secs(60);
/// Shortest and longest time between signs of life.
const EVERY: std::ops::RangeInclusive<Duration> = Duration::from_millis(20)..=Duration::from_secs(20);

pub(super) struct Heartbeat {
    pub(super) source: Arc<dyn TaskSource>,
    pub(super) session: Arc<Session>,
    pub(super) running: Arc<Running>,
    pub(super) ended: CancellationToken,
    pub(super) on_beat: Option<OnBeat>,
    /// Held until the thread ends.
    pub(super) _alive: tokio::sync::mpsc::Sender<()>,
}

impl Heartbeat {
    /// Starts the thread. It ends with `ended`.
    pub(super) fn start(self) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let beat = move || runtime.block_on(self.run());
        std::thread::Builder::new().name("heartbeat".to_owned()).spawn(beat).map(drop)
    }

    async fn run(self) {
        let source = self.source.beside();
        while !self.ended.is_cancelled() {
            let pause = match self.session.terms() {
                None => PATIENCE,
                Some(terms) => {
                    self.end_late_tasks(&source, &terms).await;
                    self.beat(&source, &terms).await;
                    (terms.lease / 3).clamp(*EVERY.start(), *EVERY.end())
                }
            };
            let is_hung = self.session.terms().is_some_and(|terms| self.running.is_hung(terms.task_limit.saturating_add(UNTIL_HUNG)));
            if let Some(on_beat) = self.on_beat.as_ref().filter(|_| !is_hung) {
                on_beat();
            }
            let _ = tokio::time::timeout(pause, self.ended.cancelled()).await;
        }
    }

    async fn beat(&self, source: &Arc<dyn TaskSource>, terms: &Terms) {
        let held = self.running.held(&terms.session);
        // The next one must not be late because this one gets no answer.
        let patience = (terms.lease / 3).clamp(*EVERY.start(), *EVERY.end());
        match tokio::time::timeout(patience, source.renew(&terms.session, held)).await {
            Ok(Ok(renewal)) => {
                renewal.lost.iter().for_each(|lease| self.running.stop_lease(lease, StopReason::Fenced));
                renewal.stop.iter().for_each(|lease| self.running.stop_lease(lease, StopReason::Ended));
            }
            Ok(Err(SourceError::NoSession)) => {
                self.session.lose(&terms.session);
                self.running.stop_session(&terms.session, StopReason::Fenced);
            }
            // Work goes on: whether it is in time is decided by the epoch when it is settled.
            Ok(Err(error)) => tracing::warn!(%error, "no sign of life could be given"),
            Err(_) => tracing::warn!("a sign of life was not answered"),
        }
    }

    /// A task that hangs cannot say so itself.
    async fn end_late_tasks(&self, source: &Arc<dyn TaskSource>, terms: &Terms) {
        for lease in self.running.older_than(terms.task_limit) {
            let seconds = terms.task_limit.as_secs();
            let message = format!("it ran for more than {seconds} s");
            tracing::error!(task = lease.task.name, seconds, "a task runs for too long");
            let failed = FailedAttempt { cause: FailureCause::Timeout, reason: String::new(), message, damaged: Vec::new() };
            let holding = Holding { session: &terms.session, lease: &lease };
            match source.fail(holding, failed, Usage::default()).await {
                Ok(()) | Err(SourceError::Fenced) => self.running.stop_lease(&lease, StopReason::Fenced),
                Err(error) => tracing::warn!(%error, "a task that ran for too long could not be ended"),
            }
        }
    }
}
