//! Requantization at the clamps: of all y in [lo − 2, hi + 256], with honest, shifted, negative and fractional witnesses,
//! the constraints accept exactly one, the right one.
//!
//! e and rem are determined by y up to the choices tried here: strictly between the clamps CLAMP leaves e = 0 alone, at a clamp
//! e is the quotient of a division with remainder, and rem follows from REQUANT.

use plonky2::field::types::{Field, PrimeField64};
use zkinfer_circuits::air::{Cell, ConstraintSystem, Leaves, Native, Node, OracleId};
use zkinfer_circuits::field::{F, K, from_signed, lift};
use zkinfer_circuits::kind::Role;
use zkinfer_circuits::layer::{LayerSpec, OutputRule, theta};
use zkinfer_circuits::ops;

use crate::support::table::{base, lookup_cells};
use crate::support::{random_add, requantize};

/// Clamps: byte ranges, one sign only, the narrowest, an odd and an even R below 255.
const CLAMPS: [(i64, i64); 5] = [(-128, 127), (5, 90), (-90, -6), (3, 4), (-60, 60)];
/// Every s mod 8, and the extremes.
const SHIFTS: [u32; 9] = [8, 9, 14, 19, 20, 29, 31, 34, 39];

/// The equations of one row, with the cells that they read.
struct Row {
    system: ConstraintSystem,
    equations: Vec<Node>,
    bytes: Vec<Node>,
    theta: Vec<F>,
    /// x1, x2, u, r0 … r4, e0 … e2.
    main: [F; 11],
}

impl Leaves<K> for Row {
    fn cell(&self, cell: Cell) -> K {
        match cell.oracle {
            // mult1 = 1, mult2 = 0, active = 1: the scaled value is x1.
            OracleId::Weights => lift([F::ONE, F::ZERO, F::ONE][cell.column]),
            OracleId::Main => lift(self.main.get(cell.column).copied().unwrap_or(F::ZERO)),
            _ => K::ZERO,
        }
    }

    fn parameter(&self, index: usize) -> K {
        lift(self.theta[index])
    }

    fn challenge(&self, _: usize) -> K {
        K::ZERO
    }

    fn combined(&self) -> K {
        K::ZERO
    }
}

impl Row {
    fn new(spec: &LayerSpec) -> Self {
        let system = ops::system(&spec.kind, Role::Inference);
        let equation = |id: &str| system.constraints.iter().find(|c| c.id == id).expect("an equation").zero;
        let equations = ["REQUANT", "CLAMP"].map(equation).into();
        let bytes = lookup_cells(&system).0;
        Self { system, equations, bytes, theta: spec.theta(), main: [F::ZERO; 11] }
    }

    /// Whether the row satisfies both equations and all its looked-up cells are bytes.
    fn is_accepted(&self) -> bool {
        let values = self.system.arena.evaluate(&mut Native, self);
        let is_byte = |node: &Node| base(values[node.0 as usize]).to_canonical_u64() < 256;
        self.equations.iter().all(|node| values[node.0 as usize] == K::ZERO) && self.bytes.iter().all(is_byte)
    }

    fn set_limbs(&mut self, first: usize, limbs: &[F]) {
        self.main[first..first + limbs.len()].copy_from_slice(limbs);
    }

    /// Tries all overshoots and remainders for one (v, y).
    fn accepts(&mut self, scaled: i64, y: i64) -> bool {
        let [lo, range, scale, half] = [theta::LO, theta::RANGE, theta::SCALE, theta::HALF].map(|index| self.theta[index]);
        let u = from_signed(y) - lo;
        let sign = (u + u) * range.inverse() - F::ONE;
        (self.main[0], self.main[2]) = (from_signed(scaled), u);
        let biased = from_signed(scaled) + half;
        // What is left for e if rem = 0, as an integer or as a fraction.
        let left = (biased * scale.inverse() - from_signed(y)) * sign.try_inverse().unwrap_or(F::ZERO);
        let quotient = (i128::from(scaled) + i128::from(half.to_canonical_u64())).div_euclid(i128::from(scale.to_canonical_u64()));
        let distance = (quotient - i128::from(y)).unsigned_abs() as i64;
        let mut overshoots = vec![left];
        overshoots.extend([0, distance - 1, distance, distance + 1, -distance, (1 << 24) - 1].map(from_signed));
        overshoots.into_iter().any(|e| {
            let remainder = biased - (u + lo + sign * e) * scale;
            encodings(e, 3).iter().any(|e_limbs| {
                encodings(remainder, 5).iter().any(|r_limbs| {
                    self.set_limbs(8, e_limbs);
                    self.set_limbs(3, r_limbs);
                    self.is_accepted()
                })
            })
        })
    }
}

/// A value in limbs: as bytes if it fits, all in the first, as a fraction in each of the others, with a borrow from the second.
fn encodings(value: F, n_limbs: usize) -> Vec<Vec<F>> {
    let integer = value.to_canonical_u64();
    let mut all = Vec::new();
    if integer >> (8 * n_limbs) == 0 {
        let bytes: Vec<F> = (0..n_limbs).map(|k| F::from_canonical_u64((integer >> (8 * k)) & 255)).collect();
        let mut borrowed = bytes.clone();
        borrowed[0] += F::from_canonical_u64(256);
        borrowed[1] -= F::ONE;
        all.extend([bytes, borrowed]);
    }
    for k in 0..n_limbs {
        let mut limbs = vec![F::ZERO; n_limbs];
        limbs[k] = value * F::from_canonical_u64(1 << (8 * k)).inverse();
        all.push(limbs);
    }
    all
}

/// Values whose quotients lie at, next to and far from the clamps, at both ends of their interval.
fn scaled_values(shift: u32, lo: i64, hi: i64) -> Vec<i64> {
    let (scale, half) = (1i64 << shift, 1i64 << (shift - 1));
    let quotients = [lo - 255, lo - 1, lo, (lo + hi) / 2, hi, hi + 1];
    quotients.iter().flat_map(|q| [q * scale - half, q * scale + half - 1]).collect()
}

fn check(shift: u32, lo: i64, hi: i64, every: usize) {
    let mut spec = random_add(8, 10, 1).spec;
    spec.output = OutputRule::Requantize { shift, lo, hi };
    spec.check_shape().expect("a valid layer");
    let mut row = Row::new(&spec);
    for scaled in scaled_values(shift, lo, hi) {
        let quotient = (i128::from(scaled) + (1i128 << (shift - 1))).div_euclid(1i128 << shift);
        let expected = quotient.clamp(lo.into(), hi.into()) as i64;
        let near =
            |y: &i64| (*y - expected).abs() < 3 || (*y - lo).abs() < 3 || (*y - hi).abs() < 3 || ((*y - lo) as usize).is_multiple_of(every);
        let accepted: Vec<i64> = (lo - 2..=hi + 256).filter(near).filter(|&y| row.accepts(scaled, y)).collect();
        assert_eq!(accepted, [expected], "lo {lo}, hi {hi}, s {shift}, value {scaled}");
    }
}

#[test]
fn exactly_one_output_is_accepted_for_every_clamp() {
    for (lo, hi) in CLAMPS {
        check(13, lo, hi, 1);
    }
}

#[test]
fn exactly_one_output_is_accepted_for_every_shift() {
    for shift in SHIFTS {
        for (lo, hi) in [(-128, 127), (-60, 60), (3, 4)] {
            check(shift, lo, hi, 16);
        }
    }
}

/// Outputs that a weakened row accepts for an interior value.
fn accepted_by(weaken: impl Fn(&mut Row)) -> usize {
    let mut spec = random_add(8, 10, 1).spec;
    spec.output = requantize(16, -60, 60);
    let mut row = Row::new(&spec);
    weaken(&mut row);
    (-62..=316).filter(|&y| row.accepts(7 << 16, y)).count()
}

/// The witnesses tried do find the other outputs, once an equation or the bytes are gone.
#[test]
fn other_outputs_are_found_without_clamp_or_without_bytes() {
    assert_eq!(accepted_by(|_| ()), 1);
    assert!(accepted_by(|row| row.equations.truncate(1)) > 1);
    assert_eq!(accepted_by(|row| row.bytes.clear()), 379);
}
