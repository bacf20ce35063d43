//! The HTTP port of a worker: `/livez`, `/readyz` and `/metrics` of the process that keeps the children, with what each of them tells of itself, its
//! device and its work.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::prometheus_text::{CONTENT_TYPE, encode};
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, NoLabelSet};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use super::collectors::{ProcessCollector, begin, encode_devices};
use super::http::HttpPort;
use super::http_server::serve;
use crate::limits::Limits;
use crate::supervisor::{ChildState, Children};

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
    let is_connected = pages.children.states().values().any(|child| child.has_session);
    let (code, text) = match (pages.draining.is_cancelled(), is_connected) {
        (true, _) => (StatusCode::SERVICE_UNAVAILABLE, "draining: the worker is shutting down\n"),
        (false, false) => (StatusCode::SERVICE_UNAVAILABLE, "no child has a session with the service\n"),
        (false, true) => (StatusCode::OK, "ready\n"),
    };
    (code, text).into_response()
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

/// Children by name: that of their device.
#[derive(Debug)]
struct Told(BTreeMap<String, ChildState>);

impl Collector for Told {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        self.gauge(&mut encoder, "zkinfer_worker_up", |child| i64::from(child.has_session))?;
        self.counter(&mut encoder, "zkinfer_worker_starts_total", |child| child.n_starts)?;
        self.counter(&mut encoder, "zkinfer_worker_tasks_total", |child| child.work.n_ended)?;
        self.counter(&mut encoder, "zkinfer_worker_busy_seconds_total", |child| child.work.busy_ms as f64 / 1000.0)?;
        self.gauge(&mut encoder, "zkinfer_worker_resident_memory_bytes", |child| {
            i64::try_from(child.work.resident_bytes).unwrap_or(i64::MAX)
        })?;
        let devices = self.0.iter().map(|(name, child)| (name.clone(), child.work.device)).collect();
        encode_devices(&devices, encoder)
    }
}

impl Told {
    fn gauge(&self, encoder: &mut DescriptorEncoder<'_>, name: &'static str, value: impl Fn(&ChildState) -> i64) -> fmt::Result {
        let mut family = begin(encoder, name)?;
        self.0.iter().try_for_each(|(device, child)| family.encode_family(&[("device", device.as_str())])?.encode_gauge(&value(child)))
    }

    fn counter<V: EncodeCounterValue>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &'static str,
        value: impl Fn(&ChildState) -> V,
    ) -> fmt::Result {
        let mut family = begin(encoder, name)?;
        self.0.iter().try_for_each(|(device, child)| {
            family.encode_family(&[("device", device.as_str())])?.encode_counter::<NoLabelSet, _, u64>(&value(child), None)
        })
    }
}
