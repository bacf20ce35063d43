//! Why an ONNX file cannot be imported.

use std::fmt;

use thiserror::Error;

/// What the importer supports, for error messages.
pub const SUPPORTED_OPERATORS: &str = "Gemm, MatMul (constant weights), Add (bias or residual), Relu, Clip, Flatten, Reshape, Identity, \
     Dropout (inference), Constant, QuantizeLinear, DequantizeLinear (8 bits), in the standard domain, opset 7 to 25";

/// Why an ONNX file cannot be imported.
#[derive(Clone, Debug, PartialEq, Error)]
pub enum ImportError {
    /// The file is too large.
    #[error("the file has {got} bytes; the limit is {limit}")]
    FileTooLarge {
        /// Its bytes.
        got: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// The file ends inside a field.
    #[error("the file is truncated or not ONNX: a field at byte {offset} runs past the end of its message")]
    Truncated {
        /// Where the field starts.
        offset: usize,
    },
    /// The bytes are not protobuf.
    #[error("the file is not ONNX: byte {offset} does not start a field")]
    Malformed {
        /// Where.
        offset: usize,
    },
    /// A known field has the wrong form.
    #[error("the file is not ONNX: a field does not decode")]
    Decode(#[from] prost::DecodeError),
    /// More of something than the limits allow.
    #[error("the file has more than {limit} {what}")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many are allowed.
        limit: usize,
    },
    /// A name is too long.
    #[error("a name at byte {offset} has {got} bytes; the limit is {limit}")]
    NameTooLong {
        /// Where it starts.
        offset: usize,
        /// Its bytes.
        got: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// There is no graph.
    #[error("the file holds no graph: export the model again, weights included")]
    NoGraph,
    /// The version of the operators is not known.
    #[error("operator set version {got:?} of the standard domain is not supported; export with opset 7 to 25")]
    Opset {
        /// The version; `None` if the file names none.
        got: Option<i64>,
    },
    /// The graph must have one input and one output.
    #[error("the graph has {got} {what}; exactly one is supported")]
    Arity {
        /// `inputs` or `outputs`.
        what: &'static str,
        /// How many it has.
        got: usize,
    },
    /// The input has an element type that is not read.
    #[error("the input {name:?} has element type {got}; only float32 (1) is supported")]
    InputType {
        /// The input.
        name: String,
        /// ONNX's number of the type.
        got: i32,
    },
    /// The input's shape is not usable.
    #[error("the input {name:?} has no usable shape: {reason}")]
    InputShape {
        /// The input.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A name is defined twice.
    #[error("the name {name:?} is defined twice")]
    DuplicateName {
        /// The name.
        name: String,
    },
    /// A name is used but not defined.
    #[error("node {node:?} reads {name:?}, which nothing defines")]
    UnknownName {
        /// The node, or `graph output`.
        node: String,
        /// The name.
        name: String,
    },
    /// Nodes read one another in a circle.
    #[error("the graph has a cycle through node {node:?}")]
    Cycle {
        /// A node on the cycle or behind it.
        node: String,
    },
    /// The answer does not depend on the input.
    #[error("the graph's output {name:?} does not depend on its input through any supported operator")]
    ConstantOutput {
        /// The output.
        name: String,
    },
    /// An array refers to another file.
    #[error("tensor {name:?} keeps its data in another file: save the model as one file")]
    ExternalData {
        /// The array.
        name: String,
    },
    /// An array's dimensions are negative or too large.
    #[error("tensor {name:?} of shape {shape:?} is too large or has a negative dimension; the limit is {limit} elements")]
    TensorShape {
        /// The array.
        name: String,
        /// Its shape.
        shape: Vec<i64>,
        /// Elements allowed.
        limit: usize,
    },
    /// An array does not have as many elements as its shape says.
    #[error("tensor {name:?} should have {expected} {unit} of data but has {got}")]
    TensorLength {
        /// The array.
        name: String,
        /// `elements` (of a typed list) or `bytes` (raw).
        unit: &'static str,
        /// How many by its shape.
        expected: usize,
        /// How many there are.
        got: usize,
    },
    /// An element is outside the range of the array's type.
    #[error("tensor {name:?} has an element outside its type at {index}")]
    TensorValue {
        /// The array.
        name: String,
        /// Which element.
        index: usize,
    },
    /// A weight is not a number.
    #[error("tensor {name:?} is not finite at element {index}")]
    NotFinite {
        /// The array.
        name: String,
        /// Which element.
        index: usize,
    },
    /// Operators that cannot be proved: all of them.
    #[error("{}", describe_unsupported(nodes))]
    Unsupported {
        /// Every one, in the order of evaluation.
        nodes: Vec<UnsupportedNode>,
    },
}

/// A node that cannot be imported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedNode {
    /// Its name in the file; if it has none, that of its first output, or else `#` and its position.
    pub name: String,
    /// Its operator, with its domain if not the standard one.
    pub operator: String,
    /// The attribute, input or shape that is not supported, and what is.
    pub reason: String,
}

impl fmt::Display for UnsupportedNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {:?} ({}): {}", self.name, self.operator.escape_debug(), self.reason)
    }
}

fn describe_unsupported(nodes: &[UnsupportedNode]) -> String {
    let list = nodes.iter().map(UnsupportedNode::to_string).collect::<Vec<String>>().join("; ");
    let plural = if nodes.len() == 1 { "1 node is" } else { &format!("{} nodes are", nodes.len()) };
    format!("{plural} not supported: {list}; supported: {SUPPORTED_OPERATORS}")
}
