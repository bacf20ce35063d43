//! Tests of the compiler: kinds, folding, edges, widths, and agreement of the compiled trace with the reference executor.

use super::*;
use crate::model::graph::{AddLayer, DenseLayer, InputSpec, OutputSpec};
use crate::model::{Activations, execute};
use crate::ops::trace::{main_columns, registration_columns, system_of, weight_columns};
use crate::recursion::kinds::{add, dense};
use proptest::prelude::*;

fn requant(n: usize) -> Requant {
    Requant { multipliers: vec![1 << 14; n], shift: 24, lo: -128, hi: 127, mult_bits: 15 }
}

fn dense_layer(name: &str, input: usize, n_in: usize, n_out: usize) -> QuantLayer {
    let weights = (0..n_in * n_out).map(|i| (i * 37 % 255) as u8 as i8).collect();
    let bias = (0..n_out).map(|i| i as i64 * 91 % 5000 - 300).collect();
    let op = DenseLayer { input: TensorId(input), n_in, n_out, weights, bias, bias_bits: 17, requant: Some(requant(n_out)) };
    QuantLayer { name: name.into(), op: QuantOp::Dense(op), scale: 1.0 }
}

fn graph(layers: Vec<QuantLayer>, n_inputs: usize) -> QuantGraph {
    let n_outputs = layers.last().map_or(0, QuantLayer::n_outputs);
    QuantGraph {
        input: InputSpec { name: "x".into(), shape: vec![1, n_inputs], n_elements: n_inputs, offset: 128, scale: 0.5 },
        output: OutputSpec { tensor: TensorId(layers.len()), name: "y".into(), shape: vec![1, n_outputs], scale: 1.0 },
        layers,
    }
}

fn residual() -> QuantGraph {
    let op = AddLayer { left: TensorId(1), right: TensorId(2), n: 12, requant: requant(2) };
    let sum = QuantLayer { name: "sum".into(), op: QuantOp::Add(op), scale: 1.0 };
    graph(vec![dense_layer("a", 0, 30, 12), dense_layer("b", 1, 12, 12), sum, dense_layer("c", 3, 12, 3)], 30)
}

/// Every layer's trace on an input, which must agree with the executor; registration traces too.
fn check_traces(graph: &QuantGraph, compiled: &Compiled, input: &[u8]) {
    let Activations { tensors, .. } = execute(graph, input).unwrap();
    let wiring = compiled.program.check().unwrap();
    for (layer, (spec, constants)) in compiled.program.layers.iter().zip(&compiled.constants).enumerate() {
        let weights = weight_columns(spec, constants);
        let mut inputs: [&[i64]; 2] = [&[], &[]];
        for (slot, &tensor) in inputs.iter_mut().zip(&wiring.reads[layer]) {
            *slot = &tensors[tensor];
        }
        let (_, output) = main_columns(&system_of(spec, Role::Inference), spec, constants, &weights, inputs).unwrap();
        assert_eq!(output, tensors[layer + 1], "layer {layer}");
        registration_columns(&system_of(spec, Role::Registration), spec, &weights).unwrap();
    }
}

#[test]
fn a_model_that_fits_a_leaf_as_a_whole_takes_its_kinds() {
    let layers = vec![dense_layer("a", 0, 784, 128), dense_layer("b", 1, 128, 64), dense_layer("c", 2, 64, 10)];
    let compiled = compile(&graph(layers, 784)).unwrap();
    assert_eq!(compiled.program.kinds(), [dense(10, 128), dense(8, 64), dense(8, 16)]);
    assert!(groups().iter().any(|group| group.layers == compiled.program.kinds()));
    assert_eq!(compiled.program.layers.iter().map(|layer| layer.log_period).collect::<Vec<_>>(), [10, 8, 8]);
    assert_eq!(compiled.input.zero_point, 128);
}

#[test]
fn more_outputs_than_columns_are_folded() {
    let compiled = compile(&graph(vec![dense_layer("a", 0, 60, 200)], 60)).unwrap();
    let layer = &compiled.program.layers[0];
    assert_eq!((layer.kind, layer.log_period), (dense(8, 64), 6));
    check_traces(&graph(vec![dense_layer("a", 0, 60, 200)], 60), &compiled, &[200; 60]);
}

#[test]
fn edges_are_numbered_tensor_by_tensor() {
    let compiled = compile(&residual()).unwrap();
    let edges: Vec<_> = compiled.program.layers.iter().map(|l| (l.edges_in, l.edge_out, l.fan_out)).collect();
    assert_eq!(edges, [([1, 0], 2, 2), ([2, 0], 4, 1), ([3, 4], 5, 1), ([5, 0], 6, 1)]);
    let boundary = compiled.program.boundary;
    assert_eq!((boundary.first_input_edge, boundary.input_fan_out, boundary.output_edge), (1, 1, 6));
    assert_eq!(compiled.program.layers[2].kind, add(8));
    check_traces(&residual(), &compiled, &[7; 30]);
}

#[test]
fn widths_are_rounded_up_unless_an_equation_could_wrap() {
    let compiled = compile(&residual()).unwrap();
    assert_eq!((compiled.program.layers[0].bias_bits, compiled.program.layers[0].mult_bits), (20, 16));
    let mut tight = residual();
    let QuantOp::Dense(layer) = &mut tight.layers[0].op else { panic!("dense") };
    // 2^17 · 2^25 / 2^18 = 2^24: rounding either width up lets an overshoot exceed its limbs.
    layer.bias_bits = 17;
    *layer.requant.as_mut().unwrap() = Requant { shift: 22, mult_bits: 26, ..requant(12) };
    let spec = compile(&tight).unwrap().program.layers[0].clone();
    assert!(spec.check_no_wrap([128, 0]).is_ok());
    assert!(spec.mult_bits < 28 || spec.bias_bits < 20, "{spec:?}");
}

#[test]
fn names_the_layer_and_the_limit() {
    let error = compile(&graph(vec![dense_layer("wide", 0, 300, 300), dense_layer("big", 1, 300, 40_000)], 300)).unwrap_err();
    let CompileError::DenseSize { layer, limit, .. } = &error else { panic!("{error}") };
    assert_eq!((layer.as_str(), limit.as_str()), ("big", "with 300 inputs it has at most 32768 outputs"));
}

#[test]
fn refuses_a_boundary_without_circuit() {
    let error = compile(&graph(vec![dense_layer("a", 0, 30, 1025)], 30)).unwrap_err();
    assert!(matches!(error, CompileError::Program(ProgramError::Boundary(_))), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    // Any chain of layers within the limits compiles, and its traces agree with the executor.
    #[test]
    fn compiled_chains_agree_with_the_executor(sizes in prop::collection::vec(1usize..300, 2..5), byte in any::<u8>()) {
        let layers = sizes.windows(2).enumerate();
        let layers = layers.map(|(i, pair)| dense_layer(&format!("l{i}"), i, pair[0], pair[1])).collect();
        let graph = graph(layers, sizes[0]);
        let compiled = compile(&graph).unwrap();
        check_traces(&graph, &compiled, &vec![byte; sizes[0]]);
    }
}
