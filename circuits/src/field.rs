//! The fields, the hash and the proof-system types that the whole project uses.
//!
//! `F` is Goldilocks (p = 2^64 − 2^32 + 1), `K` its quadratic extension F\[φ\]/(φ² − 7).

use plonky2::field::extension::FieldExtension;
use plonky2::field::extension::quadratic::QuadraticExtension;
pub use plonky2::field::goldilocks_field::GoldilocksField;
use plonky2::field::types::{Field, PrimeField64};
pub use plonky2::hash::hash_types::HashOut;
use plonky2::hash::poseidon::PoseidonHash;
use plonky2::plonk::circuit_builder::CircuitBuilder;
pub use plonky2::plonk::config::PoseidonGoldilocksConfig;

/// Degree of the extension K over F.
pub const D: usize = 2;
/// The Goldilocks field.
pub type F = GoldilocksField;
/// The quadratic extension of Goldilocks: all challenges live here.
pub type K = QuadraticExtension<F>;
/// plonky2's configuration: Poseidon over Goldilocks.
pub type C = PoseidonGoldilocksConfig;
/// The Merkle-tree and sponge hash.
pub type H = PoseidonHash;
/// A digest: four field elements.
pub type Digest = HashOut<F>;
/// The circuit builder used for every recursion circuit.
pub type Builder = CircuitBuilder<F, D>;
/// p, the order of F.
pub const ORDER: u64 = 0xffff_ffff_0000_0001;

/// The field element of a small signed integer, `|value| < p`.
pub fn from_signed(value: i64) -> F {
    let magnitude = F::from_noncanonical_u64(value.unsigned_abs());
    if value < 0 { -magnitude } else { magnitude }
}

/// The integer in `(−p/2, p/2]` of a field element, saturated to i64 (p/2 < 2^63).
pub fn to_signed(element: F) -> i64 {
    let value = element.to_canonical_u64();
    if value > ORDER / 2 { -((ORDER - value) as i64) } else { value as i64 }
}

/// `c0 + φ·c1`.
pub fn ext(c0: F, c1: F) -> K {
    K::from_basefield_array([c0, c1])
}

/// The two F coordinates of an element of K.
pub fn limbs(value: K) -> [F; 2] {
    value.to_basefield_array()
}

/// An element of F as an element of K.
pub fn lift(value: F) -> K {
    <K as FieldExtension<D>>::from_basefield(value)
}

/// `value · scalar` with a scalar of F.
pub fn scale(value: K, scalar: F) -> K {
    FieldExtension::<D>::scalar_mul(&value, scalar)
}

/// The element φ with φ² = 7.
pub fn phi() -> K {
    ext(F::ZERO, F::ONE)
}
