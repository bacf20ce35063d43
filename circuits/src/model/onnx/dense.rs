//! Gemm, MatMul with constant weights, and constant biases: all of them `W x + b` on one vector.

use super::error::ImportError;
use super::limits::ImportLimits;
use super::messages::NodeProto;
use super::operator::{Activation, Attributes, NodeError, Scaled, Value};
use super::tensor::Data;
use crate::model::network::{Bias, Dense, Weights};

/// A translated dense layer and the shape of its result.
pub(super) struct Translated {
    pub(super) dense: Dense,
    pub(super) shape: Vec<usize>,
}

/// How a weight matrix lies in the file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layout {
    /// `[n_out, n_in]`.
    OutIn,
    /// `[n_in, n_out]`.
    InOut,
}

/// `Gemm`: `alpha · A' · B' + beta · C`, A one row, B and C constant.
pub(super) fn gemm(node: &NodeProto, inputs: &[Option<Value>], budget: &mut usize, limits: &ImportLimits) -> Result<Translated, NodeError> {
    let attributes = Attributes::of(node, &["alpha", "beta", "transA", "transB"])?;
    let (alpha, beta) = (attributes.float("alpha", 1.0)?, attributes.float("beta", 1.0)?);
    let (trans_a, trans_b) = (attributes.int("transA", 0)?, attributes.int("transB", 0)?);
    let input = activation(inputs, 0, "input A")?;
    let n_in = match (input.shape.as_slice(), trans_a) {
        (&[1, n_in], 0) | (&[n_in, 1], 1..) => n_in,
        (shape, _) => {
            let reason = format!("attribute transA={trans_a} with input A of shape {shape:?}; one row of inputs is supported");
            return Err(NodeError::unsupported(reason));
        }
    };
    let layout = if trans_b == 0 { Layout::InOut } else { Layout::OutIn };
    let mut dense = matrix(inputs, n_in, layout, budget, limits)?;
    if let Some(bias) = inputs.get(2).and_then(Option::as_ref) {
        dense.bias = bias_vector(bias, &[1, dense.n_out])?;
    }
    scale(&mut dense, alpha, beta)?;
    let shape = vec![1, dense.n_out];
    Ok(Translated { dense, shape })
}

/// `MatMul`: `A · B`, A one row of any rank, B a constant matrix.
pub(super) fn mat_mul(
    node: &NodeProto,
    inputs: &[Option<Value>],
    budget: &mut usize,
    limits: &ImportLimits,
) -> Result<Translated, NodeError> {
    Attributes::of(node, &[])?;
    let input = activation(inputs, 0, "input A")?;
    let Some((&n_in, rows)) = input.shape.split_last().filter(|(_, rows)| rows.iter().all(|&row| row == 1)) else {
        let reason = format!("input A has shape {:?}; one row of inputs is supported", input.shape);
        return Err(NodeError::unsupported(reason));
    };
    let dense = matrix(inputs, n_in, Layout::InOut, budget, limits)?;
    let shape = rows.iter().copied().chain([dense.n_out]).collect();
    Ok(Translated { dense, shape })
}

/// Adds a constant to a dense layer's bias. `constant` broadcasts to `shape`, the shape of the layer's result.
pub(super) fn add_bias(dense: &mut Dense, constant: &Value, shape: &[usize]) -> Result<(), NodeError> {
    let more = bias_vector(constant, shape)?;
    let is_zero = matches!(&dense.bias, Bias::Float(values) if values.iter().all(|&value| value == 0.0));
    dense.bias = if is_zero { more } else { Bias::Float((0..dense.n_out).map(|row| (dense.bias.at(row) + more.at(row)) as f32).collect()) };
    Ok(())
}

fn activation<'a>(inputs: &'a [Option<Value>], port: usize, what: &str) -> Result<&'a Activation, NodeError> {
    match inputs.get(port).and_then(Option::as_ref) {
        Some(Value::Activation(activation)) => Ok(activation),
        Some(Value::Unknown) => Err(NodeError::Unknown),
        Some(Value::Quantized(..)) => Err(NodeError::unsupported(format!("{what} is quantized and not dequantized"))),
        Some(Value::Constant(_) | Value::Dequantized(_)) => {
            Err(NodeError::unsupported(format!("{what} is constant; the weights must be the second input")))
        }
        None => Err(NodeError::unsupported(format!("{what} is missing"))),
    }
}

/// The layer of the weight matrix at port 1, without bias.
fn matrix(inputs: &[Option<Value>], n_in: usize, layout: Layout, budget: &mut usize, limits: &ImportLimits) -> Result<Dense, NodeError> {
    let Some(value) = inputs.get(1).and_then(Option::as_ref) else {
        return Err(NodeError::unsupported("input B is missing"));
    };
    let (rows, columns) = match (value, value.shape()) {
        (Value::Unknown, _) => return Err(NodeError::Unknown),
        (Value::Activation(_) | Value::Quantized(..), _) => {
            return Err(NodeError::unsupported("input B is computed; only constant weights are supported"));
        }
        (_, &[rows, columns]) => (rows, columns),
        (_, shape) => return Err(NodeError::unsupported(format!("input B has shape {shape:?}; a matrix is supported"))),
    };
    let (n_out, n_weights_in) = if layout == Layout::OutIn { (rows, columns) } else { (columns, rows) };
    if n_weights_in != n_in || n_out == 0 || n_in == 0 {
        let reason = format!("input A has {n_in} elements but the weights have {n_weights_in} inputs and {n_out} outputs");
        return Err(NodeError::unsupported(reason));
    }
    // Every use of a matrix is a copy: without this a small file could ask for much memory.
    let limit = limits.max_parameters;
    *budget = budget.checked_sub(n_in * n_out).ok_or(ImportError::TooMany { what: "parameters", limit })?;
    let weights = match value {
        Value::Dequantized(scaled) => quantized_weights(scaled, n_in, n_out, layout)?,
        constant => Weights::Float(row_major(&constant.to_floats("input B")?, n_in, n_out, layout)),
    };
    Ok(Dense { n_in, n_out, weights, bias: Bias::Float(vec![0.0; n_out]) })
}

fn quantized_weights(scaled: &Scaled, n_in: usize, n_out: usize, layout: Layout) -> Result<Weights, NodeError> {
    let Data::Int8(values) = &scaled.constant.data else {
        return Err(NodeError::unsupported(format!("quantized weights {:?} must be int8", scaled.constant.name)));
    };
    let output_axis = if layout == Layout::OutIn { 0 } else { 1 };
    if scaled.scales.len() > 1 && scaled.axis != output_axis {
        let reason =
            format!("weight scales lie along axis {}; per channel scales must lie along the outputs, axis {output_axis}", scaled.axis);
        return Err(NodeError::unsupported(reason));
    }
    Ok(Weights::Int8 { values: row_major(values, n_in, n_out, layout), scales: scaled.scales.clone() })
}

/// The matrix as `[n_out, n_in]`.
fn row_major<T: Copy>(values: &[T], n_in: usize, n_out: usize, layout: Layout) -> Vec<T> {
    match layout {
        Layout::OutIn => values.to_vec(),
        Layout::InOut => (0..n_out).flat_map(|row| (0..n_in).map(move |column| values[column * n_out + row])).collect(),
    }
}

/// A constant that broadcasts to `shape`, which has one row.
fn bias_vector(value: &Value, shape: &[usize]) -> Result<Bias, NodeError> {
    if matches!(value, Value::Unknown) {
        return Err(NodeError::Unknown);
    }
    let n_out: usize = shape.iter().product();
    let dims = value.shape();
    let broadcasts = dims.len() <= shape.len() && dims.iter().rev().zip(shape.iter().rev()).all(|(&dim, &size)| dim == size || dim == 1);
    let n_elements: usize = dims.iter().product();
    // With one row, a constant that broadcasts has either all elements or one of each kind along an axis; only the former and scalars occur.
    if !broadcasts || (n_elements != n_out && n_elements != 1) {
        return Err(NodeError::unsupported(format!("a constant of shape {dims:?} does not broadcast to {shape:?}")));
    }
    if let Value::Dequantized(scaled) = value
        && let Data::Int32(values) = &scaled.constant.data
        && n_elements == n_out
        && (scaled.scales.len() == 1 || scaled.scales.len() == n_out)
    {
        return Ok(Bias::Int32 { values: values.clone(), scales: scaled.scales.clone() });
    }
    let values = value.to_floats("the bias")?;
    Ok(Bias::Float(if values.len() == n_out { values } else { vec![values[0]; n_out] }))
}

/// Multiplies weights by alpha and bias by beta.
fn scale(dense: &mut Dense, alpha: f32, beta: f32) -> Result<(), NodeError> {
    match &mut dense.weights {
        Weights::Float(values) => values.iter_mut().for_each(|value| *value *= alpha),
        Weights::Int8 { .. } if alpha == 1.0 => {}
        Weights::Int8 { .. } => {
            return Err(NodeError::unsupported(format!("attribute alpha={alpha} with quantized weights; only 1 is supported")));
        }
    }
    match &mut dense.bias {
        Bias::Float(values) => values.iter_mut().for_each(|value| *value *= beta),
        Bias::Int32 { .. } if beta == 1.0 => {}
        Bias::Int32 { .. } => {
            return Err(NodeError::unsupported(format!("attribute beta={beta} with a quantized bias; only 1 is supported")));
        }
    }
    Ok(())
}
