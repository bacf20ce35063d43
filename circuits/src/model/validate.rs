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
