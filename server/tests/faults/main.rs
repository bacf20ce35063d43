//! Faults of what the service stands on: disks that are full or lie, networks that fall apart, inputs that kill. Each test says what must hold then.

#[path = "../service/harness.rs"]
#[allow(dead_code, reason = "the tests of the service use the rest")]
mod harness;
#[path = "../service/scripted_prover.rs"]
#[allow(dead_code, reason = "the tests of the service use the rest")]
mod scripted_prover;

mod children;
mod damage;
mod full_disk;
mod host_memory;
mod partition;
mod poison;
mod proxy;
mod workers;
