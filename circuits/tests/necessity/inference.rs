//! Attacks on the inference of both operators: each changes an output (or what the ledger is told of it).

use plonky2::field::types::Field;
use zkinfer_circuits::field::{K, from_signed, lift, scale};
use zkinfer_circuits::kind::{Operator, Role};
use zkinfer_circuits::layer::theta;

use super::{Attack, set_table, table_from_minus_100, table_to_511, table_with};
use crate::support::forge::{Forgery, RequantRow, spread_layer};

const LO: i64 = -60;
const HI: i64 = 60;

/// All attacks on an operator's inference.
pub fn inference_attacks(operator: Operator) -> Vec<Attack> {
    let mut attacks = vec![
        Attack { id: "TABLE-FIRST", forge: table_first },
        Attack { id: "TABLE-STEP", forge: table_step },
        Attack { id: "TABLE-LAST", forge: table_last },
        Attack { id: "MASK-OUT", forge: mask_out },
        Attack { id: "CLAMP", forge: clamp },
        Attack { id: "REQUANT", forge: requant },
        Attack { id: "LOOKUP-0", forge: lookup_0 },
        Attack { id: "LOOKUP-1", forge: lookup_1 },
        Attack { id: "LOOKUP-2", forge: lookup_2 },
        Attack { id: "LOOKUP-3", forge: lookup_3 },
        Attack { id: "LOOKUP-4", forge: lookup_4 },
        Attack { id: "LOOKUP-5", forge: lookup_5 },
        Attack { id: "POWERS-FIRST", forge: powers_first },
        Attack { id: "POWERS-STEP", forge: powers_step },
        Attack { id: "SUM-LOOKUP", forge: sum_lookup },
        Attack { id: "SUM-LEDGER", forge: sum_ledger },
    ];
    if operator == Operator::Dense {
        attacks.push(Attack { id: "FOLD", forge: fold });
        attacks.push(Attack { id: "SUM-DENSE", forge: sum_dense });
    }
    attacks
}

fn forgery(operator: Operator, shift: u32) -> Forgery {
    Forgery::honest(spread_layer(operator, shift, LO, HI, 11), Role::Inference)
}

/// Not clamped, and neither is the value one above or below.
fn is_interior(row: RequantRow) -> bool {
    row.overshoot == 0 && row.u > 1 && row.u < HI - LO - 1
}

/// Output y + 1 with the top limb of the remainder below 0.
fn table_first(operator: Operator) -> Forgery {
    let mut forgery = forgery(operator, 16);
    let row = forgery.find(|r| is_interior(r) && r.limbs[1] >= 156);
    forgery.shift("r1", row, -256);
    forgery.shift("u", row, 1);
    set_table(&mut forgery, table_from_minus_100);
    forgery.recount();
    forgery
}

/// Output y − 1 with the top limb of the remainder above 255.
fn top_limb_too_large(operator: Operator) -> (Forgery, i64) {
    let mut forgery = forgery(operator, 16);
    let row = forgery.find(is_interior);
    forgery.shift("r1", row, 256);
    forgery.shift("u", row, -1);
    let limb = forgery.main_cell("r1", row);
    (forgery, limb)
}

fn table_step(operator: Operator) -> Forgery {
    let (mut forgery, limb) = top_limb_too_large(operator);
    set_table(&mut forgery, table_with(limb));
    forgery.recount();
    forgery
}

fn table_last(operator: Operator) -> Forgery {
    let (mut forgery, _) = top_limb_too_large(operator);
    set_table(&mut forgery, table_to_511);
    forgery.recount();
    forgery
}

/// An inactive row adds to the tensor that the ledger is told of.
fn mask_out(operator: Operator) -> Forgery {
    let mut forgery = forgery(operator, 16);
    let row = forgery.layer.spec.n_outputs;
    forgery.shift("u", row, 5);
    forgery.recount();
    forgery
}

/// e = R strictly between the clamps: u' + 2u' − R = u.
fn clamp(operator: Operator) -> Forgery {
    let mut forgery = forgery(operator, 16);
    let range = forgery.range();
    let row = forgery.find(|r| is_interior(r) && (r.u + range) % 3 == 0 && 2 * r.u != range);
    let u = (forgery.requant_row(row).u + range) / 3;
    forgery.main("u")[row] = from_signed(u);
    forgery.main("e0")[row] = from_signed(range);
    forgery.recount();
    forgery
}

fn requant(operator: Operator) -> Forgery {
    let mut forgery = forgery(operator, 16);
    let row = forgery.find(is_interior);
    forgery.shift("u", row, 1);
    forgery.recount();
    forgery
}

/// Pair (u, R − u): an output above the upper clamp.
fn lookup_0(operator: Operator) -> Forgery {
    let mut forgery = forgery(operator, 16);
    let range = forgery.range();
    let row = forgery.find(|r| r.u == range && (1..=255 - range).contains(&r.overshoot));
    let overshoot = forgery.requant_row(row).overshoot;
    forgery.shift("u", row, overshoot);
    forgery.shift("e0", row, -overshoot);
    forgery.recount();
    forgery.absorb_in_helper(0, row);
    forgery
}

/// Pair (r0, r1): r0 = −2^16 makes the remainder negative, the output one larger.
fn lookup_1(operator: Operator) -> Forgery {
    let mut forgery = negative_remainder(operator, 16, "r0", 1 << 16);
    let row = forgery.1;
    forgery.0.absorb_in_helper(1, row);
    forgery.0
}

/// Pair (r2, r3): r2 = −2^16 likewise, with s = 32.
fn lookup_2(operator: Operator) -> Forgery {
    let mut forgery = negative_remainder(operator, 32, "r2", 1 << 16);
    let row = forgery.1;
    forgery.0.absorb_in_helper(2, row);
    forgery.0
}

fn negative_remainder(operator: Operator, shift: u32, limb: &str, amount: i64) -> (Forgery, usize) {
    let mut forgery = forgery(operator, shift);
    let row = forgery.find(is_interior);
    forgery.shift(limb, row, -amount);
    forgery.shift("u", row, 1);
    forgery.recount();
    (forgery, row)
}

/// Pair (r4, top): s = 20, so r2 must be below 16; r2 + 16 is a byte whose scaled copy is not.
fn lookup_3(operator: Operator) -> Forgery {
    let mut forgery = forgery(operator, 20);
    let row = forgery.find(is_interior);
    forgery.shift("r2", row, 16);
    forgery.shift("u", row, -1);
    forgery.recount();
    forgery.absorb_in_helper(3, row);
    forgery
}

/// Pair (e0, e1): the upper clamp although the quotient is below it, with a negative overshoot.
fn lookup_4(operator: Operator) -> Forgery {
    let (mut forgery, row, missing) = clamped_from_below(operator);
    forgery.shift("e0", row, -missing);
    forgery.recount();
    forgery.absorb_in_helper(4, row);
    forgery
}

/// Pair (e2, table): e2 = −1 and e1 = 255 make the same negative overshoot with a byte e0.
fn lookup_5(operator: Operator) -> Forgery {
    let (mut forgery, row, missing) = clamped_from_below(operator);
    forgery.shift("e0", row, 256 - missing);
    forgery.shift("e1", row, 255);
    forgery.shift("e2", row, -1);
    forgery.recount();
    forgery.absorb_in_helper(5, row);
    forgery
}

/// u = R on an interior row; the missing overshoot is still to be written.
fn clamped_from_below(operator: Operator) -> (Forgery, usize, i64) {
    let mut forgery = forgery(operator, 16);
    let range = forgery.range();
    let row = forgery.find(is_interior);
    let missing = range - forgery.requant_row(row).u;
    forgery.shift("u", row, missing);
    (forgery, row, missing)
}

/// Γ = 0: nothing is weighed, and the ledger hears nothing of the layer.
fn powers_first(operator: Operator) -> Forgery {
    let mut layer = spread_layer(operator, 16, LO, HI, 11);
    if operator == Operator::Dense {
        // X̂·w~ has to vanish as well.
        layer.inputs[0].fill(0);
    }
    let mut forgery = Forgery::honest(layer, Role::Inference);
    if operator == Operator::Dense {
        forgery.set_accumulator(7, 123_456);
        forgery.recount();
    }
    let powers = forgery.projected("powers");
    forgery.on_project(Box::new(move |_, columns| columns[powers].fill(K::ZERO)));
    forgery
}

/// Γ chosen anew on one row: a wrong accumulator weighs as much as the right one did (add: an output weighs nothing).
fn powers_step(operator: Operator) -> Forgery {
    let mut forgery = forgery(operator, 16);
    let row = 9;
    let mut factor = K::ZERO;
    if operator == Operator::Dense {
        let (accumulator, bias) = (forgery.main_cell("acc", row), forgery.weight_cell("bias", row));
        forgery.set_accumulator(row, accumulator + 20_000);
        forgery.recount();
        factor = lift(from_signed(accumulator - bias) / from_signed(accumulator + 20_000 - bias));
    }
    let powers = forgery.projected("powers");
    forgery.on_project(Box::new(move |_, columns| columns[powers][row] *= factor));
    forgery
}

/// X̂ changed where w~ is not zero, so that a wrong accumulator fits.
fn fold(operator: Operator) -> Forgery {
    let mut forgery = forgery(operator, 16);
    let row = forgery.find(is_interior);
    let accumulator = forgery.main_cell("acc", row);
    forgery.set_accumulator(row, accumulator + 10_000);
    forgery.recount();
    let folded = forgery.projected("x_folded");
    forgery.on_project(Box::new(move |table, columns| {
        let gamma_prime = table.scalars.challenges[theta::GAMMA_PRIME];
        let missing = scale(gamma_prime.exp_u64(row as u64), from_signed(10_000));
        columns[folded][5] += missing / table.combined_at(5, gamma_prime);
    }));
    forgery
}

/// A wrong accumulator, requantized correctly.
fn sum_dense(_: Operator) -> Forgery {
    let mut forgery = forgery(Operator::Dense, 16);
    let row = forgery.find(is_interior);
    let accumulator = forgery.main_cell("acc", row);
    forgery.set_accumulator(row, accumulator + 20_000);
    forgery.recount();
    forgery
}

/// A cell that is no byte, with honest helpers.
fn sum_lookup(operator: Operator) -> Forgery {
    negative_remainder(operator, 16, "r0", 1 << 16).0
}

/// A claimed balance that the columns do not have.
fn sum_ledger(operator: Operator) -> Forgery {
    let mut forgery = forgery(operator, 16);
    forgery.balance_error = K::ONE;
    forgery
}
