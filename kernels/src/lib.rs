//! Compute backends of zkinfer, behind `zkinfer_circuits::backend::Backend`.

pub mod portable;

pub use portable::PortableCpu;
