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
}
