//! Broken and hostile files: each a stated error.

use prost::Message;

use super::messages::{ModelProto, StringStringEntryProto, TensorProto, ValueInfoProto};
use super::test_files::{encode, file, floats, node, small_file, value_info};
use super::{ImportError, ImportLimits, import_onnx};

fn error_of(bytes: &[u8], limits: &ImportLimits) -> ImportError {
    import_onnx(bytes, limits).unwrap_err()
}

fn error(change: impl FnOnce(&mut ModelProto)) -> ImportError {
    let mut proto = small_file();
    change(&mut proto);
    error_of(&encode(&proto), &ImportLimits::default())
}

fn weight_error(change: impl FnOnce(&mut TensorProto)) -> ImportError {
    error(|proto| change(&mut proto.graph.as_mut().unwrap().initializer[0]))
}

#[test]
fn the_small_file_itself_is_fine() {
    assert!(import_onnx(&encode(&small_file()), &ImportLimits::default()).is_ok());
}

#[test]
fn every_truncation_is_an_error() {
    let bytes = encode(&small_file());
    for length in 0..bytes.len() {
        let error = error_of(&bytes[..length], &ImportLimits::default());
        // Cut between two fields, the file lacks its graph or its opset.
        assert!(
            matches!(error, ImportError::Truncated { .. } | ImportError::NoGraph | ImportError::Opset { got: None }),
            "{length} bytes: {error:?}"
        );
    }
}

#[test]
fn bytes_that_are_not_protobuf_are_refused() {
    let limits = ImportLimits::default();
    assert_eq!(error_of(b"\x00\x00", &limits), ImportError::Malformed { offset: 0 });
    // A group, wire type 3; wire type 7.
    assert_eq!(error_of(b"\x0b\x0c", &limits), ImportError::Malformed { offset: 0 });
    assert_eq!(error_of(b"\x08\x01\x0f", &limits), ImportError::Malformed { offset: 2 });
    // A number of eleven bytes; one cut off.
    assert_eq!(error_of(b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", &limits), ImportError::Malformed { offset: 1 });
    assert_eq!(error_of(b"\x08\xff", &limits), ImportError::Truncated { offset: 1 });
    // A graph that claims 2^62 bytes.
    assert_eq!(error_of(b"\x3a\x80\x80\x80\x80\x80\x80\x80\x80\x40", &limits), ImportError::Truncated { offset: 10 });
    // A name that is not UTF-8, and a graph that is a number.
    assert!(matches!(error_of(b"\x3a\x05\x0a\x03\x1a\x01\xff", &limits), ImportError::Decode(_)));
    assert!(matches!(error_of(b"\x38\x01", &limits), ImportError::Decode(_)));
    // Deep nesting of a message that nests: a graph as an attribute of a node, unknown to the decoder, is skipped.
    let mut nested = Vec::new();
    for _ in 0..20_000 {
        let mut outer = Vec::new();
        prost::encoding::encode_key(6, prost::encoding::WireType::LengthDelimited, &mut outer);
        prost::encoding::encode_varint(nested.len() as u64, &mut outer);
        outer.extend_from_slice(&nested);
        nested = outer;
        if nested.len() > 1 << 16 {
            break;
        }
    }
    assert_eq!(error_of(&nested, &limits), ImportError::Opset { got: None });
}

#[test]
fn limits_are_checked_before_decoding() {
    let bytes = encode(&small_file());
    let limits = ImportLimits { max_file_bytes: bytes.len() - 1, ..ImportLimits::default() };
    assert_eq!(error_of(&bytes, &limits), ImportError::FileTooLarge { got: bytes.len(), limit: bytes.len() - 1 });
    let limits = ImportLimits { max_nodes: 0, ..ImportLimits::default() };
    assert_eq!(error_of(&bytes, &limits), ImportError::TooMany { what: "nodes", limit: 0 });
    let limits = ImportLimits { max_items: 5, ..ImportLimits::default() };
    assert_eq!(error_of(&bytes, &limits), ImportError::TooMany { what: "messages and names", limit: 5 });
    let limits = ImportLimits { max_tensor_elements: 3, ..ImportLimits::default() };
    assert_eq!(error_of(&bytes, &limits), ImportError::TensorShape { name: "w".into(), shape: vec![2, 2], limit: 3 });
    let limits = ImportLimits { max_tensor_elements: 1, ..ImportLimits::default() };
    assert_eq!(error_of(&bytes, &limits), ImportError::TooMany { what: "numbers in lists", limit: 1 });
    let limits = ImportLimits { max_parameters: 3, ..ImportLimits::default() };
    assert_eq!(error_of(&bytes, &limits), ImportError::TooMany { what: "parameters", limit: 3 });
    let limits = ImportLimits { max_activations: 1, ..ImportLimits::default() };
    assert_eq!(error_of(&bytes, &limits), ImportError::TooMany { what: "activations", limit: 1 });
    let limits = ImportLimits { max_name_bytes: 5, ..ImportLimits::default() };
    assert!(matches!(error_of(&bytes, &limits), ImportError::NameTooLong { got: 6, limit: 5, .. }));
}

#[test]
fn a_matrix_used_often_counts_each_time() {
    let nodes = (0..10).map(|idx| {
        let (input, output) = (if idx == 0 { "x".to_owned() } else { format!("h{idx}") }, format!("h{}", idx + 1));
        node("MatMul", &[&input, "w"], if idx == 9 { "y" } else { &output })
    });
    let bytes = encode(&file(2, nodes.collect(), vec![floats("w", &[2, 2], &[1.0; 4])]));
    assert!(import_onnx(&bytes, &ImportLimits { max_parameters: 40, ..ImportLimits::default() }).is_ok());
    let limits = ImportLimits { max_parameters: 39, ..ImportLimits::default() };
    assert_eq!(error_of(&bytes, &limits), ImportError::TooMany { what: "parameters", limit: 39 });
}

#[test]
fn broken_tensors_are_refused() {
    let name = || "w".to_owned();
    assert_eq!(weight_error(|w| w.external_data.push(StringStringEntryProto {})), ImportError::ExternalData { name: name() });
    assert_eq!(weight_error(|w| w.data_location = 1), ImportError::ExternalData { name: name() });
    let limit = ImportLimits::default().max_tensor_elements;
    for shape in [vec![-1, 2], vec![i64::MAX, i64::MAX], vec![1 << 20, 1 << 20], vec![1; 9]] {
        let expected = ImportError::TensorShape { name: name(), shape: shape.clone(), limit };
        assert_eq!(weight_error(|w| w.dims = shape), expected);
    }
    let length = |unit, expected, got| ImportError::TensorLength { name: name(), unit, expected, got };
    assert_eq!(weight_error(|w| w.raw_data.truncate(15)), length("bytes", 16, 15));
    assert_eq!(weight_error(|w| w.raw_data.extend([0; 4])), length("bytes", 16, 20));
    assert_eq!(weight_error(|w| w.raw_data.clear()), length("elements", 4, 0));
    assert_eq!(weight_error(|w| w.dims = vec![2, 1 << 20]), length("bytes", 1 << 23, 16));
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let expected = ImportError::NotFinite { name: name(), index: 2 };
        assert_eq!(weight_error(|w| w.raw_data[8..12].copy_from_slice(&value.to_le_bytes())), expected);
    }
    let too_large_for_f32 = |w: &mut TensorProto| {
        (w.raw_data, w.data_type, w.double_data) = (Vec::new(), 11, vec![0.0, 1e300, 0.0, 0.0]);
    };
    assert_eq!(weight_error(too_large_for_f32), ImportError::NotFinite { name: name(), index: 1 });
    let outside_int8 = |w: &mut TensorProto| (w.raw_data, w.data_type, w.int32_data) = (Vec::new(), 3, vec![0, 1, 2, 128]);
    assert_eq!(weight_error(outside_int8), ImportError::TensorValue { name: name(), index: 3 });
}

#[test]
fn names_must_be_defined_once_and_without_circles() {
    let duplicate = |name: &str| ImportError::DuplicateName { name: name.into() };
    let graph = |change: fn(&mut super::GraphProto)| error(|proto| change(proto.graph.as_mut().unwrap()));
    assert_eq!(graph(|graph| graph.node.push(node("Relu", &["x"], "y"))), duplicate("y"));
    assert_eq!(graph(|graph| graph.node.push(node("Relu", &["x"], "x"))), duplicate("x"));
    assert_eq!(graph(|graph| graph.node.push(node("Relu", &["x"], "w"))), duplicate("w"));
    assert_eq!(graph(|graph| graph.initializer.push(floats("w", &[1], &[0.0]))), duplicate("w"));
    let unknown = |node: &str, name: &str| ImportError::UnknownName { node: node.into(), name: name.into() };
    assert_eq!(graph(|graph| graph.node[0].input[1] = "v".into()), unknown("y_node", "v"));
    assert_eq!(graph(|graph| graph.output[0].name = "z".into()), unknown("graph output", "z"));
    assert_eq!(graph(|graph| graph.node[0].input[0] = "y".into()), ImportError::Cycle { node: "y_node".into() });
    let cycle_beside = |graph: &mut super::GraphProto| {
        graph.node.push(node("Relu", &["b"], "a"));
        graph.node.push(node("Relu", &["a"], "b"));
    };
    assert_eq!(error(|proto| cycle_beside(proto.graph.as_mut().unwrap())), ImportError::Cycle { node: "a_node".into() });
}

#[test]
fn the_boundary_must_be_one_vector_each() {
    let graph = |change: fn(&mut super::GraphProto)| error(|proto| change(proto.graph.as_mut().unwrap()));
    assert_eq!(error(|proto| proto.graph = None), ImportError::NoGraph);
    assert_eq!(error(|proto| proto.opset_import.clear()), ImportError::Opset { got: None });
    assert_eq!(error(|proto| proto.opset_import[0].version = 6), ImportError::Opset { got: Some(6) });
    assert_eq!(error(|proto| proto.opset_import[0].version = i64::MAX), ImportError::Opset { got: Some(i64::MAX) });
    assert_eq!(graph(|graph| graph.input.clear()), ImportError::Arity { what: "inputs", got: 0 });
    assert_eq!(graph(|graph| graph.input.push(value_info("x2", &[]))), ImportError::Arity { what: "inputs", got: 2 });
    assert_eq!(graph(|graph| graph.output.push(value_info("x", &[]))), ImportError::Arity { what: "outputs", got: 2 });
    let shape = |dims: &[Option<i64>]| error(|proto| proto.graph.as_mut().unwrap().input[0] = value_info("x", dims));
    let bad_shape = |reason: &str| ImportError::InputShape { name: "x".into(), reason: reason.into() };
    assert_eq!(shape(&[]), bad_shape("it has 0 dimensions; 1 to 8 are supported"));
    assert_eq!(shape(&[Some(1); 9]), bad_shape("it has 9 dimensions; 1 to 8 are supported"));
    assert_eq!(shape(&[Some(4), Some(2)]), bad_shape("the batch is 4; export with a batch of 1"));
    assert_eq!(shape(&[Some(1), None]), bad_shape("dimension 1 is not a number"));
    assert_eq!(shape(&[Some(1), Some(-2)]), bad_shape("dimension 1 is -2"));
    assert_eq!(shape(&[Some(1), Some(0)]), bad_shape("dimension 1 is 0"));
    assert_eq!(shape(&[Some(1), Some(i64::MAX), Some(8)]), bad_shape("it has more than 268435456 elements"));
    let untyped = |graph: &mut super::GraphProto| graph.input[0] = ValueInfoProto { name: "x".into(), r#type: None };
    assert_eq!(error(|proto| untyped(proto.graph.as_mut().unwrap())), bad_shape("it is not a tensor"));
    let int_input = |graph: &mut super::GraphProto| {
        graph.input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap().elem_type = 7;
    };
    assert_eq!(error(|proto| int_input(proto.graph.as_mut().unwrap())), ImportError::InputType { name: "x".into(), got: 7 });
    let constant_output = |graph: &mut super::GraphProto| graph.output[0].name = "w".into();
    assert_eq!(error(|proto| constant_output(proto.graph.as_mut().unwrap())), ImportError::ConstantOutput { name: "w".into() });
    let input_is_output = |graph: &mut super::GraphProto| graph.output[0].name = "x".into();
    assert_eq!(error(|proto| input_is_output(proto.graph.as_mut().unwrap())), ImportError::ConstantOutput { name: "x".into() });
}

#[test]
fn a_second_graph_is_merged_not_overlooked() {
    // Protobuf merges repeated messages: the second graph's node makes `y` twice.
    let mut bytes = encode(&small_file());
    bytes.extend(ModelProto { graph: small_file().graph, ..ModelProto::default() }.encode_to_vec());
    assert_eq!(error_of(&bytes, &ImportLimits::default()), ImportError::Arity { what: "inputs", got: 2 });
}
