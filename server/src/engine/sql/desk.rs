//! Those who ask for tasks while others are being given some share the next transaction: its begin, its look at who waits, its commit. They are served one
//! after another, so that no two of this process want the same task.
//!
//! Whoever asks first serves all. If it is dropped at that, the transaction is rolled back, and the others ask again. A task that was given to somebody who
//! does not listen any more goes back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::super::{EngineError, Leased, Offer};
use super::SqlEngine;
use super::lease::Given;

/// Served in one transaction: the first of them waits for the last.
const MAX_TOGETHER: usize = 16;

/// Asks for tasks.
#[derive(Debug)]
struct Request {
    session: String,
    offer: Offer,
    answer: oneshot::Sender<Given>,
}

/// Who asks for tasks.
#[derive(Debug, Default)]
pub(super) struct Desk {
    waiting: Mutex<VecDeque<Request>>,
    turn: tokio::sync::Mutex<()>,
    /// The last who was served was given something: probably there is more.
    flows: AtomicBool,
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Request>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next to be served; who does not listen any more is left out.
    fn take(&self) -> Vec<Request> {
        let mut waiting = self.lock();
        let mut taken = Vec::new();
        while taken.len() < MAX_TOGETHER {
            let Some(request) = waiting.pop_front() else { break };
            if !request.answer.is_closed() {
                taken.push(request);
            }
        }
        taken
    }
}

impl SqlEngine {
    pub(super) async fn lease_tasks(&self, session: &str, offer: &Offer) -> Result<Vec<Leased>, EngineError> {
        // Cheap look first, as the poll of an idle worker must not write.
        if !self.desk.flows.load(Ordering::Relaxed) && !self.has_ready().await? {
            return self.check_session(session, offer).await.map(|()| Vec::new());
        }
        loop {
            let (sender, mut answer) = oneshot::channel();
            self.desk.lock().push_back(Request { session: session.to_owned(), offer: offer.clone(), answer: sender });
            let _turn = tokio::select! {
                biased;
                given = &mut answer => match given {
                    Ok(given) => return given,
                    // Whoever served was dropped, or the database failed.
                    Err(_) => continue,
                },
                turn = self.desk.turn.lock() => turn,
            };
            loop {
                match answer.try_recv() {
                    Ok(given) => return given,
                    Err(oneshot::error::TryRecvError::Closed) => break,
                    Err(oneshot::error::TryRecvError::Empty) => self.serve(self.desk.take()).await?,
                }
            }
        }
    }

    async fn serve(&self, requests: Vec<Request>) -> Result<(), EngineError> {
        let mut writing = self.begin().await?;
        let asked: Vec<(&str, &Offer)> = requests.iter().map(|request| (request.session.as_str(), &request.offer)).collect();
        let given = self.lease_in(&mut writing, &asked).await?;
        self.commit(writing).await?;
        let flows = given.last().is_some_and(|given| given.as_ref().is_ok_and(|leased| !leased.is_empty()));
        self.desk.flows.store(flows, Ordering::Relaxed);
        for (request, given) in requests.into_iter().zip(given) {
            let Err(Ok(unheard)) = request.answer.send(given) else { continue };
            for leased in unheard {
                if let Err(error) = self.release_task(&leased.lease).await {
                    tracing::debug!(%error, "a task that nobody took is given to another when its lease ends");
                }
            }
        }
        Ok(())
    }
}
