//! Constant arrays of an ONNX file.

use super::error::ImportError;
use super::limits::ImportLimits;
use super::messages::{TensorProto, data_type};
use super::operator::NodeError;

/// A constant array in row-major order.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Constant {
    /// Name in the file, for messages.
    pub(super) name: String,
    /// Its shape.
    pub(super) dims: Vec<usize>,
    /// Its elements.
    pub(super) data: Data,
}

/// Elements by type.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Data {
    /// FLOAT, or DOUBLE rounded: finite.
    Float(Vec<f32>),
    /// INT8.
    Int8(Vec<i8>),
    /// UINT8.
    Uint8(Vec<u8>),
    /// INT32.
    Int32(Vec<i32>),
    /// INT64.
    Int64(Vec<i64>),
    /// BOOL.
    Bool(Vec<bool>),
}

impl Constant {
    /// Number of elements.
    pub(super) fn len(&self) -> usize {
        match &self.data {
            Data::Float(values) => values.len(),
            Data::Int8(values) => values.len(),
            Data::Uint8(values) => values.len(),
            Data::Int32(values) => values.len(),
            Data::Int64(values) => values.len(),
            Data::Bool(values) => values.len(),
        }
    }

    /// The elements if they are floats.
    pub(super) fn floats(&self) -> Result<&[f32], NodeError> {
        match &self.data {
            Data::Float(values) => Ok(values),
            _ => Err(NodeError::unsupported(format!("tensor {:?} must be float32", self.name))),
        }
    }

    /// The only element if it is a float.
    pub(super) fn scalar(&self) -> Result<f32, NodeError> {
        match self.floats()? {
            &[value] => Ok(value),
            values => {
                let reason = format!("tensor {:?} has {} elements; exactly one is supported here", self.name, values.len());
                Err(NodeError::unsupported(reason))
            }
        }
    }
}

/// Decodes an array.
///
/// # Errors
/// External data, a shape that is too large or does not match the data, elements that are not finite; an unsupported element type.
pub(super) fn decode(proto: &TensorProto, name: &str, limits: &ImportLimits) -> Result<Constant, NodeError> {
    let name = name.to_owned();
    if proto.data_location != 0 || !proto.external_data.is_empty() {
        return Err(ImportError::ExternalData { name }.into());
    }
    let (dims, n_elements) = check_dims(proto, &name, limits)?;
    let data = match proto.data_type {
        data_type::FLOAT => Data::Float(finite(&name, raw_or(proto, &name, n_elements, &proto.float_data, f32::from_le_bytes)?)?),
        data_type::DOUBLE => {
            let values = raw_or(proto, &name, n_elements, &proto.double_data, f64::from_le_bytes)?;
            Data::Float(finite(&name, values.into_iter().map(|value| value as f32).collect())?)
        }
        data_type::INT8 => Data::Int8(raw_or_int32(proto, &name, n_elements, i8::from_le_bytes, |value| i8::try_from(value).ok())?),
        data_type::UINT8 => Data::Uint8(raw_or_int32(proto, &name, n_elements, u8::from_le_bytes, |value| u8::try_from(value).ok())?),
        data_type::BOOL => Data::Bool(raw_or_int32(proto, &name, n_elements, |[byte]: [u8; 1]| byte != 0, |value| Some(value != 0))?),
        data_type::INT32 => Data::Int32(raw_or(proto, &name, n_elements, &proto.int32_data, i32::from_le_bytes)?),
        data_type::INT64 => Data::Int64(raw_or(proto, &name, n_elements, &proto.int64_data, i64::from_le_bytes)?),
        other => {
            let reason = format!("tensor {name:?} has element type {other}; float32, double, int8, uint8, int32 and int64 are supported");
            return Err(NodeError::unsupported(reason));
        }
    };
    Ok(Constant { name, dims, data })
}

fn check_dims(proto: &TensorProto, name: &str, limits: &ImportLimits) -> Result<(Vec<usize>, usize), ImportError> {
    let dims = proto.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect::<Option<Vec<usize>>>();
    let product = dims.as_ref().and_then(|dims| dims.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim)));
    match (dims, product) {
        (Some(dims), Some(n_elements)) if n_elements <= limits.max_tensor_elements && dims.len() <= 8 => Ok((dims, n_elements)),
        _ => {
            let shape = proto.dims.iter().copied().take(16).collect();
            Err(ImportError::TensorShape { name: name.to_owned(), shape, limit: limits.max_tensor_elements })
        }
    }
}

/// Elements from the raw bytes, or from the typed list if there are none.
fn raw_or<T: Copy, const N: usize>(
    proto: &TensorProto,
    name: &str,
    n_elements: usize,
    typed: &[T],
    from_le_bytes: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, ImportError> {
    if proto.raw_data.is_empty() {
        check_length(name, "elements", n_elements, typed.len())?;
        return Ok(typed.to_vec());
    }
    raw(proto, name, n_elements, from_le_bytes)
}

/// Elements of a small type, which the typed list keeps as int32.
fn raw_or_int32<T, const N: usize>(
    proto: &TensorProto,
    name: &str,
    n_elements: usize,
    from_le_bytes: impl Fn([u8; N]) -> T,
    from_i32: impl Fn(i32) -> Option<T>,
) -> Result<Vec<T>, ImportError> {
    if !proto.raw_data.is_empty() {
        return raw(proto, name, n_elements, from_le_bytes);
    }
    check_length(name, "elements", n_elements, proto.int32_data.len())?;
    let convert = |(index, &value)| from_i32(value).ok_or_else(|| ImportError::TensorValue { name: name.to_owned(), index });
    proto.int32_data.iter().enumerate().map(convert).collect()
}

fn raw<T, const N: usize>(
    proto: &TensorProto,
    name: &str,
    n_elements: usize,
    from_le_bytes: impl Fn([u8; N]) -> T,
) -> Result<Vec<T>, ImportError> {
    check_length(name, "bytes", n_elements.saturating_mul(N), proto.raw_data.len())?;
    Ok(proto.raw_data.as_chunks::<N>().0.iter().map(|&chunk| from_le_bytes(chunk)).collect())
}

fn check_length(name: &str, unit: &'static str, expected: usize, got: usize) -> Result<(), ImportError> {
    if expected != got {
        return Err(ImportError::TensorLength { name: name.to_owned(), unit, expected, got });
    }
    Ok(())
}

fn finite(name: &str, values: Vec<f32>) -> Result<Vec<f32>, ImportError> {
    match values.iter().position(|value| !value.is_finite()) {
        Some(index) => Err(ImportError::NotFinite { name: name.to_owned(), index }),
        None => Ok(values),
    }
}
