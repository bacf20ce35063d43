//! What the service tells of itself: metrics, health, traces, log lines, and what each job has cost.
//!
//! - [`Metrics`] holds every number; `catalogue` says what each means, in the words of docs/OPERATIONS.md. It is a value that one passes.
//! - `rpc` is the layer around every call, `connections` counts sockets, [`Observed`] stands before an engine.
//! - [`TraceParent`] is the trace that a call belongs to: it comes with the call, is stored with the job, and is taken up by its work.
//! - [`HttpPort`] serves `/metrics`, `/livez` and `/readyz`; `health` decides about the last one and keeps the gRPC health service in step.
//!   [`WorkerPages`] serves the same of a worker elsewhere.
//! - [`start_logging`] makes log lines, and sends traces to a collector.

mod catalogue;
mod children;
mod collectors;
mod connections;
pub mod cost;
mod devices;
mod ends;
mod engine;
mod health;
mod http;
mod http_server;
mod latest;
mod logs;
mod metrics;
mod process;
mod rpc;
mod spans;
mod trace;
mod traces;
mod worker;

pub use catalogue::{CATALOGUE, Described, Kind, WORKER_CATALOGUE};
pub(crate) use connections::counted;
pub use devices::DeviceReport;
pub use engine::Observed;
pub(crate) use health::Health;
pub(crate) use http::Side;
pub use http::{Exposure, HttpPort, HttpPortError};
pub(crate) use latest::Latest;
pub use logs::{LogFormat, LogOptions, Logging, LoggingError, start_logging};
pub use metrics::Metrics;
pub(crate) use rpc::RpcLayer;
pub(crate) use spans::{is_of_tenant, work_span};
pub use trace::TraceParent;
pub(crate) use trace::current;
pub use traces::{TraceDetail, TraceOptions};
pub use worker::WorkerPages;
