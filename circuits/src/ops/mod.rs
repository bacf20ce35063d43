//! One folder per operator: equation, columns, constraints, trace.

pub mod add;
pub mod dense;
pub mod registration;
#[cfg(feature = "prover")]
pub mod trace;

use crate::air::ConstraintSystem;
use crate::kind::{LayerKind, Operator, Role};

/// The constraint system of a layer kind in a role.
pub fn system(kind: &LayerKind, role: Role) -> ConstraintSystem {
    match (kind.operator, role) {
        (Operator::Dense, Role::Inference) => dense::constraints::inference(kind),
        (Operator::Add, Role::Inference) => add::constraints::inference(kind),
        (Operator::Dense, Role::Registration) => dense::constraints::registration(kind),
        (Operator::Add, Role::Registration) => add::constraints::registration(kind),
    }
}
