//! Liveness and readiness, one judgement for the gRPC health service and for the HTTP port.
//!
//! *Live*: the process answers. Nothing else, so that a database that is down does not make an orchestrator kill what would recover by itself.
//! *Ready*: the database answers, callers can be told from each other, and the service does not shut down; only then should new calls come here.

use std::fmt;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::auth::Authentication;
use crate::engine::{Engine, EngineError};

/// Health service names: alive at all, and ready for work.
const LIVE: &str = "live";
const READY: &str = "ready";

/// How long the database may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between two looks for the gRPC health service.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Whether new calls should come here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Readiness {
    Ready,
    Draining,
    /// With what is wrong, for people who see the port; no more than that.
    NoDatabase(&'static str),
    /// Every call would be refused.
    NoTokenKeys,
}

impl fmt::Display for Readiness {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready => formatter.write_str("ready"),
            Self::Draining => formatter.write_str("draining: the service is shutting down"),
            Self::NoDatabase(problem) => write!(formatter, "the database {problem}"),
            Self::NoTokenKeys => {
                formatter.write_str("the keys of tokens could not be fetched from their issuer; the service's log has the error")
            }
        }
    }
}

/// A question to the database.
pub(super) type Probe = Arc<dyn Fn() -> BoxFuture<'static, Result<(), EngineError>> + Send + Sync>;

/// Judges.
#[derive(Clone)]
pub(crate) struct Health {
    probe: Probe,
    patience: Duration,
    draining: CancellationToken,
    authentication: Authentication,
}

impl Health {
    /// Does not hold the engine: its files are free as soon as the service has ended.
    pub(crate) fn new(engine: Weak<dyn Engine>, authentication: Authentication, draining: CancellationToken) -> Self {
        let probe = move || -> BoxFuture<'static, Result<(), EngineError>> {
            let engine = engine.upgrade();
            // Any question shows whether it answers; this one touches one page of an index.
            Box::pin(async move {
                match engine {
                    Some(engine) => engine.model("", "").await.map(|_| ()),
                    None => Ok(()),
                }
            })
        };
        Self { probe: Arc::new(probe), patience: PATIENCE, draining, authentication }
    }

    /// Judges by a question of a test's.
    #[cfg(test)]
    pub(super) fn asking(probe: Probe) -> Self {
        Self { probe, patience: PATIENCE, draining: CancellationToken::new(), authentication: Authentication::none() }
    }

    pub(super) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// As [`Authentication::token_keys_age`].
    pub(super) fn token_keys_age(&self) -> Option<Duration> {
        self.authentication.token_keys_age()
    }

    pub(crate) async fn readiness(&self) -> Readiness {
        if self.draining.is_cancelled() {
            return Readiness::Draining;
        }
        if !self.authentication.is_able() {
            return Readiness::NoTokenKeys;
        }
        self.database().await.map_or_else(Readiness::NoDatabase, |()| Readiness::Ready)
    }

    /// Whether the database answers; else what is wrong.
    pub(super) async fn database(&self) -> Result<(), &'static str> {
        match tokio::time::timeout(self.patience, (self.probe)()).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "the database does not answer");
                Err("fails; the service's log has the error")
            }
            Err(_) => Err("does not answer"),
        }
    }

    /// Tells the gRPC health service how it is, once.
    pub(crate) async fn announce(&self, reporter: &HealthReporter) {
        reporter.set_service_status(LIVE, ServingStatus::Serving).await;
        let status = match self.readiness().await {
            Readiness::Ready => ServingStatus::Serving,
            Readiness::Draining | Readiness::NoDatabase(_) | Readiness::NoTokenKeys => ServingStatus::NotServing,
        };
        // The empty name is the whole server.
        for name in ["", READY] {
            reporter.set_service_status(name, status).await;
        }
    }

    /// Keeps the gRPC health service in step until the service drains; the last word is that it does.
    pub(crate) async fn keep_announced(self, reporter: HealthReporter) {
        while self.draining.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
            self.announce(&reporter).await;
        }
        self.announce(&reporter).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(probe: impl Fn() -> BoxFuture<'static, Result<(), EngineError>> + Send + Sync + 'static) -> Health {
        Health { patience: Duration::from_millis(20), ..Health::asking(Arc::new(probe)) }
    }

    #[tokio::test]
    async fn a_service_is_ready_while_its_database_answers_and_it_does_not_drain() {
        let good = health(|| Box::pin(async { Ok(()) }));
        assert_eq!(good.readiness().await, Readiness::Ready);
        good.draining.cancel();
        assert_eq!(good.readiness().await.to_string(), "draining: the service is shutting down");
        let failing = health(|| Box::pin(async { Err(EngineError::Fenced) }));
        assert!(matches!(failing.readiness().await, Readiness::NoDatabase(_)));
        let silent = health(|| Box::pin(std::future::pending()));
        assert_eq!(silent.readiness().await.to_string(), "the database does not answer");
    }
}
