//! The reference executor: the definition of the integer program, in the plainest code.
//!
//! Everything else in this crate that evaluates a network (trace, proof) must agree with it bit for bit.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::graph::{AddLayer, DenseLayer, QuantGraph, QuantLayer, QuantOp, Requant, TensorId};
use super::validate::GraphError;

/// Every tensor of one evaluation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activations {
    /// Centered values; index = tensor: the input, then the output of each layer.
    pub tensors: Vec<Vec<i64>>,
    /// Per layer, before multiplier, shift and clamp: dense `W x + b`; add `M₁·x₁ + M₂·x₂`.
    pub accumulators: Vec<Vec<i64>>,
}

/// Why a graph could not be executed.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ExecuteError {
    /// The graph breaks the rules of `docs/PROTOCOL.md` §1.
    #[error("the graph is not a valid program")]
    Graph(#[from] GraphError),
    /// The caller's input has another length.
    #[error("the input has {got} bytes; the network reads {expected}")]
    InputLength {
        /// Bytes the network reads.
        expected: usize,
        /// Bytes given.
        got: usize,
    },
    /// An accumulator left the range of i64: impossible in a valid graph.
    #[error("layer {layer:?} overflows at output {output}")]
    Overflow {
        /// The layer.
        layer: String,
        /// The output.
        output: usize,
    },
}

/// Evaluates the network on input bytes `a`, tensor values `a − offset`.
///
/// Time `O(n_macs)`, memory one i64 per element of each tensor and accumulator.
///
/// # Errors
/// An invalid graph, or an input of the wrong length.
pub fn execute(graph: &QuantGraph, input: &[u8]) -> Result<Activations, ExecuteError> {
    graph.validate()?;
    if input.len() != graph.input.n_elements {
        return Err(ExecuteError::InputLength { expected: graph.input.n_elements, got: input.len() });
    }
    let mut tensors = vec![input.iter().map(|&byte| i64::from(byte) - graph.input.offset).collect::<Vec<i64>>()];
    let mut accumulators = Vec::with_capacity(graph.layers.len());
    for layer in &graph.layers {
        let overflow = |output| ExecuteError::Overflow { layer: layer.name.clone(), output };
        let accumulator = accumulate(layer, &tensors).map_err(overflow)?;
        tensors.push(requantize(layer, &accumulator));
        accumulators.push(accumulator);
    }
    Ok(Activations { tensors, accumulators })
}

impl Activations {
    /// The values of a tensor; empty if there is no such tensor.
    pub fn tensor(&self, tensor: TensorId) -> &[i64] {
        self.tensors.get(tensor.0).map_or(&[], Vec::as_slice)
    }
}

/// Accumulators of a layer, or the index of the first that overflows.
fn accumulate(layer: &QuantLayer, tensors: &[Vec<i64>]) -> Result<Vec<i64>, usize> {
    match &layer.op {
        QuantOp::Dense(dense) => accumulate_dense(dense, &tensors[dense.input.0]),
        QuantOp::Add(add) => accumulate_add(add, &tensors[add.left.0], &tensors[add.right.0]),
    }
}

fn accumulate_dense(dense: &DenseLayer, x: &[i64]) -> Result<Vec<i64>, usize> {
    dense
        .weights
        .chunks_exact(dense.n_in)
        .zip(&dense.bias)
        .enumerate()
        .map(|(output, (row, &bias))| dot(row, x).and_then(|sum| sum.checked_add(bias)).ok_or(output))
        .collect()
}

fn dot(weights: &[i8], x: &[i64]) -> Option<i64> {
    weights.iter().zip(x).try_fold(0i64, |sum, (&weight, &value)| sum.checked_add(i64::from(weight).checked_mul(value)?))
}

fn accumulate_add(add: &AddLayer, left: &[i64], right: &[i64]) -> Result<Vec<i64>, usize> {
    let [left_multiplier, right_multiplier] = [0, 1].map(|port| i64::from(add.requant.multipliers[port]));
    left.iter()
        .zip(right)
        .enumerate()
        .map(|(output, (&left, &right))| {
            let left = left.checked_mul(left_multiplier).ok_or(output)?;
            let right = right.checked_mul(right_multiplier).ok_or(output)?;
            left.checked_add(right).ok_or(output)
        })
        .collect()
}

fn requantize(layer: &QuantLayer, accumulators: &[i64]) -> Vec<i64> {
    match &layer.op {
        QuantOp::Dense(DenseLayer { requant: None, .. }) => accumulators.to_vec(),
        QuantOp::Dense(DenseLayer { requant: Some(requant), .. }) => requantize_dense(requant, accumulators),
        QuantOp::Add(add) => accumulators.iter().map(|&sum| add.requant.apply(i128::from(sum))).collect(),
    }
}

fn requantize_dense(requant: &Requant, accumulators: &[i64]) -> Vec<i64> {
    accumulators
        .iter()
        .zip(&requant.multipliers)
        .map(|(&accumulator, &multiplier)| requant.apply(i128::from(accumulator) * i128::from(multiplier)))
        .collect()
}
