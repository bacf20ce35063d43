//! The imported network, before quantization: a list of operators on real vectors.
//!
//! Views (Flatten, Reshape, Identity, Dropout) are gone: in row-major order they move no element.
//! A network may carry its own quantization (`QuantizeLinear` → `DequantizeLinear`): then it has [`Op::Round`] nodes and integer weights.

use std::fmt;

/// A value of a network: 0 is its input, `k + 1` the output of node `k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

impl ValueId {
    /// The network's input.
    pub const INPUT: Self = Self(0);

    /// The output of node `node_idx`.
    pub fn of_node(node_idx: usize) -> Self {
        Self(node_idx + 1)
    }

    /// The node that makes this value; `None` for the network's input.
    pub fn node(self) -> Option<usize> {
        self.0.checked_sub(1)
    }
}

/// Name and shape of the network's input or output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueSpec {
    /// Name in the file.
    pub name: String,
    /// Shape, batch of one included.
    pub shape: Vec<usize>,
}

/// A network: nodes in an order in which each reads only earlier values.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    /// The input.
    pub input: ValueSpec,
    /// The operators.
    pub nodes: Vec<Node>,
    /// Which value is the answer.
    pub output: ValueId,
    /// Its name and shape.
    pub output_spec: ValueSpec,
}

/// One operator.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Name in the file.
    pub name: String,
    /// What it computes.
    pub op: Op,
    /// What it reads: two values for [`Op::Add`], else one.
    pub inputs: Vec<ValueId>,
    /// Elements of the value it makes.
    pub n_elements: usize,
}

/// What a node computes.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// `W x + b`.
    Dense(Dense),
    /// `x₁ + x₂`, element by element.
    Add,
    /// `max(x, 0)`.
    Relu,
    /// `min(max(x, lo), hi)`.
    Clip {
        /// Lower bound.
        lo: f32,
        /// Upper bound.
        hi: f32,
    },
    /// `scale · clamp(round(x / scale), lo, hi)`: a quantize–dequantize pair.
    Round(Grid),
}

/// An integer grid: the real numbers `scale · q`, `lo ≤ q ≤ hi` (centered: the zero point is subtracted).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// Real number of one step, positive.
    pub scale: f64,
    /// Smallest integer, `−255 … 0`.
    pub lo: i64,
    /// Largest integer, `0 … 255`.
    pub hi: i64,
}

/// `W x + b`.
#[derive(Clone, PartialEq)]
pub struct Dense {
    /// Elements of x.
    pub n_in: usize,
    /// Elements of the result.
    pub n_out: usize,
    /// W, row-major `[n_out, n_in]`.
    pub weights: Weights,
    /// b, `[n_out]`.
    pub bias: Bias,
}

/// A weight matrix.
#[derive(Clone, PartialEq)]
pub enum Weights {
    /// Real weights.
    Float(Vec<f32>),
    /// `scale[row] · value`; one scale for all rows, or one per row.
    Int8 {
        /// The integers.
        values: Vec<i8>,
        /// One scale, or one per output.
        scales: Vec<f64>,
    },
}

/// A bias vector.
#[derive(Clone, PartialEq)]
pub enum Bias {
    /// Real bias.
    Float(Vec<f32>),
    /// `scale[row] · value`.
    Int32 {
        /// The integers.
        values: Vec<i32>,
        /// One scale, or one per output.
        scales: Vec<f64>,
    },
}

impl Model {
    /// Whether the network carries its own quantization.
    pub fn is_qdq(&self) -> bool {
        self.nodes.iter().any(|node| match &node.op {
            Op::Round(_) => true,
            Op::Dense(dense) => matches!(dense.weights, Weights::Int8 { .. }),
            Op::Add | Op::Relu | Op::Clip { .. } => false,
        })
    }

    /// Elements of the input.
    pub fn n_inputs(&self) -> usize {
        self.input.shape.iter().product()
    }

    /// Elements of a value; 0 if there is no such value.
    pub fn n_elements(&self, value: ValueId) -> usize {
        match value.node() {
            None => self.n_inputs(),
            Some(node_idx) => self.nodes.get(node_idx).map_or(0, |node| node.n_elements),
        }
    }

    /// How often each value is read, by nodes and as the answer; index = value.
    pub fn fan_outs(&self) -> Vec<usize> {
        let mut fan_outs = vec![0usize; self.nodes.len() + 1];
        for value in self.nodes.iter().flat_map(|node| node.inputs.iter().copied()).chain([self.output]) {
            if let Some(count) = fan_outs.get_mut(value.0) {
                *count += 1;
            }
        }
        fan_outs
    }

    /// Trained parameters: weights and biases.
    pub fn n_parameters(&self) -> u64 {
        let dense_parameters = |node: &Node| match &node.op {
            Op::Dense(dense) => (dense.n_in as u64 + 1) * dense.n_out as u64,
            Op::Add | Op::Relu | Op::Clip { .. } | Op::Round(_) => 0,
        };
        self.nodes.iter().map(dense_parameters).sum()
    }
}

impl Weights {
    /// Entry `[row, column]` of a matrix of `n_in` columns as a real number.
    ///
    /// # Panics
    /// If the entry does not exist.
    pub fn at(&self, n_in: usize, row: usize, column: usize) -> f64 {
        match self {
            Self::Float(values) => f64::from(values[row * n_in + column]),
            Self::Int8 { values, scales } => f64::from(values[row * n_in + column]) * scale_of(scales, row),
        }
    }
}

impl Bias {
    /// Element `row` as a real number.
    ///
    /// # Panics
    /// If the element does not exist.
    pub fn at(&self, row: usize) -> f64 {
        match self {
            Self::Float(values) => f64::from(values[row]),
            Self::Int32 { values, scales } => f64::from(values[row]) * scale_of(scales, row),
        }
    }
}

impl Grid {
    /// The integer nearest to a real number (ties to even), clamped to the grid.
    pub fn quantize(&self, value: f64) -> i64 {
        // The conversion saturates, and the clamp follows.
        ((value / self.scale).round_ties_even() as i64).clamp(self.lo, self.hi)
    }
}

/// The scale of a row: scales are one for all rows, or one per row.
pub(crate) fn scale_of(scales: &[f64], row: usize) -> f64 {
    if scales.len() == 1 { scales[0] } else { scales[row] }
}

/// Weights are private: their values stay out of logs.
impl fmt::Debug for Dense {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dense").field("n_in", &self.n_in).field("n_out", &self.n_out).finish_non_exhaustive()
    }
}
