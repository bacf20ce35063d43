//! Sends spans to an OpenTelemetry collector (OTLP over gRPC).
//!
//! Off unless an endpoint is given. The usual variables of OpenTelemetry are read too: `OTEL_SERVICE_NAME`, `OTEL_RESOURCE_ATTRIBUTES`,
//! `OTEL_EXPORTER_OTLP_HEADERS`, `OTEL_TRACES_SAMPLER` (default: the parent's decision, else all) and the limits of the batch (`OTEL_BSP_*`). Spans
//! wait in a bounded queue; when the collector does not keep up, they are dropped, and no work waits for it.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use tracing::level_filters::LevelFilter;

/// Until the collector must have taken a batch.
const EXPORT_PATIENCE: Duration = Duration::from_secs(10);
/// Until the last spans must be out at the end.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);

/// How much is traced.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TraceDetail {
    /// Calls, attempts at tasks, and the steps of the pipeline's stages.
    #[default]
    Stages,
    /// Also each step that a backend with a device does: many for each proof.
    Backend,
    /// Also each launch of a kernel: for looking at single proofs.
    Launches,
}

impl TraceDetail {
    pub(super) fn level(self) -> LevelFilter {
        match self {
            Self::Stages => LevelFilter::INFO,
            Self::Backend => LevelFilter::DEBUG,
            Self::Launches => LevelFilter::TRACE,
        }
    }
}

/// Where traces go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceOptions {
    /// Such as `http://127.0.0.1:4317`; `https://` is believed by the authorities of this system.
    pub endpoint: String,
    /// How much is traced.
    pub detail: TraceDetail,
}

/// Sends what is traced, until it is ended.
#[derive(Debug)]
pub(super) struct Exporter(SdkTracerProvider);

impl Exporter {
    /// Connects when there is something to send. Needs a tokio runtime around it.
    pub(super) fn start(endpoint: &str) -> Result<Self, ExporterBuildError> {
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).with_timeout(EXPORT_PATIENCE).build()?;
        let mut resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
        if std::env::var_os("OTEL_SERVICE_NAME").is_none() {
            resource = resource.with_service_name("zkinferd");
        }
        Ok(Self(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build()))
    }

    pub(super) fn tracer(&self) -> SdkTracer {
        self.0.tracer("zkinfer")
    }

    /// Sends what is left. Blocks, at most for some seconds: not for a thread of the runtime.
    pub(super) fn end(self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH_PATIENCE) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}
