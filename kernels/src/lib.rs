//! Compute backends of zkinfer, behind `zkinfer_circuits::backend::Backend`.
//!
//! This build's kernels run on the CPU ([`CpuBackend`]); [`devices`] reports what else the machine has. A further backend joins by passing
//! [`conformance::check`].

pub mod conformance;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod devices;
pub mod dual;
pub mod fallback;

pub use cpu::CpuBackend;
#[cfg(feature = "cuda")]
pub use cuda::CudaBackend;
pub use devices::select_backend;
pub use dual::DualBackend;
pub use fallback::FallbackBackend;
