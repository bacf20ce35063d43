//! One element at a time.

use plonky2::field::types::{Field, PrimeField64};
use zkinfer_circuits::field::F;

use super::Vector;

impl Vector for F {
    #[inline(always)]
    fn squared(self) -> Self {
        self * self
    }

    #[inline(always)]
    fn canonical(self) -> Self {
        Self::from_canonical_u64(self.to_canonical_u64())
    }

    #[inline(always)]
    fn sum_and_difference(self, other: Self) -> (Self, Self) {
        (self + other, self - other)
    }

    #[inline(always)]
    fn plus_and_minus_product(self, other: Self, factor: Self) -> (Self, Self) {
        self.sum_and_difference(other * factor)
    }

    type Factor = Self;
    type WideSum = (u128, u64);

    #[inline(always)]
    fn factor(self) -> Self {
        self
    }

    #[inline(always)]
    fn no_products() -> (u128, u64) {
        (0, 0)
    }

    /// The sum is `low + 2^128·carries`.
    #[inline(always)]
    fn add_product(self, factor: &Self, (low, carries): (u128, u64)) -> (u128, u64) {
        let product = u128::from(self.to_noncanonical_u64()) * u128::from(factor.to_noncanonical_u64());
        let (low, carry) = low.overflowing_add(product);
        (low, carries + u64::from(carry))
    }

    /// 2^128 ≡ −2^32.
    #[inline(always)]
    fn reduced((low, carries): (u128, u64)) -> Self {
        Self::from_noncanonical_u128(low) - Self::from_noncanonical_u64(carries << 32)
    }
}
