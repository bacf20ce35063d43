//! Compute backends of zkinfer, behind `zkinfer_circuits::backend::Backend`.
//!
//! [`CpuBackend`] computes on the host's processors, with the vectors of the [`Level`] that it detects; with the feature `cuda`, `CudaBackend`
//! computes on a device (docs/GPU.md), and [`FallbackBackend`] puts the one behind the other. [`devices`] reports what the machine has,
//! [`mod@select`] chooses. A further backend joins by passing [`conformance::check`].

pub mod absent;
mod circuit;
pub mod conformance;
pub mod cpu;
#[cfg(any(feature = "cuda", test))]
pub mod cuda;
pub mod devices;
pub mod dual;
pub mod fallback;
pub mod faulty;
pub mod inspect;
pub mod measure;
mod poseidon;
pub mod select;
mod vector;

pub use cpu::CpuBackend;
#[cfg(any(feature = "cuda", test))]
pub use cuda::CudaBackend;
pub use dual::DualBackend;
pub use fallback::FallbackBackend;
pub use inspect::Inspect;
pub use select::{SelectedBackend, select_backend};
pub use vector::{Level, UnavailableLevel};
