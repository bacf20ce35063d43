//! The zkinfer proving service.
//!
//! [`run`] serves the API of `zkinfer-proto` on a listener until it is told to stop. Around it:
//! - [`prover`]: the seam to the mathematics;
//! - [`engine`]: what survives a crash, behind a trait, on SQLite;
//! - [`artifacts`]: bytes by their hash, public and internal;
//! - [`scheduler`]: workers on threads of their own;
//! - `grpc`: handlers, and the one file that makes a `tonic::Status`;
//! - [`observe`]: metrics, health, traces, log lines, costs;
//! - [`auth`], [`tls`], [`limits`].

pub mod artifacts;
pub mod auth;
mod convert;
mod directory;
pub mod engine;
mod grpc;
pub mod limits;
pub mod observe;
pub mod process;
pub mod prover;
mod reload;
pub mod scheduler;
mod serve;
pub mod tls;

pub use serve::{Config, Ended, Lacks, ServeError, run};
