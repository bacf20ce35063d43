//! Γ: the column of powers of γ', row r holding γ'^r. One column weighs the tensors of a layer in every sum.

use crate::air::{Domain, Node, Rotation, Rule, SystemBuilder};
use crate::layer::theta;

/// Adds Γ to the projected oracle with its two constraints.
pub fn powers(b: &mut SystemBuilder) -> Node {
    let powers = b.projected("powers", Rule::Powers { ratio: theta::GAMMA_PRIME });
    // POWERS-FIRST  Γ − 1 = 0 on row 0
    let one = b.arena.constant(1);
    let zero = b.arena.sub(powers, one);
    b.constrain("POWERS-FIRST", Domain::First, zero);
    // POWERS-STEP   Γ(gX) − γ'·Γ = 0 on rows 0 … n − 2
    let next = b.rotate(powers, Rotation::Next);
    let gamma_prime = b.arena.challenge(theta::GAMMA_PRIME);
    let expected = b.arena.mul(gamma_prime, powers);
    let zero = b.arena.sub(next, expected);
    b.constrain("POWERS-STEP", Domain::Step, zero);
    powers
}
