//! The HTTP port of a worker: `/livez`, `/readyz` and `/metrics` of the process that keeps the children, with what each of them tells of itself, its
//! device and its work.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::prometheus_text::{CONTENT_TYPE, encode};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::children::Told;
use super::collectors::{ProcessCollector, begin};
use super::http::HttpPort;
use super::http_server::serve;
use crate::limits::Limits;
use crate::supervisor::Children;

/// What the port tells of.
#[derive(Clone)]
pub struct WorkerPages {
    /// The children.
    pub children: Arc<Children>,
    /// No task is taken any more.
    pub draining: CancellationToken,
}

impl WorkerPages {
    /// Serves until it is dropped.
    pub async fn serve(self, port: HttpPort, limits: &Limits) {
        tracing::info!(address = %port.address(), "metrics and health");
        match port.listener() {
            Ok(listener) => serve(listener, self.router(), limits).await,
            Err(error) => tracing::error!(%error, "the HTTP port failed"),
        }
    }

    fn router(self) -> Router {
        Router::new()
            .route("/livez", get(async || "live\n"))
            .route("/healthz", get(async || "live\n"))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .fallback(async || (StatusCode::NOT_FOUND, "there are /metrics, /livez, /healthz and /readyz\n"))
            .with_state(Shown { pages: self, process: ProcessCollector::new() })
    }
}

/// What a request is answered from.
#[derive(Clone)]
struct Shown {
    pages: WorkerPages,
    process: ProcessCollector,
}

impl Shown {
    fn exposition(&self) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Version));
        registry.register_collector(Box::new(self.process.clone()));
        registry.register_collector(Box::new(Told(self.pages.children.states())));
        let mut text = String::new();
        // A string takes everything.
        if encode(&mut text, &registry).is_err() {
            tracing::error!("the metrics cannot be written");
        }
        text
    }
}

/// Ready: a child has a session with the service. One whose device failed for good does not keep the others from work.
async fn readyz(State(Shown { pages, .. }): State<Shown>) -> Response {
    if pages.draining.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "draining: the worker is shutting down\n").into_response();
    }
    if let Some(cause) = pages.children.none_left() {
        return (StatusCode::SERVICE_UNAVAILABLE, format!("every device is cordoned: {cause}\n")).into_response();
    }
    match pages.children.states().values().any(|child| child.has_session) {
        true => (StatusCode::OK, "ready\n").into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "no child has a session with the service\n").into_response(),
    }
}

async fn metrics(State(shown): State<Shown>) -> Response {
    ([(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE))], shown.exposition()).into_response()
}

/// As the service's: what tells its processes from others, whatever a scraper calls them.
#[derive(Debug)]
struct Version;

impl Collector for Version {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        begin(&mut encoder, "zkinfer_build_info")?.encode_family(&[("version", env!("CARGO_PKG_VERSION"))])?.encode_gauge(&1)
    }
}
