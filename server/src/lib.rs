//! The zkinfer proving service.
//!
//! [`run`] serves the API of `zkinfer-proto` on a listener until it is told to stop. Around it:
//! - [`prover`]: the seam to the mathematics;
//! - [`engine`]: what survives a crash, behind a trait, on SQLite or PostgreSQL ([`database`]);
//! - [`artifacts`]: bytes by their hash, public and internal;
//! - [`worker`]: the loop that does tasks, in this process or elsewhere;
//! - [`supervisor`]: one child process for each device;
//! - [`scheduler`]: deadlines, and workers that went silent;
//! - [`placement`]: which task runs next and where, as pure functions;
//! - [`webhooks`]: tells of the ends of jobs;
//! - `grpc`: handlers, and the one file that makes a `tonic::Status`;
//! - [`dashboard`]: pages for operators;
//! - [`worker_listener`]: where workers elsewhere connect;
//! - [`observe`]: metrics, health, traces, log lines, costs;
//! - [`auth`], [`tls`], [`limits`].

pub mod artifacts;
pub mod auth;
mod convert;
pub mod dashboard;
pub mod database;
mod directory;
pub mod engine;
mod exposure;
mod grpc;
pub mod limits;
mod listeners;
mod memory_group;
pub mod observe;
pub mod placement;
pub mod process;
pub mod prover;
pub mod record_seal;
mod reload;
mod role;
mod runtime;
pub mod scheduler;
pub mod secret;
mod serve;
mod service;
pub mod supervisor;
pub mod tls;
mod together;
pub mod webhooks;
pub mod worker;
pub mod worker_listener;

pub use exposure::Lacks;
pub use role::Role;
pub use runtime::runtime;
pub use serve::{Config, Ended, ServeError, run};
