//! Those who ask for tasks while others are being given some share the next transaction: its begin, its look at who waits, its commit. They are served one
//! after another, so that no two of this process want the same task.
//!
//! If whoever serves is dropped at that, the transaction is rolled back, unless its commit is on its way, and the others ask again: what they were given then
//! goes to another when the lease ends. A task that was given to somebody who does not listen any more goes back.

use std::sync::atomic::{AtomicBool, Ordering};

use super::super::{EngineError, Leased, Offer, Usage};
use super::SqlEngine;
use super::lease::Given;
use crate::together::{Asked, Together};

/// Served in one transaction.
const MAX_TOGETHER: usize = 16;
/// So often somebody asks with others; then alone, which tells what is wrong.
const TRIES: usize = 3;

/// Asks for tasks.
#[derive(Debug)]
struct Request {
    session: String,
    offer: Offer,
}

/// Who asks for tasks.
#[derive(Debug)]
pub(super) struct Desk {
    asking: Together<Request, Given>,
    /// The last who was served was given something: probably there is more.
    flows: AtomicBool,
}

impl Default for Desk {
    fn default() -> Self {
        Self { asking: Together::of_at_most(MAX_TOGETHER), flows: AtomicBool::default() }
    }
}

impl SqlEngine {
    pub(super) async fn lease_tasks(&self, session: &str, offer: &Offer) -> Result<Vec<Leased>, EngineError> {
        // Cheap look first, as the poll of an idle worker must not write.
        if !self.desk.flows.load(Ordering::Relaxed) && !self.has_ready().await? {
            return self.check_session(session, offer).await.map(|()| Vec::new());
        }
        for _ in 0..TRIES {
            let request = Request { session: session.to_owned(), offer: offer.clone() };
            if let Some(given) = self.desk.asking.ask(request, |asked| self.serve(asked)).await {
                return given;
            }
        }
        self.give_to(&[(session, offer)]).await?.pop().unwrap_or_else(|| Ok(Vec::new()))
    }

    async fn give_to(&self, asked: &[(&str, &Offer)]) -> Result<Vec<Given>, EngineError> {
        let mut writing = self.begin().await?;
        let given = self.lease_in(&mut writing, asked).await?;
        self.commit(writing).await?;
        let flows = given.last().is_some_and(|given| given.as_ref().is_ok_and(|leased| !leased.is_empty()));
        self.desk.flows.store(flows, Ordering::Relaxed);
        Ok(given)
    }

    async fn serve(&self, asked: Vec<Asked<Request, Given>>) {
        let requests: Vec<(&str, &Offer)> = asked.iter().map(|asked| (asked.question.session.as_str(), &asked.question.offer)).collect();
        let given = match self.give_to(&requests).await {
            Ok(given) => given,
            Err(error) => return tracing::debug!(%error, "those who asked for tasks together ask again"),
        };
        // All are answered before anything is waited for.
        let unheard: Vec<Given> = asked.into_iter().zip(given).filter_map(|(asked, given)| asked.answer(given).err()).collect();
        for leased in unheard.into_iter().flatten() {
            for leased in leased {
                if let Err(error) = self.release_task(&leased.lease, &Usage::default()).await {
                    tracing::debug!(%error, "a task that nobody took is given to another when its lease ends");
                }
            }
        }
    }
}
