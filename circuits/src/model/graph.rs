//! The quantized graph: a network as an integer program (`docs/PROTOCOL.md` §1).
//!
//! Every tensor is a vector of centered integers: the zero point is subtracted, so that the real number 0 is the integer 0.
//! Plain data: [`QuantGraph::validate`] says whether it is a program that can be proved.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A tensor of a graph: 0 is the graph's input, `k + 1` the output of layer `k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TensorId(pub usize);

impl TensorId {
    /// The graph's input.
    pub const INPUT: Self = Self(0);

    /// The output of layer `layer_idx`.
    pub fn of_layer(layer_idx: usize) -> Self {
        Self(layer_idx + 1)
    }

    /// The layer that makes this tensor; `None` for the graph's input.
    pub fn layer(self) -> Option<usize> {
        self.0.checked_sub(1)
    }
}

/// A quantized network: layers in an order in which each reads only earlier tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantGraph {
    /// What the network reads.
    pub input: InputSpec,
    /// The layers, in order of evaluation.
    pub layers: Vec<QuantLayer>,
    /// What the network answers.
    pub output: OutputSpec,
}

/// The network's input: bytes `a`, of which the tensor value is `a − offset`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InputSpec {
    /// Name in the model.
    pub name: String,
    /// Shape in the model, batch of one included.
    pub shape: Vec<usize>,
    /// Number of elements: the product of `shape`.
    pub n_elements: usize,
    /// The byte that stands for zero, 0 … 255.
    pub offset: i64,
    /// Real number of one integer step: the input is `scale · (a − offset)`.
    pub scale: f64,
}

/// The network's output: one tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputSpec {
    /// Which tensor.
    pub tensor: TensorId,
    /// Name in the model.
    pub name: String,
    /// Shape in the model, batch of one included.
    pub shape: Vec<usize>,
    /// Real number of one integer step.
    pub scale: f64,
}

/// One layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QuantLayer {
    /// Name of the model's node that the layer ends with, for reports.
    pub name: String,
    /// What it computes.
    pub op: QuantOp,
    /// Real number of one integer step of the layer's output.
    pub scale: f64,
}

/// What a layer computes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum QuantOp {
    /// `acc = W x + b`, requantized or raw.
    Dense(DenseLayer),
    /// `M₁·x₁ + M₂·x₂`, requantized.
    Add(AddLayer),
}

/// `acc = W x + b`; `y = requantize(acc · M)` per output, or `y = acc` (raw).
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct DenseLayer {
    /// x.
    pub input: TensorId,
    /// Elements of x.
    pub n_in: usize,
    /// Elements of y.
    pub n_out: usize,
    /// W, row-major `[n_out, n_in]`.
    pub weights: Vec<i8>,
    /// b, `[n_out]`, `|b| < 2^bias_bits`.
    pub bias: Vec<i64>,
    /// Public bound on b, 8 … 31.
    pub bias_bits: u32,
    /// `None`: raw accumulators, for the graph's output only. One multiplier per output.
    pub requant: Option<Requant>,
}

/// `y = requantize(M₁·left + M₂·right)` per element.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AddLayer {
    /// x₁.
    pub left: TensorId,
    /// x₂; may be `left`.
    pub right: TensorId,
    /// Elements of each operand and of y.
    pub n: usize,
    /// Two multipliers: M₁, M₂.
    pub requant: Requant,
}

/// `y = clamp(⌊(v + 2^(shift−1)) / 2^shift⌋, lo, hi)` of a product `v = acc·M` (add: a sum of products).
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Requant {
    /// M: one per output (dense) or two (add), `0 ≤ M < 2^mult_bits`.
    pub multipliers: Vec<u32>,
    /// s, one for the whole layer, 8 … 39.
    pub shift: u32,
    /// Smallest output, centered.
    pub lo: i64,
    /// Largest output, centered; `1 ≤ hi − lo ≤ 255`.
    pub hi: i64,
    /// Public bound on M, 1 … 31.
    pub mult_bits: u32,
}

impl Requant {
    /// `clamp(⌊(product + 2^(shift−1)) / 2^shift⌋, lo, hi)`.
    ///
    /// # Panics
    /// If `shift` is 0 or `lo > hi`: refused by [`QuantGraph::validate`].
    pub fn apply(&self, product: i128) -> i64 {
        self.quotient(product).clamp(i128::from(self.lo), i128::from(self.hi)) as i64
    }

    /// The rounded quotient before the clamp.
    pub fn quotient(&self, product: i128) -> i128 {
        (product + (1i128 << (self.shift - 1))) >> self.shift
    }
}

impl QuantLayer {
    /// Elements of the layer's output.
    pub fn n_outputs(&self) -> usize {
        match &self.op {
            QuantOp::Dense(dense) => dense.n_out,
            QuantOp::Add(add) => add.n,
        }
    }

    /// The tensors the layer reads, one per port.
    pub fn inputs(&self) -> Vec<TensorId> {
        match &self.op {
            QuantOp::Dense(dense) => vec![dense.input],
            QuantOp::Add(add) => vec![add.left, add.right],
        }
    }

    /// The requantization; `None` for a raw layer.
    pub fn requant(&self) -> Option<&Requant> {
        match &self.op {
            QuantOp::Dense(dense) => dense.requant.as_ref(),
            QuantOp::Add(add) => Some(&add.requant),
        }
    }

    /// Trained parameters: weights and biases.
    pub fn n_parameters(&self) -> u64 {
        match &self.op {
            QuantOp::Dense(dense) => dense.weights.len() as u64 + dense.bias.len() as u64,
            QuantOp::Add(_) => 0,
        }
    }

    /// Multiply-accumulates of the linear part (an addition of tensors counts none).
    pub fn n_macs(&self) -> u64 {
        match &self.op {
            QuantOp::Dense(dense) => dense.n_in as u64 * dense.n_out as u64,
            QuantOp::Add(_) => 0,
        }
    }
}

impl QuantGraph {
    /// Elements of a tensor; `None` if there is no such tensor.
    pub fn n_elements(&self, tensor: TensorId) -> Option<usize> {
        match tensor.layer() {
            None => Some(self.input.n_elements),
            Some(layer_idx) => self.layers.get(layer_idx).map(QuantLayer::n_outputs),
        }
    }

    /// Smallest and largest centered value of a tensor; `None` if there is no such tensor or it is raw.
    pub fn range(&self, tensor: TensorId) -> Option<(i64, i64)> {
        match tensor.layer() {
            None => Some((-self.input.offset, 255 - self.input.offset)),
            Some(layer_idx) => self.layers.get(layer_idx)?.requant().map(|requant| (requant.lo, requant.hi)),
        }
    }

    /// How often each tensor is read, by layers and as the graph's output; index = tensor. Unknown tensors are not counted.
    pub fn fan_outs(&self) -> Vec<usize> {
        let mut fan_outs = vec![0usize; self.layers.len() + 1];
        let reads = self.layers.iter().flat_map(QuantLayer::inputs).chain([self.output.tensor]);
        for tensor in reads {
            if let Some(count) = fan_outs.get_mut(tensor.0) {
                *count += 1;
            }
        }
        fan_outs
    }

    /// Trained parameters of all layers.
    pub fn n_parameters(&self) -> u64 {
        self.layers.iter().map(QuantLayer::n_parameters).sum()
    }

    /// Multiply-accumulates of all layers.
    pub fn n_macs(&self) -> u64 {
        self.layers.iter().map(QuantLayer::n_macs).sum()
    }

    /// Bytes of a real input: `clamp(round(x / scale) + offset, 0, 255)`, ties to even, NaN as zero.
    pub fn quantize_input(&self, values: &[f32]) -> Vec<u8> {
        let InputSpec { offset, scale, .. } = self.input;
        values
            .iter()
            .map(|&value| {
                let steps = (f64::from(value) / scale).round_ties_even();
                let steps = if steps.is_nan() { 0.0 } else { steps };
                // In 0 … 255 after the clamp, so the conversion is exact.
                (steps + offset as f64).clamp(0.0, 255.0) as u8
            })
            .collect()
    }

    /// Real numbers of an output tensor: `scale · y`.
    pub fn dequantize_output(&self, values: &[i64]) -> Vec<f32> {
        values.iter().map(|&value| (value as f64 * self.output.scale) as f32).collect()
    }
}

/// Weights are private: their values stay out of logs.
impl fmt::Debug for DenseLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DenseLayer")
            .field("input", &self.input)
            .field("n_in", &self.n_in)
            .field("n_out", &self.n_out)
            .field("bias_bits", &self.bias_bits)
            .field("requant", &self.requant)
            .finish_non_exhaustive()
    }
}

/// Multipliers are private: their values stay out of logs.
impl fmt::Debug for Requant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Requant")
            .field("shift", &self.shift)
            .field("lo", &self.lo)
            .field("hi", &self.hi)
            .field("mult_bits", &self.mult_bits)
            .finish_non_exhaustive()
    }
}
