//! The service as a client sees it: real gRPC over TCP on a loopback port.

mod artifacts;
mod auth;
mod batch;
mod crash;
mod daemon;
mod deletion;
mod drain;
mod errors;
mod faulty_store;
mod harness;
mod hostile;
mod jobs;
mod models;
mod observe;
mod operations;
mod places;
mod refusals;
mod scripted_prover;
mod storage_faults;
mod tls;
mod tokens;
mod uploads;
mod watch;
mod worker_processes;
mod worker_reads;
mod workers;
