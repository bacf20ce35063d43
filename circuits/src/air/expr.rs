//! Expressions over the cells of a table, stored once in an arena of shared nodes.
//!
//! Every consumer (packed CPU evaluation, the native verifier, the recursive circuit, the degree check, the golden listing)
//! interprets the same arena, so that a constraint is written in exactly one place.

use std::collections::HashMap;
use std::fmt;

use super::algebra::Algebra;

/// The four oracles of a layer, in commitment order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(usize)]
pub enum OracleId {
    /// Private constants, committed once per model.
    Weights = 0,
    /// Round 1: copies of tensors, limbs, multiplicities.
    Main = 1,
    /// Round 2: columns that depend on γ', δ, α.
    Projected = 2,
    /// Round 3: the running sum and the quotients.
    Sums = 3,
}

/// All oracles in commitment order.
pub const ORACLES: [OracleId; 4] = [OracleId::Weights, OracleId::Main, OracleId::Projected, OracleId::Sums];

/// Where a column is read, relative to the current row X.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rotation {
    /// At X.
    Here,
    /// At gX, the next row.
    Next,
    /// At g^m X, the same row of the next group.
    Period,
}

/// A column of an oracle, read at a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cell {
    /// The oracle.
    pub oracle: OracleId,
    /// Index of the F column (the first of two for a K column).
    pub column: usize,
    /// The rotation.
    pub rotation: Rotation,
}

/// A node of an [`Arena`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Node(pub u32);

/// Field in which a node takes its values on the rows of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field2 {
    /// Values in F.
    Base,
    /// Values in K.
    Ext,
}

/// One operation of an [`Arena`]; operands always precede it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// A small constant.
    Constant(u64),
    /// An F column.
    Cell(Cell),
    /// A K column: F columns `column` and `column + 1`.
    ExtCell(Cell),
    /// Public scalar in F, by its index in θ.
    Parameter(usize),
    /// Scalar in K derived from challenges, by its index.
    Challenge(usize),
    /// w~ = Σ_c γ'^c W_c, a K column known by its openings.
    Combined,
    /// Sum.
    Add(Node, Node),
    /// Difference.
    Sub(Node, Node),
    /// Product.
    Mul(Node, Node),
}

/// Shared expression nodes in topological order.
#[derive(Clone, Debug, Default)]
pub struct Arena {
    ops: Vec<Op>,
    degrees: Vec<usize>,
    fields: Vec<Field2>,
    index: HashMap<Op, Node>,
}

impl Arena {
    /// All operations; an operand's index is smaller than its user's.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    /// Degree of a node as a product of columns.
    pub fn degree(&self, node: Node) -> usize {
        self.degrees[node.0 as usize]
    }

    /// Field of a node's values on rows.
    pub fn field(&self, node: Node) -> Field2 {
        self.fields[node.0 as usize]
    }

    fn push(&mut self, op: Op) -> Node {
        if let Some(&node) = self.index.get(&op) {
            return node;
        }
        let (degree, field) = match op {
            Op::Constant(_) | Op::Parameter(_) => (0, Field2::Base),
            Op::Challenge(_) => (0, Field2::Ext),
            Op::Cell(_) => (1, Field2::Base),
            Op::ExtCell(_) | Op::Combined => (1, Field2::Ext),
            Op::Add(a, b) | Op::Sub(a, b) => (self.degree(a).max(self.degree(b)), self.join(a, b)),
            Op::Mul(a, b) => (self.degree(a) + self.degree(b), self.join(a, b)),
        };
        let node = Node(self.ops.len() as u32);
        self.ops.push(op);
        self.degrees.push(degree);
        self.fields.push(field);
        self.index.insert(op, node);
        node
    }

    fn join(&self, a: Node, b: Node) -> Field2 {
        if self.field(a) == Field2::Ext || self.field(b) == Field2::Ext { Field2::Ext } else { Field2::Base }
    }

    /// A constant.
    pub fn constant(&mut self, value: u64) -> Node {
        self.push(Op::Constant(value))
    }

    /// An F column.
    pub fn cell(&mut self, oracle: OracleId, column: usize, rotation: Rotation) -> Node {
        self.push(Op::Cell(Cell { oracle, column, rotation }))
    }

    /// A K column, by its first F column.
    pub fn ext_cell(&mut self, oracle: OracleId, column: usize, rotation: Rotation) -> Node {
        self.push(Op::ExtCell(Cell { oracle, column, rotation }))
    }

    /// A public scalar of θ.
    pub fn parameter(&mut self, index: usize) -> Node {
        self.push(Op::Parameter(index))
    }

    /// A scalar derived from challenges.
    pub fn challenge(&mut self, index: usize) -> Node {
        self.push(Op::Challenge(index))
    }

    /// w~.
    pub fn combined(&mut self) -> Node {
        self.push(Op::Combined)
    }

    /// `a + b`.
    pub fn add(&mut self, a: Node, b: Node) -> Node {
        self.push(Op::Add(a, b))
    }

    /// `a − b`.
    pub fn sub(&mut self, a: Node, b: Node) -> Node {
        self.push(Op::Sub(a, b))
    }

    /// `a · b`.
    pub fn mul(&mut self, a: Node, b: Node) -> Node {
        self.push(Op::Mul(a, b))
    }

    /// Sum of a non-empty list.
    pub fn sum(&mut self, terms: &[Node]) -> Node {
        let (&first, rest) = terms.split_first().expect("a sum has at least one term");
        rest.iter().fold(first, |sum, &term| self.add(sum, term))
    }

    /// `Σ coefficient · term`.
    pub fn inner_product(&mut self, coefficients: &[Node], terms: &[Node]) -> Node {
        let products: Vec<Node> = coefficients.iter().zip(terms).map(|(&c, &t)| self.mul(c, t)).collect();
        self.sum(&products)
    }

    /// Values of all nodes, given the values of the leaves.
    pub fn evaluate<A: Algebra>(&self, algebra: &mut A, leaves: &impl Leaves<A::Value>) -> Vec<A::Value> {
        let mut values: Vec<A::Value> = Vec::with_capacity(self.ops.len());
        for op in &self.ops {
            let value = match *op {
                Op::Constant(value) => algebra.constant(value),
                Op::Cell(cell) => leaves.cell(cell),
                Op::ExtCell(cell) => {
                    let second = Cell { column: cell.column + 1, ..cell };
                    algebra.join(leaves.cell(cell), leaves.cell(second))
                }
                Op::Parameter(index) => leaves.parameter(index),
                Op::Challenge(index) => leaves.challenge(index),
                Op::Combined => leaves.combined(),
                Op::Add(a, b) => algebra.add(values[a.0 as usize], values[b.0 as usize]),
                Op::Sub(a, b) => algebra.sub(values[a.0 as usize], values[b.0 as usize]),
                Op::Mul(a, b) => algebra.mul(values[a.0 as usize], values[b.0 as usize]),
            };
            values.push(value);
        }
        values
    }

    /// The expression of a node as text, for golden listings.
    pub fn display(&self, node: Node) -> String {
        match self.ops[node.0 as usize] {
            Op::Add(a, b) => format!("({} + {})", self.display(a), self.display(b)),
            Op::Sub(a, b) => format!("({} - {})", self.display(a), self.display(b)),
            Op::Mul(a, b) => format!("{}*{}", self.display(a), self.display(b)),
            leaf => leaf.to_string(),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cell = |f: &mut fmt::Formatter<'_>, name: &str, cell: &Cell| {
            let rotation = match cell.rotation {
                Rotation::Here => "",
                Rotation::Next => "@next",
                Rotation::Period => "@period",
            };
            write!(f, "{name}{}.{}{rotation}", cell.oracle as usize, cell.column)
        };
        match self {
            Op::Constant(value) => write!(f, "{value}"),
            Op::Cell(c) => cell(f, "f", c),
            Op::ExtCell(c) => cell(f, "k", c),
            Op::Parameter(index) => write!(f, "theta{index}"),
            Op::Challenge(index) => write!(f, "challenge{index}"),
            Op::Combined => write!(f, "combined"),
            Op::Add(a, b) => write!(f, "n{} + n{}", a.0, b.0),
            Op::Sub(a, b) => write!(f, "n{} - n{}", a.0, b.0),
            Op::Mul(a, b) => write!(f, "n{} * n{}", a.0, b.0),
        }
    }
}

/// Values of the leaves of an [`Arena`] at one point.
pub trait Leaves<V> {
    /// Value of an F column.
    fn cell(&self, cell: Cell) -> V;
    /// Value of a scalar of θ.
    fn parameter(&self, index: usize) -> V;
    /// Value of a derived challenge.
    fn challenge(&self, index: usize) -> V;
    /// Value of w~.
    fn combined(&self) -> V;
}
