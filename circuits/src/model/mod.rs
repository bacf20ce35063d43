//! From a trained network to its integer program: import, quantization, reference execution.
//!
//! ```text
//! ONNX bytes ──import_onnx──▶ Model ──quantize / quantize_qdq──▶ QuantGraph ──execute──▶ Activations
//! ```
//! [`graph::QuantGraph`] is the program of `docs/PROTOCOL.md` §1 and [`executor::execute`] its definition in plain integers.

pub mod bounds;
pub mod evaluate;
pub mod executor;
pub mod graph;
mod lower;
pub mod network;
pub mod onnx;
pub mod quantize;
pub mod report;
pub mod validate;

#[cfg(test)]
mod tests;

pub use evaluate::{EvaluateError, Rounding, evaluate};
pub use executor::{Activations, ExecuteError, execute};
pub use graph::{AddLayer, DenseLayer, InputSpec, OutputSpec, QuantGraph, QuantLayer, QuantOp, Requant, TensorId};
pub use network::Model;
pub use onnx::{ImportError, ImportLimits, import_onnx};
pub use quantize::{Granularity, InputCoding, NodeProblem, QuantError, QuantOptions, quantize, quantize_qdq};
pub use report::{LayerReport, QuantReport};
pub use validate::GraphError;
