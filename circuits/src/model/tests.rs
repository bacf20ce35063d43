//! Quantization: what becomes of each operator, and which networks are refused.

use super::bounds::BoundError;
use super::network::{Bias, Dense, Grid, Model, Node, Op, ValueId, ValueSpec, Weights};
use super::{
    EvaluateError, Granularity, GraphError, InputCoding, NodeProblem, QuantError, QuantGraph, QuantOp, QuantOptions, Rounding, TensorId,
    evaluate, execute, quantize, quantize_qdq,
};

fn spec(name: &str, n_elements: usize) -> ValueSpec {
    ValueSpec { name: name.into(), shape: vec![1, n_elements] }
}

/// A network whose answer is its last node.
fn model(n_inputs: usize, nodes: Vec<Node>) -> Model {
    let n_outputs = nodes.last().map_or(n_inputs, |node| node.n_elements);
    Model { input: spec("x", n_inputs), output: ValueId(nodes.len()), nodes, output_spec: spec("y", n_outputs) }
}

fn node(name: &str, op: Op, inputs: &[usize], n_elements: usize) -> Node {
    Node { name: name.into(), op, inputs: inputs.iter().copied().map(ValueId).collect(), n_elements }
}

fn dense(n_in: usize, weights: &[f32], bias: &[f32]) -> Op {
    let (weights, bias) = (Weights::Float(weights.to_vec()), Bias::Float(bias.to_vec()));
    let n_out = match &bias {
        Bias::Float(values) => values.len(),
        Bias::Int32 { .. } => unreachable!(),
    };
    Op::Dense(Dense { n_in, n_out, weights, bias })
}

fn int8(n_in: usize, values: &[i8], scales: &[f64], bias: Bias) -> Op {
    let n_out = values.len() / n_in;
    Op::Dense(Dense { n_in, n_out, weights: Weights::Int8 { values: values.to_vec(), scales: scales.to_vec() }, bias })
}

fn round(scale: f64, lo: i64, hi: i64) -> Op {
    Op::Round(Grid { scale, lo, hi })
}

fn qdq(model: &Model) -> Result<QuantGraph, QuantError> {
    quantize_qdq(model, &[]).map(|(graph, _)| graph)
}

/// The reasons of all problem nodes.
fn problems(model: &Model) -> Vec<(String, String)> {
    match qdq(model) {
        Err(QuantError::Nodes { problems }) => problems.into_iter().map(|NodeProblem { node, reason }| (node, reason)).collect(),
        other => panic!("{other:?}"),
    }
}

/// Weights that no calibration hits exactly, in −1 … 1.
fn waves(n: usize, phase: f32) -> Vec<f32> {
    (0..n).map(|index| (index as f32 * 1.7 + phase).sin()).collect()
}

/// a = relu6(dense x); b = dense a; c = relu(a + b); answer = dense c.
fn residual() -> Model {
    let nodes = vec![
        node("a", dense(5, &waves(30, 0.1), &waves(6, 0.2)), &[0], 6),
        node("a6", Op::Clip { lo: 0.0, hi: 1.5 }, &[1], 6),
        node("b", dense(6, &waves(36, 0.3), &waves(6, 0.4)), &[2], 6),
        node("sum", Op::Add, &[2, 3], 6),
        node("c", Op::Relu, &[4], 6),
        node("d", dense(6, &waves(18, 0.5), &waves(3, 0.6)), &[5], 3),
    ];
    model(5, nodes)
}

fn samples(n: usize, n_inputs: usize) -> Vec<Vec<f32>> {
    (0..n).map(|index| waves(n_inputs, index as f32 * 0.77)).collect()
}

#[test]
fn residual_network_becomes_four_layers_close_to_float() {
    let (model, samples) = (residual(), samples(50, 5));
    for granularity in [Granularity::PerTensor, Granularity::PerChannel] {
        let options = QuantOptions { granularity, ..QuantOptions::default() };
        let (graph, report) = quantize(&model, &samples, &options).unwrap();
        let names: Vec<&str> = graph.layers.iter().map(|layer| layer.name.as_str()).collect();
        assert_eq!(names, ["a6", "b", "c", "d"]);
        let edges: Vec<Vec<TensorId>> = graph.layers.iter().map(super::QuantLayer::inputs).collect();
        assert_eq!(edges, [vec![TensorId(0)], vec![TensorId(1)], vec![TensorId(1), TensorId(2)], vec![TensorId(3)]]);
        // max |a| on calibration is 1.5: the clip ends at 127, as does ReLU's lower bound at 0.
        assert_eq!((graph.range(TensorId(1)), graph.range(TensorId(3))), (Some((0, 127)), Some((0, 127))));
        assert_eq!(graph.range(TensorId(2)), Some((-127, 127)));
        assert_eq!(graph.range(TensorId(4)), None);
        assert!(report.layers.iter().all(|layer| layer.snr_db.unwrap() > 30.0), "{report}");
        assert!(report.layers.iter().all(|layer| layer.saturation == Some(0.0)), "{report}");
    }
}

#[test]
fn input_codings_differ_in_offset_and_step() {
    let model = model(2, vec![node("y", dense(2, &[1.0, 2.0], &[0.0]), &[0], 1)]);
    let quantize = |input_coding, sample: [f32; 2]| {
        quantize(&model, &[sample.to_vec()], &QuantOptions { input_coding, ..QuantOptions::default() }).map(|(graph, _)| graph)
    };
    let signed = quantize(InputCoding::Signed, [0.5, 1.0]).unwrap();
    assert_eq!((signed.input.offset, signed.input.scale), (128, 1.0 / 127.0));
    assert_eq!(signed.quantize_input(&[0.0, 1.0, -9.0, f32::NAN]), [128, 255, 0, 128]);
    let unsigned = quantize(InputCoding::Unsigned, [0.5, 1.0]).unwrap();
    assert_eq!((unsigned.input.offset, unsigned.input.scale), (0, 1.0 / 255.0));
    assert_eq!(unsigned.quantize_input(&[0.0, 1.0, -9.0]), [0, 255, 0]);
    assert_eq!(quantize(InputCoding::Unsigned, [-0.5, 1.0]), Err(QuantError::NegativeInput { index: 0 }));
}

#[test]
fn dead_channels_and_silent_networks_stay_provable() {
    // Row 0 is ordinary; row 1 has tiny weights and an ordinary bias; row 2 is all zero.
    let weights = [0.5, -0.5, 1e-30, 1e-35, 0.0, 0.0];
    let nodes = vec![
        node("h", dense(2, &weights, &[0.1, -0.7, 0.0]), &[0], 3),
        node("relu", Op::Relu, &[1], 3),
        node("y", dense(3, &[1.0, 1.0, 1.0], &[0.0]), &[2], 1),
    ];
    let (graph, report) = quantize(&model(2, nodes), &samples(10, 2), &QuantOptions::default()).unwrap();
    assert!(report.layers[1].snr_db.unwrap() > 30.0, "{report}");
    let QuantOp::Dense(first) = &graph.layers[0].op else { unreachable!() };
    assert!(first.bias_bits <= 25 && first.bias[1] < -1_000_000, "{:?}", first.bias);

    let silent =
        vec![node("h", dense(2, &[0.0; 4], &[0.0; 2]), &[0], 2), node("relu", Op::Relu, &[1], 2), node("sum", Op::Add, &[2, 0], 2)];
    let silent = model(2, silent);
    let (graph, _) = quantize(&silent, &[vec![0.0, 0.0]], &QuantOptions::default()).unwrap();
    let activations = execute(&graph, &[128, 128]).unwrap();
    assert_eq!(activations.tensor(graph.output.tensor), [0, 0]);
}

#[test]
fn small_results_of_large_sums_get_a_step_that_cannot_overshoot() {
    // Calibration sees only zeros at the result, whatever the weights: a bound, not calibration, sets its step.
    let nodes = vec![node("h", dense(256, &[100.0; 256], &[0.0]), &[0], 1), node("relu", Op::Relu, &[1], 1)];
    let mut sample = vec![0.0; 256];
    (sample[0], sample[1]) = (1.0, -1.0);
    let (graph, _) = quantize(&model(256, nodes), &[sample], &QuantOptions::default()).unwrap();
    assert!(graph.layers[0].scale > 1e-3);
    assert_eq!(execute(&graph, &[255; 256]).unwrap().tensor(graph.output.tensor), [127]);
}

#[test]
fn clamps_of_shared_tensors_become_layers_of_their_own() {
    let nodes = vec![
        node("h", dense(2, &[1.0, 0.5, -0.25, 1.0], &[0.0, 0.0]), &[0], 2),
        node("relu", Op::Relu, &[1], 2),
        node("y", Op::Add, &[1, 2], 2),
    ];
    let (graph, report) = quantize(&model(2, nodes), &samples(20, 2), &QuantOptions::default()).unwrap();
    let names: Vec<&str> = graph.layers.iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(names, ["h", "relu", "y"]);
    let QuantOp::Add(relu) = &graph.layers[1].op else { panic!("{:?}", graph.layers[1]) };
    assert_eq!((relu.left, relu.right, relu.requant.multipliers[1]), (TensorId(1), TensorId(1), 0));
    assert!(report.layers[2].snr_db.unwrap() > 30.0, "{report}");
}

#[test]
fn quantized_graphs_fuse_to_one_layer_per_matrix() {
    let grid = round(0.25, -127, 127);
    let bias = Bias::Int32 { values: vec![3, -4], scales: vec![0.5 * 0.125] };
    let nodes = vec![
        node("xq", round(0.5, -128, 127), &[0], 2),
        node("h", int8(2, &[1, 2, -3, 4], &[0.125], bias), &[1], 2),
        node("hq", grid.clone(), &[2], 2),
        node("relu", Op::Relu, &[3], 2),
        node("rq", grid.clone(), &[4], 2),
        node("clip", Op::Clip { lo: -1.0, hi: 2.1 }, &[5], 2),
        node("cq", grid, &[6], 2),
    ];
    let model = model(2, nodes);
    let graph = qdq(&model).unwrap();
    assert_eq!(graph.layers.len(), 1);
    assert_eq!((graph.layers[0].name.as_str(), graph.layers[0].scale), ("clip", 0.25));
    assert_eq!(graph.input.offset, 128);
    let QuantOp::Dense(dense) = &graph.layers[0].op else { unreachable!() };
    assert_eq!((dense.bias.as_slice(), dense.bias_bits), ([3, -4].as_slice(), 8));
    let requant = dense.requant.as_ref().unwrap();
    // m = 0.5·0.125/0.25 = 1/4, clamped to 0 … round(2.1/0.25).
    assert_eq!((requant.multipliers.as_slice(), requant.shift, requant.mult_bits), ([1 << 30; 2].as_slice(), 32, 31));
    assert_eq!((requant.lo, requant.hi), (0, 8));
    for (input, bytes) in [([1.5f32, -2.5], [131u8, 123]), ([30.0, 40.0], [188, 208])] {
        assert_eq!(graph.quantize_input(&input), bytes);
        let values = evaluate(&model, &input, Rounding::Apply).unwrap();
        let output = execute(&graph, &bytes).unwrap();
        assert_eq!(graph.dequantize_output(output.tensor(graph.output.tensor)), *values.last().unwrap());
    }
}

#[test]
fn changes_of_scale_become_layers() {
    let nodes = vec![
        node("xq", round(0.5, -128, 127), &[0], 2),
        node("finer", round(0.25, -128, 127), &[1], 2),
        node("y", Op::Add, &[1, 2], 2),
        node("yq", round(1.0, -128, 127), &[3], 2),
    ];
    let graph = qdq(&model(2, nodes)).unwrap();
    let names: Vec<&str> = graph.layers.iter().map(|layer| layer.name.as_str()).collect();
    assert_eq!(names, ["finer", "y"]);
    assert_eq!(execute(&graph, &[128 + 3, 128 - 100]).unwrap().tensors[1..], [vec![6, -128], vec![3, -82]]);
}

#[test]
fn networks_that_are_not_quantized_throughout_name_every_gap() {
    let (x, bias) = (round(0.5, -128, 127), || Bias::Float(vec![0.0]));
    let gaps = vec![
        node("xq", x.clone(), &[0], 1),
        node("a", int8(1, &[1], &[0.125], bias()), &[1], 1),
        node("b", int8(1, &[1], &[0.125], bias()), &[2], 1),
        node("c", dense(1, &[1.0], &[0.0]), &[1], 1),
        node("cq", x.clone(), &[4], 1),
        node("raw", Op::Add, &[0, 1], 1),
        node("y", Op::Add, &[3, 5], 1),
    ];
    let unquantized = "its input is not quantized: QuantizeLinear and DequantizeLinear must stand before it";
    let expected = [("b", unquantized), ("cq", "the weights before it are not quantized"), ("raw", unquantized)];
    let expected: Vec<(String, String)> = expected.iter().map(|(node, reason)| (node.to_string(), reason.to_string())).collect();
    assert_eq!(problems(&model(1, gaps)), expected);

    let only = |nodes: Vec<Node>| {
        let mut problems = problems(&model(1, nodes));
        assert_eq!(problems.len(), 1, "{problems:?}");
        problems.remove(0).1
    };
    let answer = "the network's answer is not quantized: QuantizeLinear and DequantizeLinear must stand behind it";
    assert_eq!(only(vec![node("xq", x.clone(), &[0], 1), node("s", Op::Add, &[1, 1], 1)]), answer);
    let twice = vec![node("xq", x.clone(), &[0], 1), node("x2", round(0.25, -128, 127), &[0], 1), node("s", Op::Add, &[1, 2], 1)];
    assert_eq!(only([twice, vec![node("sq", x.clone(), &[3], 1)]].concat()), "the network's input is quantized in two ways");
    let clamped = vec![node("relu", Op::Relu, &[0], 1), node("xq", x.clone(), &[1], 1), node("s", Op::Add, &[2, 2], 1)];
    assert_eq!(only([clamped, vec![node("sq", x.clone(), &[3], 1)]].concat()), "it clamps the network's input before that is quantized");
    let constant = vec![node("xq", x.clone(), &[0], 1), node("low", Op::Clip { lo: 1e9, hi: 2e9 }, &[1], 1)];
    assert_eq!(only([constant, vec![node("lq", x.clone(), &[2], 1)]].concat()), "its result is constant");
    let heavy = Bias::Float(vec![1e9]);
    let heavy = vec![node("xq", x.clone(), &[0], 1), node("y", int8(1, &[1], &[0.125], heavy), &[1], 1)];
    assert_eq!(only(heavy), "bias 0 is too large for the scale of its weights: 16000000000 steps, at most 2147483647 are supported");
    let fine = vec![node("xq", x.clone(), &[0], 1), node("s", Op::Add, &[1, 1], 1), node("sq", round(2f64.powi(-30), -128, 127), &[2], 1)];
    assert_eq!(only(fine), "the step of its result is too small: the accumulator would be multiplied by 5.36870912e8");
    let shared = vec![
        node("xq", x.clone(), &[0], 1),
        node("h", int8(1, &[1], &[0.125], bias()), &[1], 1),
        node("relu", Op::Relu, &[2], 1),
        node("hq", x.clone(), &[2], 1),
        node("rq", x.clone(), &[3], 1),
        node("s", Op::Add, &[4, 5], 1),
        node("y", x, &[6], 1),
    ];
    let reason = "the result that it rounds is also read without being rounded";
    assert_eq!(problems(&model(1, shared)), [("hq".into(), reason.into()), ("rq".into(), reason.into())]);
}

#[test]
fn raw_answers_need_one_scale() {
    let nodes =
        vec![node("xq", round(0.5, -128, 127), &[0], 1), node("y", int8(1, &[1, 2], &[0.125, 0.25], Bias::Float(vec![0.0; 2])), &[1], 2)];
    assert_eq!(problems(&model(1, nodes))[0].1, "the network's answer has one scale per channel; quantize it per tensor");
}

#[test]
fn programs_that_break_a_bound_are_refused() {
    let nodes = vec![
        node("xq", round(1.0, -128, 127), &[0], 256),
        node("h", int8(256, &[1; 256], &[1.0], Bias::Float(vec![0.0])), &[1], 1),
        node("hq", round(0.1, -128, 127), &[2], 1),
    ];
    let source = BoundError::Overshoot { bits: 54, shift: 27 };
    assert_eq!(qdq(&model(256, nodes)), Err(QuantError::Graph(GraphError::Bounds { layer: "h".into(), source })));
}

#[test]
fn callers_mistakes_are_named() {
    let model = residual();
    let run = |calibration: &[Vec<f32>], options: &QuantOptions| quantize(&model, calibration, options).unwrap_err();
    let options = QuantOptions::default();
    assert_eq!(run(&[], &options), QuantError::NoCalibration);
    let source = EvaluateError::InputLength { expected: 5, got: 4 };
    assert_eq!(run(&[vec![0.0; 5], vec![0.0; 4]], &options), QuantError::Calibration { index: 1, source });
    let source = EvaluateError::InputNotFinite { index: 3 };
    assert_eq!(run(&[vec![0.0, 0.0, 0.0, f32::NAN, 0.0]], &options), QuantError::Calibration { index: 0, source });
    let source = EvaluateError::NotFinite { node: "a".into() };
    assert_eq!(run(&[vec![f32::MAX; 5]], &options), QuantError::Calibration { index: 0, source });
    for got in [0, 32] {
        assert_eq!(run(&[vec![0.0; 5]], &QuantOptions { max_mult_bits: got, ..options }), QuantError::MultBits { got });
    }
    let wide = super::tests::model(1, vec![node("wide", dense(1, &[1.0; 65_537], &[0.0; 65_537]), &[0], 65_537)]);
    let source = GraphError::TensorSize { what: "the output of node \"wide\"".into(), got: 65_537 };
    assert_eq!(quantize(&wide, &[vec![1.0]], &options).unwrap_err(), QuantError::Graph(source));
    assert_eq!(quantize_qdq(&model, &[]).unwrap_err(), QuantError::NotQuantized);
    let quantized = super::tests::model(1, vec![node("xq", round(0.5, -128, 127), &[0], 1)]);
    assert_eq!(quantize(&quantized, &[], &options).unwrap_err(), QuantError::AlreadyQuantized);
}

#[test]
fn few_multiplier_bits_cost_accuracy_but_work() {
    let (model, samples) = (residual(), samples(30, 5));
    let (_, fine) = quantize(&model, &samples, &QuantOptions::default()).unwrap();
    let (graph, coarse) = quantize(&model, &samples, &QuantOptions { max_mult_bits: 4, ..QuantOptions::default() }).unwrap();
    assert!(graph.layers.iter().filter_map(super::QuantLayer::requant).all(|requant| requant.mult_bits == 4));
    assert!(coarse.layers[1].snr_db < fine.layers[1].snr_db);
}

#[test]
fn reports_and_graphs_survive_serialization() {
    let (graph, report) = quantize(&residual(), &samples(10, 5), &QuantOptions::default()).unwrap();
    let copy: QuantGraph = serde_json::from_str(&serde_json::to_string(&graph).unwrap()).unwrap();
    assert_eq!(copy, graph);
    let copy: super::QuantReport = serde_json::from_str(&serde_json::to_string(&report).unwrap()).unwrap();
    assert_eq!(copy, report);
    let table = report.to_string();
    assert_eq!(table.lines().count(), 6, "{table}");
    assert!(table.lines().take(5).all(|line| line.chars().count() == table.lines().next().unwrap().chars().count()), "{table}");
    assert!(!format!("{graph:?}").contains("weights"));
}
