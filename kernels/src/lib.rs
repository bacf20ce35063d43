//! Compute backends of zkinfer, behind `zkinfer_circuits::backend::Backend`.
//!
//! This build's kernels run on the CPU ([`CpuBackend`]), with the vectors of the [`Level`] that it detects; [`devices`] reports what else the machine has. A further backend joins by passing
//! [`conformance::check`].

pub mod conformance;
pub mod cpu;
pub mod devices;
pub mod dual;
pub mod measure;
mod poseidon;
mod vector;

pub use cpu::CpuBackend;
pub use devices::select_backend;
pub use dual::DualBackend;
pub use vector::{Level, UnavailableLevel};
