//! The constraints of an add layer (`docs/PROTOCOL.md` §3) and of its registration (§4).

use crate::air::{ConstraintSystem, Domain, Node, OracleId, Rotation, SystemBuilder, Total};
use crate::gadgets::powers::powers;
use crate::gadgets::requantize::{requant_columns, requantize};
use crate::gadgets::table::byte_table;
use crate::kind::LayerKind;
use crate::layer::theta;
use crate::ops::registration::{Registered, register_constants};

struct Constants {
    multipliers: [Node; 2],
    active: Node,
}

fn constants(b: &mut SystemBuilder) -> Constants {
    let multipliers = [1, 2].map(|k| b.column(OracleId::Weights, format!("mult{k}")));
    let active = b.column(OracleId::Weights, "active");
    Constants { multipliers, active }
}

/// The inference argument.
pub fn inference(kind: &LayerKind) -> ConstraintSystem {
    let mut b = SystemBuilder::new(format!("add/{}", kind.log_rows));
    let constants = constants(&mut b);
    let inputs = [1, 2].map(|k| b.column(OracleId::Main, format!("x{k}")));
    let requant = requant_columns(&mut b);
    let table = byte_table(&mut b);
    let powers = powers(&mut b);
    let scaled = b.arena.inner_product(&constants.multipliers, &inputs);
    requantize(&mut b, &requant, scaled, constants.active, table);
    // SUM-LEDGER  Σ_rows Γ·(D_out·(u + lo·active) − δ^edge_in_1·x1 − δ^edge_in_2·x2) = balance
    let lo = b.arena.parameter(theta::LO);
    let lifted = b.arena.mul(lo, constants.active);
    let output = b.arena.add(requant.offset_output, lifted);
    let d_out = b.arena.challenge(theta::D_OUT);
    let d_in = [theta::D_IN_1, theta::D_IN_2].map(|index| b.arena.challenge(index));
    let produced = b.arena.mul(d_out, output);
    let consumed = b.arena.inner_product(&d_in, &inputs);
    let difference = b.arena.sub(produced, consumed);
    let ledger = b.arena.mul(powers, difference);
    b.sum("SUM-LEDGER", ledger, Total::Balance);
    b.build()
}

/// The registration argument: both multipliers in range and one for all elements, `active` the first O rows.
pub fn registration(kind: &LayerKind) -> ConstraintSystem {
    let mut b = SystemBuilder::new(format!("add-registration/{}", kind.log_rows));
    let constants = constants(&mut b);
    let [first, second] = constants.multipliers;
    let registered = [
        Registered { id: "MULT-1", name: "ml", value: first, limbs: theta::MULTIPLIER, top: theta::MULTIPLIER_TOP },
        Registered { id: "MULT-2", name: "nl", value: second, limbs: theta::MULTIPLIER, top: theta::MULTIPLIER_TOP },
    ];
    register_constants(&mut b, &[], &registered, constants.active);
    for (id, multiplier) in [("MULT-1-STEP", first), ("MULT-2-STEP", second)] {
        same_on_active_rows(&mut b, id, multiplier, constants.active);
    }
    b.build()
}

/// `active` is 1 on rows 0 … O − 1 and 0 after them, so the column holds one number on exactly these rows.
fn same_on_active_rows(b: &mut SystemBuilder, id: &str, column: Node, active: Node) {
    // MULT-k-STEP   active(gX)·(mult_k(gX) − mult_k) = 0 on rows 0 … n − 2
    let [active_next, next] = [active, column].map(|node| b.rotate(node, Rotation::Next));
    let difference = b.arena.sub(next, column);
    let step = b.arena.mul(active_next, difference);
    b.constrain(id, Domain::Step, step);
}
