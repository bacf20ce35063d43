//! Quantization: a float network and calibration inputs, or a network with its own quantization, to the integer program.
//!
//! Scheme: int8 weights `W ≈ s_w·Q`, symmetric, one scale per matrix or per output; int8 activations, symmetric, one scale per tensor,
//! from the largest magnitude on the calibration inputs; int32 biases in units of `s_x·s_w`. A float network is rewritten as a network
//! with quantize–dequantize pairs, so that both ways share `lower.rs`.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::bounds::{self, BIAS_BITS_RANGE, MAX_TENSOR_ELEMENTS, MULT_BITS_RANGE, OVERSHOOT_BITS, SHIFT_RANGE};
use super::evaluate::{EvaluateError, Rounding, evaluate};
use super::graph::QuantGraph;
use super::lower::{Lowered, lower};
use super::network::{Bias, Dense, Grid, Model, Node, Op, ValueId, Weights, scale_of};
use super::report::{QuantReport, Reference};
use super::validate::GraphError;

/// How many scales a weight matrix has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Granularity {
    /// One.
    PerTensor,
    /// One per output. Layers whose accumulators are the network's answer still have one, so that the answers compare.
    PerChannel,
}

/// How input bytes stand for numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum InputCoding {
    /// `scale · (a − 128)`: any sign.
    Signed,
    /// `scale · a`: for inputs that are never negative, such as pixels; twice as fine.
    Unsigned,
}

/// Choices of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuantOptions {
    /// Scales of weights.
    pub granularity: Granularity,
    /// Coding of the input.
    pub input_coding: InputCoding,
    /// Bits of a fixed-point multiplier, 1 … 31.
    pub max_mult_bits: u32,
}

impl Default for QuantOptions {
    /// Per channel, signed inputs, 31 bits.
    fn default() -> Self {
        Self { granularity: Granularity::PerChannel, input_coding: InputCoding::Signed, max_mult_bits: *MULT_BITS_RANGE.end() }
    }
}

/// A node that cannot be quantized.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("node {node:?}: {reason}")]
pub struct NodeProblem {
    /// Its name.
    pub node: String,
    /// Why, and what to do.
    pub reason: String,
}

/// Why a network cannot be quantized.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum QuantError {
    /// [`quantize`] was given a quantized network.
    #[error("the network is quantized already: import it as it is")]
    AlreadyQuantized,
    /// [`quantize_qdq`] was given a float network.
    #[error("the network carries no quantization: calibration inputs are needed")]
    NotQuantized,
    /// There are no calibration inputs.
    #[error("there is no calibration input; give some typical ones")]
    NoCalibration,
    /// A calibration input cannot be evaluated.
    #[error("calibration input {index} cannot be evaluated")]
    Calibration {
        /// Which.
        index: usize,
        /// Why.
        #[source]
        source: EvaluateError,
    },
    /// A calibration input is negative although [`InputCoding::Unsigned`] was chosen.
    #[error("calibration input {index} has negative values; use the signed input coding")]
    NegativeInput {
        /// Which.
        index: usize,
    },
    /// The option is out of range.
    #[error("max_mult_bits is {got}; it must lie in 1 to 31")]
    MultBits {
        /// Its value.
        got: u32,
    },
    /// Nodes that cannot be quantized: all of them.
    #[error("{} of the network cannot be quantized: {}", count(problems), join(problems))]
    Nodes {
        /// Every one.
        problems: Vec<NodeProblem>,
    },
    /// The program breaks a bound.
    #[error("the quantized network cannot be proved")]
    Graph(#[from] GraphError),
}

fn count(problems: &[NodeProblem]) -> String {
    if problems.len() == 1 { "1 node".to_owned() } else { format!("{} nodes", problems.len()) }
}

fn join(problems: &[NodeProblem]) -> String {
    problems.iter().map(NodeProblem::to_string).collect::<Vec<String>>().join("; ")
}

/// Quantizes a float network.
///
/// # Errors
/// A network that is quantized already, calibration inputs that do not fit, nodes or bounds that cannot be met.
pub fn quantize(model: &Model, calibration: &[Vec<f32>], options: &QuantOptions) -> Result<(QuantGraph, QuantReport), QuantError> {
    if model.is_qdq() {
        return Err(QuantError::AlreadyQuantized);
    }
    if !MULT_BITS_RANGE.contains(&options.max_mult_bits) {
        return Err(QuantError::MultBits { got: options.max_mult_bits });
    }
    check_sizes(model)?;
    let magnitudes = calibrate(model, calibration, options.input_coding)?;
    let annotated = Annotator::new(model, &magnitudes, options).annotate();
    let Lowered { graph, sources } = lower(&annotated.model, options.max_mult_bits)?;
    let sources = sources.into_iter().map(|source| annotated.origins[source.0]).collect();
    let report = QuantReport::new(&graph, &Reference { model, sources }, calibration)?;
    Ok((graph, report))
}

/// Takes over a network that carries its own quantization. Calibration inputs, if any, serve the report only.
///
/// # Errors
/// A network without quantization, inputs that do not fit, nodes or bounds that cannot be met.
pub fn quantize_qdq(model: &Model, calibration: &[Vec<f32>]) -> Result<(QuantGraph, QuantReport), QuantError> {
    if !model.is_qdq() {
        return Err(QuantError::NotQuantized);
    }
    check_sizes(model)?;
    let Lowered { graph, sources } = lower(model, *MULT_BITS_RANGE.end())?;
    let report = QuantReport::new(&graph, &Reference { model, sources }, calibration)?;
    Ok((graph, report))
}

/// Refuses values that no table holds before anything is evaluated.
fn check_sizes(model: &Model) -> Result<(), QuantError> {
    let names = std::iter::once("the input".to_owned()).chain(model.nodes.iter().map(|node| format!("the output of node {:?}", node.name)));
    for (index, what) in names.enumerate() {
        let got = model.n_elements(ValueId(index));
        if !(1..=MAX_TENSOR_ELEMENTS).contains(&got) {
            return Err(GraphError::TensorSize { what, got }.into());
        }
    }
    Ok(())
}

/// Largest magnitude of each value on the calibration inputs.
fn calibrate(model: &Model, calibration: &[Vec<f32>], coding: InputCoding) -> Result<Vec<f64>, QuantError> {
    if calibration.is_empty() {
        return Err(QuantError::NoCalibration);
    }
    let mut magnitudes = vec![0f64; model.nodes.len() + 1];
    for (index, input) in calibration.iter().enumerate() {
        if coding == InputCoding::Unsigned && input.iter().any(|&value| value < 0.0) {
            return Err(QuantError::NegativeInput { index });
        }
        let values = evaluate(model, input, Rounding::Skip).map_err(|source| QuantError::Calibration { index, source })?;
        for (magnitude, value) in magnitudes.iter_mut().zip(&values) {
            *magnitude = value.iter().fold(*magnitude, |magnitude, &x| magnitude.max(f64::from(x.abs())));
        }
    }
    Ok(magnitudes)
}

/// A float network with quantize–dequantize pairs, and the value of the float network that each of its values stands for.
struct Annotated {
    model: Model,
    origins: Vec<ValueId>,
}

struct Annotator<'a> {
    float: &'a Model,
    magnitudes: &'a [f64],
    options: &'a QuantOptions,
    /// Values that are read once, by a clamp.
    is_clamped: Vec<bool>,
    fan_outs: Vec<usize>,
    nodes: Vec<Node>,
    origins: Vec<ValueId>,
    /// Where each value of the float network is now; rounded if it is.
    renamed: Vec<ValueId>,
    /// Grid of each value of the float network that is rounded.
    grids: Vec<Option<Grid>>,
    /// Smallest scale for the result of each pending value (dense or sum, perhaps clamped).
    min_scales: Vec<f64>,
}

impl<'a> Annotator<'a> {
    fn new(float: &'a Model, magnitudes: &'a [f64], options: &'a QuantOptions) -> Self {
        let fan_outs = float.fan_outs();
        let mut is_clamped = vec![false; fan_outs.len()];
        for node in float.nodes.iter().filter(|node| matches!(node.op, Op::Relu | Op::Clip { .. })) {
            for input in node.inputs.iter().filter(|input| fan_outs[input.0] == 1) {
                is_clamped[input.0] = true;
            }
        }
        Self {
            float,
            magnitudes,
            options,
            is_clamped,
            fan_outs,
            nodes: Vec::new(),
            origins: vec![ValueId::INPUT],
            renamed: Vec::new(),
            grids: Vec::new(),
            min_scales: Vec::new(),
        }
    }

    fn annotate(mut self) -> Annotated {
        self.place(ValueId::INPUT, ValueId::INPUT, 0.0);
        for (node_idx, node) in self.float.nodes.iter().enumerate() {
            let value = ValueId::of_node(node_idx);
            let (op, min_scale) = self.annotate_op(node, value);
            let inputs = node.inputs.iter().map(|input| self.renamed[input.0]).collect();
            let new = self.push(Node { name: node.name.clone(), op, inputs, n_elements: node.n_elements }, value);
            self.place(value, new, min_scale);
        }
        let output = self.renamed[self.float.output.0];
        let model = Model { input: self.float.input.clone(), nodes: self.nodes, output, output_spec: self.float.output_spec.clone() };
        Annotated { model, origins: self.origins }
    }

    fn push(&mut self, node: Node, origin: ValueId) -> ValueId {
        self.nodes.push(node);
        self.origins.push(origin);
        ValueId(self.nodes.len())
    }

    /// Records where a value is now, rounding it unless it stays an accumulator.
    fn place(&mut self, value: ValueId, new: ValueId, min_scale: f64) {
        let is_rounded = !self.stays_accumulator(value);
        let grid = is_rounded.then(|| self.grid(value, min_scale));
        let placed = match grid {
            None => new,
            Some(grid) => {
                let name = value.node().map_or(&self.float.input.name, |node_idx| &self.float.nodes[node_idx].name).clone();
                let n_elements = self.float.n_elements(value);
                self.push(Node { name, op: Op::Round(grid), inputs: vec![new], n_elements }, value)
            }
        };
        self.renamed.push(placed);
        self.grids.push(grid);
        self.min_scales.push(min_scale);
    }

    /// Whether a value is only clamped further, or is the answer of a dense layer.
    fn stays_accumulator(&self, value: ValueId) -> bool {
        value != ValueId::INPUT && (self.is_clamped[value.0] || self.is_raw_answer(value))
    }

    fn is_raw_answer(&self, value: ValueId) -> bool {
        let is_dense = value.node().is_some_and(|node_idx| matches!(self.float.nodes[node_idx].op, Op::Dense(_)));
        is_dense && value == self.float.output && self.fan_outs[value.0] == 1
    }

    fn grid(&self, value: ValueId, min_scale: f64) -> Grid {
        let is_unsigned_input = value == ValueId::INPUT && self.options.input_coding == InputCoding::Unsigned;
        let (lo, hi) = match (value == ValueId::INPUT, is_unsigned_input) {
            (true, true) => (0, 255),
            (true, false) => (-128, 127),
            (false, _) => (-127, 127),
        };
        let magnitude = self.magnitudes[value.0];
        let scale = (magnitude / hi as f64).max(min_scale);
        // A value that is zero on all calibration inputs has no scale of its own.
        Grid { scale: if scale > 0.0 { scale } else { 1.0 / hi as f64 }, lo, hi }
    }

    /// The node's operator with quantized weights, and the smallest scale that its result may have.
    fn annotate_op(&self, node: &Node, value: ValueId) -> (Op, f64) {
        match &node.op {
            Op::Dense(dense) => {
                let input = self.operand_grid(node, 0);
                let granularity = if self.is_raw_answer(value) { Granularity::PerTensor } else { self.options.granularity };
                let quantized = quantize_dense(dense, input.scale, granularity);
                let min_scale = self.min_dense_scale(&quantized, &input);
                (Op::Dense(quantized), min_scale)
            }
            Op::Add => {
                let (left, right) = (self.operand_grid(node, 0), self.operand_grid(node, 1));
                let bound = bounds::add_product_bound(magnitude(&left), magnitude(&right), 0);
                (Op::Add, left.scale.max(right.scale) / self.max_factor(bound))
            }
            Op::Relu | Op::Clip { .. } => (node.op.clone(), self.pending_min_scale(node)),
            Op::Round(_) => (node.op.clone(), 0.0),
        }
    }

    fn operand_grid(&self, node: &Node, port: usize) -> Grid {
        // Only values whose single reader is a clamp stay without a grid.
        self.grids[node.inputs[port].0].unwrap_or(Grid { scale: 1.0, lo: -127, hi: 127 })
    }

    fn max_factor(&self, bound: u128) -> f64 {
        max_factor(bound, self.options.max_mult_bits)
    }

    fn min_dense_scale(&self, dense: &Dense, input: &Grid) -> f64 {
        let (Weights::Int8 { scales, .. }, Bias::Int32 { values, .. }) = (&dense.weights, &dense.bias) else { return 0.0 };
        let bias_bits = values.iter().map(|value| bounds::bit_length(u128::from(value.unsigned_abs()))).max().unwrap_or(0);
        let bound = bounds::dense_accumulator_bound(dense.n_in, magnitude(input), bias_bits.max(*BIAS_BITS_RANGE.start()));
        let largest = scales.iter().copied().fold(0.0, f64::max);
        input.scale * largest / self.max_factor(bound)
    }

    /// A clamp's smallest scale: that of the accumulator it clamps, or of rescaling a tensor.
    fn pending_min_scale(&self, node: &Node) -> f64 {
        let input = node.inputs[0];
        match self.grids[input.0] {
            Some(grid) => grid.scale / self.max_factor(bounds::add_product_bound(magnitude(&grid), magnitude(&grid), 0)),
            None => self.min_scales[input.0],
        }
    }
}

fn magnitude(grid: &Grid) -> u64 {
    grid.lo.unsigned_abs().max(grid.hi.unsigned_abs())
}

/// The largest `m = M / 2^s` for which an accumulator below `bound` cannot overshoot: `bound · 2^mult_bits < 2^(24 + s)`,
/// where `2^mult_bits ≤ 2M`, and for which M has at most `max_mult_bits` bits at the smallest shift.
/// A tenth is left for rounding and for the no-wrap inequality at the largest shift.
fn max_factor(bound: u128, max_mult_bits: u32) -> f64 {
    let no_overshoot = 2f64.powi(OVERSHOOT_BITS as i32 - 1) / bound as f64;
    let fits_bits = (2f64.powi(max_mult_bits as i32) - 1.0) / 2f64.powi(*SHIFT_RANGE.start() as i32);
    0.9 * no_overshoot.min(fits_bits)
}

/// Bits of a bias that a weight scale must allow for: with less, dead channels (tiny weights, ordinary bias) would need huge biases.
/// At 2^24 a weight's rounding error is below 2^−17 of the bias, far below a step of the result, which spans the bias in 127 steps.
const MAX_BIAS_STEPS: f64 = 16_777_216.0;

/// Symmetric int8 weights and int32 biases.
fn quantize_dense(dense: &Dense, input_scale: f64, granularity: Granularity) -> Dense {
    let row_scale = |row: usize| {
        let largest = (0..dense.n_in).map(|column| dense.weights.at(dense.n_in, row, column).abs()).fold(0.0, f64::max);
        (largest / 127.0).max(dense.bias.at(row).abs() / (input_scale * MAX_BIAS_STEPS))
    };
    let row_scales: Vec<f64> = (0..dense.n_out).map(row_scale).collect();
    let largest = row_scales.iter().copied().fold(0.0, f64::max);
    // Rows of zeros take any scale.
    let largest = if largest > 0.0 { largest } else { 1.0 };
    let scales = match granularity {
        Granularity::PerTensor => vec![largest],
        Granularity::PerChannel => row_scales.into_iter().map(|scale| if scale > 0.0 { scale } else { largest }).collect(),
    };
    let weight = |index: usize| {
        let (row, column) = (index / dense.n_in, index % dense.n_in);
        (dense.weights.at(dense.n_in, row, column) / scale_of(&scales, row)).round_ties_even().clamp(-127.0, 127.0) as i8
    };
    let values = (0..dense.n_in * dense.n_out).map(weight).collect();
    let bias_scales: Vec<f64> = scales.iter().map(|scale| scale * input_scale).collect();
    // Within 2^24 by the choice of the scale.
    let bias = (0..dense.n_out).map(|row| (dense.bias.at(row) / scale_of(&bias_scales, row)).round_ties_even() as i32).collect();
    Dense {
        n_in: dense.n_in,
        n_out: dense.n_out,
        weights: Weights::Int8 { values, scales },
        bias: Bias::Int32 { values: bias, scales: bias_scales },
    }
}
