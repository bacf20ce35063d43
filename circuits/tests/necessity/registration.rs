//! Attacks on the registration of both operators: each registers a constant out of its range, or a wrong `active`.

use plonky2::field::types::Field;
use zkinfer_circuits::field::{F, from_signed};
use zkinfer_circuits::kind::{Operator, Role};
use zkinfer_circuits::layer::OutputRule;

use super::{Attack, half, set_table, table_from_minus_100, table_to_511, table_with};
use crate::support::forge::Forgery;
use crate::support::{Layer, dense_spec, random_add, random_dense};

const BIAS_BITS: u32 = 30;
const MULT_BITS: u32 = 31;

/// All attacks on an operator's registration.
///
/// Pairs of dense, C = 4: (w0 w1)(w2 w3)(bl0 bl1)(bl2 bl3)(top ml0)(ml1 ml2)(ml3 top)(top table);
/// of add: (ml0 ml1)(ml2 ml3)(top nl0)(nl1 nl2)(nl3 top)(top table).
pub fn registration_attacks(operator: Operator) -> Vec<Attack> {
    let mut attacks = vec![
        Attack { id: "TABLE-FIRST", forge: table_first },
        Attack { id: "TABLE-STEP", forge: table_step },
        Attack { id: "TABLE-LAST", forge: table_last },
        Attack { id: "ACTIVE-STEP", forge: active_with_a_hole },
        Attack { id: "ACTIVE-BOOL", forge: active_of_two },
        Attack { id: "SUM-ACTIVE", forge: active_too_short },
        Attack { id: "SUM-REG-LOOKUP", forge: no_byte },
    ];
    attacks.extend(match operator {
        Operator::Dense => vec![
            Attack { id: "BIAS", forge: |_| constant_without_limbs(Operator::Dense, "bias", 1 << BIAS_BITS) },
            Attack { id: "MULT", forge: |_| constant_without_limbs(Operator::Dense, "mult", 1 << MULT_BITS) },
            Attack { id: "REG-LOOKUP-0", forge: |_| absorbed(Operator::Dense, 0, |f| f.weight("w0")[DENSE_ROW] = from_signed(200)) },
            Attack { id: "REG-LOOKUP-1", forge: |_| absorbed(Operator::Dense, 1, |f| f.weight("w3")[DENSE_ROW] = from_signed(-129)) },
            Attack { id: "REG-LOOKUP-2", forge: |_| absorbed(Operator::Dense, 2, |f| set_limb(f, BIAS, 0, small(1 << 32))) },
            Attack { id: "REG-LOOKUP-3", forge: |_| absorbed(Operator::Dense, 3, |f| set_limb(f, BIAS, 2, small(1 << 16))) },
            Attack { id: "REG-LOOKUP-4", forge: |_| absorbed(Operator::Dense, 4, |f| set_limb(f, MULT, 0, small(1 << 32))) },
            Attack { id: "REG-LOOKUP-5", forge: |_| absorbed(Operator::Dense, 5, |f| set_limb(f, MULT, 1, small(1 << 24))) },
            Attack { id: "REG-LOOKUP-6", forge: |_| absorbed(Operator::Dense, 6, |f| set_fraction(f, MULT)) },
            Attack { id: "REG-LOOKUP-7", forge: |_| absorbed(Operator::Dense, 7, |f| f.weight("w0")[DENSE_ROW] = from_signed(200)) },
        ],
        Operator::Add => vec![
            Attack { id: "MULT-1", forge: |_| constant_without_limbs(Operator::Add, "mult1", 1 << MULT_BITS) },
            Attack { id: "MULT-2", forge: |_| constant_without_limbs(Operator::Add, "mult2", -1) },
            Attack { id: "MULT-1-STEP", forge: |_| two_multipliers(MULT_1) },
            Attack { id: "MULT-2-STEP", forge: |_| two_multipliers(MULT_2) },
            Attack { id: "REG-LOOKUP-0", forge: |_| absorbed(Operator::Add, 0, |f| set_limb(f, MULT_1, 0, small(1 << 32))) },
            Attack { id: "REG-LOOKUP-1", forge: |_| absorbed(Operator::Add, 1, |f| set_limb(f, MULT_1, 2, small(1 << 16))) },
            Attack { id: "REG-LOOKUP-2", forge: |_| absorbed(Operator::Add, 2, |f| set_limb(f, MULT_2, 0, small(1 << 32))) },
            Attack { id: "REG-LOOKUP-3", forge: |_| absorbed(Operator::Add, 3, |f| set_limb(f, MULT_2, 1, small(1 << 24))) },
            Attack { id: "REG-LOOKUP-4", forge: |_| absorbed(Operator::Add, 4, |f| set_fraction(f, MULT_2)) },
            Attack { id: "REG-LOOKUP-5", forge: |_| absorbed(Operator::Add, 5, |f| set_limb(f, MULT_1, 0, small(1 << 32))) },
        ],
    });
    attacks
}

/// A registered constant: its column, the prefix of its limbs, what is added to it.
type Registered = (&'static str, &'static str, u64);
const BIAS: Registered = ("bias", "bl", 1 << BIAS_BITS);
const MULT: Registered = ("mult", "ml", 0);
const MULT_1: Registered = ("mult1", "ml", 0);
const MULT_2: Registered = ("mult2", "nl", 0);

/// The row whose constants a forgery changes.
const DENSE_ROW: usize = 3;
/// The only row of an addition of one element, so that MULT-1-STEP and MULT-2-STEP compare nothing.
const ADD_ROW: usize = 0;

fn row(operator: Operator) -> usize {
    match operator {
        Operator::Dense => DENSE_ROW,
        Operator::Add => ADD_ROW,
    }
}

fn small(value: u64) -> F {
    F::from_canonical_u64(value)
}

/// Several outputs: to change `active`, or a constant of one of them.
fn forgery(operator: Operator) -> Forgery {
    of_layer(match operator {
        Operator::Dense => random_dense(dense_spec(9, 8, 4, 100, 8, OutputRule::Requantize { shift: 16, lo: 0, hi: 127 }), 21),
        Operator::Add => random_add(9, 200, 22),
    })
}

/// To change the constants of [`row`].
fn constants_forgery(operator: Operator) -> Forgery {
    match operator {
        Operator::Dense => forgery(operator),
        Operator::Add => of_layer(random_add(9, 1, 22)),
    }
}

fn of_layer(mut layer: Layer) -> Forgery {
    layer.spec.bias_bits = BIAS_BITS;
    layer.spec.mult_bits = MULT_BITS;
    Forgery::honest(layer, Role::Registration)
}

/// Writes four limbs and the value that they stand for.
fn set_limbs(forgery: &mut Forgery, (column, prefix, offset): Registered, limbs: [F; 4]) {
    let value = limbs.iter().rev().fold(F::ZERO, |sum, &limb| sum * small(256) + limb);
    let row = row(forgery.layer.spec.kind.operator);
    forgery.weight(column)[row] = value - small(offset);
    for (k, limb) in limbs.into_iter().enumerate() {
        forgery.main(&format!("{prefix}{k}"))[row] = limb;
    }
}

/// One limb is no byte, the others are 0.
fn set_limb(forgery: &mut Forgery, constant: Registered, k: usize, limb: F) {
    let mut limbs = [F::ZERO; 4];
    limbs[k] = limb;
    set_limbs(forgery, constant, limbs);
}

/// 31 bits: the scaled top limb 2·(255/2) is a byte, the limb itself a fraction; the value is 2^31 + 2^23 − 1.
fn set_fraction(forgery: &mut Forgery, constant: Registered) {
    set_limbs(forgery, constant, [small(255), small(255), small(255), half(255)]);
}

/// Changes cells; the k-th helper absorbs what the lookups lack.
fn absorbed(operator: Operator, helper: usize, change: impl Fn(&mut Forgery)) -> Forgery {
    let mut forgery = constants_forgery(operator);
    change(&mut forgery);
    forgery.recount();
    forgery.absorb_in_helper(helper, row(operator));
    forgery
}

/// A constant out of range over limbs that stand for another one.
fn constant_without_limbs(operator: Operator, column: &str, value: i64) -> Forgery {
    let mut forgery = constants_forgery(operator);
    forgery.weight(column)[row(operator)] = from_signed(value);
    forgery
}

/// Another multiplier, in range and over its own limbs, from the last element on.
fn two_multipliers((column, prefix, _): Registered) -> Forgery {
    let mut forgery = forgery(Operator::Add);
    let last = forgery.layer.spec.n_outputs - 1;
    forgery.weight(column)[last] = small(0x0102);
    for (k, limb) in [2, 1, 0, 0].into_iter().enumerate() {
        forgery.main(&format!("{prefix}{k}"))[last] = small(limb);
    }
    forgery.recount();
    forgery
}

/// A constant whose looked-up cell is `cell`, which is no byte.
fn out_of_range(operator: Operator, cell: i64) -> Forgery {
    let mut forgery = constants_forgery(operator);
    match operator {
        Operator::Dense => forgery.weight("w0")[DENSE_ROW] = from_signed(cell - 128),
        // Largest higher limbs for a large cell, none for a negative one: the value leaves [0, 2^31).
        Operator::Add if cell > 0 => set_limbs(&mut forgery, MULT_1, [cell, 255, 255, 127].map(from_signed)),
        Operator::Add => set_limb(&mut forgery, MULT_1, 0, from_signed(cell)),
    }
    forgery
}

fn table_first(operator: Operator) -> Forgery {
    let mut forgery = out_of_range(operator, -50);
    set_table(&mut forgery, table_from_minus_100);
    forgery.recount();
    forgery
}

fn table_step(operator: Operator) -> Forgery {
    let mut forgery = out_of_range(operator, 328);
    set_table(&mut forgery, table_with(328));
    forgery.recount();
    forgery
}

fn table_last(operator: Operator) -> Forgery {
    let mut forgery = out_of_range(operator, 328);
    set_table(&mut forgery, table_to_511);
    forgery.recount();
    forgery
}

/// A cell of 328, with honest helpers.
fn no_byte(operator: Operator) -> Forgery {
    let mut forgery = out_of_range(operator, 328);
    forgery.recount();
    forgery
}

/// 1, …, 1, 0, 1: O ones, but not on the first O rows.
fn active_with_a_hole(operator: Operator) -> Forgery {
    let mut forgery = forgery(operator);
    let end = forgery.layer.spec.n_outputs;
    forgery.weight("active")[end - 1] = F::ZERO;
    forgery.weight("active")[end] = F::ONE;
    if operator == Operator::Add {
        // The last one has the multipliers of the others.
        for (column, prefix, _) in [MULT_1, MULT_2] {
            forgery.weight(column)[end] = forgery.weight(column)[0];
            for limbs in (0..4).map(|k| format!("{prefix}{k}")) {
                forgery.main(&limbs)[end] = forgery.main(&limbs)[0];
            }
        }
        forgery.recount();
    }
    forgery
}

/// 1, …, 1, 2, 0: the sum is O.
fn active_of_two(operator: Operator) -> Forgery {
    let mut forgery = forgery(operator);
    let end = forgery.layer.spec.n_outputs;
    forgery.weight("active")[end - 2] = F::TWO;
    forgery.weight("active")[end - 1] = F::ZERO;
    forgery
}

fn active_too_short(operator: Operator) -> Forgery {
    let mut forgery = forgery(operator);
    let end = forgery.layer.spec.n_outputs;
    forgery.weight("active")[end - 1] = F::ZERO;
    forgery
}
