//! The session of a worker: opened when it is needed, and again when the service has given it up.

use std::sync::{Arc, Mutex, PoisonError};

use super::source::{SourceError, TaskSource, Terms};
use crate::engine::NewSession;

/// Called with the name of each session that is opened.
pub type OnSession = Box<dyn Fn(&str) + Send + Sync>;

/// The session that is open, if one is.
pub(super) struct Session {
    new: NewSession,
    terms: Mutex<Option<Terms>>,
    opening: tokio::sync::Mutex<()>,
    on_open: Option<OnSession>,
}

impl Session {
    pub(super) fn new(new: NewSession, on_open: Option<OnSession>) -> Self {
        Self { new, terms: Mutex::new(None), opening: tokio::sync::Mutex::new(()), on_open }
    }

    /// The open session; one is opened if there is none.
    pub(super) async fn open(&self, source: &Arc<dyn TaskSource>) -> Result<Terms, SourceError> {
        let _opening = self.opening.lock().await;
        if let Some(terms) = self.terms() {
            return Ok(terms);
        }
        let terms = source.open(self.new.clone()).await?;
        tracing::info!(session = terms.session, "a session is open");
        if let Some(on_open) = &self.on_open {
            on_open(&terms.session);
        }
        *self.terms.lock().unwrap_or_else(PoisonError::into_inner) = Some(terms.clone());
        Ok(terms)
    }

    /// The open session.
    pub(super) fn terms(&self) -> Option<Terms> {
        self.terms.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The service does not know the session any more.
    pub(super) fn lose(&self, session: &str) {
        let mut terms = self.terms.lock().unwrap_or_else(PoisonError::into_inner);
        if terms.as_ref().is_some_and(|terms| terms.session == session) {
            tracing::warn!(session, "the service has given the session up");
            *terms = None;
        }
    }
}
