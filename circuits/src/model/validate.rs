//! Whether a quantized graph is a program that can be proved (`docs/PROTOCOL.md` §1).

use thiserror::Error;

use super::bounds::{self, BIAS_BITS_RANGE, BoundError, MAX_FAN_OUT, MAX_TENSOR_ELEMENTS, MULT_BITS_RANGE, SHIFT_RANGE};
use super::graph::{AddLayer, DenseLayer, QuantGraph, QuantLayer, QuantOp, Requant, TensorId};

/// Largest magnitude of a centered int8 or uint8 value.
const MAX_CENTERED: i64 = 255;

/// Why a graph cannot be proved.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum GraphError {
    /// The graph has no layer.
    #[error("the graph has no layer")]
    NoLayers,
    /// A tensor is empty or too large for a table.
    #[error("{what} has {got} elements; a tensor has 1 to {MAX_TENSOR_ELEMENTS}")]
    TensorSize {
        /// Which tensor.
        what: String,
        /// Its elements.
        got: usize,
    },
    /// A shape does not multiply to the number of elements.
    #[error("the shape {shape:?} of {what} does not have {n_elements} elements")]
    Shape {
        /// `the input` or `the output`.
        what: String,
        /// The shape.
        shape: Vec<usize>,
        /// The elements it should have.
        n_elements: usize,
    },
    /// The input offset is not a byte.
    #[error("the input offset is {got}; it must lie in 0 to 255")]
    InputOffset {
        /// The offset.
        got: i64,
    },
    /// A scale is not a positive finite number.
    #[error("the scale of {what} is {got}; it must be positive and finite")]
    Scale {
        /// Whose scale.
        what: String,
        /// The scale.
        got: f64,
    },
    /// A layer reads a tensor that does not exist before it.
    #[error("layer {layer:?} reads tensor {tensor}, which no earlier layer makes")]
    UnknownTensor {
        /// The layer.
        layer: String,
        /// The tensor.
        tensor: usize,
    },
    /// A vector has the wrong length.
    #[error("{what} of layer {layer:?} has {got} elements instead of {expected}")]
    Length {
        /// The layer.
        layer: String,
        /// Which vector.
        what: &'static str,
        /// The length it must have.
        expected: usize,
        /// The length it has.
        got: usize,
    },
    /// A number is out of its range.
    #[error("{what} of layer {layer:?} is {got}; it must lie in {min} to {max}")]
    OutOfRange {
        /// The layer.
        layer: String,
        /// Which number.
        what: &'static str,
        /// Smallest value.
        min: i64,
        /// Largest value.
        max: i64,
        /// The value it has.
        got: i64,
    },
    /// A raw layer is read by another layer, or is not the graph's output.
    #[error("layer {layer:?} has no requantization but is not the graph's output alone")]
    RawInside {
        /// The layer.
        layer: String,
    },
    /// A tensor is never read, or too often.
    #[error("{what} is read {got} times; a tensor is read 1 to {MAX_FAN_OUT} times")]
    FanOut {
        /// Which tensor.
        what: String,
        /// How often.
        got: usize,
    },
    /// The graph's output is not the output of a layer.
    #[error("the graph's output is tensor {tensor}, which no layer makes")]
    Output {
        /// The tensor.
        tensor: usize,
    },
    /// A layer's bounds are unsafe.
    #[error("layer {layer:?} is too wide for its multipliers")]
    Bounds {
        /// The layer.
        layer: String,
        /// Which inequality.
        source: BoundError,
    },
}

impl QuantGraph {
    /// Checks everything that `docs/PROTOCOL.md` §1 asks of a program.
    ///
    /// # Errors
    /// The first violation.
    pub fn validate(&self) -> Result<(), GraphError> {
        if self.layers.is_empty() {
            return Err(GraphError::NoLayers);
        }
        check_size("the input", self.input.n_elements)?;
        check_shape("the input", &self.input.shape, self.input.n_elements)?;
        check_scale("the input", self.input.scale)?;
        if !(0..=MAX_CENTERED).contains(&self.input.offset) {
            return Err(GraphError::InputOffset { got: self.input.offset });
        }
        for (layer_idx, layer) in self.layers.iter().enumerate() {
            self.validate_layer(layer_idx, layer)?;
        }
        self.validate_output()?;
        self.validate_fan_outs()
    }

    fn validate_layer(&self, layer_idx: usize, layer: &QuantLayer) -> Result<(), GraphError> {
        check_size(&format!("the output of layer {:?}", layer.name), layer.n_outputs())?;
        check_scale(&format!("layer {:?}", layer.name), layer.scale)?;
        for tensor in layer.inputs() {
            if tensor.0 > layer_idx {
                return Err(GraphError::UnknownTensor { layer: layer.name.clone(), tensor: tensor.0 });
            }
        }
        match &layer.op {
            QuantOp::Dense(dense) => self.validate_dense(&layer.name, dense),
            QuantOp::Add(add) => self.validate_add(&layer.name, add),
        }
    }

    fn validate_dense(&self, name: &str, dense: &DenseLayer) -> Result<(), GraphError> {
        check_length(name, "the input", self.n_elements(dense.input).unwrap_or(0), dense.n_in)?;
        // Both factors are at most 2^16 here.
        check_length(name, "the weight matrix", dense.n_in * dense.n_out, dense.weights.len())?;
        check_length(name, "the bias", dense.n_out, dense.bias.len())?;
        check_range(name, "bias_bits", BIAS_BITS_RANGE, i64::from(dense.bias_bits))?;
        let bias_max = (1i64 << dense.bias_bits) - 1;
        for &bias in &dense.bias {
            check_range_i64(name, "a bias", -bias_max, bias_max, bias)?;
        }
        let max_input = self.max_magnitude(name, dense.input)?;
        let Some(requant) = &dense.requant else { return Ok(()) };
        check_length(name, "the vector of multipliers", dense.n_out, requant.multipliers.len())?;
        check_requant(name, requant)?;
        let bound = bounds::dense_product_bound(dense.n_in, max_input, dense.bias_bits, requant.mult_bits);
        check_bounds(name, bound, requant)
    }

    fn validate_add(&self, name: &str, add: &AddLayer) -> Result<(), GraphError> {
        check_length(name, "the left operand", add.n, self.n_elements(add.left).unwrap_or(0))?;
        check_length(name, "the right operand", add.n, self.n_elements(add.right).unwrap_or(0))?;
        let (max_left, max_right) = (self.max_magnitude(name, add.left)?, self.max_magnitude(name, add.right)?);
        check_length(name, "the vector of multipliers", 2, add.requant.multipliers.len())?;
        check_requant(name, &add.requant)?;
        check_bounds(name, bounds::add_product_bound(max_left, max_right, add.requant.mult_bits), &add.requant)
    }

    /// max|x| of a tensor that layer `name` reads.
    fn max_magnitude(&self, name: &str, tensor: TensorId) -> Result<u64, GraphError> {
        if let Some((lo, hi)) = self.range(tensor) {
            return Ok(lo.unsigned_abs().max(hi.unsigned_abs()));
        }
        let producer = tensor.layer().and_then(|layer_idx| self.layers.get(layer_idx));
        Err(GraphError::RawInside { layer: producer.map_or_else(|| name.to_owned(), |layer| layer.name.clone()) })
    }

    fn validate_output(&self) -> Result<(), GraphError> {
        let tensor = self.output.tensor;
        let n_elements = match tensor.layer() {
            Some(_) => self.n_elements(tensor),
            None => None,
        };
        let n_elements = n_elements.ok_or(GraphError::Output { tensor: tensor.0 })?;
        check_shape("the output", &self.output.shape, n_elements)?;
        check_scale("the output", self.output.scale)
    }

    fn validate_fan_outs(&self) -> Result<(), GraphError> {
        for (tensor, &fan_out) in self.fan_outs().iter().enumerate() {
            if !(1..=MAX_FAN_OUT).contains(&fan_out) {
                let layer = TensorId(tensor).layer().and_then(|layer_idx| self.layers.get(layer_idx));
                let what = layer.map_or_else(|| "the input".to_owned(), |layer| format!("the output of layer {:?}", layer.name));
                return Err(GraphError::FanOut { what, got: fan_out });
            }
        }
        Ok(())
    }
}

fn check_size(what: &str, n_elements: usize) -> Result<(), GraphError> {
    if !(1..=MAX_TENSOR_ELEMENTS).contains(&n_elements) {
        return Err(GraphError::TensorSize { what: what.to_owned(), got: n_elements });
    }
    Ok(())
}

fn check_shape(what: &str, shape: &[usize], n_elements: usize) -> Result<(), GraphError> {
    let product = shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
    if product != Some(n_elements) {
        return Err(GraphError::Shape { what: what.to_owned(), shape: shape.to_vec(), n_elements });
    }
    Ok(())
}

fn check_scale(what: &str, scale: f64) -> Result<(), GraphError> {
    if !(scale.is_finite() && scale > 0.0) {
        return Err(GraphError::Scale { what: what.to_owned(), got: scale });
    }
    Ok(())
}

fn check_length(layer: &str, what: &'static str, expected: usize, got: usize) -> Result<(), GraphError> {
    if expected != got {
        return Err(GraphError::Length { layer: layer.to_owned(), what, expected, got });
    }
    Ok(())
}

fn check_range(layer: &str, what: &'static str, range: std::ops::RangeInclusive<u32>, got: i64) -> Result<(), GraphError> {
    check_range_i64(layer, what, i64::from(*range.start()), i64::from(*range.end()), got)
}

fn check_range_i64(layer: &str, what: &'static str, min: i64, max: i64, got: i64) -> Result<(), GraphError> {
    if !(min..=max).contains(&got) {
        return Err(GraphError::OutOfRange { layer: layer.to_owned(), what, min, max, got });
    }
    Ok(())
}

fn check_requant(name: &str, requant: &Requant) -> Result<(), GraphError> {
    check_range(name, "the shift", SHIFT_RANGE, i64::from(requant.shift))?;
    check_range(name, "mult_bits", MULT_BITS_RANGE, i64::from(requant.mult_bits))?;
    let mult_max = (1i64 << requant.mult_bits) - 1;
    for &multiplier in &requant.multipliers {
        check_range_i64(name, "a multiplier", 0, mult_max, i64::from(multiplier))?;
    }
    check_range_i64(name, "lo", -MAX_CENTERED, MAX_CENTERED, requant.lo)?;
    check_range_i64(name, "hi", -MAX_CENTERED, MAX_CENTERED, requant.hi)?;
    check_range_i64(name, "hi − lo", 1, 255, requant.hi - requant.lo)
}

fn check_bounds(name: &str, product_bound: u128, requant: &Requant) -> Result<(), GraphError> {
    bounds::check_product(product_bound, requant.shift, requant.lo, requant.hi)
        .map_err(|source| GraphError::Bounds { layer: name.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::graph::{InputSpec, OutputSpec};

    fn requant(n: usize) -> Requant {
        Requant { multipliers: vec![3; n], shift: 10, lo: -127, hi: 127, mult_bits: 2 }
    }

    fn layer(name: &str, op: QuantOp) -> QuantLayer {
        QuantLayer { name: name.into(), op, scale: 1.0 }
    }

    fn dense(input: usize, n_in: usize, n_out: usize, requant: Option<Requant>) -> DenseLayer {
        let (weights, bias) = (vec![1; n_in * n_out], vec![0; n_out]);
        DenseLayer { input: TensorId(input), n_in, n_out, weights, bias, bias_bits: 8, requant }
    }

    /// a = dense(x); b = dense(a); c = a + b; answer = raw dense(c).
    fn graph() -> QuantGraph {
        let layers = vec![
            layer("a", QuantOp::Dense(dense(0, 3, 2, Some(requant(2))))),
            layer("b", QuantOp::Dense(dense(1, 2, 2, Some(requant(2))))),
            layer("c", QuantOp::Add(AddLayer { left: TensorId(1), right: TensorId(2), n: 2, requant: requant(2) })),
            layer("d", QuantOp::Dense(dense(3, 2, 4, None))),
        ];
        let input = InputSpec { name: "x".into(), shape: vec![1, 3], n_elements: 3, offset: 128, scale: 1.0 };
        let output = OutputSpec { tensor: TensorId(4), name: "y".into(), shape: vec![1, 4], scale: 1.0 };
        QuantGraph { input, layers, output }
    }

    fn error(change: impl FnOnce(&mut QuantGraph)) -> GraphError {
        let mut graph = graph();
        change(&mut graph);
        graph.validate().unwrap_err()
    }

    fn error_in_a(change: impl FnOnce(&mut DenseLayer)) -> GraphError {
        error(|graph| match &mut graph.layers[0].op {
            QuantOp::Dense(dense) => change(dense),
            QuantOp::Add(_) => unreachable!(),
        })
    }

    fn error_in_requant(change: impl FnOnce(&mut Requant)) -> GraphError {
        error_in_a(|dense| change(dense.requant.as_mut().unwrap()))
    }

    fn range(what: &'static str, min: i64, max: i64, got: i64) -> GraphError {
        GraphError::OutOfRange { layer: "a".into(), what, min, max, got }
    }

    #[test]
    fn accepts_a_residual_graph() {
        assert_eq!(graph().validate(), Ok(()));
    }

    #[test]
    fn refuses_broken_boundaries() {
        let size = |what: &str, got| GraphError::TensorSize { what: what.into(), got };
        assert_eq!(error(|graph| graph.layers.clear()), GraphError::NoLayers);
        assert_eq!(error(|graph| graph.input.n_elements = 0), size("the input", 0));
        assert_eq!(error(|graph| graph.input.n_elements = 65_537), size("the input", 65_537));
        let shape = |what: &str, shape, n_elements| GraphError::Shape { what: what.into(), shape, n_elements };
        assert_eq!(error(|graph| graph.input.shape = vec![usize::MAX, 2]), shape("the input", vec![usize::MAX, 2], 3));
        assert_eq!(error(|graph| graph.output.shape = vec![5]), shape("the output", vec![5], 4));
        assert_eq!(error(|graph| graph.input.offset = 256), GraphError::InputOffset { got: 256 });
        assert_eq!(error(|graph| graph.input.offset = -1), GraphError::InputOffset { got: -1 });
        let scale = |what: &str, got| GraphError::Scale { what: what.into(), got };
        assert_eq!(error(|graph| graph.input.scale = 0.0), scale("the input", 0.0));
        assert_eq!(error(|graph| graph.output.scale = f64::INFINITY), scale("the output", f64::INFINITY));
        assert_eq!(error(|graph| graph.layers[1].scale = -1.0), scale("layer \"b\"", -1.0));
        assert_eq!(error(|graph| graph.output.tensor = TensorId(0)), GraphError::Output { tensor: 0 });
        assert_eq!(error(|graph| graph.output.tensor = TensorId(5)), GraphError::Output { tensor: 5 });
    }

    #[test]
    fn refuses_vectors_of_wrong_length() {
        let length = |what, expected, got| GraphError::Length { layer: "a".into(), what, expected, got };
        assert_eq!(error_in_a(|dense| dense.n_in = 2), length("the input", 3, 2));
        assert_eq!(error_in_a(|dense| dense.weights.push(0)), length("the weight matrix", 6, 7));
        assert_eq!(error_in_a(|dense| dense.bias.push(0)), length("the bias", 2, 3));
        assert_eq!(error_in_requant(|requant| requant.multipliers.push(0)), length("the vector of multipliers", 2, 3));
        let size = GraphError::TensorSize { what: "the output of layer \"a\"".into(), got: 1 << 17 };
        assert_eq!(error_in_a(|dense| dense.n_out = 1 << 17), size);
        let change = |add: &mut QuantLayer, change: fn(&mut AddLayer)| match &mut add.op {
            QuantOp::Add(add) => change(add),
            QuantOp::Dense(_) => unreachable!(),
        };
        let length = |what, expected, got| GraphError::Length { layer: "c".into(), what, expected, got };
        assert_eq!(error(|graph| change(&mut graph.layers[2], |add| add.left = TensorId::INPUT)), length("the left operand", 2, 3));
        assert_eq!(error(|graph| change(&mut graph.layers[2], |add| add.right = TensorId::INPUT)), length("the right operand", 2, 3));
        let push = |add: &mut AddLayer| add.requant.multipliers.push(1);
        assert_eq!(error(|graph| change(&mut graph.layers[2], push)), length("the vector of multipliers", 2, 3));
    }

    #[test]
    fn refuses_numbers_out_of_range() {
        assert_eq!(error_in_a(|dense| dense.bias_bits = 7), range("bias_bits", 8, 31, 7));
        assert_eq!(error_in_a(|dense| dense.bias_bits = 32), range("bias_bits", 8, 31, 32));
        assert_eq!(error_in_a(|dense| dense.bias[1] = -256), range("a bias", -255, 255, -256));
        assert_eq!(error_in_requant(|requant| requant.shift = 7), range("the shift", 8, 39, 7));
        assert_eq!(error_in_requant(|requant| requant.shift = 40), range("the shift", 8, 39, 40));
        assert_eq!(error_in_requant(|requant| requant.mult_bits = 0), range("mult_bits", 1, 31, 0));
        assert_eq!(error_in_requant(|requant| requant.mult_bits = 32), range("mult_bits", 1, 31, 32));
        assert_eq!(error_in_requant(|requant| requant.multipliers[0] = 4), range("a multiplier", 0, 3, 4));
        assert_eq!(error_in_requant(|requant| requant.lo = i64::MIN), range("lo", -255, 255, i64::MIN));
        assert_eq!(error_in_requant(|requant| requant.hi = 256), range("hi", -255, 255, 256));
        assert_eq!(error_in_requant(|requant| requant.hi = -127), range("hi − lo", 1, 255, 0));
        assert_eq!(error_in_requant(|requant| requant.lo = -129), range("hi − lo", 1, 255, 256));
    }

    #[test]
    fn refuses_edges_that_the_ledger_cannot_count() {
        let unknown = GraphError::UnknownTensor { layer: "a".into(), tensor: 1 };
        assert_eq!(error_in_a(|dense| dense.input = TensorId(1)), unknown);
        let raw = GraphError::RawInside { layer: "a".into() };
        assert_eq!(error_in_a(|dense| dense.requant = None), raw);
        let unused = |what: &str, got| GraphError::FanOut { what: what.into(), got };
        let skip = |graph: &mut QuantGraph| match &mut graph.layers[3].op {
            QuantOp::Dense(dense) => dense.input = TensorId(2),
            QuantOp::Add(_) => unreachable!(),
        };
        assert_eq!(error(skip), unused("the output of layer \"c\"", 0));
        let spread = |graph: &mut QuantGraph| {
            let add = AddLayer { left: TensorId(1), right: TensorId(1), n: 2, requant: requant(2) };
            graph.layers.splice(3..3, (0..4).map(|_| layer("more", QuantOp::Add(add.clone()))));
            graph.output.tensor = TensorId(8);
        };
        assert_eq!(error(spread), unused("the output of layer \"a\"", 10));
    }

    #[test]
    fn refuses_parameters_that_could_overshoot_or_wrap() {
        let bounds = |layer: &str, source| GraphError::Bounds { layer: layer.into(), source };
        let widen = |requant: &mut Requant| (requant.mult_bits, requant.shift) = (31, 8);
        // 3·128·128 + 2^8 < 2^16 steps of bias and weights.
        assert_eq!(error_in_requant(widen), bounds("a", BoundError::Overshoot { bits: 47, shift: 8 }));
        let wide_add = |graph: &mut QuantGraph| match &mut graph.layers[2].op {
            QuantOp::Add(add) => (add.requant.mult_bits, add.requant.shift) = (31, 8),
            QuantOp::Dense(_) => unreachable!(),
        };
        assert_eq!(error(wide_add), bounds("c", BoundError::Overshoot { bits: 39, shift: 8 }));
    }
}
