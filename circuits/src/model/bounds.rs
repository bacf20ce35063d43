//! Which public parameters of a layer are safe: no value wraps around the field, every overshoot fits its limbs.
//!
//! With `A` a bound on the product before rounding, from registered bounds only (`docs/PROTOCOL.md` §1):
//! ```text
//! no wrap     2^s·(max(|lo|, |hi|) + 2^24 + 1) + A + 2^(s−1) < p
//! overshoot   A < 2^24 · 2^s
//! ```

/// p, the order of the Goldilocks field.
const FIELD_ORDER: u128 = (1 << 64) - (1 << 32) + 1;
/// Bits of the overshoot e: three byte limbs.
pub const OVERSHOOT_BITS: u32 = 24;
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

/// Checks both inequalities for a product bound A. `shift < 64`.
///
/// # Errors
/// Which one fails.
pub fn check_product(product_bound: u128, shift: u32, lo: i64, hi: i64) -> Result<(), BoundError> {
    if product_bound >> shift >= 1 << OVERSHOOT_BITS {
        return Err(BoundError::Overshoot { bits: bit_length(product_bound), shift });
    }
    let largest_output = u128::from(lo.unsigned_abs().max(hi.unsigned_abs()));
    let largest = ((largest_output + (1 << OVERSHOOT_BITS) + 1) << shift) + product_bound + (1u128 << (shift - 1));
    if largest >= FIELD_ORDER {
        return Err(BoundError::Wrap { bits: bit_length(largest) });
    }
    Ok(())
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
        let limit = 1u128 << (20 + 24);
        assert_eq!(check_product(limit - 1, 20, -128, 127), Ok(()));
        assert_eq!(check_product(limit, 20, -128, 127), Err(BoundError::Overshoot { bits: 45, shift: 20 }));
    }

    #[test]
    fn accepts_the_largest_value_below_the_field_and_refuses_the_next() {
        let shift = 39;
        let rest = ((128 + (1u128 << 24) + 1) << shift) + (1 << (shift - 1));
        let limit = FIELD_ORDER - rest;
        assert!(limit < 1 << 63);
        assert_eq!(check_product(limit - 1, shift, -128, 127), Ok(()));
        assert_eq!(check_product(limit, shift, -128, 127), Err(BoundError::Wrap { bits: 64 }));
    }

    #[test]
    fn bit_length_is_the_smallest_exponent_above() {
        assert_eq!([0, 1, 2, 255, 256].map(bit_length), [0, 1, 2, 8, 9]);
    }
}
