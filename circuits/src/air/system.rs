//! A constraint system as data: columns, constraints, summands, and the rules that compute the projected columns.

use super::expr::{Arena, Cell, Node, OracleId};
use crate::field::{Digest, F};
use crate::hash::{self, Tag};
use plonky2::field::types::Field;

/// Highest degree of a constraint, before the factor of its domain.
pub const MAX_DEGREE: usize = 3;
/// Highest degree of a summand of the running sum.
pub const MAX_SUMMAND_DEGREE: usize = 2;

/// On which rows a constraint holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Domain {
    /// All rows.
    Every,
    /// Row 0: the polynomial is multiplied by L_0.
    First,
    /// Row n − 1: times L_{n−1}.
    Last,
    /// All rows but the last: times X − g^{n−1}.
    Step,
}

/// A polynomial that is zero on the rows of its domain.
#[derive(Clone, Debug)]
pub struct Constraint {
    /// Stable name, as in `docs/PROTOCOL.md`.
    pub id: String,
    /// The rows.
    pub domain: Domain,
    /// The polynomial.
    pub zero: Node,
}

/// What a summand adds up to over all rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Total {
    /// 0.
    Zero,
    /// The layer's balance in the ledger, sent before ξ.
    Balance,
    /// A scalar of θ.
    Parameter(usize),
}

/// A summand of the cyclic running sum.
#[derive(Clone, Debug)]
pub struct Summand {
    /// Stable name.
    pub id: String,
    /// The summand.
    pub value: Node,
    /// Its sum over all rows.
    pub total: Total,
}

/// How the prover computes a K column of the projected oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Row r holds challenge^r.
    Powers {
        /// Index of the derived challenge.
        ratio: usize,
    },
    /// Row q·m + i holds challenge^q · source(i).
    Fold {
        /// The F column of the main oracle.
        source: usize,
        /// Index of the derived challenge.
        ratio: usize,
    },
    /// numerator / denominator of each row.
    Quotient {
        /// Numerator.
        numerator: Node,
        /// Denominator; zero with negligible probability.
        denominator: Node,
    },
}

/// Names of an oracle's F columns (a K column has two entries, `name.0` and `name.1`).
pub type ColumnNames = Vec<String>;

/// Everything that defines one argument about one layer kind.
#[derive(Clone, Debug)]
pub struct ConstraintSystem {
    /// Name, for listings.
    pub name: String,
    /// Shared expressions.
    pub arena: Arena,
    /// Column names of weights, main and projected.
    pub columns: [ColumnNames; 3],
    /// Number of leading weight columns that enter w~ (0: none).
    pub combined_columns: usize,
    /// Rules of the projected K columns, in order.
    pub rules: Vec<Rule>,
    /// Constraints, in batching order.
    pub constraints: Vec<Constraint>,
    /// Summands, in batching order.
    pub summands: Vec<Summand>,
    /// F columns opened at gζ besides S, in order.
    pub next: Vec<Cell>,
    /// F columns opened at g^m·ζ, in order.
    pub period: Vec<Cell>,
}

/// F columns of the sums oracle: S, q_S, q_0, q_1, each in K.
pub const SUMS_WIDTH: usize = 8;

impl ConstraintSystem {
    /// F columns of an oracle.
    pub fn width(&self, oracle: OracleId) -> usize {
        match oracle {
            OracleId::Sums => SUMS_WIDTH,
            other => self.columns[other as usize].len(),
        }
    }

    /// The system as canonical text: names, columns, constraints, summands; the golden listing.
    pub fn listing(&self) -> String {
        let mut text = format!("system {}\n", self.name);
        for (oracle, names) in ["weights", "main", "projected"].iter().zip(&self.columns) {
            text += &format!("columns {oracle}: {}\n", names.join(" "));
        }
        text += &format!("combined {}\nnext {:?}\nperiod {:?}\n", self.combined_columns, self.next, self.period);
        for constraint in &self.constraints {
            text += &format!("{} {:?}: {}\n", constraint.id, constraint.domain, self.arena.display(constraint.zero));
        }
        for summand in &self.summands {
            text += &format!("{} total {:?}: {}\n", summand.id, summand.total, self.arena.display(summand.value));
        }
        text
    }

    /// Digest of [`Self::listing`].
    pub fn digest(&self) -> Digest {
        let bytes = hash::hash_bytes(self.listing().as_bytes());
        let mut elements = vec![F::from_canonical_usize(self.constraints.len())];
        elements.extend(bytes.elements);
        hash::hash(Tag::Constraints, &elements)
    }
}
