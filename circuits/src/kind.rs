//! Layer kinds: the finite set of table shapes that the recursion circuits know.

use serde::{Deserialize, Serialize};

/// What a layer computes (`docs/PROTOCOL.md` §1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operator {
    /// `y = requantize(W x + b)`, or raw accumulators.
    Dense,
    /// `y = requantize(M₁·x₁ + M₂·x₂)`.
    Add,
}

/// Which argument about a layer a proof makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Role {
    /// The layer was evaluated on some input.
    Inference,
    /// The layer's private constants are in range.
    Registration,
}

/// The shape of a layer's table: everything that a circuit verifying it must fix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LayerKind {
    /// The operator.
    pub operator: Operator,
    /// log₂ of the rows n; 8 ≤ log_rows ≤ 16.
    pub log_rows: usize,
    /// Weight columns C (dense), 0 for add.
    pub n_columns: usize,
}

impl LayerKind {
    /// n, the rows of the table.
    pub fn rows(&self) -> usize {
        1 << self.log_rows
    }
}
