//! Compute backends of zkinfer, behind `zkinfer_circuits::backend::Backend`.
//!
//! This build's kernels run on the CPU ([`CpuBackend`]); [`devices`] reports what else the machine has. A further backend joins by passing
//! [`conformance::check`].

pub mod conformance;
pub mod cpu;
pub mod devices;
pub mod dual;

pub use cpu::CpuBackend;
pub use devices::select_backend;
pub use dual::DualBackend;
