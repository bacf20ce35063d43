//! Children at work beside the service whose tasks they do: what is known of them, and their end.

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::{ChildSpec, Children, Supervisor};

/// Children that a supervisor keeps. Cheap to clone; they go on when this is dropped.
#[derive(Debug, Clone)]
pub struct Supervised {
    children: Arc<Children>,
    draining: CancellationToken,
    ended: CancellationToken,
}

impl Supervised {
    pub(super) fn begin(supervisor: Supervisor, specs: Vec<ChildSpec>) -> Self {
        let (draining, ended) = (CancellationToken::new(), CancellationToken::new());
        let children = supervisor.children.clone();
        // Known at once, whoever asks.
        specs.iter().for_each(|spec| children.keep(spec));
        let (told, until) = (ended.clone().drop_guard(), draining.clone());
        tokio::spawn(async move {
            // Told however this ends.
            let _told = told;
            if !supervisor.run(specs, until).await {
                tracing::warn!("a worker of a device had to be killed");
            }
        });
        Self { children, draining, ended }
    }

    /// No children: devices that were all passed over, so that the process computes itself.
    pub fn nobody(children: Arc<Children>) -> Self {
        let ended = CancellationToken::new();
        ended.cancel();
        Self { children, draining: CancellationToken::new(), ended }
    }

    /// What is known of them.
    pub fn children(&self) -> &Arc<Children> {
        &self.children
    }

    /// Lets them drain, and waits until all have ended, as long as the supervisor's patience lasts.
    pub(crate) async fn drain(&self) {
        self.draining.cancel();
        self.ended.cancelled().await;
    }
}
