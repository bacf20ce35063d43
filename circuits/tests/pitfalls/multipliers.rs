//! A multiplier of 0 is an ordinary value: the layer is proved, and what it outputs is unique. An addition has one multiplier for each input.

use zkinfer_circuits::field::from_signed;
use zkinfer_circuits::kind::Role;
use zkinfer_circuits::layer::{LayerVerifyError, verify};
use zkinfer_circuits::ops::trace::{LayerConstants, TraceError, registration_columns};

use crate::support::forge::Forgery;
use crate::support::{Layer, dense_spec, random_add, random_dense, requantize};

fn zero_multipliers(lo: i64, hi: i64) -> Layer {
    let mut layer = random_dense(dense_spec(8, 8, 8, 60, 8, requantize(20, lo, hi)), 81);
    if let LayerConstants::Dense(constants) = &mut layer.constants {
        constants.multipliers.iter_mut().step_by(2).for_each(|m| *m = 0);
    }
    layer
}

#[test]
fn zero_multiplier_is_proved() {
    for (lo, hi, expected) in [(-60, 60, 0), (5, 90, 5), (-90, -7, -7)] {
        let forgery = Forgery::honest(zero_multipliers(lo, hi), Role::Inference);
        assert!(forgery.output.iter().step_by(2).all(|&y| y == expected));
        let (claim, proof) = forgery.prove(&forgery.shape);
        assert_eq!(verify(&forgery.shape, &claim, &proof), Ok(()));
        let registration = Forgery::honest(zero_multipliers(lo, hi), Role::Registration);
        let (claim, proof) = registration.prove(&registration.shape);
        assert_eq!(verify(&registration.shape, &claim, &proof), Ok(()));
    }
}

#[test]
fn other_output_or_accumulator_under_a_zero_multiplier_is_refused() {
    let mut output = Forgery::honest(zero_multipliers(-60, 60), Role::Inference);
    output.shift("u", 2, 1);
    output.recount();
    let mut accumulator = Forgery::honest(zero_multipliers(-60, 60), Role::Inference);
    accumulator.shift("acc", 2, 1);
    for (forgery, expected) in [(output, LayerVerifyError::Constraints), (accumulator, LayerVerifyError::Sums)] {
        let (claim, proof) = forgery.prove(&forgery.shape);
        assert_eq!(verify(&forgery.shape, &claim, &proof), Err(expected));
    }
}

#[test]
fn constants_out_of_their_registered_range_are_refused() {
    let dense = random_dense(dense_spec(8, 8, 4, 60, 4, requantize(20, -60, 60)), 82);
    let add = random_add(8, 60, 83);
    // Columns of the weights oracle: dense w0 … w3, bias, mult; add mult1, mult2.
    let cases = [
        (&dense, 0, 128, None),
        (&dense, 3, -129, None),
        (&dense, 4, 1 << 16, Some(("bias", 17))),
        (&dense, 4, -(1 << 16) - 1, Some(("bias", 17))),
        (&dense, 5, 1 << 16, Some(("multiplier", 16))),
        (&add, 0, 1 << 16, Some(("first multiplier", 16))),
        (&add, 1, -1, Some(("second multiplier", 16))),
    ];
    for (layer, column, value, constant) in cases {
        let mut forgery = Forgery::honest(layer.clone(), Role::Registration);
        forgery.weights.column_mut(column)[2] = from_signed(value);
        let error = registration_columns(&forgery.shape.system, &layer.spec, &forgery.weights).unwrap_err();
        match constant {
            Some((constant, bits)) => assert_eq!(error, TraceError::ConstantRange { constant, row: 2, bits }),
            None => assert!(matches!(error, TraceError::NotAByte { row: 2, .. }), "{error}"),
        }
    }
}

/// An addition whose first multiplier is another one on every element: one input value would give many outputs.
#[test]
fn multipliers_of_an_addition_that_differ_by_element_are_not_registered() {
    for (column, honest) in [("mult1", 30_000), ("mult2", 20_001)] {
        let layer = random_add(8, 60, 7);
        let mut forgery = Forgery::honest(layer.clone(), Role::Registration);
        // Past the last element any number in range may stand: nothing reads it.
        let others: [&dyn Fn(usize) -> i64; 3] =
            [&|row| 1000 * row as i64, &|row| if row < 59 { honest } else { honest + 1 }, &|row| if row < 60 { honest } else { 5 }];
        for (multiplier, expected) in
            others.into_iter().zip([Err(LayerVerifyError::Constraints), Err(LayerVerifyError::Constraints), Ok(())])
        {
            for (row, cell) in forgery.weight(column).iter_mut().take(65).enumerate() {
                *cell = from_signed(multiplier(row));
            }
            forgery.main = registration_columns(&forgery.shape.system, &layer.spec, &forgery.weights).unwrap();
            let (claim, proof) = forgery.prove(&forgery.shape);
            assert_eq!(verify(&forgery.shape, &claim, &proof), expected, "{column}");
        }
    }
}

/// §1: −2^bias_bits ≤ b < 2^bias_bits.
#[test]
fn least_and_largest_bias_are_registered() {
    let layer = random_dense(dense_spec(8, 8, 4, 60, 4, requantize(20, -60, 60)), 82);
    for bias in [-(1 << 16), (1 << 16) - 1] {
        let mut forgery = Forgery::honest(layer.clone(), Role::Registration);
        forgery.weight("bias")[2] = from_signed(bias);
        forgery.main = registration_columns(&forgery.shape.system, &layer.spec, &forgery.weights).unwrap();
        let (claim, proof) = forgery.prove(&forgery.shape);
        assert_eq!(verify(&forgery.shape, &claim, &proof), Ok(()), "{bias}");
    }
}
