//! From ONNX nodes, in order of evaluation, to the nodes of a [`Model`](crate::model::network::Model).

use std::collections::HashMap;
use std::rc::Rc;

use super::dense;
use super::error::{ImportError, UnsupportedNode};
use super::limits::ImportLimits;
use super::messages::{NodeProto, TensorProto, attribute_type};
use super::operator::{Activation, Attributes, NodeError, Value};
use super::order::node_name;
use super::quantization::{self, Quantized};
use super::tensor::{self, Constant, Data};
use super::view;
use crate::model::network::{Dense, Node, Op, ValueId};

/// State of a translation.
pub(super) struct Translator<'a> {
    limits: &'a ImportLimits,
    opset: i64,
    reads: HashMap<&'a str, usize>,
    initializers: HashMap<&'a str, &'a TensorProto>,
    values: HashMap<&'a str, Value>,
    /// Weights that may still be taken.
    parameter_budget: usize,
    /// Elements of values that may still be made.
    activation_budget: usize,
    nodes: Vec<Node>,
    unsupported: Vec<UnsupportedNode>,
}

/// What a node makes.
enum Made {
    /// A new node of the network, and the shape of its value.
    Op(Op, Vec<ValueId>, Vec<usize>),
    /// Another name, perhaps with another shape, for a value.
    Alias(Value),
}

impl<'a> Translator<'a> {
    /// `reads` counts the readers of each name, the graph's output included.
    pub(super) fn new(
        limits: &'a ImportLimits,
        opset: i64,
        reads: HashMap<&'a str, usize>,
        initializers: &'a [TensorProto],
        input: (&'a str, Vec<usize>),
    ) -> Self {
        let (input_name, shape) = input;
        let input_value = Value::Activation(Activation { id: ValueId::INPUT, shape, is_exclusive: true });
        Self {
            limits,
            opset,
            reads,
            initializers: initializers.iter().map(|proto| (proto.name.as_str(), proto)).collect(),
            values: HashMap::from([(input_name, input_value)]),
            parameter_budget: limits.max_parameters,
            activation_budget: limits.max_activations,
            nodes: Vec::new(),
            unsupported: Vec::new(),
        }
    }

    /// Translates one node; an unsupported one is noted.
    pub(super) fn node(&mut self, node: &'a NodeProto, node_idx: usize) -> Result<(), ImportError> {
        let name = node_name(node, node_idx);
        let value = match self.translate(node) {
            Ok(Made::Alias(value)) => value,
            Ok(Made::Op(op, inputs, shape)) => self.push(name, op, inputs, shape)?,
            Err(NodeError::File(error)) => return Err(error),
            Err(NodeError::Unknown) => Value::Unknown,
            Err(NodeError::Unsupported(reason)) => {
                let separator = if node.domain.is_empty() { "" } else { "." };
                let operator = format!("{}{separator}{}", node.domain, node.op_type);
                self.unsupported.push(UnsupportedNode { name, operator, reason });
                Value::Unknown
            }
        };
        for (port, output) in node.output.iter().enumerate().filter(|(_, output)| !output.is_empty()) {
            let value = if port == 0 { value.clone() } else { Value::Unknown };
            self.values.insert(output.as_str(), value);
        }
        Ok(())
    }

    /// The nodes and the value of the graph's output.
    ///
    /// # Errors
    /// All unsupported nodes; an output that is constant.
    pub(super) fn finish(mut self, output: &'a str) -> Result<(Vec<Node>, Activation), ImportError> {
        if !self.unsupported.is_empty() {
            return Err(ImportError::Unsupported { nodes: self.unsupported });
        }
        match self.values.remove(output) {
            Some(Value::Activation(activation) | Value::Quantized(activation, _)) if activation.id != ValueId::INPUT => {
                Ok((self.nodes, activation))
            }
            _ => Err(ImportError::ConstantOutput { name: output.to_owned() }),
        }
    }

    fn push(&mut self, name: String, op: Op, inputs: Vec<ValueId>, shape: Vec<usize>) -> Result<Value, ImportError> {
        let n_elements = shape.iter().product();
        let limit = self.limits.max_activations;
        self.activation_budget =
            self.activation_budget.checked_sub(n_elements).ok_or(ImportError::TooMany { what: "activations", limit })?;
        let grid = if let Op::Round(grid) = op { Some(grid) } else { None };
        self.nodes.push(Node { name, op, inputs, n_elements });
        let activation = Activation { id: ValueId(self.nodes.len()), shape, is_exclusive: true };
        Ok(match grid {
            Some(grid) => Value::Quantized(activation, grid),
            None => Value::Activation(activation),
        })
    }

    fn translate(&mut self, node: &'a NodeProto) -> Result<Made, NodeError> {
        if !matches!(node.domain.as_str(), "" | "ai.onnx") {
            return Err(NodeError::unsupported("operators outside the standard domain are not supported"));
        }
        match node.op_type.as_str() {
            "Constant" => self.constant(node),
            "Identity" | "Dropout" | "Flatten" | "Reshape" => self.view(node),
            "Gemm" => {
                let made = dense::gemm(node, &self.inputs(node)?, &mut self.parameter_budget, self.limits)?;
                self.dense(node, made)
            }
            "MatMul" => {
                let made = dense::mat_mul(node, &self.inputs(node)?, &mut self.parameter_budget, self.limits)?;
                self.dense(node, made)
            }
            "Add" => self.add(node),
            "Relu" => {
                Attributes::of(node, &[])?;
                self.elementwise(node, Op::Relu)
            }
            "Clip" => self.clip(node),
            "QuantizeLinear" => match quantization::quantize(node, &self.inputs(node)?)? {
                Quantized::Activation(grid) => self.elementwise(node, Op::Round(grid)),
                Quantized::Constant(constant) => Ok(Made::Alias(Value::Constant(constant))),
            },
            "DequantizeLinear" => match quantization::dequantize(node, &self.inputs(node)?)? {
                Value::Activation(activation) => Ok(Made::Alias(Value::Activation(self.seen_through(node, activation)))),
                constant => Ok(Made::Alias(constant)),
            },
            _ => Err(NodeError::unsupported("the operator is not supported")),
        }
    }

    /// The value of a name, decoding an array at its first use; `None` for an absent optional input.
    fn value(&mut self, name: &'a str) -> Result<Option<Value>, NodeError> {
        if name.is_empty() {
            return Ok(None);
        }
        if let Some(value) = self.values.get(name) {
            return Ok(Some(value.clone()));
        }
        // Every name is known: `order::resolve` has checked it.
        let Some(proto) = self.initializers.get(name) else { return Ok(Some(Value::Unknown)) };
        let value = Value::Constant(Rc::new(tensor::decode(proto, name, self.limits)?));
        self.values.insert(name, value.clone());
        Ok(Some(value))
    }

    fn inputs(&mut self, node: &'a NodeProto) -> Result<Vec<Option<Value>>, NodeError> {
        node.input.iter().map(|name| self.value(name)).collect()
    }

    /// The first input, which must be an activation.
    fn operand(&mut self, node: &'a NodeProto) -> Result<Activation, NodeError> {
        let name = node.input.first().map_or("", String::as_str);
        match self.value(name)? {
            Some(Value::Activation(activation)) => Ok(activation),
            Some(Value::Unknown) => Err(NodeError::Unknown),
            Some(Value::Quantized(..)) => Err(NodeError::unsupported("its input is quantized and not dequantized")),
            Some(Value::Constant(_) | Value::Dequantized(_)) => Err(NodeError::unsupported("its input is constant")),
            None => Err(NodeError::unsupported("its input is missing")),
        }
    }

    /// The activation under another name: still exclusive if the name before has no other reader.
    fn seen_through(&self, node: &NodeProto, mut activation: Activation) -> Activation {
        activation.is_exclusive &= self.is_read_once(node, 0);
        activation
    }

    fn is_read_once(&self, node: &NodeProto, port: usize) -> bool {
        node.input.get(port).is_some_and(|name| self.reads.get(name.as_str()) == Some(&1))
    }

    fn elementwise(&mut self, node: &'a NodeProto, op: Op) -> Result<Made, NodeError> {
        let input = self.operand(node)?;
        Ok(Made::Op(op, vec![input.id], input.shape))
    }

    fn dense(&mut self, node: &'a NodeProto, made: dense::Translated) -> Result<Made, NodeError> {
        let input = self.operand(node)?;
        Ok(Made::Op(Op::Dense(made.dense), vec![input.id], made.shape))
    }

    /// Sum of two activations, or a bias behind a dense layer.
    fn add(&mut self, node: &'a NodeProto) -> Result<Made, NodeError> {
        Attributes::of(node, &[])?;
        let mut inputs = self.inputs(node)?.into_iter();
        let (Some(Some(left)), Some(Some(right)), None) = (inputs.next(), inputs.next(), inputs.next()) else {
            return Err(NodeError::unsupported("it does not have two inputs"));
        };
        match (left, right) {
            (Value::Unknown, _) | (_, Value::Unknown) => Err(NodeError::Unknown),
            (Value::Activation(left), Value::Activation(right)) => add_activations(&left, &right),
            (Value::Activation(activation), constant) if constant.is_constant() => self.add_bias(node, 0, activation, &constant),
            (constant, Value::Activation(activation)) if constant.is_constant() => self.add_bias(node, 1, activation, &constant),
            _ => Err(NodeError::unsupported("its inputs must be two activations, or an activation and a constant")),
        }
    }

    fn add_bias(&mut self, node: &NodeProto, port: usize, activation: Activation, constant: &Value) -> Result<Made, NodeError> {
        let is_exclusive = activation.is_exclusive && self.is_read_once(node, port);
        match self.dense_behind(&activation) {
            Some(dense) if is_exclusive => dense::add_bias(dense, constant, &activation.shape)?,
            Some(_) => return Err(NodeError::unsupported("a constant is added to a layer's result that something else reads too")),
            None => {
                let reason = "a constant is added to something other than the result of Gemm or MatMul (export or pre-process the model \
                     so that MatMul and Add become Gemm)";
                return Err(NodeError::unsupported(reason));
            }
        }
        Ok(Made::Alias(Value::Activation(activation)))
    }

    /// The dense layer that makes the value.
    fn dense_behind(&mut self, activation: &Activation) -> Option<&mut Dense> {
        match &mut self.nodes.get_mut(activation.id.node()?)?.op {
            Op::Dense(dense) => Some(dense),
            Op::Add | Op::Relu | Op::Clip { .. } | Op::Round(_) => None,
        }
    }

    fn clip(&mut self, node: &'a NodeProto) -> Result<Made, NodeError> {
        let (lo, hi) = if self.opset < 11 {
            let attributes = Attributes::of(node, &["min", "max"])?;
            (attributes.float("min", f32::MIN)?, attributes.float("max", f32::MAX)?)
        } else {
            Attributes::of(node, &[])?;
            (self.clip_bound(node, 1, f32::MIN)?, self.clip_bound(node, 2, f32::MAX)?)
        };
        if lo > hi {
            return Err(NodeError::unsupported(format!("its bounds are min={lo} and max={hi}")));
        }
        self.elementwise(node, Op::Clip { lo, hi })
    }

    fn clip_bound(&mut self, node: &'a NodeProto, port: usize, default: f32) -> Result<f32, NodeError> {
        let Some(name) = node.input.get(port) else { return Ok(default) };
        match self.value(name)? {
            None => Ok(default),
            Some(Value::Constant(constant)) => constant.scalar(),
            Some(value) => match value.to_floats("a bound")?.as_slice() {
                &[bound] => Ok(bound),
                _ => Err(NodeError::unsupported("a bound must be one number")),
            },
        }
    }

    fn view(&mut self, node: &'a NodeProto) -> Result<Made, NodeError> {
        let name = node.input.first().map_or("", String::as_str);
        let value = self.value(name)?.ok_or_else(|| NodeError::unsupported("its input is missing"))?;
        if node.op_type == "Dropout" {
            self.check_dropout(node)?;
        } else if node.op_type == "Identity" {
            Attributes::of(node, &[])?;
        }
        let is_identity = matches!(node.op_type.as_str(), "Identity" | "Dropout");
        let (activation, grid) = match value {
            Value::Unknown => return Err(NodeError::Unknown),
            constant if constant.is_constant() && is_identity => return Ok(Made::Alias(constant)),
            Value::Constant(_) | Value::Dequantized(_) => return Err(NodeError::unsupported("its input is constant")),
            Value::Activation(activation) => (activation, None),
            Value::Quantized(activation, grid) => (activation, Some(grid)),
        };
        let mut activation = self.seen_through(node, activation);
        activation.shape = match node.op_type.as_str() {
            "Flatten" => view::flatten(node, &activation.shape)?,
            "Reshape" => {
                let target = self.value(node.input.get(1).map_or("", String::as_str))?;
                view::reshape(node, &activation.shape, target.as_ref())?
            }
            _ => activation.shape,
        };
        Ok(Made::Alias(match grid {
            Some(grid) => Value::Quantized(activation, grid),
            None => Value::Activation(activation),
        }))
    }

    /// Dropout is the identity unless it is in training mode; its mask must not be used.
    fn check_dropout(&mut self, node: &'a NodeProto) -> Result<(), NodeError> {
        Attributes::of(node, &["ratio", "seed"])?;
        let is_training = match self.value(node.input.get(2).map_or("", String::as_str))? {
            None => false,
            Some(Value::Constant(constant)) => constant.data != Data::Bool(vec![false]),
            Some(_) => true,
        };
        if is_training {
            return Err(NodeError::unsupported("training_mode is set; export the model for inference"));
        }
        if node.output.iter().skip(1).any(|mask| self.reads.contains_key(mask.as_str())) {
            return Err(NodeError::unsupported("its mask is used"));
        }
        Ok(())
    }

    fn constant(&mut self, node: &'a NodeProto) -> Result<Made, NodeError> {
        let attributes = Attributes::of(node, &["value", "value_float", "value_floats", "value_int", "value_ints"])?;
        let attribute = attributes.only()?;
        let name = node.output.first().cloned().unwrap_or_default();
        let vector = |data: Data, length: usize| Constant { name: name.clone(), dims: vec![length], data };
        let scalar = |data: Data| Constant { name: name.clone(), dims: Vec::new(), data };
        let constant = match (attribute.name.as_str(), attribute.r#type, &attribute.t) {
            ("value", attribute_type::TENSOR, Some(proto)) => tensor::decode(proto, &name, self.limits)?,
            ("value_float", attribute_type::FLOAT, _) => scalar(Data::Float(vec![attribute.f])),
            ("value_floats", attribute_type::FLOATS, _) => vector(Data::Float(attribute.floats.clone()), attribute.floats.len()),
            ("value_int", attribute_type::INT, _) => scalar(Data::Int64(vec![attribute.i])),
            ("value_ints", attribute_type::INTS, _) => vector(Data::Int64(attribute.ints.clone()), attribute.ints.len()),
            (attribute, ..) => return Err(NodeError::unsupported(format!("attribute {attribute:?} has the wrong type"))),
        };
        if let Data::Float(values) = &constant.data
            && let Some(index) = values.iter().position(|value| !value.is_finite())
        {
            return Err(ImportError::NotFinite { name, index }.into());
        }
        Ok(Made::Alias(Value::Constant(Rc::new(constant))))
    }
}

/// Shapes may differ by leading ones only.
fn add_activations(left: &Activation, right: &Activation) -> Result<Made, NodeError> {
    let significant = |shape: &[usize]| shape.iter().copied().skip_while(|&dim| dim == 1).collect::<Vec<usize>>();
    if significant(&left.shape) != significant(&right.shape) {
        let reason = format!("it broadcasts shapes {:?} and {:?}; equal shapes are supported", left.shape, right.shape);
        return Err(NodeError::unsupported(reason));
    }
    let shape = if left.shape.len() >= right.shape.len() { &left.shape } else { &right.shape };
    Ok(Made::Op(Op::Add, vec![left.id, right.id], shape.clone()))
}
