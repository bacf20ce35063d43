//! Property tests: the executor against a naive evaluation, quantization of random networks, and hostile bytes.
#![cfg(feature = "prover")]

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use zkinfer_circuits::model::network::{Bias, Dense, Model, Node, Op, ValueId, ValueSpec, Weights};
use zkinfer_circuits::model::{
    AddLayer, DenseLayer, Granularity, GraphError, ImportLimits, InputCoding, InputSpec, OutputSpec, QuantError, QuantGraph, QuantLayer,
    QuantOp, QuantOptions, Requant, TensorId, execute, import_onnx, quantize, quantize_qdq,
};
use zkinfer_circuits::npy::{NpyLimits, read_npy};

static ONNX_FILES: LazyLock<Vec<Vec<u8>>> = LazyLock::new(|| {
    let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models");
    let files = ["residual/model.onnx", "residual/model_uint8_per_channel_qdq.onnx", "mlp-breast-cancer/model_uint8_per_channel_qdq.onnx"];
    files.iter().map(|file| std::fs::read(models.join(file)).unwrap()).collect()
});

fn requant(n: usize) -> impl Strategy<Value = Requant> {
    let range = (-128i64..=127, 1i64..=255);
    (prop::collection::vec(0u32..1 << 20, n), 24u32..=39, range).prop_map(|(multipliers, shift, (lo, width))| {
        let hi = (lo + width).min(255);
        Requant { multipliers, shift, lo, hi, mult_bits: 20 }
    })
}

/// A dense layer on tensor `input`; a raw one is the last.
fn dense(input: usize, n_in: usize, n_out: usize, is_raw: bool) -> impl Strategy<Value = QuantLayer> {
    let weights = prop::collection::vec(prop_oneof![any::<i8>(), Just(-128), Just(127), Just(0)], n_in * n_out);
    let bias = prop::collection::vec(-(1i64 << 16) + 1..1 << 16, n_out);
    let requant = if is_raw { Just(None).boxed() } else { requant(n_out).prop_map(Some).boxed() };
    (weights, bias, requant).prop_map(move |(weights, bias, requant)| {
        let dense = DenseLayer { input: TensorId(input), n_in, n_out, weights, bias, bias_bits: 16, requant };
        QuantLayer { name: format!("layer {input}"), op: QuantOp::Dense(dense), scale: 1.0 }
    })
}

/// Dense layers of random widths, with a residual addition behind the second, the last one perhaps raw.
fn graph() -> impl Strategy<Value = (QuantGraph, Vec<u8>)> {
    (1usize..40, 1usize..40, 1usize..9, any::<bool>(), 0i64..=255)
        .prop_flat_map(|(n_in, n_hidden, n_out, is_raw, offset)| {
            let add = requant(2).prop_map(move |requant| {
                let op = QuantOp::Add(AddLayer { left: TensorId(1), right: TensorId(2), n: n_hidden, requant });
                QuantLayer { name: "sum".into(), op, scale: 1.0 }
            });
            let layers = (dense(0, n_in, n_hidden, false), dense(1, n_hidden, n_hidden, false), add, dense(3, n_hidden, n_out, is_raw));
            let bytes = prop::collection::vec(any::<u8>(), n_in);
            (layers, bytes).prop_map(move |((first, second, sum, last), bytes)| {
                let input = InputSpec { name: "x".into(), shape: vec![1, n_in], n_elements: n_in, offset, scale: 1.0 };
                let output = OutputSpec { tensor: TensorId(4), name: "y".into(), shape: vec![1, n_out], scale: 1.0 };
                (QuantGraph { input, layers: vec![first, second, sum, last], output }, bytes)
            })
        })
        .no_shrink()
}

/// ⌊(v + 2^(s−1)) / 2^s⌋ by division, not by shifting.
fn naive_requant(requant: &Requant, product: i128) -> i64 {
    let divisor = 1i128 << requant.shift;
    let quotient = (product + divisor / 2).div_euclid(divisor) as i64;
    if quotient < requant.lo {
        requant.lo
    } else if quotient > requant.hi {
        requant.hi
    } else {
        quotient
    }
}

fn naive_layer(layer: &QuantLayer, tensors: &[Vec<i64>]) -> Vec<i64> {
    match &layer.op {
        QuantOp::Add(add) => (0..add.n)
            .map(|element| {
                let term =
                    |port: usize, tensor: TensorId| i128::from(tensors[tensor.0][element]) * i128::from(add.requant.multipliers[port]);
                naive_requant(&add.requant, term(0, add.left) + term(1, add.right))
            })
            .collect(),
        QuantOp::Dense(dense) => (0..dense.n_out)
            .map(|row| {
                let mut accumulator = i128::from(dense.bias[row]);
                for (column, &x) in tensors[dense.input.0].iter().enumerate() {
                    accumulator += i128::from(dense.weights[row * dense.n_in + column]) * i128::from(x);
                }
                match &dense.requant {
                    None => accumulator as i64,
                    Some(requant) => naive_requant(requant, accumulator * i128::from(requant.multipliers[row])),
                }
            })
            .collect(),
    }
}

/// A float network `dense → relu → dense → + → relu → dense` of random widths and magnitudes.
fn network() -> impl Strategy<Value = (Model, Vec<Vec<f32>>)> {
    (1usize..20, 1usize..20, 1usize..6, -6i32..6)
        .prop_flat_map(|(n_in, n_hidden, n_out, magnitude)| {
            let dense = move |n_in: usize, n_out: usize| {
                let value = prop_oneof![4 => -1f32..1.0, 1 => Just(0.0), 1 => -1e-6f32..1e-6];
                let weights = prop::collection::vec(value, n_in * n_out);
                (weights, prop::collection::vec(-1f32..1.0, n_out)).prop_map(move |(weights, bias)| {
                    let weights = Weights::Float(weights.into_iter().map(|weight| weight * 10f32.powi(magnitude)).collect());
                    Op::Dense(Dense { n_in, n_out, weights, bias: Bias::Float(bias) })
                })
            };
            let samples = prop::collection::vec(prop::collection::vec(-2f32..2.0, n_in), 1..5);
            (dense(n_in, n_hidden), dense(n_hidden, n_hidden), dense(n_hidden, n_out), samples).prop_map(
                move |(first, second, last, samples)| {
                    let ops = [
                        (first, vec![0]),
                        (Op::Relu, vec![1]),
                        (second, vec![2]),
                        (Op::Add, vec![2, 3]),
                        (Op::Relu, vec![4]),
                        (last, vec![5]),
                    ];
                    let node = |(index, (op, inputs)): (usize, (Op, Vec<usize>))| Node {
                        name: format!("n{index}"),
                        op,
                        inputs: inputs.into_iter().map(ValueId).collect(),
                        n_elements: if index == 5 { n_out } else { n_hidden },
                    };
                    let nodes = ops.into_iter().enumerate().map(node).collect();
                    let spec = |name: &str, n: usize| ValueSpec { name: name.into(), shape: vec![1, n] };
                    (Model { input: spec("x", n_in), nodes, output: ValueId(6), output_spec: spec("y", n_out) }, samples)
                },
            )
        })
        .no_shrink()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn executor_agrees_with_the_naive_one((graph, bytes) in graph()) {
        match execute(&graph, &bytes) {
            Ok(activations) => {
                let mut tensors = vec![bytes.iter().map(|&byte| i64::from(byte) - graph.input.offset).collect::<Vec<i64>>()];
                for layer in &graph.layers {
                    tensors.push(naive_layer(layer, &tensors));
                }
                prop_assert_eq!(&activations.tensors, &tensors);
                for (tensor, layer) in activations.tensors[1..].iter().zip(&graph.layers) {
                    if let Some(requant) = layer.requant() {
                        prop_assert!(tensor.iter().all(|value| (requant.lo..=requant.hi).contains(value)));
                    }
                }
            }
            Err(error) => prop_assert!(false, "{:?}", error),
        }
    }

    #[test]
    fn every_float_network_quantizes_to_a_valid_program((model, samples) in network(), per_tensor in any::<bool>(), max_mult_bits in 1u32..=31) {
        let granularity = if per_tensor { Granularity::PerTensor } else { Granularity::PerChannel };
        let options = QuantOptions { granularity, input_coding: InputCoding::Signed, max_mult_bits };
        let (graph, report) = quantize(&model, &samples, &options).unwrap();
        prop_assert_eq!(graph.validate(), Ok(()));
        prop_assert_eq!(report.layers.len(), 4);
        for extreme in [0u8, 255] {
            prop_assert!(execute(&graph, &vec![extreme; graph.input.n_elements]).is_ok());
        }
    }

    #[test]
    fn wide_parameters_are_refused_exactly_when_the_inequality_fails(
        n_in in 1usize..300, mult_bits in 1u32..=31, bias_bits in 8u32..=31, shift in 8u32..=39, lo in -255i64..0, offset in 0i64..=255,
    ) {
        let requant = Requant { multipliers: vec![0], shift, lo, hi: lo + 255, mult_bits };
        let (weights, input) = (vec![0; n_in], TensorId(0));
        let op = QuantOp::Dense(DenseLayer { input, n_in, n_out: 1, weights, bias: vec![0], bias_bits, requant: Some(requant) });
        let input = InputSpec { name: "x".into(), shape: vec![n_in], n_elements: n_in, offset, scale: 1.0 };
        let output = OutputSpec { tensor: TensorId(1), name: "y".into(), shape: vec![1], scale: 1.0 };
        let graph = QuantGraph { input, layers: vec![QuantLayer { name: "h".into(), op, scale: 1.0 }], output };
        // The formulas of docs/PROTOCOL.md §1, over the reals.
        let a = (n_in as f64 * offset.max(255 - offset) as f64 * 128.0 + 2f64.powi(bias_bits as i32)) * 2f64.powi(mult_bits as i32);
        let power = 2f64.powi(shift as i32);
        let no_wrap = power * (lo.abs().max(lo + 255) as f64 + 16_777_217.0) + a + power / 2.0 < 18_446_744_069_414_584_321.0;
        let is_safe = no_wrap && a / power < 16_777_216.0;
        match graph.validate() {
            Ok(()) => prop_assert!(is_safe),
            Err(GraphError::Bounds { .. }) => prop_assert!(!is_safe),
            Err(error) => prop_assert!(false, "{:?}", error),
        }
    }

    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(import_onnx(&bytes, &ImportLimits::default()).is_err());
        prop_assert!(read_npy(&bytes, &NpyLimits::default()).is_err());
    }

    #[test]
    fn mutated_npy_files_never_panic(position in 0usize..140, value in any::<u8>(), cut in 0usize..160) {
        let mut bytes = b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }".to_vec();
        bytes.resize(127, b' ');
        bytes.push(b'\n');
        bytes.extend([0; 16]);
        prop_assert!(read_npy(&bytes, &NpyLimits::default()).is_ok());
        bytes[position] = value;
        bytes.truncate(cut.max(1));
        if let Ok(array) = read_npy(&bytes, &NpyLimits::default()) {
            prop_assert!(array.n_elements() <= 16);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mutated_onnx_files_never_panic(
        file_idx in 0usize..3, edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..6),
    ) {
        let mut bytes = ONNX_FILES[file_idx].clone();
        for (index, value, kind) in edits {
            let position = index.index(bytes.len());
            match kind {
                0 => bytes[position] = value,
                1 => bytes.insert(position, value),
                2 => { bytes.remove(position); }
                _ => { let end = (position + usize::from(value)).min(bytes.len()); bytes.drain(position..end); }
            }
            if bytes.is_empty() { bytes.push(value); }
        }
        // Whatever is imported can also be quantized, or is refused.
        if let Ok(model) = import_onnx(&bytes, &ImportLimits::default()) {
            let sample = vec![vec![0.5; model.n_inputs().min(1 << 20)]];
            let result = if model.is_qdq() { quantize_qdq(&model, &sample) } else { quantize(&model, &sample, &QuantOptions::default()) };
            match result {
                Ok((graph, _)) => prop_assert_eq!(graph.validate(), Ok(())),
                Err(QuantError::NotQuantized | QuantError::AlreadyQuantized) => prop_assert!(false),
                Err(_) => {}
            }
        }
    }
}
