//! From a trained network to its integer program: import, quantization, reference execution.
//!
//! ```text
//! ONNX bytes ──import_onnx──▶ Model ──quantize / quantize_qdq──▶ QuantGraph ──execute──▶ Activations
//! ```
//! [`graph::QuantGraph`] is the program of `docs/PROTOCOL.md` §1 and [`executor::execute`] its definition in plain integers.

pub mod bounds;
pub mod executor;
pub mod graph;
pub mod validate;

pub use executor::{Activations, ExecuteError, execute};
pub use graph::{AddLayer, DenseLayer, InputSpec, OutputSpec, QuantGraph, QuantLayer, QuantOp, Requant, TensorId};
pub use validate::GraphError;
