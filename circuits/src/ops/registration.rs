//! What registration proves of a layer's private constants, whatever the operator.

use crate::air::{Domain, Node, OracleId, Rotation, SystemBuilder, Total};
use crate::gadgets::lookup::{LookupNames, byte_lookups};
use crate::gadgets::table::byte_table;
use crate::layer::theta;

/// A private constant with its public width: `value = Σ c_k limb_k`, limbs and `Σ d_k limb_k` bytes.
#[derive(Clone, Copy, Debug)]
pub struct Registered {
    /// Id of the constraint.
    pub id: &'static str,
    /// Prefix of the limb columns.
    pub name: &'static str,
    /// The value, of degree 1.
    pub value: Node,
    /// First index of the weights c in θ.
    pub limbs: usize,
    /// First index of the weights d in θ.
    pub top: usize,
}

/// Adds limb columns, range checks of `bytes` and of the constants, and the shape of `active`.
pub fn register_constants(b: &mut SystemBuilder, bytes: &[Node], constants: &[Registered], active: Node) {
    let mut cells = bytes.to_vec();
    for constant in constants {
        let columns: Vec<Node> = (0..theta::N_CONSTANT_LIMBS).map(|k| b.column(OracleId::Main, format!("{}{k}", constant.name))).collect();
        // BIAS, MULT  value − Σ c_k·limb_k = 0
        let sum = weighted(b, constant.limbs, &columns);
        let zero = b.arena.sub(constant.value, sum);
        b.constrain(constant.id, Domain::Every, zero);
        cells.extend(&columns);
        let top = weighted(b, constant.top, &columns);
        cells.push(top);
    }
    if cells.len().is_multiple_of(2) {
        cells.push(*cells.last().expect("there is at least one constant"));
    }
    let table = byte_table(b);
    active_rows(b, active);
    byte_lookups(b, &cells, table, LookupNames { constraint: "REG-LOOKUP", sum: "SUM-REG-LOOKUP" });
    // SUM-ACTIVE  Σ_rows active = O; lifted to K by a factor that is 1.
    let powers_of_one = lift(b, active);
    b.sum("SUM-ACTIVE", powers_of_one, Total::Parameter(theta::N_OUTPUTS));
}

fn weighted(b: &mut SystemBuilder, first: usize, columns: &[Node]) -> Node {
    let weights: Vec<Node> = (first..first + columns.len()).map(|index| b.arena.parameter(index)).collect();
    b.arena.inner_product(&weights, columns)
}

/// `active + 0·α`: the same value, as a node of K.
fn lift(b: &mut SystemBuilder, active: Node) -> Node {
    let zero = b.arena.constant(0);
    let alpha = b.arena.challenge(theta::ALPHA);
    let nothing = b.arena.mul(zero, alpha);
    b.arena.add(active, nothing)
}

/// `active` is 1 on a first block of rows and 0 after it; SUM-ACTIVE gives the block's length O ≥ 1, hence also `active = 1` on row 0.
fn active_rows(b: &mut SystemBuilder, active: Node) {
    let one = b.arena.constant(1);
    // ACTIVE-STEP   active(gX)·(1 − active) = 0 on rows 0 … n − 2
    let next = b.rotate(active, Rotation::Next);
    let inactive = b.arena.sub(one, active);
    let step = b.arena.mul(next, inactive);
    b.constrain("ACTIVE-STEP", Domain::Step, step);
    // ACTIVE-BOOL   active·(1 − active) = 0
    let boolean = b.arena.mul(active, inactive);
    b.constrain("ACTIVE-BOOL", Domain::Every, boolean);
}
