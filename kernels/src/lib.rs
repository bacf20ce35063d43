//! Compute backends of zkinfer, behind `zkinfer_circuits::backend::Backend`.

pub mod conformance;
pub mod dual;
pub mod portable;

pub use dual::DualBackend;
pub use portable::PortableCpu;
