//! Log lines, as text or as JSON objects, and traces to a collector.
//!
//! A line of a job's work is written inside the spans of `spans.rs`, whose fields it carries: as JSON in the list `spans`, the outermost first.

use opentelemetry_otlp::ExporterBuildError;
use tracing_subscriber::filter::{EnvFilter, ParseError, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::{SubscriberInitExt as _, TryInitError};
use tracing_subscriber::{Layer, Registry};

use super::traces::{Exporter, TraceOptions};

/// What a line looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For people at a terminal.
    Coloured,
    /// One JSON object a line.
    Json,
}

/// What is logged and traced.
#[derive(Debug, Clone)]
pub struct LogOptions<'a> {
    /// A level, or `target=level` pairs.
    pub filter: &'a str,
    /// What a line looks like.
    pub format: LogFormat,
    /// Where traces go, if anywhere.
    pub traces: Option<TraceOptions>,
}

/// Why there is no log.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    /// The filter cannot be read.
    #[error("{filter:?} is no log filter; give a level such as info, or target=level pairs")]
    Filter {
        /// What was given.
        filter: String,
        /// Why.
        #[source]
        source: ParseError,
    },
    /// The collector's address cannot be used.
    #[error("cannot send traces to {endpoint:?}; give an address such as http://127.0.0.1:4317")]
    Traces {
        /// What was given.
        endpoint: String,
        /// Why.
        #[source]
        source: ExporterBuildError,
    },
    /// Something logs already.
    #[error("cannot start logging")]
    Started(#[from] TryInitError),
}

/// Log lines are written, and traces sent, until [`Self::end`].
#[derive(Debug)]
#[must_use = "end it, so that the last spans are sent"]
pub struct Logging {
    exporter: Option<Exporter>,
}

impl Logging {
    /// Sends the last spans. Blocks for at most some seconds: not for a thread of the runtime.
    pub fn end(self) {
        self.exporter.into_iter().for_each(Exporter::end);
    }
}

type AnyLayer = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts logging for the whole process. With traces, needs a tokio runtime around it.
///
/// # Errors
/// See [`LoggingError`].
pub fn start_logging<W>(options: &LogOptions<'_>, writer: W) -> Result<Logging, LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let mut layers = vec![lines(options, writer)?];
    let mut exporter = None;
    if let Some(TraceOptions { endpoint, detail }) = &options.traces {
        let failed = |source| LoggingError::Traces { endpoint: endpoint.clone(), source };
        let started = Exporter::start(endpoint).map_err(failed)?;
        // Only this project's spans: an exporter that traced its own calls would never come to an end.
        let ours = Targets::new().with_target("zkinfer", detail.level());
        let spans = tracing_opentelemetry::layer().with_tracer(started.tracer()).with_location(false).with_threads(false);
        layers.push(spans.with_filter(ours).boxed());
        exporter = Some(started);
    }
    tracing_subscriber::registry().with(layers).try_init()?;
    Ok(Logging { exporter })
}

fn lines<W>(options: &LogOptions<'_>, writer: W) -> Result<AnyLayer, LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let failed = |source| LoggingError::Filter { filter: options.filter.to_owned(), source };
    let filter = EnvFilter::builder().parse(options.filter).map_err(failed)?;
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    Ok(match options.format {
        LogFormat::Text => lines.with_ansi(false).with_filter(filter).boxed(),
        LogFormat::Coloured => lines.with_ansi(true).with_filter(filter).boxed(),
        // The innermost span is the last of the list: it is not repeated.
        LogFormat::Json => lines.json().with_current_span(false).with_filter(filter).boxed(),
    })
}
