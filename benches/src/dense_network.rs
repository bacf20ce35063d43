//! The dense network of the comparisons: 4 inputs, five layers 1024 wide with ReLU between them, 4.2 million random weights.
//!
//! Written as an ONNX file, so that it takes the same way in as any user's network. Field numbers are those of the ONNX specification.

use prost::Message;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Inputs of the network.
pub const N_INPUTS: usize = 4;
const WIDTH: usize = 1024;
const N_LAYERS: usize = 5;
/// ONNX's code of float32.
const FLOAT: i32 = 1;

#[derive(Clone, PartialEq, Message)]
struct ModelProto {
    #[prost(int64, tag = "1")]
    ir_version: i64,
    #[prost(message, optional, tag = "7")]
    graph: Option<GraphProto>,
    #[prost(message, repeated, tag = "8")]
    opset_import: Vec<OperatorSetProto>,
}

#[derive(Clone, PartialEq, Message)]
struct OperatorSetProto {
    #[prost(int64, tag = "2")]
    version: i64,
}

#[derive(Clone, PartialEq, Message)]
struct GraphProto {
    #[prost(message, repeated, tag = "1")]
    node: Vec<NodeProto>,
    #[prost(message, repeated, tag = "5")]
    initializer: Vec<TensorProto>,
    #[prost(message, repeated, tag = "11")]
    input: Vec<ValueProto>,
    #[prost(message, repeated, tag = "12")]
    output: Vec<ValueProto>,
}

#[derive(Clone, PartialEq, Message)]
struct NodeProto {
    #[prost(string, repeated, tag = "1")]
    input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    output: Vec<String>,
    #[prost(string, tag = "3")]
    name: String,
    #[prost(string, tag = "4")]
    op_type: String,
}

#[derive(Clone, PartialEq, Message)]
struct TensorProto {
    #[prost(int64, repeated, tag = "1")]
    dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    data_type: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "vec", tag = "9")]
    raw_data: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct ValueProto {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, optional, tag = "2")]
    kind: Option<TypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TypeProto {
    #[prost(message, optional, tag = "1")]
    tensor: Option<TensorTypeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct TensorTypeProto {
    #[prost(int32, tag = "1")]
    element: i32,
    #[prost(message, optional, tag = "2")]
    shape: Option<ShapeProto>,
}

#[derive(Clone, PartialEq, Message)]
struct ShapeProto {
    #[prost(message, repeated, tag = "1")]
    axes: Vec<AxisProto>,
}

#[derive(Clone, PartialEq, Message)]
struct AxisProto {
    #[prost(int64, tag = "1")]
    size: i64,
}

/// The network's file; every call gives the same bytes.
pub fn onnx() -> Vec<u8> {
    let mut rng = StdRng::seed_from_u64(4);
    let mut graph = GraphProto { input: vec![value("t0", N_INPUTS)], output: vec![value("y", WIDTH)], ..GraphProto::default() };
    let mut n_in = N_INPUTS;
    for layer in 1..=N_LAYERS {
        // Uniform weights that keep the size of activations through ReLU.
        let bound = (6.0 / n_in as f32).sqrt();
        let mut random = |count: usize, bound: f32| (0..count).map(|_| rng.gen_range(-bound..bound)).collect::<Vec<f32>>();
        let (weights, bias) = (format!("w{layer}"), format!("b{layer}"));
        graph.initializer.push(floats(&weights, &[n_in, WIDTH], &random(n_in * WIDTH, bound)));
        graph.initializer.push(floats(&bias, &[WIDTH], &random(WIDTH, 0.1)));
        let (input, sum) = (format!("t{}", layer - 1), if layer == N_LAYERS { "y".to_owned() } else { format!("s{layer}") });
        graph.node.push(node("Gemm", &[&input, &weights, &bias], &sum));
        if layer < N_LAYERS {
            graph.node.push(node("Relu", &[&sum], &format!("t{layer}")));
        }
        n_in = WIDTH;
    }
    let opset_import = vec![OperatorSetProto { version: 17 }];
    ModelProto { ir_version: 8, graph: Some(graph), opset_import }.encode_to_vec()
}

/// Inputs for it, each in [0, 1].
pub fn inputs(count: usize) -> Vec<Vec<f32>> {
    let mut rng = StdRng::seed_from_u64(5);
    (0..count).map(|_| (0..N_INPUTS).map(|_| rng.gen_range(0.0..1.0)).collect()).collect()
}

fn node(op_type: &str, inputs: &[&str], output: &str) -> NodeProto {
    let input = inputs.iter().map(|&name| name.to_owned()).collect();
    NodeProto { input, output: vec![output.to_owned()], name: format!("{op_type}_{output}"), op_type: op_type.to_owned() }
}

fn floats(name: &str, dims: &[usize], values: &[f32]) -> TensorProto {
    let raw_data = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    TensorProto { dims: dims.iter().map(|&size| size as i64).collect(), data_type: FLOAT, name: name.to_owned(), raw_data }
}

fn value(name: &str, size: usize) -> ValueProto {
    let axes = [1, size as i64].map(|size| AxisProto { size }).to_vec();
    let tensor = TensorTypeProto { element: FLOAT, shape: Some(ShapeProto { axes }) };
    ValueProto { name: name.to_owned(), kind: Some(TypeProto { tensor: Some(tensor) }) }
}

#[cfg(test)]
mod tests {
    use zkinfer_circuits::model::{ImportLimits, import_onnx};

    use super::*;

    #[test]
    fn the_network_can_be_imported() {
        let model = import_onnx(&onnx(), &ImportLimits::default()).expect("a network of supported operators");
        assert_eq!(model.n_inputs(), N_INPUTS);
    }
}
