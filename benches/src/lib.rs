//! Measurements of zkinfer: what they record, how they are taken, and how the documents show them.
//!
//! The commands: `zkinfer-end-to-end` (service, client, a network, many proofs), `zkinfer-micro` (one layer, one recursion circuit),
//! `zkinfer-chaos` (real processes, killed at random), `zkinfer-faults` (the same, whose disks, networks and clients fail them), `zkinfer-load` (many
//! jobs and watchers, no proofs), `zkinfer-overhead` (what the service adds to the prover), `zkinfer-throughput` (proofs from
//! a queue), `zkinfer-simulate` (placement on a large cluster), and `zkinfer-tables` (writes the tables of the documents from `benches/results/` and from the code).

pub mod chaos;
pub mod circuit_proofs;
pub mod cluster;
pub mod dense_network;
pub mod digits;
pub mod end_to_end;
pub mod faults;
pub mod layer_proofs;
pub mod load;
pub mod machine;
pub mod overhead;
pub mod record;
pub mod samples;
pub mod service;
pub mod simulation;
pub mod tables;
pub mod throughput;
pub mod usage;
pub mod workload;
