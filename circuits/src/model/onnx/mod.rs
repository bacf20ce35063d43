//! ONNX files: bytes to [`Model`].
//!
//! 1. `scan`: a walk over the bytes that bounds what decoding allocates.
//! 2. `messages`: protobuf decoding of the fields that matter.
//! 3. `order`: names, cycles, order of evaluation; what the output does not need is dropped.
//! 4. `translate`: node by node; unsupported ones are collected and reported together.

mod dense;
mod error;
mod limits;
mod messages;
mod operator;
mod order;
mod quantization;
mod scan;
mod tensor;
mod translate;
mod view;

#[cfg(test)]
mod test_files;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_hostile;

use std::collections::HashSet;

use prost::Message;

pub use error::{ImportError, SUPPORTED_OPERATORS, UnsupportedNode};
pub use limits::ImportLimits;
use messages::{GraphProto, ModelProto, ValueInfoProto, data_type};
use translate::Translator;

use super::network::{Model, ValueSpec};

/// Versions of the standard operator set whose semantics the importer knows.
const OPSET_RANGE: std::ops::RangeInclusive<i64> = 7..=25;

/// Imports an ONNX file with one input and one output; the batch is one.
///
/// # Errors
/// The first thing that is wrong with the file, or all nodes that are not supported.
pub fn import_onnx(bytes: &[u8], limits: &ImportLimits) -> Result<Model, ImportError> {
    scan::check_structure(bytes, limits)?;
    let proto = ModelProto::decode(bytes)?;
    let opset = check_opset(&proto)?;
    let graph = proto.graph.ok_or(ImportError::NoGraph)?;
    let (input, output) = boundary(&graph)?;
    let shape = input_shape(input, limits)?;
    let order = order::resolve(&graph, &input.name, &output.name)?;
    let mut translator = Translator::new(limits, opset, order.reads, &graph.initializer, (&input.name, shape.clone()));
    for node_idx in order.nodes {
        translator.node(&graph.node[node_idx], node_idx)?;
    }
    let (nodes, answer) = translator.finish(&output.name)?;
    Ok(Model {
        input: ValueSpec { name: input.name.clone(), shape },
        nodes,
        output: answer.id,
        output_spec: ValueSpec { name: output.name.clone(), shape: answer.shape },
    })
}

fn check_opset(proto: &ModelProto) -> Result<i64, ImportError> {
    let standard = proto.opset_import.iter().find(|opset| matches!(opset.domain.as_str(), "" | "ai.onnx"));
    match standard.map(|opset| opset.version) {
        Some(version) if OPSET_RANGE.contains(&version) => Ok(version),
        got => Err(ImportError::Opset { got }),
    }
}

/// The only input that is not an initializer, and the only output.
fn boundary(graph: &GraphProto) -> Result<(&ValueInfoProto, &ValueInfoProto), ImportError> {
    // Before IR version 4, initializers are listed among the inputs.
    let initializers: HashSet<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
    let mut inputs = graph.input.iter().filter(|input| !initializers.contains(input.name.as_str()));
    let (input, more) = (inputs.next(), inputs.count());
    match (input, more, graph.output.as_slice()) {
        (Some(input), 0, [output]) => Ok((input, output)),
        (Some(_), 0, outputs) => Err(ImportError::Arity { what: "outputs", got: outputs.len() }),
        (input, more, _) => Err(ImportError::Arity { what: "inputs", got: usize::from(input.is_some()) + more }),
    }
}

/// The input's shape; a symbolic first dimension is the batch, one.
fn input_shape(input: &ValueInfoProto, limits: &ImportLimits) -> Result<Vec<usize>, ImportError> {
    let error = |reason: String| ImportError::InputShape { name: input.name.clone(), reason };
    let tensor = input.r#type.as_ref().and_then(|info| info.tensor_type.as_ref());
    let tensor = tensor.ok_or_else(|| error("it is not a tensor".to_owned()))?;
    if tensor.elem_type != data_type::FLOAT {
        return Err(ImportError::InputType { name: input.name.clone(), got: tensor.elem_type });
    }
    let dims = tensor.shape.as_ref().map(|shape| shape.dim.as_slice()).unwrap_or_default();
    if dims.is_empty() || dims.len() > 8 {
        return Err(error(format!("it has {} dimensions; 1 to 8 are supported", dims.len())));
    }
    let mut shape = Vec::with_capacity(dims.len());
    for (position, dim) in dims.iter().enumerate() {
        let is_batch = position == 0 && dims.len() > 1;
        let size = match dim.dim_value {
            None if is_batch => 1,
            None => return Err(error(format!("dimension {position} is not a number"))),
            Some(size) if is_batch && size != 1 => return Err(error(format!("the batch is {size}; export with a batch of 1"))),
            Some(size) => {
                usize::try_from(size).ok().filter(|&size| size > 0).ok_or_else(|| error(format!("dimension {position} is {size}")))?
            }
        };
        shape.push(size);
    }
    let n_elements = shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim));
    match n_elements.filter(|&n_elements| n_elements <= limits.max_tensor_elements) {
        Some(_) => Ok(shape),
        None => Err(error(format!("it has more than {} elements", limits.max_tensor_elements))),
    }
}
