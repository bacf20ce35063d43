//! The edges of the lookup argument: helpers with a zero denominator, a shifted running sum, miscounted bytes.

use plonky2::field::types::Field;
use zkinfer_circuits::air::{Cell, Leaves, Native, OracleId};
use zkinfer_circuits::field::{F, K, ext, lift, limbs};
use zkinfer_circuits::kind::{LayerKind, Operator, Role};
use zkinfer_circuits::layer::{LayerVerifyError, theta, verify};
use zkinfer_circuits::ops;

use crate::support::forge::Forgery;
use crate::support::{random_add, requantize};

/// LOOKUP-0 of an add layer at u = a, R − u = b, h, α.
struct OnePair {
    a: u64,
    b: u64,
    helper: K,
    alpha: K,
    helper_column: usize,
    output_column: usize,
}

impl Leaves<K> for OnePair {
    fn cell(&self, cell: Cell) -> K {
        match (cell.oracle, cell.column) {
            (OracleId::Main, column) if column == self.output_column => lift(F::from_canonical_u64(self.a)),
            (OracleId::Projected, column) if column == self.helper_column => lift(F::from_canonical_u64(0)) + self.helper,
            _ => K::ZERO,
        }
    }

    fn parameter(&self, index: usize) -> K {
        if index == theta::RANGE { lift(F::from_canonical_u64(self.a + self.b)) } else { K::ZERO }
    }

    fn challenge(&self, index: usize) -> K {
        if index == theta::ALPHA { self.alpha } else { K::ZERO }
    }

    fn combined(&self) -> K {
        K::ZERO
    }
}

/// Whether LOOKUP-0 holds for a pair of cells, a helper and α.
fn holds(a: u64, b: u64, helper: K, alpha: K) -> bool {
    let system = ops::system(&LayerKind { operator: Operator::Add, log_rows: 8, n_columns: 0 }, Role::Inference);
    let position = |oracle: usize, name: &str| system.columns[oracle].iter().position(|n| n == name).expect("a column");
    let leaves = OnePair { a, b, helper, alpha, helper_column: position(2, "h0.0"), output_column: position(1, "u") };
    let values = system.arena.evaluate(&mut Native, &leaves);
    let constraint = system.constraints.iter().find(|c| c.id == "LOOKUP-0").expect("LOOKUP-0");
    values[constraint.zero.0 as usize] == K::ZERO
}

/// A helper is free only where α equals both cells of its pair; cells lie in F, of which α ∈ K hits any with chance 2^−64 at most,
/// and the cells of a table with chance |cells|/|K|. Where α equals one of two different cells, no helper exists.
#[test]
fn helper_is_free_only_where_alpha_equals_both_cells() {
    let alpha = ext(F::from_canonical_u64(5), F::ONE);
    let inverse_sum = |a: u64, b: u64| [a, b].map(|x| (alpha - lift(F::from_canonical_u64(x))).inverse()).into_iter().sum::<K>();
    let arbitrary = ext(F::from_canonical_u64(77), F::from_canonical_u64(78));
    assert!(holds(3, 9, inverse_sum(3, 9), alpha));
    assert!(!holds(3, 9, inverse_sum(3, 9) + K::ONE, alpha));
    let equal_to_a = lift(F::from_canonical_u64(3));
    assert!(!holds(3, 9, K::ZERO, equal_to_a) && !holds(3, 9, arbitrary, equal_to_a));
    assert!(holds(3, 3, K::ZERO, equal_to_a) && holds(3, 3, arbitrary, equal_to_a));
}

/// S enters as S(gX) − S alone; nothing reads its value on any row, so a constant added to it proves the same statement.
#[test]
fn running_sum_shifted_by_a_constant_states_the_same() {
    let mut layer = random_add(8, 77, 71);
    layer.spec.output = requantize(15, -50, 50);
    let mut forgery = Forgery::honest(layer, Role::Inference);
    let unshifted = forgery.prove(&forgery.shape);
    forgery.forger.on_sums = Some(Box::new(|columns| {
        columns[0][0] += F::from_canonical_u64(1234);
        columns[1][0] += F::from_canonical_u64(5678);
    }));
    let shifted = forgery.prove(&forgery.shape);
    assert_eq!(verify(&forgery.shape, &shifted.0, &shifted.1), Ok(()));
    assert_eq!(shifted.0, unshifted.0);
    assert_ne!(shifted.1.caps[3], unshifted.1.caps[3]);
}

/// One byte counted once too often, or moved from one row of the table to another.
#[test]
fn miscounted_bytes_are_refused() {
    for (row, amounts) in [(7, [1, 0]), (200, [1, -1]), (0, [-1, 0])] {
        let mut forgery = Forgery::honest(random_add(8, 77, 72), Role::Inference);
        forgery.shift("count", row, amounts[0]);
        forgery.shift("count", row + 1, amounts[1]);
        let (claim, proof) = forgery.prove(&forgery.shape);
        assert_eq!(verify(&forgery.shape, &claim, &proof), Err(LayerVerifyError::Sums), "row {row}");
    }
}

/// Equal bytes on several rows of the table may be counted on any of them.
#[test]
fn counts_on_any_row_of_a_byte_are_accepted() {
    let mut forgery = Forgery::honest(random_add(9, 77, 73), Role::Inference);
    forgery.shift("count", 255, -1);
    forgery.shift("count", 400, 1);
    let (claim, proof) = forgery.prove(&forgery.shape);
    assert_eq!(verify(&forgery.shape, &claim, &proof), Ok(()));
    assert!(limbs(claim.balance).iter().any(|&limb| limb != F::ZERO));
}
