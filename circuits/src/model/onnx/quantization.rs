//! QuantizeLinear and DequantizeLinear, on activations and on constants.

use std::rc::Rc;

use super::messages::{NodeProto, data_type};
use super::operator::{Attributes, NodeError, Scaled, Value};
use super::tensor::{Constant, Data};
use crate::model::network::Grid;

/// Scale and zero point of a node.
struct Parameters {
    scales: Rc<Constant>,
    /// `None`: absent.
    zero_point: Option<Rc<Constant>>,
    axis: i64,
    /// ONNX's number of the output type, 0 if not given.
    output_type: i64,
}

fn parameters(node: &NodeProto, inputs: &[Option<Value>]) -> Result<Parameters, NodeError> {
    let attributes = Attributes::of(node, &["axis", "saturate", "block_size", "output_dtype", "precision"])?;
    attributes.require_zero("block_size")?;
    attributes.require_zero("precision")?;
    let constant = |port: usize, what: &str| match inputs.get(port).and_then(Option::as_ref) {
        None => Ok(None),
        Some(Value::Constant(constant)) => Ok(Some(Rc::clone(constant))),
        Some(Value::Unknown) => Err(NodeError::Unknown),
        Some(_) => Err(NodeError::unsupported(format!("the {what} must be constant"))),
    };
    let scales = constant(1, "scale")?.ok_or_else(|| NodeError::unsupported("the scale is missing"))?;
    if scales.len() == 0 || !scales.floats()?.iter().all(|scale| scale.is_normal() && *scale > 0.0) {
        return Err(NodeError::unsupported(format!("scale {:?} is not positive", scales.name)));
    }
    let zero_point = constant(2, "zero point")?;
    if let Some(zero_point) = &zero_point
        && zero_point.len() != scales.len()
    {
        return Err(NodeError::unsupported("scale and zero point have different shapes"));
    }
    Ok(Parameters { scales, zero_point, axis: attributes.int("axis", 1)?, output_type: attributes.int("output_dtype", 0)? })
}

impl Parameters {
    /// The one scale and zero point of an activation, as a centered grid.
    fn grid(&self) -> Result<Grid, NodeError> {
        let &[scale] = self.scales.floats()? else {
            return Err(NodeError::unsupported(format!("{} scales of an activation; one is supported", self.scales.len())));
        };
        let uint8 = (0, 255);
        let int8 = (-128, 127);
        let (zero_point, (min, max)) = match self.zero_point.as_ref().map(|constant| &constant.data) {
            None => match i32::try_from(self.output_type) {
                Ok(0 | data_type::UINT8) => (0, uint8),
                Ok(data_type::INT8) => (0, int8),
                _ => {
                    return Err(NodeError::unsupported(format!(
                        "attribute output_dtype={}; int8 and uint8 are supported",
                        self.output_type
                    )));
                }
            },
            Some(Data::Uint8(values)) => (values.first().map_or(0, |&value| i64::from(value)), uint8),
            Some(Data::Int8(values)) => (values.first().map_or(0, |&value| i64::from(value)), int8),
            Some(_) => return Err(NodeError::unsupported("the zero point of an activation must be int8 or uint8")),
        };
        Ok(Grid { scale: f64::from(scale), lo: min - zero_point, hi: max - zero_point })
    }

    /// Whether a DequantizeLinear with these parameters undoes `grid`. An absent zero point is 0 of the type that it reads.
    fn reads(&self, grid: &Grid) -> Result<bool, NodeError> {
        let own = self.grid()?;
        let has_zero_point_0 = grid.lo == -128 || grid.lo == 0;
        Ok(own == *grid || (self.zero_point.is_none() && has_zero_point_0 && own.scale == grid.scale))
    }

    /// Scales of a constant of shape `dims`, and their axis. Its zero points must be 0.
    fn constant_scales(&self, dims: &[usize]) -> Result<(Vec<f64>, usize), NodeError> {
        let is_zero = |constant: &Rc<Constant>| match &constant.data {
            Data::Int8(values) => values.iter().all(|&value| value == 0),
            Data::Uint8(values) => values.iter().all(|&value| value == 0),
            Data::Int32(values) => values.iter().all(|&value| value == 0),
            Data::Float(_) | Data::Int64(_) | Data::Bool(_) => false,
        };
        if !self.zero_point.as_ref().is_none_or(is_zero) {
            let reason = "the zero point of a constant must be 0: quantize weights symmetrically to int8, and let a pre-processing step \
                 (onnxruntime: quant_pre_process) turn MatMul and Add into Gemm first";
            return Err(NodeError::unsupported(reason));
        }
        let scales: Vec<f64> = self.scales.floats()?.iter().map(|&scale| f64::from(scale)).collect();
        if scales.len() == 1 {
            return Ok((scales, 0));
        }
        let axis = usize::try_from(if self.axis < 0 { self.axis.saturating_add(dims.len() as i64) } else { self.axis }).ok();
        match axis {
            Some(axis) if dims.get(axis) == Some(&scales.len()) => Ok((scales, axis)),
            // A vector has one axis, whatever the attribute's default says.
            _ if dims == [scales.len()] => Ok((scales, 0)),
            _ => {
                let reason = format!("attribute axis={} with {} scales does not fit a constant of shape {dims:?}", self.axis, scales.len());
                Err(NodeError::unsupported(reason))
            }
        }
    }
}

/// What QuantizeLinear makes of its input.
pub(super) enum Quantized {
    /// An activation, to be rounded to a grid.
    Activation(Grid),
    /// Integers of a constant.
    Constant(Rc<Constant>),
}

/// `QuantizeLinear`.
pub(super) fn quantize(node: &NodeProto, inputs: &[Option<Value>]) -> Result<Quantized, NodeError> {
    let parameters = parameters(node, inputs)?;
    match inputs.first().and_then(Option::as_ref) {
        Some(Value::Activation(_)) => Ok(Quantized::Activation(parameters.grid()?)),
        Some(Value::Constant(constant)) => Ok(Quantized::Constant(Rc::new(quantize_constant(constant, &parameters)?))),
        Some(Value::Unknown) => Err(NodeError::Unknown),
        Some(Value::Quantized(..) | Value::Dequantized(_)) | None => Err(NodeError::unsupported("its input must be float32")),
    }
}

/// int8 of a float constant: `clamp(round(x / scale), −128, 127)`, ties to even, in the arithmetic of f32 as runtimes do.
fn quantize_constant(constant: &Rc<Constant>, parameters: &Parameters) -> Result<Constant, NodeError> {
    if !matches!(parameters.zero_point.as_ref().map(|zero_point| &zero_point.data), Some(Data::Int8(_))) {
        return Err(NodeError::unsupported("the zero point of a constant must be int8"));
    }
    let (scales, axis) = parameters.constant_scales(&constant.dims)?;
    let inner: usize = constant.dims.iter().skip(axis + 1).product();
    let scale = |index: usize| if scales.len() == 1 { scales[0] } else { scales[(index / inner.max(1)) % scales.len()] };
    let quantize = |(index, &value): (usize, &f32)| {
        // Within i8 after the clamp.
        (value / scale(index) as f32).round_ties_even().clamp(-128.0, 127.0) as i8
    };
    let values = constant.floats()?.iter().enumerate().map(quantize).collect();
    Ok(Constant { name: constant.name.clone(), dims: constant.dims.clone(), data: Data::Int8(values) })
}

/// `DequantizeLinear`.
pub(super) fn dequantize(node: &NodeProto, inputs: &[Option<Value>]) -> Result<Value, NodeError> {
    let parameters = parameters(node, inputs)?;
    match inputs.first().and_then(Option::as_ref) {
        Some(Value::Quantized(activation, grid)) => {
            if !parameters.reads(grid)? {
                return Err(NodeError::unsupported("its scale or zero point differs from that of the QuantizeLinear before it"));
            }
            Ok(Value::Activation(activation.clone()))
        }
        Some(Value::Constant(constant)) => {
            if !matches!(constant.data, Data::Int8(_) | Data::Uint8(_) | Data::Int32(_)) {
                return Err(NodeError::unsupported(format!("constant {:?} must be int8, uint8 or int32", constant.name)));
            }
            let (scales, axis) = parameters.constant_scales(&constant.dims)?;
            Ok(Value::Dequantized(Rc::new(Scaled { constant: Rc::clone(constant), scales, axis })))
        }
        Some(Value::Unknown) => Err(NodeError::Unknown),
        Some(Value::Activation(_) | Value::Dequantized(_)) | None => Err(NodeError::unsupported("its input must be quantized")),
    }
}
