//! The rings in which expressions are interpreted one point at a time: K natively, extension targets in circuit.

use plonky2::field::types::Field;
use plonky2::iop::ext_target::ExtensionTarget;

use crate::field::{Builder, D, F, K, lift, phi};

/// Ring operations of an interpreter.
pub trait Algebra {
    /// A value of K, or a target of one.
    type Value: Copy;
    /// A constant.
    fn constant(&mut self, value: u64) -> Self::Value;
    /// `a + b`.
    fn add(&mut self, a: Self::Value, b: Self::Value) -> Self::Value;
    /// `a − b`.
    fn sub(&mut self, a: Self::Value, b: Self::Value) -> Self::Value;
    /// `a · b`.
    fn mul(&mut self, a: Self::Value, b: Self::Value) -> Self::Value;
    /// `c0 + φ·c1`, the value of a K column from its two F columns (which lie in K outside the table's rows).
    fn join(&mut self, c0: Self::Value, c1: Self::Value) -> Self::Value;
}

/// Native arithmetic in K.
#[derive(Clone, Copy, Debug, Default)]
pub struct Native;

impl Algebra for Native {
    type Value = K;

    fn constant(&mut self, value: u64) -> K {
        lift(F::from_canonical_u64(value))
    }

    fn add(&mut self, a: K, b: K) -> K {
        a + b
    }

    fn sub(&mut self, a: K, b: K) -> K {
        a - b
    }

    fn mul(&mut self, a: K, b: K) -> K {
        a * b
    }

    fn join(&mut self, c0: K, c1: K) -> K {
        c0 + phi() * c1
    }
}

/// Arithmetic on extension targets; plonky2's builder folds constants and shares equal operations.
#[derive(Debug)]
pub struct InCircuit<'a> {
    /// The circuit being built.
    pub builder: &'a mut Builder,
}

impl Algebra for InCircuit<'_> {
    type Value = ExtensionTarget<D>;

    fn constant(&mut self, value: u64) -> Self::Value {
        self.builder.constant_extension(lift(F::from_canonical_u64(value)))
    }

    fn add(&mut self, a: Self::Value, b: Self::Value) -> Self::Value {
        self.builder.add_extension(a, b)
    }

    fn sub(&mut self, a: Self::Value, b: Self::Value) -> Self::Value {
        self.builder.sub_extension(a, b)
    }

    fn mul(&mut self, a: Self::Value, b: Self::Value) -> Self::Value {
        self.builder.mul_extension(a, b)
    }

    fn join(&mut self, c0: Self::Value, c1: Self::Value) -> Self::Value {
        let phi = self.builder.constant_extension(phi());
        self.builder.mul_add_extension(phi, c1, c0)
    }
}
