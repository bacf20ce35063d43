//! The reference executor against golden vectors, and the accuracy of quantized networks against float on bundled MNIST images.
#![cfg(feature = "prover")]

use std::path::{Path, PathBuf};

use zkinfer_circuits::model::bounds::bit_length;
use zkinfer_circuits::model::evaluate::answer;
use zkinfer_circuits::model::{
    DenseLayer, Granularity, ImportError, ImportLimits, InputCoding, InputSpec, Model, OutputSpec, QuantGraph, QuantLayer, QuantOp,
    QuantOptions, Requant, Rounding, TensorId, evaluate, execute, import_onnx, quantize, quantize_qdq,
};
use zkinfer_circuits::npy::{NpyArray, NpyData, NpyLimits, read_npy};

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models")
}

fn bytes(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn array(path: &Path) -> NpyArray {
    read_npy(&bytes(path), &NpyLimits::default()).unwrap()
}

fn integers(path: &Path) -> Vec<i64> {
    match array(path).data {
        NpyData::I8(values) => values.into_iter().map(i64::from).collect(),
        NpyData::U8(values) => values.into_iter().map(i64::from).collect(),
        NpyData::I32(values) => values.into_iter().map(i64::from).collect(),
        NpyData::I64(values) => values,
        NpyData::F32(_) | NpyData::F64(_) => panic!("{} holds no integers", path.display()),
    }
}

fn import(path: &str) -> Model {
    import_onnx(&bytes(&models().join(path)), &ImportLimits::default()).unwrap()
}

/// A layer of the golden scheme: per channel shifts are brought to the largest by scaling the multipliers.
fn golden_layer(folder: &Path, layer_idx: usize, is_final: bool) -> QuantLayer {
    let read = |part: &str| integers(&folder.join(format!("L{layer_idx}.{part}.npy")));
    let shape = array(&folder.join(format!("L{layer_idx}.w.npy"))).shape;
    let bias = read("b");
    let (multipliers, shifts) = (read("M"), read("S"));
    let shift = *shifts.iter().max().unwrap();
    let multipliers: Vec<u32> =
        multipliers.iter().zip(&shifts).map(|(&multiplier, own)| u32::try_from(multiplier << (shift - own)).unwrap()).collect();
    let mult_bits = bit_length(u128::from(*multipliers.iter().max().unwrap()));
    let bias_bits = bias.iter().map(|bias| bit_length(u128::from(bias.unsigned_abs()))).max().unwrap().max(8);
    let requant = (!is_final).then_some(Requant { multipliers, shift: shift as u32, lo: 0, hi: 127, mult_bits });
    let weights = read("w").into_iter().map(|weight| weight as i8).collect();
    let dense = DenseLayer { input: TensorId(layer_idx), n_in: shape[1], n_out: shape[0], weights, bias, bias_bits, requant };
    QuantLayer { name: format!("L{layer_idx}"), op: QuantOp::Dense(dense), scale: 1.0 }
}

fn golden_graph(folder: &Path) -> QuantGraph {
    let layers: Vec<QuantLayer> = (0..3).map(|layer_idx| golden_layer(folder, layer_idx, layer_idx == 2)).collect();
    let QuantOp::Dense(first) = &layers[0].op else { unreachable!() };
    let input = InputSpec { name: "input".into(), shape: vec![1, first.n_in], n_elements: first.n_in, offset: 128, scale: 1.0 };
    let n_out = layers[2].n_outputs();
    let output = OutputSpec { tensor: TensorId(3), name: "output".into(), shape: vec![1, n_out], scale: 1.0 };
    QuantGraph { input, layers, output }
}

#[test]
fn executor_reproduces_every_golden_activation() {
    for model in ["mlp-breast-cancer", "mlp-mnist"] {
        for scheme in ["int8_pt", "int8_pc"] {
            let folder = models().join(model).join("golden").join(scheme);
            let graph = golden_graph(&folder);
            let inputs = integers(&folder.join("q_input.npy"));
            let expected = ["q_input", "act.relu_2", "act.relu_4", "act.output"].map(|name| integers(&folder.join(format!("{name}.npy"))));
            assert_eq!(expected[3], integers(&folder.join("q_output.npy")));
            let n_samples = inputs.len() / graph.input.n_elements;
            assert_eq!(n_samples, 4);
            for (sample_idx, input) in inputs.chunks_exact(graph.input.n_elements).enumerate() {
                let input: Vec<u8> = input.iter().map(|value| u8::try_from(value + 128).unwrap()).collect();
                let activations = execute(&graph, &input).unwrap();
                for (tensor, expected) in activations.tensors.iter().zip(&expected) {
                    let expected = &expected[sample_idx * tensor.len()..(sample_idx + 1) * tensor.len()];
                    assert_eq!(tensor, expected, "{model} {scheme} sample {sample_idx}");
                }
            }
        }
    }
}

#[test]
fn float_executor_agrees_with_the_recorded_outputs() {
    for model in ["mlp-breast-cancer", "mlp-mnist"] {
        let network = import(&format!("{model}/model.onnx"));
        let inputs = array(&models().join(model).join("inputs.npy")).to_samples(network.n_inputs()).unwrap();
        let n_outputs = network.n_elements(network.output);
        let outputs = array(&models().join(model).join("outputs.npy")).to_samples(n_outputs).unwrap();
        assert_eq!(inputs.len(), 20);
        for (input, expected) in inputs.iter().zip(&outputs) {
            let values = evaluate(&network, input, Rounding::Apply).unwrap();
            for (got, expected) in answer(&network, &values).iter().zip(expected) {
                assert!((got - expected).abs() < 1e-4, "{model}: {got} instead of {expected}");
            }
        }
    }
}

struct Mnist {
    images: Vec<Vec<f32>>,
    labels: Vec<i64>,
    calibration: Vec<Vec<f32>>,
}

fn mnist() -> Mnist {
    let images = |file: &str| {
        let images = array(&models().join("mnist").join(file)).to_samples(784).unwrap();
        images.into_iter().map(|image| image.into_iter().map(|pixel| pixel / 255.0).collect()).collect()
    };
    let labels = integers(&models().join("mnist/test-labels.npy"));
    Mnist { images: images("test-images.npy"), labels, calibration: images("calibration-images.npy") }
}

fn argmax<T: PartialOrd + Copy>(values: &[T]) -> i64 {
    let mut best = 0;
    for (index, value) in values.iter().enumerate() {
        if *value > values[best] {
            best = index;
        }
    }
    best as i64
}

fn share(hits: usize, of: usize) -> f64 {
    hits as f64 / of as f64
}

fn float_accuracy(model: &Model, mnist: &Mnist, rounding: Rounding) -> f64 {
    let is_right = |image: &[f32], label: i64| argmax(answer(model, &evaluate(model, image, rounding).unwrap())) == label;
    let hits = mnist.images.iter().zip(&mnist.labels).filter(|(image, label)| is_right(image, **label)).count();
    share(hits, mnist.images.len())
}

fn integer_accuracy(graph: &QuantGraph, mnist: &Mnist) -> f64 {
    let is_right = |image: &[f32], label: i64| {
        let activations = execute(graph, &graph.quantize_input(image)).unwrap();
        argmax(activations.tensor(graph.output.tensor)) == label
    };
    let hits = mnist.images.iter().zip(&mnist.labels).filter(|(image, label)| is_right(image, **label)).count();
    share(hits, mnist.images.len())
}

/// Dataset: the first 1000 MNIST test images; metric: top-1 accuracy; tolerance: 0.3 points.
#[test]
fn quantized_mnist_is_within_a_third_of_a_point_of_float() {
    let mnist = mnist();
    assert_eq!((mnist.images.len(), mnist.labels.len(), mnist.calibration.len()), (1000, 1000, 128));
    let float = import("mlp-mnist/model.onnx");
    let reference = float_accuracy(&float, &mnist, Rounding::Apply);
    assert_eq!(reference, 0.98);
    for granularity in [Granularity::PerTensor, Granularity::PerChannel] {
        for input_coding in [InputCoding::Signed, InputCoding::Unsigned] {
            let options = QuantOptions { granularity, input_coding, ..QuantOptions::default() };
            let (graph, report) = quantize(&float, &mnist.calibration, &options).unwrap();
            let accuracy = integer_accuracy(&graph, &mnist);
            assert!((accuracy - reference).abs() <= 0.003, "{options:?}: {accuracy} instead of {reference}");
            assert_eq!(graph.layers.len(), 3);
            assert!(report.layers.iter().all(|layer| layer.snr_db.unwrap() > 25.0), "{report}");
            assert!(report.layers.iter().all(|layer| layer.saturation == Some(0.0)), "{report}");
            assert_eq!((report.n_parameters, report.n_macs), (109_386, 109_184));
        }
    }
}

#[test]
fn qdq_mnist_is_taken_as_it_is() {
    let mnist = mnist();
    let model = import("mlp-mnist/model_int8_qdq.onnx");
    assert!(model.is_qdq());
    let (graph, report) = quantize_qdq(&model, &mnist.calibration).unwrap();
    assert!(report.layers.iter().all(|layer| layer.snr_db.unwrap() > 30.0), "{report}");
    assert_eq!(graph.layers.iter().map(|layer| layer.name.as_str()).collect::<Vec<&str>>(), ["n2_Relu", "n4_Relu", "n5_Gemm"]);
    let accuracy = integer_accuracy(&graph, &mnist);
    // 0.981 is also what the runtime that wrote the file measures on these images.
    assert_eq!(accuracy, 0.981);
    assert_eq!(float_accuracy(&model, &mnist, Rounding::Apply), 0.981);
    assert!((accuracy - float_accuracy(&import("mlp-mnist/model.onnx"), &mnist, Rounding::Apply)).abs() <= 0.003);
    // The float executor with rounding computes the same integers, but for quotients that lie next to a tie.
    let mut n_different = 0;
    for image in &mnist.images {
        let values = evaluate(&model, image, Rounding::Apply).unwrap();
        let integers = execute(&graph, &graph.quantize_input(image)).unwrap();
        for (&float, &integer) in answer(&model, &values).iter().zip(integers.tensor(graph.output.tensor)) {
            let steps = (f64::from(float) / graph.output.scale).round() as i64;
            assert!((steps - integer).abs() <= 1);
            n_different += usize::from(steps != integer);
        }
    }
    assert!(n_different <= 10, "{n_different} of 10000 outputs differ");
}

/// Integers of the program against those of the runtime that wrote the file. The runtime multiplies by m in f32, the program by
/// M / 2^s: at a tie, or beside one, they may differ by one step.
fn assert_agrees_with_runtime(folder: &str, n_layers: usize) {
    let model = import(&format!("{folder}/model_uint8_per_channel_qdq.onnx"));
    let (graph, _) = quantize_qdq(&model, &[]).unwrap();
    assert_eq!(graph.layers.len(), n_layers);
    let inputs = array(&models().join("mlp-breast-cancer/inputs.npy")).to_samples(30).unwrap();
    let outputs = array(&models().join(folder).join("outputs_uint8_per_channel_qdq.npy")).to_samples(2).unwrap();
    assert_eq!((inputs.len(), outputs.len()), (20, 20));
    let mut n_different = 0;
    for (input, expected) in inputs.iter().zip(&outputs) {
        let activations = execute(&graph, &graph.quantize_input(input)).unwrap();
        for (&integer, &expected) in activations.tensor(graph.output.tensor).iter().zip(expected) {
            let expected = (f64::from(expected) / graph.output.scale).round() as i64;
            assert!((integer - expected).abs() <= 1, "{folder}: {integer} instead of {expected}");
            n_different += usize::from(integer != expected);
        }
    }
    assert!(n_different <= 2, "{folder}: {n_different} of 40 outputs differ");
}

#[test]
fn qdq_with_zero_points_and_channels_agrees_with_the_runtime() {
    assert_agrees_with_runtime("mlp-breast-cancer", 3);
    assert_agrees_with_runtime("residual", 4);
}

#[test]
fn residual_network_is_close_to_float_in_both_ways() {
    let float = import("residual/model.onnx");
    let samples = array(&models().join("mlp-breast-cancer/inputs.npy")).to_samples(30).unwrap();
    let (graph, report) = quantize(&float, &samples, &QuantOptions::default()).unwrap();
    assert_eq!(graph.layers.len(), 4);
    assert!(report.layers.iter().all(|layer| layer.snr_db.unwrap() > 30.0), "{report}");
    let (_, report) = quantize_qdq(&import("residual/model_uint8_per_channel_qdq.onnx"), &samples).unwrap();
    assert!(report.layers.iter().all(|layer| layer.snr_db.unwrap() > 30.0), "{report}");
}

#[test]
fn a_rounding_between_matrix_and_bias_is_refused_with_advice() {
    let file = bytes(&models().join("residual/model_matmul_add_qdq.onnx"));
    let Err(ImportError::Unsupported { nodes }) = import_onnx(&file, &ImportLimits::default()) else { panic!("accepted") };
    assert_eq!(nodes.len(), 1);
    assert_eq!((nodes[0].name.as_str(), nodes[0].operator.as_str()), ("b1_DequantizeLinear", "DequantizeLinear"));
    assert!(nodes[0].reason.contains("quant_pre_process"), "{}", nodes[0].reason);
}
