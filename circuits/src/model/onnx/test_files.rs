//! ONNX files made by hand, for tests.

use prost::Message;

use super::messages::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto, TensorTypeProto,
    TypeProto, ValueInfoProto, attribute_type, data_type,
};

pub(super) fn node(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    NodeProto {
        input: inputs.iter().map(ToString::to_string).collect(),
        output: vec![output.to_owned()],
        name: format!("{output}_node"),
        op_type: op_type.to_owned(),
        attribute: Vec::new(),
        domain: String::new(),
    }
}

impl NodeProto {
    pub(super) fn int(mut self, name: &str, value: i64) -> Self {
        let attribute = AttributeProto { name: name.to_owned(), i: value, r#type: attribute_type::INT, ..AttributeProto::default() };
        self.attribute.push(attribute);
        self
    }

    pub(super) fn float(mut self, name: &str, value: f32) -> Self {
        let attribute = AttributeProto { name: name.to_owned(), f: value, r#type: attribute_type::FLOAT, ..AttributeProto::default() };
        self.attribute.push(attribute);
        self
    }

    pub(super) fn tensor(mut self, name: &str, value: TensorProto) -> Self {
        let t = Some(Box::new(value));
        self.attribute.push(AttributeProto { name: name.to_owned(), t, r#type: attribute_type::TENSOR, ..AttributeProto::default() });
        self
    }
}

fn tensor(name: &str, dims: &[i64], data_type: i32, raw_data: Vec<u8>) -> TensorProto {
    TensorProto { name: name.to_owned(), dims: dims.to_vec(), data_type, raw_data, ..TensorProto::default() }
}

pub(super) fn floats(name: &str, dims: &[i64], values: &[f32]) -> TensorProto {
    tensor(name, dims, data_type::FLOAT, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

pub(super) fn int8s(name: &str, dims: &[i64], values: &[i8]) -> TensorProto {
    tensor(name, dims, data_type::INT8, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

pub(super) fn uint8s(name: &str, dims: &[i64], values: &[u8]) -> TensorProto {
    tensor(name, dims, data_type::UINT8, values.to_vec())
}

pub(super) fn int32s(name: &str, dims: &[i64], values: &[i32]) -> TensorProto {
    tensor(name, dims, data_type::INT32, values.iter().flat_map(|value| value.to_le_bytes()).collect())
}

pub(super) fn int64s(name: &str, dims: &[i64], values: &[i64]) -> TensorProto {
    // As the typed list, which the other arrays do not use.
    TensorProto { int64_data: values.to_vec(), ..tensor(name, dims, data_type::INT64, Vec::new()) }
}

pub(super) fn value_info(name: &str, dims: &[Option<i64>]) -> ValueInfoProto {
    let dim = dims.iter().map(|&dim_value| DimensionProto { dim_value }).collect();
    let tensor_type = TensorTypeProto { elem_type: data_type::FLOAT, shape: Some(TensorShapeProto { dim }) };
    ValueInfoProto { name: name.to_owned(), r#type: Some(TypeProto { tensor_type: Some(tensor_type) }) }
}

/// A file of opset 17 with input `x` of shape `[1, n_in]` and output `y`.
pub(super) fn file(n_in: i64, node: Vec<NodeProto>, initializer: Vec<TensorProto>) -> ModelProto {
    let graph = GraphProto { node, initializer, input: vec![value_info("x", &[Some(1), Some(n_in)])], output: vec![value_info("y", &[])] };
    let opset = OperatorSetIdProto { domain: String::new(), version: 17 };
    ModelProto { ir_version: 8, graph: Some(graph), opset_import: vec![opset] }
}

/// `y = Gemm(x, w)` on two inputs and two outputs.
pub(super) fn small_file() -> ModelProto {
    file(2, vec![node("Gemm", &["x", "w"], "y")], vec![floats("w", &[2, 2], &[1.0, 2.0, 3.0, 4.0])])
}

pub(super) fn encode(proto: &ModelProto) -> Vec<u8> {
    proto.encode_to_vec()
}
