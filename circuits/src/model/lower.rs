//! From a network with its own quantization to the integer program.
//!
//! A value of the network is one of: an integer tensor; an accumulator that no grid has rounded yet; either of them clamped.
//! Rounding an accumulator to a grid makes a layer: dense (or add), bias, activation function and rounding become one.
//! This is exact: with `x = s_x·q_x` and `W = s_w·Q`, `W x + b = s_x s_w·acc`, so rounding to a grid of scale s_y multiplies acc by
//! `m = s_x s_w / s_y`; clamps of real numbers, and clamps between two roundings to one grid, commute with rounding.
//! The only approximations are m ≈ M / 2^s (off by at most 2^−(s+1); s is as large as 31 bits of M, and 39, allow) and a bias
//! that was not in steps of the accumulator.

use super::bounds::{self, BIAS_BITS_RANGE, SHIFT_RANGE};
use super::graph::{AddLayer, DenseLayer, InputSpec, OutputSpec, QuantGraph, QuantLayer, QuantOp, Requant, TensorId};
use super::network::{Bias, Dense, Grid, Model, Node, Op, ValueId, Weights, scale_of};
use super::quantize::{NodeProblem, QuantError};

/// A program, and which value of the network each of its layers computes.
pub(super) struct Lowered {
    pub(super) graph: QuantGraph,
    /// Index = layer.
    pub(super) sources: Vec<ValueId>,
}

/// An integer tensor that stands for `scale · q`.
#[derive(Clone, Copy)]
struct OnGrid {
    tensor: TensorId,
    scale: f64,
}

/// What a value of the network is, before its clamp.
#[derive(Clone, Copy)]
enum Base {
    /// The network's input, not rounded yet.
    Input,
    /// A tensor.
    Tensor(OnGrid),
    /// The accumulator of a dense node.
    Dense { node_idx: usize, input: OnGrid },
    /// A sum of two tensors.
    Sum { left: OnGrid, right: OnGrid },
    /// A node before has a problem.
    Unknown,
}

/// A value of the network: `min(max(base, lo), hi)`.
#[derive(Clone, Copy)]
struct Term {
    base: Base,
    lo: f64,
    hi: f64,
    /// Whether something else reads the base too.
    is_shared: bool,
}

struct Lowering<'a> {
    model: &'a Model,
    max_mult_bits: u32,
    fan_outs: Vec<usize>,
    terms: Vec<Term>,
    input_grid: Option<Grid>,
    layers: Vec<QuantLayer>,
    sources: Vec<ValueId>,
    problems: Vec<NodeProblem>,
}

/// Why a term cannot be used; `None`: a node before has the problem already.
type Problem = Option<String>;

/// Makes the integer program of a quantized network. Multipliers have at most `max_mult_bits` bits.
///
/// # Errors
/// All nodes that are not quantized in a way that can be proved; a program that breaks a bound.
pub(super) fn lower(model: &Model, max_mult_bits: u32) -> Result<Lowered, QuantError> {
    let mut lowering = Lowering {
        model,
        max_mult_bits,
        fan_outs: model.fan_outs(),
        terms: vec![Term::new(Base::Input)],
        input_grid: None,
        layers: Vec::new(),
        sources: Vec::new(),
        problems: Vec::new(),
    };
    for (node_idx, node) in model.nodes.iter().enumerate() {
        let term = lowering.node(node_idx, node);
        let term = term.unwrap_or_else(|problem| lowering.note(node, problem));
        lowering.terms.push(term);
    }
    lowering.finish()
}

impl Term {
    fn new(base: Base) -> Self {
        Self { base, lo: f64::NEG_INFINITY, hi: f64::INFINITY, is_shared: false }
    }

    fn is_clamped(&self) -> bool {
        self.lo > f64::NEG_INFINITY || self.hi < f64::INFINITY
    }
}

impl Lowering<'_> {
    fn note(&mut self, node: &Node, problem: Problem) -> Term {
        if let Some(reason) = problem {
            self.problems.push(NodeProblem { node: node.name.clone(), reason });
        }
        Term::new(Base::Unknown)
    }

    /// What a node reads at a port.
    fn operand(&self, node: &Node, port: usize) -> Term {
        let value = node.inputs[port];
        let mut term = self.terms[value.0];
        term.is_shared |= self.fan_outs[value.0] > 1;
        term
    }

    /// An operand that must be an integer tensor.
    fn tensor(&self, node: &Node, port: usize) -> Result<OnGrid, Problem> {
        let term = self.operand(node, port);
        match term.base {
            Base::Tensor(tensor) if !term.is_clamped() => Ok(tensor),
            Base::Unknown => Err(None),
            Base::Tensor(_) | Base::Input | Base::Dense { .. } | Base::Sum { .. } => {
                Err(Some("its input is not quantized: QuantizeLinear and DequantizeLinear must stand before it".to_owned()))
            }
        }
    }

    fn node(&mut self, node_idx: usize, node: &Node) -> Result<Term, Problem> {
        match &node.op {
            Op::Dense(_) => Ok(Term::new(Base::Dense { node_idx, input: self.tensor(node, 0)? })),
            Op::Add => Ok(Term::new(Base::Sum { left: self.tensor(node, 0)?, right: self.tensor(node, 1)? })),
            Op::Relu => Ok(clamp(self.operand(node, 0), 0.0, f64::INFINITY)),
            Op::Clip { lo, hi } => Ok(clamp(self.operand(node, 0), f64::from(*lo), f64::from(*hi))),
            Op::Round(grid) => self.round(node_idx, node, *grid),
        }
    }

    fn round(&mut self, node_idx: usize, node: &Node, grid: Grid) -> Result<Term, Problem> {
        let term = self.operand(node, 0);
        // Rounding is monotonic, so a clamp before it is a clamp to rounded bounds after it. Infinities saturate.
        let (lo, hi) = (grid.quantize(term.lo), grid.quantize(term.hi));
        let rounded = Grid { scale: grid.scale, lo, hi };
        match term.base {
            Base::Unknown => return Err(None),
            Base::Input => return self.round_input(&term, grid),
            Base::Tensor(tensor) if tensor.scale == grid.scale => {
                if let Some(narrowed) = self.narrow(node_idx, tensor, &term, rounded) {
                    return Ok(narrowed);
                }
            }
            Base::Tensor(_) => {}
            Base::Dense { .. } | Base::Sum { .. } if term.is_shared => {
                return Err(Some("the result that it rounds is also read without being rounded".to_owned()));
            }
            Base::Dense { .. } | Base::Sum { .. } => {}
        }
        if lo >= hi {
            return Err(Some("its result is constant".to_owned()));
        }
        let op = match term.base {
            Base::Dense { node_idx, input } => self.dense(node_idx, input, Some(rounded))?,
            Base::Sum { left, right } => self.add(left, [left.scale, right.scale], right, rounded)?,
            // A change of scale, or a clamp of a tensor that others read unclamped: x·M₁ + x·0.
            Base::Tensor(tensor) => self.add(tensor, [tensor.scale, 0.0], tensor, rounded)?,
            Base::Input | Base::Unknown => return Err(None),
        };
        Ok(self.push(self.layer_name(node), op, grid.scale, ValueId::of_node(node_idx)))
    }

    /// The grid of the input; all nodes that read it must agree.
    fn round_input(&mut self, term: &Term, grid: Grid) -> Result<Term, Problem> {
        if term.is_clamped() {
            return Err(Some("it clamps the network's input before that is quantized".to_owned()));
        }
        if self.input_grid.is_some_and(|known| known != grid) {
            return Err(Some("the network's input is quantized in two ways".to_owned()));
        }
        self.input_grid = Some(grid);
        Ok(Term { is_shared: term.is_shared, ..Term::new(Base::Tensor(OnGrid { tensor: TensorId::INPUT, scale: grid.scale })) })
    }

    /// Rounding a tensor to its own grid again: the same tensor, its layer's clamp narrowed if need be. `None`: a layer is needed.
    fn narrow(&mut self, node_idx: usize, tensor: OnGrid, term: &Term, rounded: Grid) -> Option<Term> {
        let same = Term { is_shared: term.is_shared, ..Term::new(Base::Tensor(tensor)) };
        let (old_lo, old_hi) = match tensor.tensor.layer() {
            None => self.input_grid.map(|grid| (grid.lo, grid.hi))?,
            Some(layer_idx) => self.layers[layer_idx].requant().map(|requant| (requant.lo, requant.hi))?,
        };
        let (lo, hi) = (old_lo.clamp(rounded.lo, rounded.hi), old_hi.clamp(rounded.lo, rounded.hi));
        if (lo, hi) == (old_lo, old_hi) {
            return Some(same);
        }
        if term.is_shared || lo >= hi {
            return None;
        }
        let layer_idx = tensor.tensor.layer()?;
        let name = self.layer_name(&self.model.nodes[node_idx]);
        let layer = &mut self.layers[layer_idx];
        let requant = match &mut layer.op {
            QuantOp::Dense(dense) => dense.requant.as_mut()?,
            QuantOp::Add(add) => &mut add.requant,
        };
        (requant.lo, requant.hi) = (lo, hi);
        layer.name = name;
        self.sources[layer_idx] = ValueId::of_node(node_idx);
        Some(same)
    }

    /// Name for the layer that ends with a rounding: of the node that is rounded.
    fn layer_name(&self, round: &Node) -> String {
        let rounded = round.inputs.first().and_then(|value| value.node()).and_then(|node_idx| self.model.nodes.get(node_idx));
        match rounded {
            Some(node) if !matches!(node.op, Op::Round(_)) => node.name.clone(),
            _ => round.name.clone(),
        }
    }

    fn push(&mut self, name: String, op: QuantOp, scale: f64, source: ValueId) -> Term {
        self.layers.push(QuantLayer { name, op, scale });
        self.sources.push(source);
        Term::new(Base::Tensor(OnGrid { tensor: TensorId(self.layers.len()), scale }))
    }

    /// A dense layer rounded to a grid, or raw.
    fn dense(&self, node_idx: usize, input: OnGrid, output: Option<Grid>) -> Result<QuantOp, Problem> {
        let Op::Dense(dense) = &self.model.nodes[node_idx].op else { return Err(None) };
        let Weights::Int8 { values, scales } = &dense.weights else {
            return Err(Some("the weights before it are not quantized".to_owned()));
        };
        let bias = integer_bias(dense, scales, input.scale)?;
        let bias_bits = bias.iter().map(|value| bounds::bit_length(u128::from(value.unsigned_abs()))).max().unwrap_or(0);
        let requant = match output {
            None => None,
            Some(grid) => {
                let factors: Vec<f64> = (0..dense.n_out).map(|row| input.scale * scale_of(scales, row) / grid.scale).collect();
                Some(requant(&factors, self.max_mult_bits, grid)?)
            }
        };
        Ok(QuantOp::Dense(DenseLayer {
            input: input.tensor,
            n_in: dense.n_in,
            n_out: dense.n_out,
            weights: values.clone(),
            bias,
            bias_bits: bias_bits.max(*BIAS_BITS_RANGE.start()),
            requant,
        }))
    }

    fn add(&self, left: OnGrid, scales: [f64; 2], right: OnGrid, grid: Grid) -> Result<QuantOp, Problem> {
        let requant = requant(&scales.map(|scale| scale / grid.scale), self.max_mult_bits, grid)?;
        Ok(QuantOp::Add(AddLayer { left: left.tensor, right: right.tensor, n: self.n_elements(left.tensor), requant }))
    }

    fn n_elements(&self, tensor: TensorId) -> usize {
        match tensor.layer() {
            None => self.model.n_inputs(),
            Some(layer_idx) => self.layers[layer_idx].n_outputs(),
        }
    }

    /// The tensor that is the network's answer; a dense layer at the end stays raw.
    fn answer(&mut self) -> Result<OnGrid, Problem> {
        let value = self.model.output;
        let term = self.terms[value.0];
        match term.base {
            Base::Unknown => Err(None),
            Base::Tensor(tensor) if !term.is_clamped() && tensor.tensor != TensorId::INPUT => Ok(tensor),
            Base::Dense { node_idx, input } if !term.is_clamped() && self.fan_outs[value.0] == 1 => {
                let node = &self.model.nodes[node_idx];
                let scale = match &node.op {
                    Op::Dense(Dense { weights: Weights::Int8 { scales, .. }, .. }) if scales.len() == 1 => input.scale * scales[0],
                    _ => return Err(Some("the network's answer has one scale per channel; quantize it per tensor".to_owned())),
                };
                let op = self.dense(node_idx, input, None)?;
                self.push(node.name.clone(), op, scale, value);
                Ok(OnGrid { tensor: TensorId(self.layers.len()), scale })
            }
            Base::Tensor(_) | Base::Input | Base::Dense { .. } | Base::Sum { .. } => {
                Err(Some("the network's answer is not quantized: QuantizeLinear and DequantizeLinear must stand behind it".to_owned()))
            }
        }
    }

    fn finish(mut self) -> Result<Lowered, QuantError> {
        let answer = self.answer();
        if let Err(Some(reason)) = &answer {
            self.problems.push(NodeProblem { node: self.model.output_spec.name.clone(), reason: reason.clone() });
        }
        let (Ok(answer), Some(grid), true) = (answer, self.input_grid, self.problems.is_empty()) else {
            return Err(QuantError::Nodes { problems: self.problems });
        };
        let spec = &self.model.input;
        let n_elements = self.model.n_inputs();
        // Byte 0 stands for the smallest integer of the grid, which has 256.
        let input = InputSpec { name: spec.name.clone(), shape: spec.shape.clone(), n_elements, offset: -grid.lo, scale: grid.scale };
        let spec = &self.model.output_spec;
        let output = OutputSpec { tensor: answer.tensor, name: spec.name.clone(), shape: spec.shape.clone(), scale: answer.scale };
        let graph = QuantGraph { input, layers: self.layers, output };
        graph.validate()?;
        Ok(Lowered { graph, sources: self.sources })
    }
}

/// `clamp ∘ clamp` is the clamp to the clamped bounds.
fn clamp(term: Term, lo: f64, hi: f64) -> Term {
    Term { lo: term.lo.clamp(lo, hi), hi: term.hi.clamp(lo, hi), ..term }
}

/// b in units of the accumulator, `s_x · s_w`.
fn integer_bias(dense: &Dense, weight_scales: &[f64], input_scale: f64) -> Result<Vec<i64>, Problem> {
    let max = (1i64 << BIAS_BITS_RANGE.end()) - 1;
    (0..dense.n_out)
        .map(|row| {
            let unit = input_scale * scale_of(weight_scales, row);
            let value = match &dense.bias {
                // Scales in files are products rounded to f32.
                Bias::Int32 { values, scales } if (scale_of(scales, row) / unit - 1.0).abs() < 1e-6 => i64::from(values[row]),
                bias => (bias.at(row) / unit).round_ties_even() as i64,
            };
            if (-max..=max).contains(&value) {
                Ok(value)
            } else {
                Err(Some(format!("bias {row} is too large for the scale of its weights: {value} steps, at most {max} are supported")))
            }
        })
        .collect()
}

/// Fixed-point multipliers `M ≈ m·2^s` with the largest shift for which all have at most `max_mult_bits` bits.
fn requant(factors: &[f64], max_mult_bits: u32, grid: Grid) -> Result<Requant, Problem> {
    let largest = factors.iter().copied().fold(0.0, f64::max);
    let limit = 2f64.powi(max_mult_bits as i32);
    let shift = SHIFT_RANGE.rev().find(|&shift| (largest * 2f64.powi(shift as i32)).round() < limit);
    let Some(shift) = shift else {
        return Err(Some(format!("the step of its result is too small: the accumulator would be multiplied by {largest:e}")));
    };
    // Below 2^max_mult_bits ≤ 2^31.
    let multipliers: Vec<u32> = factors.iter().map(|factor| (factor * 2f64.powi(shift as i32)).round() as u32).collect();
    let mult_bits = multipliers.iter().map(|&multiplier| bounds::bit_length(u128::from(multiplier))).max().unwrap_or(0).max(1);
    Ok(Requant { multipliers, shift, lo: grid.lo, hi: grid.hi, mult_bits })
}
