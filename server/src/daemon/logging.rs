//! Log lines on standard error, and traces to a collector.

use std::ffi::OsString;
use std::io::{IsTerminal as _, Write};

use clap::{Args, ValueEnum};
use zkinfer_server::observe::{LogFormat, LogOptions, Logging, LoggingError, TraceDetail, TraceOptions, start_logging};

/// What is logged and traced.
#[derive(Debug, Clone, Args)]
pub(super) struct LogArguments {
    /// Which log lines: a level, or `target=level` pairs.
    #[arg(long, env = "ZKINFER_LOG", default_value = "info")]
    log: String,
    /// Log lines as JSON objects.
    #[arg(long, env = "ZKINFER_LOG_JSON")]
    log_json: bool,
    /// Sends traces to this OpenTelemetry collector (OTLP over gRPC), such as `http://127.0.0.1:4317`; default: nowhere.
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// How much is traced.
    #[arg(long, env = "ZKINFER_TRACE_DETAIL", value_enum, default_value = "stages")]
    trace_detail: Detail,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Detail {
    /// Calls, attempts at tasks, steps of stages.
    Stages,
    /// Also each step of a backend with a device.
    Backend,
    /// Also each launch of a kernel.
    Launches,
}

impl LogArguments {
    /// The same, for a child process.
    pub(super) fn line(&self) -> Vec<OsString> {
        let detail = match self.trace_detail {
            Detail::Stages => "stages",
            Detail::Backend => "backend",
            Detail::Launches => "launches",
        };
        let mut line: Vec<OsString> = ["--log", &self.log, "--trace-detail", detail].map(Into::into).into();
        line.extend(self.log_json.then(|| "--log-json".into()));
        line.extend(self.otlp_endpoint.iter().flat_map(|endpoint| ["--otlp-endpoint".into(), endpoint.into()]));
        line
    }

    /// Starts logging. Needs a runtime around it. Panics are logged by their place only: their message may hold values of a witness.
    pub(super) fn start(&self) -> Result<Logging, LoggingError> {
        let format = match (self.log_json, std::io::stderr().is_terminal()) {
            (true, _) => LogFormat::Json,
            (false, true) => LogFormat::Coloured,
            (false, false) => LogFormat::Text,
        };
        let detail = match self.trace_detail {
            Detail::Stages => TraceDetail::Stages,
            Detail::Backend => TraceDetail::Backend,
            Detail::Launches => TraceDetail::Launches,
        };
        // An empty variable says the same as none.
        let endpoint = self.otlp_endpoint.clone().filter(|endpoint| !endpoint.is_empty());
        let traces = endpoint.map(|endpoint| TraceOptions { endpoint, detail });
        let logging = start_logging(&LogOptions { filter: &self.log, format, traces }, || Errors)?;
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
            let thread = std::thread::current();
            tracing::error!(place, thread = thread.name().unwrap_or("unnamed"), "panicked");
        }));
        Ok(logging)
    }
}

/// Standard error. It may be a pipe that nobody reads any more, a dead supervisor's: the lines are lost then, and the work goes on, where an error would be
/// told with `eprintln`, which panics.
struct Errors;

impl Write for Errors {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let _ = std::io::stderr().write_all(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
