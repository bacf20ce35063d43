//! The operator traits that `PackedField` asks for, written once for every vector in terms of its lanewise functions.

/// Implements the operators of a vector type whose inherent functions `sum`, `difference`, `product` and `negated` compute lanewise.
macro_rules! lanewise_operators {
    ($vector:ident, $width:literal) => {
        lanewise_operators!(@binary $vector, Add, add, AddAssign, add_assign, sum);
        lanewise_operators!(@binary $vector, Sub, sub, SubAssign, sub_assign, difference);
        lanewise_operators!(@binary $vector, Mul, mul, MulAssign, mul_assign, product);

        impl From<F> for $vector {
            #[inline(always)]
            fn from(element: F) -> Self {
                Self([element; $width])
            }
        }

        impl Default for $vector {
            #[inline(always)]
            fn default() -> Self {
                Self([F::ZERO; $width])
            }
        }

        impl Neg for $vector {
            type Output = Self;

            #[inline(always)]
            fn neg(self) -> Self {
                self.negated()
            }
        }

        impl Div<F> for $vector {
            type Output = Self;

            #[inline(always)]
            #[allow(clippy::suspicious_arithmetic_impl, reason = "a field divides by multiplying")]
            fn div(self, divisor: F) -> Self {
                self * divisor.inverse()
            }
        }

        impl Sum for $vector {
            #[inline(always)]
            fn sum<I: Iterator<Item = Self>>(vectors: I) -> Self {
                vectors.fold(Self::default(), |sum, vector| sum + vector)
            }
        }

        impl Product for $vector {
            #[inline(always)]
            fn product<I: Iterator<Item = Self>>(vectors: I) -> Self {
                vectors.fold(Self::from(F::ONE), |product, vector| product * vector)
            }
        }
    };

    (@binary $vector:ident, $operator:ident, $method:ident, $assign:ident, $assign_method:ident, $lanewise:ident) => {
        impl $operator for $vector {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                self.$lanewise(other)
            }
        }

        impl $operator<F> for $vector {
            type Output = Self;

            #[inline(always)]
            fn $method(self, other: F) -> Self {
                self.$lanewise(Self::from(other))
            }
        }

        impl $operator<$vector> for F {
            type Output = $vector;

            #[inline(always)]
            fn $method(self, other: $vector) -> $vector {
                $vector::from(self).$lanewise(other)
            }
        }

        impl $assign for $vector {
            #[inline(always)]
            fn $assign_method(&mut self, other: Self) {
                *self = self.$lanewise(other);
            }
        }

        impl $assign<F> for $vector {
            #[inline(always)]
            fn $assign_method(&mut self, other: F) {
                *self = self.$lanewise(Self::from(other));
            }
        }
    };
}

pub(super) use lanewise_operators;
