//! Field arithmetic on the host's vector units, chosen at run time.
//!
//! A [`Kernel`] is written once, generic in its [`Vector`] of field elements; [`Dispatch::run`] instantiates it for every [`Level`] that this
//! build knows and enters the one that was detected. The entered function enables the level's target features and everything below it is
//! inlined, so that a kernel compiles to plain vector code whatever the build's own features are.
//!
//! # How to write a kernel
//! `run` and every generic function that it calls per vector are `#[inline(always)]`: a function left out of line is compiled without the
//! level's features, and then calls each operation. Operations outside a kernel are correct, but slow.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod operators;
mod portable;
#[cfg(test)]
mod tests;

use plonky2::field::packed::PackedField;
use plonky2::field::types::Field;
use zkinfer_circuits::field::F;

/// A set of vector instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// One element at a time, on any processor.
    Portable,
    /// Two elements: NEON, on AArch64.
    Neon,
    /// Four elements: AVX2.
    Avx2,
    /// Eight elements: AVX-512 F, DQ, VL, BW and IFMA.
    Avx512,
}

/// A level that this machine does not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this processor has no {} instructions; available: {}", .0.name(), Level::names())]
pub struct UnavailableLevel(pub Level);

impl Level {
    const ALL: [Self; 4] = [Self::Portable, Self::Neon, Self::Avx2, Self::Avx512];

    /// The best level of this processor.
    pub fn detect() -> Self {
        Self::ALL.into_iter().rfind(|level| level.is_available()).unwrap_or(Self::Portable)
    }

    /// The levels of this processor, from the portable one to the best.
    pub fn available() -> Vec<Self> {
        Self::ALL.into_iter().filter(|level| level.is_available()).collect()
    }

    /// The level's name: lowercase, one word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Portable => "portable",
            Self::Neon => "neon",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
        }
    }

    fn names() -> String {
        Self::available().into_iter().map(Self::name).collect::<Vec<_>>().join(", ")
    }

    fn is_available(self) -> bool {
        match self {
            Self::Portable => true,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => is_x86_feature_detected!("avx2"),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => {
                is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512ifma")
            }
            // The levels of other architectures.
            _ => false,
        }
    }
}

/// Lanes of field elements that are computed on together.
///
/// Operators take and give any representative below 2^64 of each element, as `F` does. The concrete vectors are private to this module: they
/// are met only as the parameter of a [`Kernel`] that [`Dispatch::run`] entered.
pub(crate) trait Vector: PackedField<Scalar = F> {
    /// The first `WIDTH` elements; panics if there are fewer.
    #[inline(always)]
    fn load(from: &[F]) -> Self {
        *Self::from_slice(&from[..Self::WIDTH])
    }

    /// Writes the lanes to the first `WIDTH` elements; panics if there are fewer.
    #[inline(always)]
    fn store(self, to: &mut [F]) {
        *Self::from_slice_mut(&mut to[..Self::WIDTH]) = self;
    }

    /// The squares. (`Square::square` of plonky2_field is the general product, and cannot be overridden.)
    fn squared(self) -> Self;

    /// The same elements, each represented below p.
    fn canonical(self) -> Self;

    /// Sum and difference of the same two operands.
    fn sum_and_difference(self, other: Self) -> (Self, Self);

    /// `self ± other·factor`.
    fn plus_and_minus_product(self, other: Self, factor: Self) -> (Self, Self);

    /// A factor made ready for many products.
    type Factor: Copy + Send + Sync;

    /// An integer sum of products that is reduced once, at the end.
    type WideSum: Copy;

    /// Prepares a factor.
    fn factor(self) -> Self::Factor;

    /// The empty sum.
    fn no_products() -> Self::WideSum;

    /// `sum + self·factor`; at most [`MAX_PRODUCTS`] are added to a sum.
    fn add_product(self, factor: &Self::Factor, sum: Self::WideSum) -> Self::WideSum;

    /// The sum modulo p.
    fn reduced(sum: Self::WideSum) -> Self;
}

/// Products that any [`Vector::WideSum`] holds.
pub(crate) const MAX_PRODUCTS: usize = 1 << 10;

/// `(a0·b0 + 7·a1·b1, a0·b1 + a1·b0)`: the product in K = F[φ]/(φ² − 7), lane by lane, by coordinate.
#[inline(always)]
pub(crate) fn extension_product<V: Vector>([a0, a1]: [V; 2], [b0, b1]: [V; 2]) -> [V; 2] {
    let seven = V::from(F::from_canonical_u64(7));
    [a0 * b0 + (a1 * b1) * seven, a0 * b1 + a1 * b0]
}

/// Code that is generic in the vector it computes on.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;

    /// The code; `#[inline(always)]` in every implementation.
    fn run<V: Vector>(self) -> Self::Output;
}

/// A level that this machine was found to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Dispatch {
    /// Private: that the level is available is this type's invariant.
    level: Level,
}

impl Dispatch {
    /// The best level.
    pub(crate) fn detect() -> Self {
        Self { level: Level::detect() }
    }

    /// A given level, if the machine has it.
    pub(crate) fn new(level: Level) -> Result<Self, UnavailableLevel> {
        if level.is_available() { Ok(Self { level }) } else { Err(UnavailableLevel(level)) }
    }

    pub(crate) fn level(self) -> Level {
        self.level
    }

    /// Lanes of this level's vectors.
    pub(crate) fn width(self) -> usize {
        match self.level {
            Level::Portable => 1,
            Level::Neon => 2,
            Level::Avx2 => 4,
            Level::Avx512 => 8,
        }
    }

    /// Runs a kernel on this level's vectors.
    #[inline]
    pub(crate) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.level {
            Level::Portable => kernel.run::<F>(),
            #[cfg(target_arch = "aarch64")]
            Level::Neon => neon::enter(self, kernel),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2::enter(self, kernel),
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512::enter(self, kernel),
            level => unreachable!("no dispatch is made for {level:?}, which this architecture lacks"),
        }
    }
}
