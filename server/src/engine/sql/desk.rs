//! Those who ask for tasks while others are being given some share the next transaction: its begin, its look at who waits, its commit. So no two of this
//! process want the same task.
//!
//! Whoever gives tasks is a task of its own, which nobody drops. What it gives goes back if who asked for it does not take it, however it is lost: they may
//! not listen any more, or be dropped with the answer unread.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::super::{EngineError, Leased, Offer, Usage};
use super::SqlEngine;
use super::group::shared;
use super::lease::Given;
use super::lines::Waits;
use crate::together::{Asked, Together};

/// Served in one transaction.
const MAX_TOGETHER: usize = 16;
/// So often somebody asks with others; then alone, which tells what is wrong.
const TRIES: usize = 3;
/// When a session is to ask again is forgotten so long after that.
const KEPT: Duration = Duration::from_secs(60);

/// Asks for tasks.
#[derive(Debug)]
struct Request {
    session: String,
    offer: Offer,
}

/// What is given, on its way to who asked for it. Dropped there, it goes back: nobody would give signs of life for it until its lease ends.
#[derive(Debug)]
struct Handed {
    given: Given,
    engine: SqlEngine,
}

impl Handed {
    fn take(mut self) -> Given {
        std::mem::replace(&mut self.given, Ok(Vec::new()))
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        let Ok(unheard) = std::mem::replace(&mut self.given, Ok(Vec::new())) else { return };
        if unheard.is_empty() {
            return;
        }
        let engine = self.engine.clone();
        self.engine.runtime.spawn(async move {
            for leased in unheard {
                if let Err(error) = engine.release_task(&leased.lease, &Usage::default()).await {
                    tracing::debug!(%error, "a task that nobody took is given to another when its lease ends");
                }
            }
        });
    }
}

/// Who asks for tasks.
#[derive(Debug)]
pub(super) struct Desk {
    asking: Together<Request, Handed>,
    /// The last who was served was given something: probably there is more.
    flows: AtomicBool,
    /// When a session that was given nothing may take what waits for another place until then.
    look_again: Mutex<HashMap<String, Instant>>,
}

impl Desk {
    /// On the runtime that it is called on.
    pub(super) fn new() -> Self {
        Self { asking: Together::of_at_most(MAX_TOGETHER), flows: AtomicBool::default(), look_again: Mutex::default() }
    }

    /// After a session has asked: in how long it pays to ask again, if time alone lets it have something.
    pub(super) fn note_look_again(&self, session: &str, after: Option<Duration>) {
        let mut look_again = self.lock_look_again();
        match after {
            Some(after) => {
                // Of those that do not ask any more.
                look_again.retain(|_, at| at.elapsed() < KEPT);
                look_again.insert(session.to_owned(), Instant::now() + after);
            }
            None => drop(look_again.remove(session)),
        }
    }

    pub(super) fn look_again(&self, session: &str) -> Option<Duration> {
        Some(self.lock_look_again().get(session)?.saturating_duration_since(Instant::now()))
    }

    fn lock_look_again(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.look_again.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SqlEngine {
    pub(super) async fn lease_tasks(&self, session: &str, offer: &Offer) -> Result<Vec<Leased>, EngineError> {
        // Cheap look first, as the poll of an idle worker must not write.
        if !self.desk.flows.load(Ordering::Relaxed) && !self.has_ready().await? {
            return self.check_session(session, offer).await.map(|()| Vec::new());
        }
        let request = || Request { session: session.to_owned(), offer: offer.clone() };
        for _ in 0..TRIES {
            if let Some(handed) = self.desk.asking.ask(request(), |asked| self.clone().serve(asked)).await {
                return handed.take();
            }
        }
        let (engine, alone) = (self.clone(), request());
        let giving = self.runtime.spawn(async move { engine.give_to(&[(&alone.session, &alone.offer)], Waits::Long).await });
        let handed = giving.await.map_err(|_| EngineError::Busy(sqlx::Error::PoolClosed))??.pop();
        handed.map_or_else(|| Ok(Vec::new()), Handed::take)
    }

    async fn give_to(&self, asked: &[(&str, &Offer)], waits: Waits) -> Result<Vec<Handed>, EngineError> {
        let given = self.lease_at_once(asked, waits).await;
        let flows = |given: &Vec<Given>| given.last().is_some_and(|given| given.as_ref().is_ok_and(|leased| !leased.is_empty()));
        // After a failure whoever comes looks first, which costs the database less.
        self.desk.flows.store(given.as_ref().is_ok_and(flows), Ordering::Relaxed);
        Ok(given?.into_iter().map(|given| Handed { given, engine: self.clone() }).collect())
    }

    async fn lease_at_once(&self, asked: &[(&str, &Offer)], waits: Waits) -> Result<Vec<Given>, EngineError> {
        let mut writing = self.begin_with(waits).await?;
        let given = self.lease_in(&mut writing, asked).await?;
        self.commit(writing).await?;
        Ok(given)
    }

    async fn serve(self, asked: Vec<Asked<Request, Handed>>) {
        let requests: Vec<(&str, &Offer)> = asked.iter().map(|asked| (asked.question.session.as_str(), &asked.question.offer)).collect();
        let handed = match self.give_to(&requests, Waits::Briefly).await {
            Ok(handed) => handed,
            // Also to those who wait: they would wait for it one group after another.
            Err(error) if error.is_away() => {
                let all = asked.into_iter().chain(self.desk.asking.take_all());
                return all.for_each(|asked| drop(asked.answer(Handed { given: Err(shared(&error)), engine: self.clone() })));
            }
            Err(error) => return tracing::debug!(%error, "those who asked for tasks together ask again"),
        };
        for (asked, handed) in asked.into_iter().zip(handed) {
            // If nobody listens, it goes back.
            drop(asked.answer(handed));
        }
    }
}
