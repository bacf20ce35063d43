//! The float executor: what the network computes on real numbers. The reference for quantization, never part of a proof.

use thiserror::Error;

use super::network::{Dense, Model, Node, Op, ValueId, Weights};

/// What [`evaluate`] does at a quantize–dequantize pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounding {
    /// Rounds and clamps, as the network says.
    Apply,
    /// Passes the value through: the real network underneath. A grid that starts at zero still cuts negative values off, because it
    /// may stand for a ReLU that the quantizing runtime has absorbed.
    Skip,
}

/// Why a network could not be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EvaluateError {
    /// The caller's input has another length.
    #[error("the input has {got} values; the network reads {expected}")]
    InputLength {
        /// Values the network reads.
        expected: usize,
        /// Values given.
        got: usize,
    },
    /// The caller's input is not a number.
    #[error("input value {index} is not finite")]
    InputNotFinite {
        /// Its index.
        index: usize,
    },
    /// A value overflows.
    #[error("a value of node {node:?} is not finite")]
    NotFinite {
        /// The node.
        node: String,
    },
}

/// Evaluates the network on one input; index = value. Sums are taken in f64.
///
/// # Errors
/// An input of the wrong length, or a value that is not finite.
pub fn evaluate(model: &Model, input: &[f32], rounding: Rounding) -> Result<Vec<Vec<f32>>, EvaluateError> {
    if input.len() != model.n_inputs() {
        return Err(EvaluateError::InputLength { expected: model.n_inputs(), got: input.len() });
    }
    if let Some(index) = input.iter().position(|value| !value.is_finite()) {
        return Err(EvaluateError::InputNotFinite { index });
    }
    let mut values = vec![input.to_vec()];
    for node in &model.nodes {
        let result = evaluate_node(node, &values, rounding);
        if !result.iter().all(|value| value.is_finite()) {
            return Err(EvaluateError::NotFinite { node: node.name.clone() });
        }
        values.push(result);
    }
    Ok(values)
}

fn evaluate_node(node: &Node, values: &[Vec<f32>], rounding: Rounding) -> Vec<f32> {
    let operand = |port: usize| values[node.inputs[port].0].as_slice();
    let map = |f: &dyn Fn(f32) -> f32| operand(0).iter().map(|&x| f(x)).collect();
    match &node.op {
        Op::Dense(dense) => evaluate_dense(dense, operand(0)),
        Op::Add => operand(0).iter().zip(operand(1)).map(|(&left, &right)| left + right).collect(),
        Op::Relu => map(&|x| x.max(0.0)),
        Op::Clip { lo, hi } => map(&|x| x.max(*lo).min(*hi)),
        Op::Round(grid) if rounding == Rounding::Apply => map(&|x| (grid.quantize(f64::from(x)) as f64 * grid.scale) as f32),
        Op::Round(grid) if grid.lo == 0 => map(&|x| x.max(0.0)),
        Op::Round(_) => operand(0).to_vec(),
    }
}

fn evaluate_dense(dense: &Dense, x: &[f32]) -> Vec<f32> {
    (0..dense.n_out).map(|row| (dense.bias.at(row) + dot(dense, row, x)) as f32).collect()
}

fn dot(dense: &Dense, row: usize, x: &[f32]) -> f64 {
    let columns = row * dense.n_in..(row + 1) * dense.n_in;
    match &dense.weights {
        Weights::Float(values) => values[columns].iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum(),
        Weights::Int8 { values, scales } => {
            let sum: f64 = values[columns].iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(x)).sum();
            sum * super::network::scale_of(scales, row)
        }
    }
}

/// The network's answer among the values of [`evaluate`].
pub fn answer<'a>(model: &Model, values: &'a [Vec<f32>]) -> &'a [f32] {
    let ValueId(index) = model.output;
    values.get(index).map_or(&[], Vec::as_slice)
}
