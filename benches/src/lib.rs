//! Measurements of zkinfer: what they record, how they are taken, and how the documents show them.
//!
//! Four commands: `zkinfer-end-to-end` (service, client, a network, many proofs), `zkinfer-micro` (one layer, one recursion circuit), `zkinfer-simulate`
//! (placement on a large cluster), and `zkinfer-tables` (writes the tables of README.md and SECURITY.md from `benches/results/` and from the code).

pub mod circuit_proofs;
pub mod dense_network;
pub mod digits;
pub mod end_to_end;
pub mod layer_proofs;
pub mod machine;
pub mod record;
pub mod samples;
pub mod service;
pub mod simulation;
pub mod tables;
pub mod usage;
pub mod workload;
