//! Parts shared by the operators: values, attributes, and the two ways a node can fail.

use std::rc::Rc;

use super::error::ImportError;
use super::messages::{AttributeProto, NodeProto, attribute_type};
use super::tensor::{Constant, Data};
use crate::model::network::{Grid, ValueId};

/// Why a node cannot be translated.
#[derive(Debug)]
pub(super) enum NodeError {
    /// It is reported together with all others.
    Unsupported(String),
    /// It reads a value of an unsupported node: nothing can be said.
    Unknown,
    /// The file is broken: nothing else matters.
    File(ImportError),
}

impl NodeError {
    pub(super) fn unsupported(reason: impl Into<String>) -> Self {
        Self::Unsupported(reason.into())
    }
}

impl From<ImportError> for NodeError {
    fn from(error: ImportError) -> Self {
        Self::File(error)
    }
}

/// What a name in the file stands for.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A vector that depends on the input.
    Activation(Activation),
    /// The integers of an activation: output of `QuantizeLinear`, before `DequantizeLinear`.
    Quantized(Activation, Grid),
    /// An array of the file.
    Constant(Rc<Constant>),
    /// An integer array of the file, scaled.
    Dequantized(Rc<Scaled>),
    /// Output of an unsupported node.
    Unknown,
}

/// A vector that depends on the input.
#[derive(Clone, Debug)]
pub(super) struct Activation {
    /// Which value of the network.
    pub(super) id: ValueId,
    /// Its shape in the file.
    pub(super) shape: Vec<usize>,
    /// Whether nothing but this name (and views of it) leads to the value.
    pub(super) is_exclusive: bool,
}

/// `scale · integer`, with zero point 0.
#[derive(Clone, Debug)]
pub(super) struct Scaled {
    /// The integers.
    pub(super) constant: Rc<Constant>,
    /// One scale, or one per index along `axis`.
    pub(super) scales: Vec<f64>,
    /// Axis of the scales, if there is more than one.
    pub(super) axis: usize,
}

impl Scaled {
    /// The real numbers.
    pub(super) fn to_floats(&self) -> Vec<f32> {
        let inner: usize = self.constant.dims.iter().skip(self.axis + 1).product();
        let scale = |index: usize| match self.scales.as_slice() {
            &[scale] => scale,
            scales => scales[(index / inner.max(1)) % scales.len()],
        };
        let real = |index: usize, value: f64| (value * scale(index)) as f32;
        match &self.constant.data {
            Data::Int8(values) => values.iter().enumerate().map(|(index, &value)| real(index, f64::from(value))).collect(),
            Data::Uint8(values) => values.iter().enumerate().map(|(index, &value)| real(index, f64::from(value))).collect(),
            Data::Int32(values) => values.iter().enumerate().map(|(index, &value)| real(index, f64::from(value))).collect(),
            // `DequantizeLinear` of other types is refused.
            Data::Float(_) | Data::Int64(_) | Data::Bool(_) => Vec::new(),
        }
    }
}

impl Value {
    /// Floats of a constant, dequantized if need be.
    pub(super) fn to_floats(&self, what: &str) -> Result<Vec<f32>, NodeError> {
        match self {
            Self::Constant(constant) => Ok(constant.floats()?.to_vec()),
            Self::Dequantized(scaled) => Ok(scaled.to_floats()),
            Self::Unknown => Err(NodeError::Unknown),
            Self::Activation(_) | Self::Quantized(..) => Err(NodeError::unsupported(format!("{what} must be constant"))),
        }
    }

    /// The shape.
    pub(super) fn shape(&self) -> &[usize] {
        match self {
            Self::Activation(activation) | Self::Quantized(activation, _) => &activation.shape,
            Self::Constant(constant) => &constant.dims,
            Self::Dequantized(scaled) => &scaled.constant.dims,
            Self::Unknown => &[],
        }
    }

    pub(super) fn is_constant(&self) -> bool {
        matches!(self, Self::Constant(_) | Self::Dequantized(_))
    }
}

/// Attributes of a node.
pub(super) struct Attributes<'a>(&'a [AttributeProto]);

impl<'a> Attributes<'a> {
    /// The attributes, of which only `known` may occur, each once.
    pub(super) fn of(node: &'a NodeProto, known: &[&str]) -> Result<Self, NodeError> {
        for (position, attribute) in node.attribute.iter().enumerate() {
            let name = attribute.name.as_str();
            if !known.contains(&name) {
                return Err(NodeError::unsupported(format!("attribute {name:?} is not supported")));
            }
            if !attribute.ref_attr_name.is_empty() {
                return Err(NodeError::unsupported(format!("attribute {name:?} refers to a function's parameter")));
            }
            // Known names are few, so this is not quadratic in the number of attributes.
            if node.attribute[..position].iter().any(|earlier| earlier.name == name) {
                return Err(NodeError::unsupported(format!("attribute {name:?} occurs twice")));
            }
        }
        Ok(Self(&node.attribute))
    }

    pub(super) fn find(&self, name: &str) -> Option<&'a AttributeProto> {
        self.0.iter().find(|attribute| attribute.name == name)
    }

    /// The only attribute.
    pub(super) fn only(&self) -> Result<&'a AttributeProto, NodeError> {
        match self.0 {
            [attribute] => Ok(attribute),
            attributes => Err(NodeError::unsupported(format!("it has {} attributes; exactly one is expected", attributes.len()))),
        }
    }

    pub(super) fn int(&self, name: &str, default: i64) -> Result<i64, NodeError> {
        match self.find(name) {
            None => Ok(default),
            Some(attribute) if attribute.r#type == attribute_type::INT => Ok(attribute.i),
            Some(_) => Err(NodeError::unsupported(format!("attribute {name:?} must be an integer"))),
        }
    }

    pub(super) fn float(&self, name: &str, default: f32) -> Result<f32, NodeError> {
        match self.find(name) {
            None => Ok(default),
            Some(attribute) if attribute.r#type == attribute_type::FLOAT && attribute.f.is_finite() => Ok(attribute.f),
            Some(_) => Err(NodeError::unsupported(format!("attribute {name:?} must be a finite float"))),
        }
    }

    /// An integer attribute that must be 0 or absent.
    pub(super) fn require_zero(&self, name: &str) -> Result<(), NodeError> {
        match self.int(name, 0)? {
            0 => Ok(()),
            got => Err(NodeError::unsupported(format!("attribute {name:?} is {got}; only 0 is supported"))),
        }
    }
}
