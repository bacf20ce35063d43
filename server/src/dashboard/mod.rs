//! The dashboard: pages for operators, in this binary and without any request elsewhere.
//!
//! Pages and scripts are open to all, since they hold nothing; every answer below `/dashboard/api/` is for callers with the scope `admin`, whose key
//! or token comes as bearer credentials with each request (there are no cookies, so that no other site can use them). Where the service has no
//! authentication, only this machine is answered. Everything is read only, and of jobs and models only what an operator needs is told: no inputs,
//! outputs, weights, salts or bytes of artifacts.

mod access;
mod api;
mod assets;
mod failure;
mod live;
mod view;

use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware;
use axum::response::{Redirect, Response};
use axum::routing::get;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use crate::auth::Authentication;
use crate::engine::{Census, Engine, EngineError, EngineFuture, QueueFacts};
use crate::limits::Limits;
use crate::observe::Latest;
use crate::scheduler::Hub;
use failure::Failure;

/// The census reads an index from end to end: it is made at most this often, however many look. And seldom, if that takes long: the one before is shown.
const CENSUS_EVERY: Duration = Duration::from_secs(2);
/// How long a count is waited for.
const COUNT_PATIENCE: Duration = Duration::from_secs(1);

/// What the dashboard works with.
pub struct Dashboard {
    /// Memory. Not held: its files are free as soon as the service has ended.
    pub engine: Weak<dyn Engine>,
    /// Tells when to look again.
    pub hub: Arc<Hub>,
    /// Who is an operator.
    pub authentication: Authentication,
    /// Whether only this machine reaches the port.
    pub is_loopback: bool,
    /// How long calls and streams may take.
    pub limits: Limits,
    /// Streams end.
    pub closing: CancellationToken,
}

/// The state of all handlers.
#[derive(Clone)]
struct Shared(Arc<Inner>);

struct Inner {
    dashboard: Dashboard,
    at_a_time: Semaphore,
    streams: Arc<Semaphore>,
    census: Latest<Census>,
    queue: Latest<QueueFacts>,
}

impl Shared {
    fn new(dashboard: Dashboard) -> Self {
        Self(Arc::new(Inner {
            at_a_time: Semaphore::new(dashboard.limits.http_requests),
            streams: Arc::new(Semaphore::new(dashboard.limits.dashboard_streams)),
            dashboard,
            census: Latest::new(CENSUS_EVERY),
            // As often as it can be, since it is to be seen moving.
            queue: Latest::new(Duration::ZERO),
        }))
    }

    fn engine(&self) -> Result<Arc<dyn Engine>, Failure> {
        self.0.dashboard.engine.upgrade().ok_or(Failure::Ending)
    }

    async fn census(&self) -> Result<Census, Failure> {
        self.latest(&self.0.census, |engine| engine.census()).await
    }

    async fn queue(&self) -> Result<QueueFacts, Failure> {
        self.latest(&self.0.queue, |engine| engine.queue()).await
    }

    /// The latest of a figure.
    async fn latest<T: Clone + Send + Sync + 'static>(
        &self,
        latest: &Latest<T>,
        count: fn(&dyn Engine) -> EngineFuture<'_, T>,
    ) -> Result<T, Failure> {
        let engine = self.engine()?;
        let work = || -> futures::future::BoxFuture<'static, Option<T>> {
            let told = |error: &EngineError| tracing::warn!(error = error as &dyn std::error::Error, "the dashboard cannot count");
            Box::pin(async move { count(&*engine).await.inspect_err(told).ok() })
        };
        latest.look(COUNT_PATIENCE, work).await.map(|(_, figure)| figure).ok_or(Failure::Slow)
    }

    /// Entries of a page, at most.
    fn dashboard_page_size(&self) -> u32 {
        self.0.dashboard.limits.dashboard_page_size
    }

    fn place(&self) -> Result<SemaphorePermit<'_>, Failure> {
        self.0.at_a_time.try_acquire().map_err(|_| Failure::TooMany)
    }

    fn stream_place(&self) -> Result<OwnedSemaphorePermit, Failure> {
        self.0.streams.clone().try_acquire_owned().map_err(|_| Failure::TooMany)
    }

    /// Runs what an answer needs within the time limit of unary calls.
    async fn timely<T>(&self, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
        tokio::time::timeout(self.0.dashboard.limits.unary, work).await.unwrap_or(Err(Failure::Slow))
    }
}

/// Everything below `/dashboard`, with full paths: to be merged into the router of a port.
pub fn router(dashboard: Dashboard) -> Router {
    let shared = Shared::new(dashboard);
    Router::new()
        .merge(api::routes(&shared))
        .route("/dashboard", get(async || Redirect::permanent("/dashboard/")))
        .route("/dashboard/", get(assets::page))
        .route("/dashboard/assets/{name}", get(assets::asset))
        .layer(middleware::map_response(guarded))
        .with_state(shared)
}

/// What browsers are to refuse: foreign and inline scripts and styles, text that becomes markup, frames, guesses at types, names in referrers.
const GUARDS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; \
         frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'",
    ),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

async fn guarded(mut response: Response) -> Response {
    for (name, value) in GUARDS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.headers_mut().entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sql::SqlEngine;

    #[test]
    fn requests_and_streams_have_as_many_places_as_the_limits_say() {
        let shared = Shared::new(Dashboard {
            engine: Weak::<SqlEngine>::new(),
            hub: Arc::default(),
            authentication: Authentication::none(),
            is_loopback: true,
            limits: Limits { http_requests: 2, dashboard_streams: 1, dashboard_page_size: 7, ..Limits::default() },
            closing: CancellationToken::new(),
        });
        let (first, second) = (shared.place().unwrap(), shared.place().unwrap());
        assert!(matches!(shared.place(), Err(Failure::TooMany)));
        drop(first);
        let third = shared.place().unwrap();
        let stream = shared.stream_place().unwrap();
        assert!(matches!(shared.stream_place(), Err(Failure::TooMany)));
        drop((second, third, stream));
        drop(shared.stream_place().unwrap());
        assert_eq!(shared.dashboard_page_size(), 7);
    }
}
