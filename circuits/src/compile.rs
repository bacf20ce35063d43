//! From a quantized graph to a program that circuits exist for, and its private constants.
//!
//! A model that fits a leaf circuit as a whole takes its layer kinds. Otherwise each layer takes the kind of least cost (rows · columns of
//! its table) that holds it. It is folded over as few groups as its outputs need (`docs/PROTOCOL.md` §2). Edges are numbered tensor by tensor: first the consumers of the input, then those of each layer's output; the
//! graph's output is the last consumer of its tensor. Bit widths are rounded up, so that the public program says little of the constants.

use thiserror::Error;

use crate::key::{MAX_AXES, MAX_NAME_BYTES, TensorInfo};
use crate::kind::{LayerKind, Operator, Role};
use crate::layer::spec::{LayerSpec, MAX_CONSTANT_BITS, OutputRule};
use crate::layer::theta::N_GROUP_CHOICES;
use crate::model::validate::GraphError;
use crate::model::{QuantGraph, QuantLayer, QuantOp, Requant, TensorId};
use crate::ops::dense::trace::DenseConstants;
use crate::ops::trace::LayerConstants;
use crate::program::{Program, ProgramError};
use crate::recursion::digest::{BoundaryShape, input_capacity, output_capacity};
use crate::recursion::kinds::{BoundaryKind, LAYER_KINDS, groups};

/// Columns of a dense table beside its weight columns: 3 of the weights oracle, 13 main, 16 projected, 8 sums.
const DENSE_EXTRA_COLUMNS: usize = 40;
/// Columns of an add table.
const ADD_COLUMNS: usize = 37;
/// Public bit widths are multiples of this, or the largest.
const BIT_STEP: u32 = 4;
/// Registered width of multipliers of a layer that has none.
const NO_MULTIPLIER_BITS: u32 = BIT_STEP;

/// A compiled model.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The public program; it passes [`Program::check`].
    pub program: Program,
    /// Private constants of the layers, in order.
    pub constants: Vec<LayerConstants>,
    /// The graph's input, for display.
    pub input: TensorInfo,
    /// The graph's output, for display.
    pub output: TensorInfo,
}

/// Why a graph cannot be compiled.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum CompileError {
    /// The graph breaks the rules of quantized graphs.
    #[error("the graph is not a valid program")]
    Graph(#[from] GraphError),
    /// No layer kind holds a dense layer.
    #[error("dense layer {layer:?} ({n_inputs} inputs, {n_outputs} outputs) fits no circuit: {limit}; make the layer smaller")]
    DenseSize {
        /// Name of the layer.
        layer: String,
        /// Inputs.
        n_inputs: usize,
        /// Outputs.
        n_outputs: usize,
        /// The limit it exceeds.
        limit: String,
    },
    /// No layer kind holds an add layer.
    #[error("add layer {layer:?} has {n_elements} elements; circuits exist for at most {limit}")]
    AddSize {
        /// Name of the layer.
        layer: String,
        /// Elements.
        n_elements: usize,
        /// Rows of the largest add kind.
        limit: usize,
    },
    /// The compiled program breaks a rule, such as the size of the boundary.
    #[error("the compiled program is not valid")]
    Program(#[from] ProgramError),
}

/// Compiles a quantized graph for the layer kinds of version 1.
///
/// # Errors
/// An invalid graph, a layer that fits no kind, or a boundary that fits no circuit.
pub fn compile(graph: &QuantGraph) -> Result<Compiled, CompileError> {
    graph.validate()?;
    let mut edges = Edges::number(graph);
    let boundary_edges = edges.produced(TensorId::INPUT);
    let mut layers = Vec::with_capacity(graph.layers.len());
    for (layer_idx, (layer, choice)) in graph.layers.iter().zip(choose_kinds(graph)?).enumerate() {
        let edges_in = layer.inputs().into_iter().map(|tensor| edges.consume(tensor)).collect::<Vec<u32>>();
        let (edge_out, fan_out) = edges.produced(TensorId::of_layer(layer_idx));
        let edges_in = [edges_in.first().copied().unwrap_or(0), edges_in.get(1).copied().unwrap_or(0)];
        layers.push(LayerSpec { edges_in, edge_out, fan_out, ..layer_spec(graph, layer, choice) });
    }
    let boundary = BoundaryShape {
        n_inputs: graph.input.n_elements,
        // In 0 to 255, as the graph is valid.
        input_offset: graph.input.offset as u8,
        first_input_edge: boundary_edges.0 as usize,
        input_fan_out: boundary_edges.1 as usize,
        n_outputs: graph.n_elements(graph.output.tensor).unwrap_or(0),
        output_edge: edges.consume(graph.output.tensor) as usize,
    };
    let program = Program { layers, boundary };
    program.check()?;
    let constants = graph.layers.iter().map(layer_constants).collect();
    let input = tensor_info(&graph.input.name, &graph.input.shape, graph.input.scale, graph.input.offset);
    let output = tensor_info(&graph.output.name, &graph.output.shape, graph.output.scale, 0);
    Ok(Compiled { program, constants, input, output })
}

/// Edge numbers while they are handed out; index = tensor.
struct Edges {
    produced: Vec<(u32, u32)>,
    consumed: Vec<u32>,
}

impl Edges {
    fn number(graph: &QuantGraph) -> Self {
        let mut next = 1;
        let mut produced = Vec::new();
        for fan_out in graph.fan_outs() {
            // At most 8, as the graph is valid.
            let fan_out = fan_out as u32;
            produced.push((next, fan_out));
            next += fan_out;
        }
        Self { consumed: vec![0; produced.len()], produced }
    }

    /// First edge and fan-out of a tensor.
    fn produced(&self, tensor: TensorId) -> (u32, u32) {
        self.produced[tensor.0]
    }

    /// The next edge of a tensor that nobody reads yet.
    fn consume(&mut self, tensor: TensorId) -> u32 {
        let edge = self.produced[tensor.0].0 + self.consumed[tensor.0];
        self.consumed[tensor.0] += 1;
        edge
    }
}

/// The layer's description, without its edges.
fn layer_spec(graph: &QuantGraph, layer: &QuantLayer, (kind, log_period): Choice) -> LayerSpec {
    let (n_inputs, bias_bits) = match &layer.op {
        QuantOp::Dense(dense) => (dense.n_in, dense.bias_bits),
        QuantOp::Add(add) => (add.n, *crate::model::bounds::BIAS_BITS_RANGE.start()),
    };
    let spec = LayerSpec {
        kind,
        n_inputs,
        n_outputs: layer.n_outputs(),
        log_period,
        output: output_rule(layer.requant()),
        bias_bits,
        mult_bits: layer.requant().map_or(NO_MULTIPLIER_BITS, |requant| requant.mult_bits),
        edges_in: [0; 2],
        edge_out: 0,
        fan_out: 1,
    };
    coarsen(spec, max_inputs(graph, layer))
}

fn output_rule(requant: Option<&Requant>) -> OutputRule {
    match requant {
        None => OutputRule::Raw,
        Some(requant) => OutputRule::Requantize { shift: requant.shift, lo: requant.lo, hi: requant.hi },
    }
}

fn max_inputs(graph: &QuantGraph, layer: &QuantLayer) -> [i64; 2] {
    let mut bounds = [0; 2];
    for (bound, tensor) in bounds.iter_mut().zip(layer.inputs()) {
        *bound = graph.range(tensor).map_or(0, |(lo, hi)| lo.abs().max(hi.abs()));
    }
    bounds
}

/// Rounds the bit widths up, as far as no equation can wrap.
fn coarsen(spec: LayerSpec, max_inputs: [i64; 2]) -> LayerSpec {
    let up = |bits: u32| bits.next_multiple_of(BIT_STEP).min(MAX_CONSTANT_BITS);
    let (bias, mult) = (up(spec.bias_bits), up(spec.mult_bits));
    let choices = [(bias, mult), (bias, spec.mult_bits), (spec.bias_bits, mult)];
    let coarse = choices.map(|(bias_bits, mult_bits)| LayerSpec { bias_bits, mult_bits, ..spec.clone() });
    coarse.into_iter().find(|choice| choice.check_no_wrap(max_inputs).is_ok()).unwrap_or(spec)
}

/// A kind, and the logarithm of the period.
type Choice = (LayerKind, usize);

/// A kind for every layer: those of a leaf circuit that holds the whole model if there is one, since that saves all joins; otherwise the
/// kind of least cost of each layer.
fn choose_kinds(graph: &QuantGraph) -> Result<Vec<Choice>, CompileError> {
    let boundary = boundary_kind(graph);
    let whole = groups().into_iter().filter(|group| group.role == Role::Inference && group.boundary == boundary);
    let choices = whole.filter_map(|group| choose_group(graph, &group.layers));
    let total = |choices: &Vec<Choice>| choices.iter().map(|(kind, _)| cost(kind)).sum::<usize>();
    match choices.min_by_key(total) {
        Some(choices) => Ok(choices),
        None => graph.layers.iter().map(choose_kind).collect(),
    }
}

fn boundary_kind(graph: &QuantGraph) -> Option<BoundaryKind> {
    let n_outputs = graph.n_elements(graph.output.tensor)?;
    let (input_capacity, output_capacity) = (input_capacity(graph.input.n_elements).ok()?, output_capacity(n_outputs).ok()?);
    Some(BoundaryKind { input_capacity, output_capacity })
}

fn choose_group(graph: &QuantGraph, kinds: &[LayerKind]) -> Option<Vec<Choice>> {
    if kinds.len() != graph.layers.len() {
        return None;
    }
    graph.layers.iter().zip(kinds).map(|(layer, kind)| fit(layer, *kind)).collect()
}

fn choose_kind(layer: &QuantLayer) -> Result<Choice, CompileError> {
    let fitting = LAYER_KINDS.into_iter().filter_map(|kind| fit(layer, kind));
    fitting.min_by_key(|(kind, _)| (cost(kind), kind.log_rows)).ok_or_else(|| too_large(layer))
}

/// Cells of the table.
fn cost(kind: &LayerKind) -> usize {
    kind.rows()
        * match kind.operator {
            Operator::Dense => kind.n_columns + DENSE_EXTRA_COLUMNS,
            Operator::Add => ADD_COLUMNS,
        }
}

/// The choice of this kind, with as few groups as the outputs need; `None` if the layer does not fit it.
fn fit(layer: &QuantLayer, kind: LayerKind) -> Option<Choice> {
    match (&layer.op, kind.operator) {
        (QuantOp::Dense(dense), Operator::Dense) => {
            let groups = dense.n_out.div_ceil(kind.n_columns).next_power_of_two();
            let log_groups = groups.trailing_zeros() as usize;
            let log_period = kind.log_rows.checked_sub(log_groups)?;
            let fits = log_groups < N_GROUP_CHOICES && dense.n_in <= 1 << log_period && dense.n_out <= kind.rows();
            fits.then_some((kind, log_period))
        }
        (QuantOp::Add(add), Operator::Add) => (add.n <= kind.rows()).then_some((kind, kind.log_rows)),
        (QuantOp::Dense(_), Operator::Add) | (QuantOp::Add(_), Operator::Dense) => None,
    }
}

fn too_large(layer: &QuantLayer) -> CompileError {
    match &layer.op {
        QuantOp::Dense(dense) => CompileError::DenseSize {
            layer: layer.name.clone(),
            n_inputs: dense.n_in,
            n_outputs: dense.n_out,
            limit: dense_limit(dense.n_in),
        },
        QuantOp::Add(add) => {
            let kinds = LAYER_KINDS.into_iter().filter(|kind| kind.operator == Operator::Add);
            let limit = kinds.map(|kind| kind.rows()).max().unwrap_or(0);
            CompileError::AddSize { layer: layer.name.clone(), n_elements: add.n, limit }
        }
    }
}

fn dense_limit(n_inputs: usize) -> String {
    let dense = || LAYER_KINDS.into_iter().filter(|kind| kind.operator == Operator::Dense);
    let max_inputs = dense().map(|kind| kind.rows()).max().unwrap_or(0);
    if n_inputs > max_inputs {
        return format!("a layer has at most {max_inputs} inputs");
    }
    let capacity = |kind: LayerKind| {
        let groups = (kind.rows() / n_inputs.next_power_of_two()).min(1 << (N_GROUP_CHOICES - 1));
        (kind.n_columns * groups).min(kind.rows())
    };
    let max_outputs = dense().map(capacity).max().unwrap_or(0);
    format!("with {n_inputs} inputs it has at most {max_outputs} outputs")
}

fn layer_constants(layer: &QuantLayer) -> LayerConstants {
    match &layer.op {
        QuantOp::Dense(dense) => LayerConstants::Dense(DenseConstants {
            weights: dense.weights.clone(),
            bias: dense.bias.clone(),
            multipliers: dense.requant.as_ref().map(|requant| requant.multipliers.clone()).unwrap_or_default(),
        }),
        // A valid add layer has two multipliers.
        QuantOp::Add(add) => LayerConstants::Add([add.requant.multipliers[0], add.requant.multipliers[1]]),
    }
}

/// Names are cut to the key's limit, shapes of too many axes flattened.
fn tensor_info(name: &str, shape: &[usize], scale: f64, zero_point: i64) -> TensorInfo {
    let mut name = name.to_owned();
    name.truncate(name.floor_char_boundary(MAX_NAME_BYTES));
    let shape = if shape.len() > MAX_AXES { vec![shape.iter().product()] } else { shape.to_vec() };
    TensorInfo { name, shape, scale, zero_point }
}

#[cfg(test)]
mod tests;
