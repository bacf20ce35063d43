//! Operators: what each is imported as, and which uses of it are refused.

use super::messages::{ModelProto, NodeProto, TensorProto};
use super::test_files::{encode, file, floats, int8s, int32s, int64s, node, uint8s, value_info};
use super::{ImportError, ImportLimits, UnsupportedNode, import_onnx};
use crate::model::evaluate::{Rounding, answer, evaluate};
use crate::model::network::{Grid, Model, Op, Weights};

fn import(proto: &ModelProto) -> Result<Model, ImportError> {
    import_onnx(&encode(proto), &ImportLimits::default())
}

/// The answer of a network for an input.
fn run(proto: &ModelProto, input: &[f32]) -> Vec<f32> {
    let model = import(proto).unwrap();
    let values = evaluate(&model, input, Rounding::Apply).unwrap();
    answer(&model, &values).to_vec()
}

/// The reasons of all unsupported nodes.
fn reasons(n_in: i64, nodes: Vec<NodeProto>, initializers: Vec<TensorProto>) -> Vec<String> {
    match import(&file(n_in, nodes, initializers)) {
        Err(ImportError::Unsupported { nodes }) => nodes.into_iter().map(|node| node.reason).collect(),
        other => panic!("{other:?}"),
    }
}

fn reason(n_in: i64, last: NodeProto, initializers: Vec<TensorProto>) -> String {
    let mut reasons = reasons(n_in, vec![last], initializers);
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    reasons.remove(0)
}

#[test]
fn gemm_honours_its_attributes() {
    let (w, c) = (floats("w", &[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]), floats("c", &[3], &[1.0, 1.0, 2.0]));
    let plain = node("Gemm", &["x", "w", "c"], "y");
    assert_eq!(run(&file(2, vec![plain.clone()], vec![w.clone(), c.clone()]), &[1.0, 10.0]), [42.0, 53.0, 65.0]);
    let scaled = plain.float("alpha", 2.0).float("beta", -1.0);
    assert_eq!(run(&file(2, vec![scaled], vec![w.clone(), c]), &[1.0, 10.0]), [81.0, 103.0, 124.0]);
    let transposed = node("Gemm", &["x", "w", "c"], "y").int("transB", 1);
    assert_eq!(run(&file(3, vec![transposed], vec![w.clone(), floats("c", &[1, 1], &[5.0])]), &[1.0, 0.0, 10.0]), [36.0, 69.0]);
    let column = vec![node("Reshape", &["x", "shape"], "column"), node("Gemm", &["column", "w"], "y").int("transA", 1)];
    assert_eq!(run(&file(2, column, vec![w, int64s("shape", &[2], &[-1, 1])]), &[1.0, 10.0]), [41.0, 52.0, 63.0]);
}

#[test]
fn mat_mul_and_bias_become_one_layer_through_views() {
    let nodes = vec![
        node("Flatten", &["x"], "flat"),
        node("MatMul", &["flat", "w"], "product"),
        node("Reshape", &["product", "shape"], "square"),
        node("Add", &["bias", "square"], "sum"),
        node("Identity", &["sum"], "same"),
        node("Dropout", &["same"], "kept"),
        node("Relu", &["kept"], "y"),
    ];
    let bias = floats("bias", &[2, 2], &[1.0, -20.0, 3.0, 4.0]);
    let proto = file(1, nodes, vec![floats("w", &[1, 4], &[1.0, 2.0, 3.0, 4.0]), int64s("shape", &[2], &[2, 2]), bias]);
    let model = import(&proto).unwrap();
    assert_eq!(model.nodes.iter().map(|node| node.name.as_str()).collect::<Vec<&str>>(), ["product_node", "y_node"]);
    assert_eq!(model.output_spec.shape, [2, 2]);
    assert_eq!(run(&proto, &[2.0]), [3.0, 0.0, 9.0, 12.0]);
}

#[test]
fn clip_reads_attributes_or_inputs_by_version() {
    let w = floats("w", &[1, 2], &[1.0, -1.0]);
    let old = vec![node("MatMul", &["x", "w"], "h"), node("Clip", &["h"], "y").float("min", 0.0).float("max", 6.0)];
    let mut old = file(1, old, vec![w.clone()]);
    old.opset_import[0].version = 10;
    assert_eq!(run(&old, &[9.0]), [6.0, 0.0]);
    let new = vec![node("MatMul", &["x", "w"], "h"), node("Clip", &["h", "", "six"], "y")];
    assert_eq!(run(&file(1, new, vec![w, floats("six", &[], &[6.0])]), &[9.0]), [6.0, -9.0]);
    let clip = node("Clip", &["x", "six", "five"], "y");
    let bounds = vec![floats("six", &[], &[6.0]), floats("five", &[], &[5.0])];
    assert_eq!(reason(1, clip, bounds), "its bounds are min=6 and max=5");
}

#[test]
fn residual_branches_are_added_in_any_file_order() {
    let nodes = vec![node("Add", &["left", "right"], "y"), node("MatMul", &["x", "v"], "right"), node("MatMul", &["x", "w"], "left")];
    let proto = file(1, nodes, vec![floats("w", &[1, 2], &[1.0, 2.0]), floats("v", &[1, 2], &[10.0, 20.0])]);
    assert_eq!(run(&proto, &[3.0]), [33.0, 66.0]);
}

#[test]
fn constants_come_from_nodes_too() {
    let constant = |name: &str| NodeProto { input: Vec::new(), ..node("Constant", &[], name) };
    let nodes = vec![
        constant("w").tensor("value", floats("", &[1, 2], &[1.0, -2.0])),
        node("Identity", &["w"], "same"),
        node("MatMul", &["x", "same"], "h"),
        constant("one").float("value_float", 1.0),
        node("Clip", &["h", "one"], "y"),
    ];
    assert_eq!(run(&file(1, nodes, Vec::new()), &[3.0]), [3.0, 1.0]);
    let proto = file(1, vec![constant("w").float("value_float", f32::NAN), node("MatMul", &["x", "w"], "y")], Vec::new());
    assert_eq!(import(&proto).unwrap_err(), ImportError::NotFinite { name: "w".into(), index: 0 });
}

#[test]
fn unneeded_nodes_and_symbolic_batches_are_accepted() {
    let nodes = vec![node("MatMul", &["x", "w"], "y"), node("Softmax", &["y"], "unused")];
    let mut proto = file(1, nodes, vec![floats("w", &[1, 1], &[2.0])]);
    let graph = proto.graph.as_mut().unwrap();
    graph.input = vec![value_info("x", &[None, Some(1)]), value_info("w", &[Some(1), Some(1)])];
    assert_eq!(run(&proto, &[3.0]), [6.0]);
    assert_eq!(import(&proto).unwrap().input.shape, [1, 1]);
}

#[test]
fn every_unsupported_node_is_named_in_one_error() {
    let nodes = vec![
        node("Conv", &["x", "w"], "conv"),
        node("Softmax", &["conv"], "soft"),
        node("Gemm", &["soft", "w"], "gemm").int("transC", 1),
        NodeProto { name: String::new(), domain: "com.example".into(), ..node("Magic", &["gemm"], "y") },
    ];
    let error = import(&file(2, nodes, vec![floats("w", &[1], &[1.0])])).unwrap_err();
    let entry =
        |name: &str, operator: &str, reason: &str| UnsupportedNode { name: name.into(), operator: operator.into(), reason: reason.into() };
    let expected = vec![
        entry("conv_node", "Conv", "the operator is not supported"),
        entry("soft_node", "Softmax", "the operator is not supported"),
        entry("gemm_node", "Gemm", "attribute \"transC\" is not supported"),
        entry("y", "com.example.Magic", "operators outside the standard domain are not supported"),
    ];
    assert_eq!(error, ImportError::Unsupported { nodes: expected });
    assert_eq!(
        error.to_string(),
        format!(
            "4 nodes are not supported: node \"conv_node\" (Conv): the operator is not supported; node \"soft_node\" (Softmax): the \
             operator is not supported; node \"gemm_node\" (Gemm): attribute \"transC\" is not supported; node \"y\" (com.example.Magic): \
             operators outside the standard domain are not supported; supported: {}",
            super::SUPPORTED_OPERATORS
        )
    );
}

#[test]
fn unsupported_uses_of_supported_operators_say_why() {
    let w = || floats("w", &[2, 2], &[1.0; 4]);
    let gemm = || node("Gemm", &["x", "w"], "y");
    assert_eq!(
        reason(2, gemm().int("transA", 1), vec![w()]),
        "attribute transA=1 with input A of shape [1, 2]; one row of inputs is supported"
    );
    assert_eq!(reason(3, gemm(), vec![w()]), "input A has 3 elements but the weights have 2 inputs and 2 outputs");
    assert_eq!(reason(2, gemm(), vec![floats("w", &[4], &[1.0; 4])]), "input B has shape [4]; a matrix is supported");
    assert_eq!(reason(2, node("MatMul", &["x", "x"], "y"), vec![]), "input B is computed; only constant weights are supported");
    assert_eq!(reason(2, node("MatMul", &["w", "x"], "y"), vec![w()]), "input A is constant; the weights must be the second input");
    assert_eq!(
        reason(2, node("Gemm", &["x", "w", "c"], "y"), vec![w(), floats("c", &[3], &[0.0; 3])]),
        "a constant of shape [3] does not broadcast to [1, 2]"
    );
    assert_eq!(reason(2, node("Relu", &["w"], "y"), vec![w()]), "its input is constant");
    assert_eq!(
        reason(2, node("Reshape", &["x", "s"], "y"), vec![int64s("s", &[2], &[3, -1])]),
        "a tensor of shape [1, 2] cannot take the shape [3, -1]"
    );
    assert_eq!(reason(2, node("Flatten", &["x"], "y").int("axis", 3), vec![]), "attribute axis=3 does not fit the shape [1, 2]");
    let training = node("Dropout", &["x", "", "training"], "y");
    let flag = TensorProto { data_type: 9, ..uint8s("training", &[], &[1]) };
    assert_eq!(reason(2, training, vec![flag]), "training_mode is set; export the model for inference");
    let half = TensorProto { data_type: 10, ..floats("w", &[2, 2], &[1.0; 4]) };
    assert_eq!(
        reason(2, gemm(), vec![half]),
        "tensor \"w\" has element type 10; float32, double, int8, uint8, int32 and int64 are supported"
    );
    assert_eq!(reason(2, gemm().float("alpha", f32::NAN), vec![w()]), "attribute \"alpha\" must be a finite float");
    assert_eq!(reason(2, gemm().int("transB", 1).int("transB", 0), vec![w()]), "attribute \"transB\" occurs twice");
}

#[test]
fn additions_that_are_not_biases_or_residuals_say_why() {
    let (w, c) = (floats("w", &[2, 2], &[1.0; 4]), floats("c", &[2], &[1.0; 2]));
    let to_input = reasons(2, vec![node("Add", &["x", "c"], "y")], vec![c.clone()]);
    assert!(to_input[0].starts_with("a constant is added to something other than the result of Gemm or MatMul"), "{to_input:?}");
    let shared = vec![node("MatMul", &["x", "w"], "h"), node("Add", &["h", "c"], "biased"), node("Add", &["h", "biased"], "y")];
    assert_eq!(reasons(2, shared, vec![w, c.clone()]), ["a constant is added to a layer's result that something else reads too"]);
    let broadcast = vec![node("MatMul", &["x", "column"], "h"), node("Add", &["h", "x"], "y")];
    assert_eq!(
        reasons(2, broadcast, vec![floats("column", &[2, 1], &[1.0; 2])]),
        ["it broadcasts shapes [1, 1] and [1, 2]; equal shapes are supported"]
    );
}

/// `Q → DQ → Gemm(DQ weights, DQ bias) → Q → DQ`, uint8 activations with zero points, one scale per output.
fn qdq_file() -> ModelProto {
    let nodes = vec![
        node("QuantizeLinear", &["x", "sx", "zx"], "xq"),
        node("DequantizeLinear", &["xq", "sx", "zx"], "xd"),
        node("DequantizeLinear", &["w", "sw", "zw"], "wd").int("axis", 0),
        node("DequantizeLinear", &["b", "sb"], "bd"),
        node("Gemm", &["xd", "wd", "bd"], "h").int("transB", 1),
        node("QuantizeLinear", &["h", "sy", "zy"], "hq"),
        node("DequantizeLinear", &["hq", "sy", "zy"], "y"),
    ];
    let constants = vec![
        floats("sx", &[], &[0.5]),
        uint8s("zx", &[], &[100]),
        int8s("w", &[2, 3], &[1, 2, 3, -4, -5, -6]),
        floats("sw", &[2], &[1.0, 0.5]),
        int8s("zw", &[2], &[0, 0]),
        int32s("b", &[2], &[7, -8]),
        floats("sb", &[2], &[0.5, 0.25]),
        floats("sy", &[], &[2.0]),
        int8s("zy", &[], &[-28]),
    ];
    file(3, nodes, constants)
}

#[test]
fn qdq_graphs_keep_their_integers() {
    let proto = qdq_file();
    let model = import(&proto).unwrap();
    assert!(model.is_qdq());
    let ops: Vec<&Op> = model.nodes.iter().map(|node| &node.op).collect();
    let [Op::Round(input), Op::Dense(dense), Op::Round(output)] = ops.as_slice() else { panic!("{ops:?}") };
    assert_eq!(*input, Grid { scale: 0.5, lo: -100, hi: 155 });
    assert_eq!(*output, Grid { scale: 2.0, lo: -100, hi: 155 });
    let Weights::Int8 { values, scales } = &dense.weights else { panic!("weights are not quantized") };
    assert_eq!((values.as_slice(), scales.as_slice()), ([1, 2, 3, -4, -5, -6].as_slice(), [1.0, 0.5].as_slice()));
    // x rounds to the integers (2, 4, 6): 0.5·(28 + 7) = 17.5 → 18; 0.25·(−64 − 8) = −18.
    assert_eq!(run(&proto, &[1.1, 2.1, 2.9]), [18.0, -18.0]);
    // The integers (155, −100, 0): 0.5·(−45 + 7) = −19 → −20 (a tie, to even); 0.25·(−120 − 8) = −32.
    assert_eq!(run(&proto, &[1000.0, -1000.0, 0.0]), [-20.0, -32.0]);
}

#[test]
fn weights_quantized_in_the_file_are_folded() {
    let mut proto = qdq_file();
    let graph = proto.graph.as_mut().unwrap();
    graph.initializer[2] = floats("wf", &[2, 3], &[1.4, 2.0, 3.0, -2.2, -2.6, -500.0]);
    graph.node.push(node("QuantizeLinear", &["wf", "sw", "zw"], "w").int("axis", 0));
    let model = import(&proto).unwrap();
    let Op::Dense(dense) = &model.nodes[1].op else { panic!("{:?}", model.nodes[1]) };
    let Weights::Int8 { values, .. } = &dense.weights else { panic!("weights are not quantized") };
    assert_eq!(values.as_slice(), [1, 2, 3, -4, -5, -128]);
}

#[test]
fn qdq_graphs_that_cannot_be_proved_say_why() {
    let with = |name: &str, replacement: TensorProto| {
        let mut proto = qdq_file();
        let graph = proto.graph.as_mut().unwrap();
        let tensor = graph.initializer.iter_mut().find(|tensor| tensor.name == name).unwrap();
        *tensor = replacement;
        match import(&proto) {
            Err(ImportError::Unsupported { nodes }) => nodes.into_iter().map(|node| format!("{}: {}", node.name, node.reason)).collect(),
            other => vec![format!("{other:?}")],
        }
    };
    let shifted = with("zw", int8s("zw", &[2], &[0, 1]));
    assert_eq!(shifted.len(), 1);
    assert!(shifted[0].starts_with("wd_node: the zero point of a constant must be 0: quantize weights symmetrically"), "{shifted:?}");
    let unsigned = with("w", uint8s("w", &[2, 3], &[0; 6]));
    assert_eq!(unsigned, ["h_node: quantized weights \"w\" must be int8"]);
    let negative = with("sx", floats("sx", &[], &[-1.0]));
    assert_eq!(negative, ["xq_node: scale \"sx\" is not positive", "xd_node: scale \"sx\" is not positive"]);
    let wide = with("zx", int32s("zx", &[], &[3]));
    assert_eq!(wide[0], "xq_node: the zero point of an activation must be int8 or uint8");
    let misfit = with("sw", floats("sw", &[3], &[1.0; 3]));
    assert_eq!(misfit, ["wd_node: scale and zero point have different shapes"]);

    let mut proto = qdq_file();
    let graph = proto.graph.as_mut().unwrap();
    graph.node[1] = node("DequantizeLinear", &["xq", "sy", "zx"], "xd");
    let expected = "its scale or zero point differs from that of the QuantizeLinear before it";
    assert!(import(&proto).unwrap_err().to_string().contains(expected));
}
