//! The HTTP port beside the gRPC port: `/metrics` for Prometheus, `/livez` and `/readyz` for probes, and the dashboard for operators.
//!
//! But for the dashboard, which asks by itself, it asks for no credentials, since scrapers and probes have none, and it speaks plain HTTP. What it tells is no secret of a tenant's, but it tells
//! everybody how busy the service is, and takes connections from everybody: beyond loopback it listens only where that was asked for in so many words,
//! behind a firewall or a network policy.

use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use futures::future::BoxFuture;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::Instant;

use super::health::{Health, Readiness};
use super::http_server::serve;
use super::latest::Latest;
use super::metrics::{Metrics, StateLabel};
use crate::engine::{Engine, QueueFacts};
use crate::limits::Limits;
use crate::supervisor::Children;

/// How long a count of the queue is waited for before the metrics are shown with the one before.
const PATIENCE: Duration = Duration::from_secs(2);
/// The database is asked at most this often, however many read the metrics.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// From where the port may be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exposure {
    /// Only from this machine.
    Loopback,
    /// From wherever the network lets through.
    Network,
}

/// Why there is no port.
#[derive(Debug, thiserror::Error)]
pub enum HttpPortError {
    /// Anybody could read it.
    #[error(
        "refusing to serve metrics and health on {address}, which is not a loopback address: the port asks for no credentials; add \
         --http-insecure if a firewall or a network policy lets only scrapers and probes reach it, or listen on 127.0.0.1"
    )]
    Exposed {
        /// Where it would have listened.
        address: SocketAddr,
    },
    /// The system refuses.
    #[error("cannot listen on {address} for metrics and health")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// A port that is listened on.
#[derive(Debug, Clone)]
pub struct HttpPort {
    listener: Arc<std::net::TcpListener>,
    address: SocketAddr,
}

impl HttpPort {
    /// Listens.
    ///
    /// # Errors
    /// See [`HttpPortError`].
    pub fn bind(address: SocketAddr, exposure: Exposure) -> Result<Self, HttpPortError> {
        if exposure == Exposure::Loopback && !address.ip().is_loopback() {
            return Err(HttpPortError::Exposed { address });
        }
        let failed = |source| HttpPortError::Listen { address, source };
        let listener = std::net::TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener: Arc::new(listener), address })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn listener(&self) -> std::io::Result<tokio::net::TcpListener> {
        tokio::net::TcpListener::from_std(self.listener.try_clone()?)
    }
}

/// What the port shows.
pub(crate) struct Side {
    pub(crate) metrics: Arc<Metrics>,
    /// Not held: its files are free as soon as the service has ended.
    pub(crate) engine: Weak<dyn Engine>,
    pub(crate) health: Health,
    /// Who computes in this process's stead, if anybody does.
    pub(crate) children: Option<Arc<Children>>,
    pub(crate) watchers: Arc<Semaphore>,
    pub(crate) most_watchers: usize,
    /// The pages below `/dashboard/`.
    pub(crate) dashboard: Router,
}

impl Side {
    /// Serves until the task is dropped: probes want an answer as long as there is a process.
    pub(crate) async fn serve(self, port: HttpPort, limits: Limits) {
        match port.listener() {
            Ok(listener) => serve(listener, router(Arc::new(self), &limits), &limits).await,
            Err(error) => tracing::error!(%error, "the HTTP port failed"),
        }
    }
}

/// Counts the queue; none if that failed.
type Count = Arc<dyn Fn() -> BoxFuture<'static, Option<QueueFacts>> + Send + Sync>;

/// The state of all handlers.
#[derive(Clone)]
struct Shared {
    side: Arc<Side>,
    asked: Arc<Mutex<Option<Instant>>>,
    queue: Arc<Latest<QueueFacts>>,
    count: Count,
    patience: Duration,
    at_a_time: Arc<Semaphore>,
}

impl Shared {
    fn new(side: Arc<Side>, limits: &Limits) -> Self {
        let engine = side.engine.clone();
        Self {
            side,
            asked: Arc::default(),
            queue: Arc::new(Latest::new(ASK_EVERY)),
            count: Arc::new(move || Box::pin(count_queue(engine.clone()))),
            patience: PATIENCE,
            at_a_time: Arc::new(Semaphore::new(limits.http_requests)),
        }
    }
}

fn router(side: Arc<Side>, limits: &Limits) -> Router {
    let shared = Shared::new(side, limits);
    let dashboard = shared.side.dashboard.clone();
    Router::new()
        .route("/", get(async || Redirect::temporary("/dashboard/")))
        .route("/livez", get(async || "live\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .fallback(async || (StatusCode::NOT_FOUND, "there are /metrics, /livez, /readyz and /dashboard/\n"))
        .with_state(shared)
        .merge(dashboard)
}

async fn readyz(State(shared): State<Shared>) -> Response {
    let readiness = shared.side.health.readiness().await;
    let code = match readiness {
        Readiness::Ready => StatusCode::OK,
        Readiness::Draining | Readiness::NoDatabase(_) | Readiness::NoTokenKeys => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, format!("{readiness}{}\n", remark(&shared.side, &readiness))).into_response()
}

/// A service whose devices are all gone takes calls none the less: results are read, and jobs wait for whoever computes next.
fn remark(side: &Side, readiness: &Readiness) -> String {
    match side.children.as_ref().and_then(|children| children.none_left()) {
        Some(cause) if *readiness == Readiness::Ready => format!("; but nothing is computed here, since every device is cordoned: {cause}"),
        _ => String::new(),
    }
}

async fn metrics(State(shared): State<Shared>) -> Response {
    let Ok(_permit) = shared.at_a_time.try_acquire() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many read the metrics at a time\n").into_response();
    };
    look(&shared).await;
    let content_type = HeaderValue::from_static(prometheus_client::encoding::prometheus_text::CONTENT_TYPE);
    ([(header::CONTENT_TYPE, content_type)], shared.side.metrics.exposition()).into_response()
}

/// Brings the numbers up to date that nobody counts.
async fn look(shared: &Shared) {
    let Side { metrics, health, watchers, most_watchers, .. } = &*shared.side;
    metrics.watchers.set(signed(most_watchers.saturating_sub(watchers.available_permits()) as u64));
    metrics.draining.set(i64::from(health.is_draining()));
    metrics.token_keys_age_seconds.set(health.token_keys_age().unwrap_or_default().as_secs_f64());
    tokio::join!(probe_database(shared), look_at_queue(shared));
}

/// By a question of its own: a queue that is long to count is no database that is away.
async fn probe_database(shared: &Shared) {
    let Side { metrics, health, .. } = &*shared.side;
    // Held while the database is asked: who comes meanwhile waits for the same answer.
    let mut asked = shared.asked.lock().await;
    if asked.is_none_or(|at| at.elapsed() >= ASK_EVERY) {
        metrics.database_up.set(i64::from(health.database().await.is_ok()));
        *asked = Some(Instant::now());
    }
}

async fn look_at_queue(shared: &Shared) {
    let metrics = &shared.side.metrics;
    let Some((age, facts)) = shared.queue.look(shared.patience, || (shared.count)()).await else { return };
    metrics.tasks_age_seconds.set(age.as_secs_f64());
    metrics.set_engine_time(facts.now_ms, age);
    for (state, count) in [("waiting", facts.waiting), ("ready", facts.ready), ("running", facts.running)] {
        metrics.tasks.get_or_create(&StateLabel { state }).set(signed(count));
    }
    let oldest_ms = facts.oldest_queued_ms.map_or(0, |created_ms| facts.now_ms.saturating_sub(created_ms).max(0));
    metrics.oldest_queued_seconds.set(oldest_ms as f64 / 1000.0);
}

async fn count_queue(engine: Weak<dyn Engine>) -> Option<QueueFacts> {
    let counted = engine.upgrade()?.queue().await;
    counted.inspect_err(|error| tracing::warn!(error = error as &dyn std::error::Error, "the queue cannot be counted")).ok()
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sql::SqlEngine;

    /// With a database that answers.
    fn shared(count: Count) -> Shared {
        shared_within(&Limits::default(), count)
    }

    fn shared_within(limits: &Limits, count: Count) -> Shared {
        let side = Side {
            metrics: Arc::new(Metrics::new(Vec::new())),
            engine: Weak::<SqlEngine>::new(),
            health: Health::asking(Arc::new(|| Box::pin(async { Ok(()) }))),
            children: None,
            watchers: Arc::new(Semaphore::new(1)),
            most_watchers: 1,
            dashboard: Router::new(),
        };
        Shared { count, queue: Arc::new(Latest::new(Duration::ZERO)), patience: Duration::ZERO, ..Shared::new(Arc::new(side), limits) }
    }

    async fn shown(shared: &Shared) -> String {
        look(shared).await;
        shared.side.metrics.exposition()
    }

    #[tokio::test]
    async fn a_queue_that_is_long_to_count_is_no_database_that_is_away() {
        let never = shared(Arc::new(|| Box::pin(std::future::pending())));
        let text = shown(&never).await;
        assert!(text.contains("zkinfer_database_up 1\n"), "{text}");
        assert!(!text.contains("zkinfer_tasks{"), "what was never counted is not shown as 0: {text}");

        let counts = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counting = counts.clone();
        let once = shared(Arc::new(move || match counting.fetch_add(1, std::sync::atomic::Ordering::Relaxed) {
            0 => Box::pin(async { Some(QueueFacts { ready: 7, oldest_queued_ms: Some(1_000), now_ms: 4_000, ..QueueFacts::default() }) }),
            _ => Box::pin(std::future::pending()),
        }));
        while !shown(&once).await.contains("zkinfer_tasks{state=\"ready\"} 7\n") {
            tokio::task::yield_now().await;
        }
        while counts.load(std::sync::atomic::Ordering::Relaxed) < 2 {
            shown(&once).await;
        }
        let text = shown(&once).await;
        for line in ["zkinfer_database_up 1\n", "zkinfer_tasks{state=\"ready\"} 7\n", "zkinfer_oldest_queued_seconds 3.0\n"] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("zkinfer_tasks_age_seconds 0.0\n"), "it has an age: {text}");
    }

    #[tokio::test]
    async fn the_metrics_are_read_by_as_many_at_a_time_as_may_be() {
        let limits = Limits { http_requests: 1, ..Limits::default() };
        let never = shared_within(&limits, Arc::new(|| Box::pin(std::future::pending())));
        let never = Shared { patience: Duration::from_secs(3600), ..never };
        let first = tokio::spawn(metrics(State(never.clone())));
        while never.at_a_time.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(metrics(State(never.clone())).await.status(), StatusCode::SERVICE_UNAVAILABLE);
        first.abort();
        drop(first.await);
        assert_eq!(never.at_a_time.available_permits(), 1);
        let shown = Shared { patience: Duration::ZERO, ..never };
        assert_eq!(metrics(State(shown)).await.status(), StatusCode::OK);
    }

    #[tokio::test]
    async fn a_database_that_is_away_is_told_whatever_was_counted() {
        let mut away = shared(Arc::new(|| Box::pin(async { Some(QueueFacts::default()) })));
        Arc::get_mut(&mut away.side).unwrap().health =
            Health::asking(Arc::new(|| Box::pin(async { Err(crate::engine::EngineError::Fenced) })));
        assert!(shown(&away).await.contains("zkinfer_database_up 0\n"));
    }

    #[test]
    fn listens_beyond_loopback_only_if_told_so() {
        let anywhere: SocketAddr = "0.0.0.0:0".parse().unwrap();
        let error = HttpPort::bind(anywhere, Exposure::Loopback).unwrap_err();
        assert!(matches!(error, HttpPortError::Exposed { address } if address == anywhere), "{error}");
        assert!(error.to_string().contains("--http-insecure"));
        let port = HttpPort::bind("127.0.0.1:0".parse().unwrap(), Exposure::Loopback).unwrap();
        assert_ne!(port.address().port(), 0);
        assert!(matches!(HttpPort::bind(port.address(), Exposure::Loopback), Err(HttpPortError::Listen { .. })));
    }
}
