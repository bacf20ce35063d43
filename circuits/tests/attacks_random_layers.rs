//! Random dense layers: proved and verified, with the outputs of a naive evaluation.
#![cfg(feature = "prover")]
#![allow(missing_docs)]

mod support;

use rand::{Rng, SeedableRng, rngs::StdRng};
use support::forge::attack_config;
use support::{Layer, columns, dense_spec, prove_columns, random_dense};
use zkinfer_circuits::backend::reference::Reference;
use zkinfer_circuits::kind::Role;
use zkinfer_circuits::layer::{LayerShape, LayerSpec, OutputRule, verify};
use zkinfer_circuits::ops::trace::LayerConstants;

/// log_rows, log_period, C, inputs, outputs, raw.
const SHAPES: [(usize, usize, usize, usize, usize, bool); 14] = [
    (8, 0, 1, 1, 1, false),
    (8, 1, 1, 2, 128, false),
    (8, 8, 1, 255, 1, false),
    (8, 8, 3, 256, 3, false),
    (8, 7, 5, 127, 9, true),
    (8, 3, 3, 7, 80, false),
    (9, 9, 16, 257, 16, false),
    (9, 8, 7, 129, 13, false),
    (9, 6, 9, 63, 71, false),
    (9, 9, 2, 512, 1, true),
    (10, 10, 64, 600, 64, false),
    (10, 9, 32, 511, 63, false),
    (10, 5, 2, 31, 64, true),
    (8, 0, 2, 1, 256, false),
];

fn random_layer(case: usize) -> Layer {
    let (log_rows, log_period, n_columns, n_inputs, n_outputs, raw) = SHAPES[case];
    let mut rng = StdRng::seed_from_u64(case as u64);
    let lo = rng.gen_range(-200..=100);
    let output =
        if raw { OutputRule::Raw } else { OutputRule::Requantize { shift: rng.gen_range(18..=30), lo, hi: lo + rng.gen_range(1..=255) } };
    let mut layer = random_dense(dense_spec(log_rows, log_period, n_columns, n_inputs, n_outputs, output), 100 + case as u64);
    extremes(&mut layer, case, &mut rng);
    layer
}

/// Every third layer holds only extreme values.
fn extremes(layer: &mut Layer, case: usize, rng: &mut StdRng) {
    if !case.is_multiple_of(3) {
        return;
    }
    if let LayerConstants::Dense(constants) = &mut layer.constants {
        constants.weights.iter_mut().for_each(|w| *w = [-128, 127, -127][rng.gen_range(0..3)]);
        constants.bias.iter_mut().for_each(|b| *b = [-(1 << 16), (1 << 16) - 1, 0][rng.gen_range(0..3)]);
        constants.multipliers.iter_mut().for_each(|m| *m = [0, 1, (1 << 16) - 1][rng.gen_range(0..3)]);
    }
    layer.inputs[0].iter_mut().for_each(|x| *x = [-128, 127, -127][rng.gen_range(0..3)]);
}

/// The equation of the layer, one output at a time, with division in place of shifts.
fn naive(layer: &Layer) -> Vec<i64> {
    let LayerConstants::Dense(constants) = &layer.constants else { panic!("a dense layer") };
    let LayerSpec { n_inputs, n_outputs, output, .. } = layer.spec;
    let mut outputs = Vec::new();
    for o in 0..n_outputs {
        let mut accumulator = i128::from(constants.bias[o]);
        for i in 0..n_inputs {
            accumulator += i128::from(constants.weights[o * n_inputs + i]) * i128::from(layer.inputs[0][i]);
        }
        let value = match output {
            OutputRule::Raw => accumulator,
            OutputRule::Requantize { shift, lo, hi } => {
                let divisor = 1i128 << shift;
                let scaled = accumulator * i128::from(constants.multipliers[o]);
                (scaled + divisor / 2).div_euclid(divisor).clamp(lo.into(), hi.into())
            }
        };
        outputs.push(value as i64);
    }
    outputs
}

fn prove_and_compare(case: usize) {
    let layer = random_layer(case);
    layer.spec.check_shape().expect("a valid shape");
    layer.spec.check_no_wrap([128, 0]).expect("no wrap");
    for role in [Role::Inference, Role::Registration] {
        let shape = LayerShape::new(layer.spec.kind, role, &attack_config());
        let (weights, main, output) = columns(&layer, &shape);
        if role == Role::Inference {
            assert_eq!(output, naive(&layer), "case {case}");
        }
        let (claim, proof) = prove_columns(&Reference, &layer, &shape, &weights, &main, &output);
        assert_eq!(verify(&shape, &claim, &proof), Ok(()), "case {case} {role:?}");
    }
}

#[test]
fn random_layers_of_even_cases_verify_with_naive_outputs() {
    (0..SHAPES.len()).step_by(2).for_each(prove_and_compare);
}

#[test]
fn random_layers_of_odd_cases_verify_with_naive_outputs() {
    (1..SHAPES.len()).step_by(2).for_each(prove_and_compare);
}
