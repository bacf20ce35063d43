//! No wrap: exactly the layers are admitted whose two sides of REQUANT stay below p, and one at the limit is proved.

use rand::{Rng, SeedableRng, rngs::StdRng};
use zkinfer_circuits::field::ORDER;
use zkinfer_circuits::gadgets::requantize::requant_witness;
use zkinfer_circuits::kind::{Operator, Role};
use zkinfer_circuits::layer::{LayerSpec, OutputRule, verify};
use zkinfer_circuits::ops::trace::LayerConstants;

use crate::support::forge::Forgery;
use crate::support::{Layer, dense_spec, random_add, random_dense, requantize};

/// Largest |v| that a layer can scale.
fn largest_scaled(spec: &LayerSpec, max_inputs: [i64; 2]) -> i128 {
    let sum = match spec.kind.operator {
        Operator::Dense => spec.n_inputs as i128 * i128::from(max_inputs[0]) * 128 + (1 << spec.bias_bits),
        Operator::Add => i128::from(max_inputs[0]) + i128::from(max_inputs[1]),
    };
    sum * (1 << spec.mult_bits)
}

/// §1: `2^s·(max(|lo|, |hi|) + 2^24 + 1) + A + 2^(s−1) < p`, and the witness's e stays below 2^24 at both extremes.
fn is_safe(spec: &LayerSpec, max_inputs: [i64; 2]) -> bool {
    let (shift, lo, hi) = spec.requantization();
    let scaled = largest_scaled(spec, max_inputs);
    let bound = i128::from(lo.abs().max(hi.abs())) + (1 << 24) + 1;
    (bound << shift) + scaled + (1 << (shift - 1)) < i128::from(ORDER)
}

fn overshoots_fit(spec: &LayerSpec, max_inputs: [i64; 2]) -> bool {
    let (shift, lo, hi) = spec.requantization();
    let scaled = largest_scaled(spec, max_inputs);
    [scaled, -scaled].iter().all(|&v| requant_witness(v, shift, lo, hi).overshoot < 1 << 24)
}

fn random_spec(rng: &mut StdRng) -> (LayerSpec, [i64; 2]) {
    let lo = rng.gen_range(-300..=300);
    let output = OutputRule::Requantize { shift: rng.gen_range(8..=39), lo, hi: lo + rng.gen_range(1..=255) };
    let mut spec = if rng.gen_bool(0.7) {
        let n_inputs = 1 << rng.gen_range(0..=16);
        dense_spec(16, 16, 4, n_inputs, 4, output)
    } else {
        let mut spec = random_add(8, 10, 1).spec;
        spec.output = output;
        spec
    };
    spec.bias_bits = rng.gen_range(8..=31);
    spec.mult_bits = rng.gen_range(1..=31);
    let mut max_input = || 1i64 << rng.gen_range(0..=30);
    let max_inputs = [max_input(), max_input()];
    (spec, max_inputs)
}

#[test]
fn admitted_layers_cannot_wrap_and_have_witnesses() {
    let mut rng = StdRng::seed_from_u64(101);
    let mut counts = [0usize; 2];
    for _ in 0..20_000 {
        let (spec, max_inputs) = random_spec(&mut rng);
        let admitted = spec.check_no_wrap(max_inputs).is_ok();
        let safe = is_safe(&spec, max_inputs) && overshoots_fit(&spec, max_inputs);
        assert!(!admitted || safe, "{spec:?} {max_inputs:?} is admitted");
        counts[usize::from(admitted)] += 1;
        // The check is at most a little stricter than needed.
        let (_, lo, hi) = spec.requantization();
        let clearly_safe = is_safe(&spec, max_inputs)
            && (largest_scaled(&spec, max_inputs) >> spec.requantization().0) + 2 * i128::from(lo.abs().max(hi.abs())) + 2 < 1 << 24;
        assert!(admitted || !clearly_safe, "{spec:?} {max_inputs:?} is refused");
    }
    assert!(counts.iter().all(|&count| count > 1000), "both answers occur: {counts:?}");
}

/// s = 39, 31-bit multipliers and bias: the largest input that is admitted.
fn layer_at_the_limit() -> (Layer, i64) {
    let mut spec = dense_spec(8, 8, 4, 64, 4, requantize(39, -128, 127));
    (spec.bias_bits, spec.mult_bits) = (31, 31);
    let (mut admitted, mut refused) = (1i64, 1i64 << 40);
    while refused - admitted > 1 {
        let middle = (admitted + refused) / 2;
        if spec.check_no_wrap([middle, 0]).is_ok() { admitted = middle } else { refused = middle }
    }
    let mut layer = random_dense(spec, 102);
    if let LayerConstants::Dense(constants) = &mut layer.constants {
        // The two ends, their neighbours in sign, and zero.
        for (output, row) in constants.weights.chunks_mut(64).enumerate() {
            row.fill([-128, -128, 127, 0][output]);
        }
        constants.bias = vec![(1 << 31) - 1, -(1 << 31), (1 << 31) - 1, -(1 << 31)];
        constants.multipliers = vec![(1u32 << 31) - 1; 4];
    }
    layer.inputs[0] = vec![-admitted; 64];
    (layer, admitted)
}

#[test]
fn layer_at_the_limit_is_proved() {
    let (layer, max_input) = layer_at_the_limit();
    assert!(largest_scaled(&layer.spec, [max_input, 0]) > (1i128 << 63) - (1 << 50), "the limit is near 2^63");
    assert!(layer.spec.check_no_wrap([max_input + 1, 0]).is_err());
    let mirrored = Layer { inputs: [layer.inputs[0].iter().map(|x| -x).collect(), vec![]], ..layer.clone() };
    for layer in [layer, mirrored] {
        for role in [Role::Inference, Role::Registration] {
            let forgery = Forgery::honest(layer.clone(), role);
            let (claim, proof) = forgery.prove(&forgery.shape);
            assert_eq!(verify(&forgery.shape, &claim, &proof), Ok(()));
        }
    }
}
