//! The constraints of a dense layer (`docs/PROTOCOL.md` §3) and of its registration (§4).

use crate::air::{ConstraintSystem, Domain, Node, OracleId, Rotation, Rule, SystemBuilder, Total};
use crate::gadgets::powers::powers;
use crate::gadgets::requantize::{requant_columns, requantize};
use crate::gadgets::table::byte_table;
use crate::kind::LayerKind;
use crate::layer::theta;
use crate::ops::registration::{Registered, register_constants};

/// Weight columns after `W_0 … W_{C−1}`.
struct Constants {
    weights: Vec<Node>,
    bias: Node,
    multiplier: Node,
    active: Node,
}

fn constants(b: &mut SystemBuilder, n_columns: usize) -> Constants {
    let weights = (0..n_columns).map(|c| b.column(OracleId::Weights, format!("w{c}"))).collect();
    let bias = b.column(OracleId::Weights, "bias");
    let multiplier = b.column(OracleId::Weights, "mult");
    let active = b.column(OracleId::Weights, "active");
    Constants { weights, bias, multiplier, active }
}

/// The inference argument.
pub fn inference(kind: &LayerKind) -> ConstraintSystem {
    let mut b = SystemBuilder::new(format!("dense/{}x{}", kind.log_rows, kind.n_columns));
    let constants = constants(&mut b, kind.n_columns);
    let input = b.column(OracleId::Main, "x");
    let requant = requant_columns(&mut b);
    let accumulator = b.column(OracleId::Main, "acc");
    let table = byte_table(&mut b);
    let powers = powers(&mut b);
    let folded = fold(&mut b, input);
    let scaled = b.arena.mul(accumulator, constants.multiplier);
    requantize(&mut b, &requant, scaled, constants.active, table);
    // SUM-DENSE  Σ_rows X̂·w~ − Γ·(acc − bias) = 0
    let combined = b.combine_weights(kind.n_columns);
    let product = b.arena.mul(folded, combined);
    let without_bias = b.arena.sub(accumulator, constants.bias);
    let weighted = b.arena.mul(powers, without_bias);
    let dense = b.arena.sub(product, weighted);
    b.sum("SUM-DENSE", dense, Total::Zero);
    // SUM-LEDGER  Σ_rows D_out·Γ·((1 − raw)·(u + lo·active) + raw·acc) − δ^edge_in·Γ·x = balance
    let output = ledger_output(&mut b, requant.offset_output, accumulator, constants.active);
    let d_out = b.arena.challenge(theta::D_OUT);
    let d_in = b.arena.challenge(theta::D_IN_1);
    let produced = b.arena.mul(d_out, output);
    let consumed = b.arena.mul(d_in, input);
    let difference = b.arena.sub(produced, consumed);
    let ledger = b.arena.mul(powers, difference);
    b.sum("SUM-LEDGER", ledger, Total::Balance);
    b.build()
}

/// X̂: row q·m + i holds γ'^(C·q)·x(i).
fn fold(b: &mut SystemBuilder, input: Node) -> Node {
    let source = b.column_index(input);
    let folded = b.projected("x_folded", Rule::Fold { source, ratio: theta::FOLD_RATIO });
    // FOLD  X̂(g^m X) − γ'^C·X̂ − (1 − γ'^(C·Q))·x(g^m X) = 0
    let input_there = b.rotate(input, Rotation::Period);
    let folded_there = b.rotate(folded, Rotation::Period);
    let ratio = b.arena.challenge(theta::FOLD_RATIO);
    let wrap = b.arena.challenge(theta::FOLD_WRAP);
    let carried = b.arena.mul(ratio, folded);
    let entered = b.arena.mul(wrap, input_there);
    let zero = b.arena.sub(folded_there, carried);
    let zero = b.arena.sub(zero, entered);
    b.constrain("FOLD", Domain::Every, zero);
    folded
}

fn ledger_output(b: &mut SystemBuilder, offset_output: Node, accumulator: Node, active: Node) -> Node {
    let raw = b.arena.parameter(theta::RAW);
    let lo = b.arena.parameter(theta::LO);
    let lifted = b.arena.mul(lo, active);
    let requantized = b.arena.add(offset_output, lifted);
    // (1 − raw)·y + raw·acc = y + raw·(acc − y)
    let difference = b.arena.sub(accumulator, requantized);
    let chosen = b.arena.mul(raw, difference);
    b.arena.add(requantized, chosen)
}

/// The registration argument: weights, bias, multiplier in range, `active` the first O rows.
pub fn registration(kind: &LayerKind) -> ConstraintSystem {
    let mut b = SystemBuilder::new(format!("dense-registration/{}x{}", kind.log_rows, kind.n_columns));
    let constants = constants(&mut b, kind.n_columns);
    let offset = b.arena.constant(128);
    // W_c + 128 is a byte: int8.
    let weights: Vec<Node> = constants.weights.iter().map(|&w| b.arena.add(w, offset)).collect();
    let bias_offset = b.arena.parameter(theta::BIAS_OFFSET);
    let shifted_bias = b.arena.add(constants.bias, bias_offset);
    let registered = [
        Registered { id: "BIAS", name: "bl", value: shifted_bias, limbs: theta::BIAS, top: theta::BIAS_TOP },
        Registered { id: "MULT", name: "ml", value: constants.multiplier, limbs: theta::MULTIPLIER, top: theta::MULTIPLIER_TOP },
    ];
    register_constants(&mut b, &weights, &registered, constants.active);
    b.build()
}
