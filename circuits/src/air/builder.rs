//! Builds a [`ConstraintSystem`]: names columns, collects constraints, and checks degrees at the end.

use super::expr::{Arena, Cell, Field2, Node, Op, OracleId, Rotation};
use super::system::{Constraint, ConstraintSystem, Domain, MAX_DEGREE, MAX_SUMMAND_DEGREE, Rule, Summand, Total};

/// A constraint system under construction.
#[derive(Debug)]
pub struct SystemBuilder {
    /// The expressions; use its methods to combine nodes.
    pub arena: Arena,
    system: ConstraintSystem,
}

impl SystemBuilder {
    /// An empty system.
    pub fn new(name: String) -> Self {
        let system = ConstraintSystem {
            name,
            arena: Arena::default(),
            columns: Default::default(),
            combined_columns: 0,
            rules: Vec::new(),
            constraints: Vec::new(),
            summands: Vec::new(),
            next: Vec::new(),
            period: Vec::new(),
        };
        Self { arena: Arena::default(), system }
    }

    /// Adds an F column and returns it at the current row.
    pub fn column(&mut self, oracle: OracleId, name: impl Into<String>) -> Node {
        let names = &mut self.system.columns[oracle as usize];
        names.push(name.into());
        let column = names.len() - 1;
        self.arena.cell(oracle, column, Rotation::Here)
    }

    /// Adds a K column of the projected oracle with the rule that computes it.
    pub fn projected(&mut self, name: &str, rule: Rule) -> Node {
        let names = &mut self.system.columns[OracleId::Projected as usize];
        let column = names.len();
        names.push(format!("{name}.0"));
        names.push(format!("{name}.1"));
        self.system.rules.push(rule);
        self.arena.ext_cell(OracleId::Projected, column, Rotation::Here)
    }

    /// Declares that w~ combines the first `count` weight columns.
    pub fn combine_weights(&mut self, count: usize) -> Node {
        self.system.combined_columns = count;
        self.arena.combined()
    }

    /// The same column at another rotation; records its opening.
    pub fn rotate(&mut self, node: Node, rotation: Rotation) -> Node {
        let op = self.arena.ops()[node.0 as usize];
        let (cell, width) = match op {
            Op::Cell(cell) => (cell, 1),
            Op::ExtCell(cell) => (cell, 2),
            _ => panic!("only a column can be rotated"),
        };
        let opened = match rotation {
            Rotation::Here => None,
            Rotation::Next => Some(&mut self.system.next),
            Rotation::Period => Some(&mut self.system.period),
        };
        if let Some(opened) = opened {
            for offset in 0..width {
                let rotated = Cell { oracle: cell.oracle, column: cell.column + offset, rotation };
                if !opened.contains(&rotated) {
                    opened.push(rotated);
                }
            }
        }
        match op {
            Op::Cell(_) => self.arena.cell(cell.oracle, cell.column, rotation),
            _ => self.arena.ext_cell(cell.oracle, cell.column, rotation),
        }
    }

    /// Index of an F column that was added.
    pub fn column_index(&self, node: Node) -> usize {
        match self.arena.ops()[node.0 as usize] {
            Op::Cell(cell) | Op::ExtCell(cell) => cell.column,
            _ => panic!("not a column"),
        }
    }

    /// Adds a constraint.
    pub fn constrain(&mut self, id: impl Into<String>, domain: Domain, zero: Node) {
        self.system.constraints.push(Constraint { id: id.into(), domain, zero });
    }

    /// Adds a summand of the running sum.
    pub fn sum(&mut self, id: &str, value: Node, total: Total) {
        self.system.summands.push(Summand { id: id.to_owned(), value, total });
    }

    /// The finished system.
    ///
    /// # Panics
    /// If a degree exceeds what the quotients are cut for: an error in the definition of an operator.
    pub fn build(mut self) -> ConstraintSystem {
        for constraint in &self.system.constraints {
            let domain_degree = usize::from(constraint.domain != Domain::Every);
            let degree = self.arena.degree(constraint.zero) + domain_degree;
            assert!(degree <= MAX_DEGREE, "constraint {} has degree {degree}", constraint.id);
        }
        for summand in &self.system.summands {
            let degree = self.arena.degree(summand.value);
            assert!(degree <= MAX_SUMMAND_DEGREE, "summand {} has degree {degree}", summand.id);
            assert_eq!(self.arena.field(summand.value), Field2::Ext, "summand {} is not in K", summand.id);
        }
        self.system.arena = self.arena;
        self.system
    }
}
