//! Keeps one child process for each device. What a device does to its process, a sticky error of its driver above all, ends the child and nothing else:
//! the supervisor starts another, and tells the service that the session of the dead one has crashed.
//!
//! A child says on its standard output which session it opened, that it lives, and what it has done ([`Word`]); it ends when its standard input does, so
//! that it never outlives its supervisor for long. What it writes to its standard error is passed on, and its end is told with its death.

mod backoff;
mod child;
mod children;
pub mod health;
mod last_words;
mod memory;
mod report;
mod supervised;
mod suspicions;
mod words;

use std::sync::Arc;
use std::time::Duration;

pub use child::{DEVICE_LOST, DEVICE_SUSPECTED, Kill, UNSETTLED};
use child::{Ended, Keeper};
pub use children::{ChildState, Children};
use futures::future::join_all;
use health::DeviceHealth;
use memory::HostMemory;
pub use report::WorkReport;
pub use supervised::Supervised;
use tokio_util::sync::CancellationToken;
pub use words::Word;

use crate::worker::TaskSource;

/// Makes the command that starts a child.
pub type MakeCommand = Arc<dyn Fn() -> tokio::process::Command + Send + Sync>;

/// A child to keep.
#[derive(Clone)]
pub struct ChildSpec {
    /// For logs and metrics, such as `cuda:0`.
    pub name: String,
    /// For people, such as `cuda:0 (NVIDIA H100)`.
    pub title: String,
    /// Its device, as the driver numbers them; `None`: the CPU.
    pub ordinal: Option<usize>,
    /// Starts it; the supervisor has its standard streams.
    pub command: MakeCommand,
}

/// How long things may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// From the start of a child to its first word.
    pub start: Duration,
    /// Between two words.
    pub silence: Duration,
    /// From the order to drain to the end.
    pub drain: Duration,
    /// From the killing of a process to its end; no more than five seconds while the supervisor drains. It may have much memory to give back.
    pub kill: Duration,
    /// Before a child that died is started again; doubles each time.
    pub first_pause: Duration,
    /// Longest pause.
    pub longest_pause: Duration,
    /// A child that lived for so long is no failure of the start.
    pub proven: Duration,
    /// Between two looks at a device's health.
    pub health: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            start: Duration::from_secs(300),
            silence: Duration::from_secs(60),
            drain: Duration::from_secs(40),
            kill: Duration::from_secs(30),
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
            proven: Duration::from_secs(300),
            health: Duration::from_secs(5),
        }
    }
}

/// What the supervisor works with.
pub struct Supervisor {
    /// Told of sessions that the children did not close.
    pub source: Arc<dyn TaskSource>,
    /// Health of the devices.
    pub health: Arc<dyn DeviceHealth>,
    /// How long things may take.
    pub patience: Patience,
    /// What is known of the children, for whoever asks.
    pub children: Arc<Children>,
}

impl Supervisor {
    /// Keeps the children until `draining`, then lets them drain. Answers whether all of them ended by themselves.
    pub async fn run(self, children: Vec<ChildSpec>, draining: CancellationToken) -> bool {
        self.run_killing_by(tokio::process::Child::start_kill, children, draining).await
    }

    /// The same with another way to kill a process, so that one that cannot be killed can be had.
    pub async fn run_killing_by(self, kill: Kill, children: Vec<ChildSpec>, draining: CancellationToken) -> bool {
        let (parts, memory) = (Arc::new(self), Arc::new(HostMemory::new()));
        let keep = |spec: ChildSpec| {
            parts.children.keep(&spec);
            let keeper = Keeper { parts: parts.clone(), spec, memory: memory.clone(), draining: draining.clone(), kill };
            tokio::spawn(keeper.keep())
        };
        let kept: Vec<_> = children.into_iter().map(keep).collect();
        let mut all_drained = true;
        for ended in join_all(kept).await {
            match ended {
                Ok(ended) => all_drained &= ended == Ended::Drained,
                Err(error) => {
                    tracing::error!(%error, "a child is not kept any more");
                    all_drained = false;
                }
            }
        }
        all_drained
    }

    /// The same, beside what runs here: the answer lets them drain.
    pub fn start(self, children: Vec<ChildSpec>) -> Supervised {
        Supervised::begin(self, children)
    }
}
