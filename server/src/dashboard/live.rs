//! Pages that stay up to date: server-sent events, the state as a whole first and again after every change.
//!
//! A stream holds no queue: it reads the engine when its client takes the next event, so that a slow client sees fewer and newer states and nothing
//! grows. It is woken by the hub and looks by itself from time to time, since wake-ups of other processes may be lost.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use futures::Stream;
use serde::Serialize;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;

use super::Shared;
use super::api::{read_job, read_overview};
use super::failure::Failure;
use crate::engine::{Subject, SubjectKind};
use crate::scheduler::Subscription;

/// Least time between two states.
const PACE: Duration = Duration::from_millis(400);
/// Most time between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Then the client comes again and shows its credentials again.
const LASTS: Duration = Duration::from_secs(600);

type Events = Sse<axum::response::sse::KeepAliveStream<futures::stream::BoxStream<'static, Result<Event, Infallible>>>>;

/// The overview.
pub(super) async fn overview(State(shared): State<Shared>) -> Result<Events, Failure> {
    let watched = Watched::Service(shared.0.dashboard.hub.subscribe_to_any());
    open(shared, watched).await
}

/// One job, until it is final.
pub(super) async fn job(State(shared): State<Shared>, Path((tenant, id)): Path<(String, String)>) -> Result<Events, Failure> {
    let subject = Subject { kind: SubjectKind::Job, tenant, id };
    // Before the first look, so that no change falls between.
    let subscription = shared.0.dashboard.hub.subscribe(subject.clone());
    open(shared, Watched::Job(subject, subscription)).await
}

async fn open(shared: Shared, watched: Watched) -> Result<Events, Failure> {
    let place = shared.stream_place()?;
    let lasts = LASTS.min(shared.0.dashboard.limits.watch);
    let mut follower = Follower { shared, watched, last: String::new(), is_over: false, end: Instant::now() + lasts, _place: place };
    // What does not exist is told before there is a stream.
    let first = follower.look().await?;
    Ok(Sse::new(Box::pin(follower.follow(first)) as _).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))))
}

enum Watched {
    Service(watch::Receiver<()>),
    Job(Subject, Subscription),
}

impl Watched {
    async fn changed(&mut self) {
        match self {
            // The hub, which sends, outlives the streams.
            Self::Service(news) => drop(news.changed().await),
            Self::Job(_, news) => news.changed().await,
        }
    }
}

struct Follower {
    shared: Shared,
    watched: Watched,
    last: String,
    is_over: bool,
    end: Instant,
    _place: OwnedSemaphorePermit,
}

impl Follower {
    fn follow(self, first: Option<Event>) -> impl Stream<Item = Result<Event, Infallible>> + Send {
        futures::stream::unfold((self, first), |(mut follower, first)| async move {
            let event = match first {
                Some(event) => Some(event),
                None => follower.next().await,
            };
            Some((Ok(event?), (follower, None)))
        })
    }

    /// The next state that differs; `None`: the stream ends, and who wants more opens another.
    async fn next(&mut self) -> Option<Event> {
        while !self.is_over && Instant::now() < self.end {
            let closing = self.shared.0.dashboard.closing.clone();
            closing.run_until_cancelled(self.wait()).await?;
            match self.look().await {
                Ok(Some(event)) => return Some(event),
                Ok(None) => {}
                Err(failure) => {
                    tracing::debug!(%failure, "a page is not followed any more");
                    return None;
                }
            }
        }
        None
    }

    async fn wait(&mut self) {
        tokio::time::sleep(PACE).await;
        let _ = tokio::time::timeout(LOOK_EVERY, self.watched.changed()).await;
    }

    /// The state, if it is another than before.
    async fn look(&mut self) -> Result<Option<Event>, Failure> {
        let (name, text) = match &self.watched {
            Watched::Service(_) => ("overview", text(&self.shared.timely(read_overview(&self.shared)).await?)?),
            Watched::Job(subject, _) => {
                let page = self.shared.timely(read_job(&self.shared, subject)).await?;
                self.is_over = page.is_final();
                ("job", text(&page)?)
            }
        };
        if text == self.last {
            return Ok(None);
        }
        self.last.clone_from(&text);
        Ok(Some(Event::default().event(name).data(text)))
    }
}

fn text(page: &impl Serialize) -> Result<String, Failure> {
    Ok(serde_json::to_string(page)?)
}
