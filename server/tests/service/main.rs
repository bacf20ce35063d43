//! The service as a client sees it: real gRPC over TCP on a loopback port.

mod artifacts;
mod auth;
mod batch;
mod crash;
mod daemon;
mod drain;
mod errors;
mod harness;
mod jobs;
mod models;
mod observe;
mod scripted_prover;
mod tls;
mod tokens;
mod watch;
mod worker_processes;
mod workers;
