//! Which public parameters of a layer are safe: no value wraps around the field, every overshoot fits its limbs.
//!
//! The two inequalities are [`requantize::check_product`]'s (`docs/PROTOCOL.md` §1), with a bound from registered ranges only.

use crate::gadgets::requantize::{self, Unsafe};

pub use crate::gadgets::requantize::OVERSHOOT_BITS;

/// Shifts that a layer may have.
pub const SHIFT_RANGE: std::ops::RangeInclusive<u32> = 8..=39;
/// Bounds on biases that a layer may have.
pub const BIAS_BITS_RANGE: std::ops::RangeInclusive<u32> = 8..=31;
/// Bounds on multipliers that a layer may have.
pub const MULT_BITS_RANGE: std::ops::RangeInclusive<u32> = 1..=31;
/// Elements that a tensor may have: the largest table has 2^16 rows.
pub const MAX_TENSOR_ELEMENTS: usize = 1 << 16;
/// Consumers that a tensor may have.
pub const MAX_FAN_OUT: usize = 8;

/// Which of the two inequalities fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BoundError {
    /// A product and its remainder could wrap around the field.
    #[error("a value of {bits} bits could wrap around the field")]
    Wrap {
        /// Bits of the largest value.
        bits: u32,
    },
    /// An accumulator could overshoot the clamp by more than the limbs hold.
    #[error("a product of {bits} bits shifted by {shift} could overshoot the clamp by more than 2^24")]
    Overshoot {
        /// Bits of the largest product.
        bits: u32,
        /// The layer's shift.
        shift: u32,
    },
}

/// Bound on `|acc|` of a dense layer: `n_in · max|x| · 128 + 2^bias_bits`. `bias_bits < 64`.
pub fn dense_accumulator_bound(n_in: usize, max_input: u64, bias_bits: u32) -> u128 {
    n_in as u128 * u128::from(max_input) * 128 + (1u128 << bias_bits)
}

/// Bound on `|acc·M|` of a dense layer. `bias_bits, mult_bits < 32`.
pub fn dense_product_bound(n_in: usize, max_input: u64, bias_bits: u32, mult_bits: u32) -> u128 {
    dense_accumulator_bound(n_in, max_input, bias_bits) << mult_bits
}

/// Bound on `|M₁x₁ + M₂x₂|` of an addition. `mult_bits < 32`.
pub fn add_product_bound(max_left: u64, max_right: u64, mult_bits: u32) -> u128 {
    (u128::from(max_left) + u128::from(max_right)) << mult_bits
}

/// Checks both inequalities for a product bound A. `shift` in [`SHIFT_RANGE`].
///
/// # Errors
/// Which one fails.
pub fn check_product(product_bound: u128, shift: u32, lo: i64, hi: i64) -> Result<(), BoundError> {
    requantize::check_product(product_bound, shift, lo, hi).map_err(|source| match source {
        Unsafe::Wrap(largest) => BoundError::Wrap { bits: bit_length(largest) },
        Unsafe::Overshoot => BoundError::Overshoot { bits: bit_length(product_bound), shift },
    })
}

/// The smallest k with `value < 2^k`.
pub fn bit_length(value: u128) -> u32 {
    u128::BITS - value.leading_zeros()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_the_largest_overshoot_and_refuses_the_next() {
        // ⌊A/2^20⌋ + 1 + 128 < 2^24.
        let limit = ((1u128 << 24) - 129) << 20;
        assert_eq!(check_product(limit - 1, 20, -128, 127), Ok(()));
        assert_eq!(check_product(limit, 20, -128, 127), Err(BoundError::Overshoot { bits: 44, shift: 20 }));
    }

    #[test]
    fn accepts_the_largest_value_below_the_field_and_refuses_the_next() {
        let shift = 39;
        let rest = ((128 + (1u128 << 24) + 1) << shift) + (1 << (shift - 1));
        let limit = u128::from(crate::field::ORDER) - rest;
        assert!(limit < 1 << 63);
        assert_eq!(check_product(limit - 1, shift, -128, 127), Ok(()));
        assert_eq!(check_product(limit, shift, -128, 127), Err(BoundError::Wrap { bits: 64 }));
    }

    #[test]
    fn bit_length_is_the_smallest_exponent_above() {
        assert_eq!([0, 1, 2, 255, 256].map(bit_length), [0, 1, 2, 8, 9]);
    }
}
