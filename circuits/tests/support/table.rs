//! The columns of a layer on the rows or on a larger coset, with every expression of the system evaluated at any point.

use plonky2::field::types::Field;
use zkinfer_circuits::air::{Cell, ConstraintSystem, Leaves, Native, Node, Op, OracleId, Rotation, Rule};
use zkinfer_circuits::backend::Scalars;
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{F, K, ext, lift, limbs, scale};

use super::forger::{Polynomials, coset_values, split};

/// Columns of weights, main, projected on `size` points; point + size/rows is the next row.
pub struct Table<'a> {
    pub system: &'a ConstraintSystem,
    pub scalars: Scalars<'a>,
    pub rows: usize,
    pub size: usize,
    pub columns: [Vec<Vec<F>>; 3],
    combined: Option<[Vec<F>; 2]>,
}

struct At<'a> {
    table: &'a Table<'a>,
    point: usize,
}

impl Leaves<K> for At<'_> {
    fn cell(&self, cell: Cell) -> K {
        let rows = match cell.rotation {
            Rotation::Here => 0,
            Rotation::Next => 1,
            Rotation::Period => self.table.scalars.period,
        };
        let point = (self.point + rows * (self.table.size / self.table.rows)) % self.table.size;
        self.table.columns[cell.oracle as usize].get(cell.column).map_or(K::ZERO, |column| lift(column[point]))
    }

    fn parameter(&self, index: usize) -> K {
        lift(self.table.scalars.theta[index])
    }

    fn challenge(&self, index: usize) -> K {
        self.table.scalars.challenges[index]
    }

    fn combined(&self) -> K {
        self.table.combined.as_ref().map_or(K::ZERO, |[c0, c1]| ext(c0[self.point], c1[self.point]))
    }
}

impl<'a> Table<'a> {
    /// Oracles (and w~) evaluated on shift·⟨g⟩ with `blow_up` points per row.
    pub fn new(
        system: &'a ConstraintSystem,
        scalars: Scalars<'a>,
        oracles: &[&Polynomials],
        combination: Option<&[Vec<F>; 2]>,
        shift: F,
        blow_up: usize,
    ) -> Self {
        let rows = oracles[0].rows;
        let size = rows * blow_up;
        let mut columns: [Vec<Vec<F>>; 3] = Default::default();
        for (target, oracle) in columns.iter_mut().zip(oracles) {
            *target = oracle.coefficients.iter().map(|c| coset_values(c, shift, size)).collect();
        }
        let combined = combination.map(|pair| pair.each_ref().map(|c| coset_values(c, shift, size)));
        Self { system, scalars, rows, size, columns, combined }
    }

    /// Weights and main on the rows.
    pub fn of_rows(system: &'a ConstraintSystem, scalars: Scalars<'a>, weights: &Columns, main: &Columns) -> Self {
        let columns = [weights, main].map(|columns| columns.iter().map(<[F]>::to_vec).collect());
        let [weights_columns, main_columns] = columns;
        let rows = weights.rows();
        Self { system, scalars, rows, size: rows, columns: [weights_columns, main_columns, vec![]], combined: None }
    }

    /// Values of all nodes at a point.
    pub fn evaluate(&self, point: usize) -> Vec<K> {
        self.system.arena.evaluate(&mut Native, &At { table: self, point })
    }

    /// Σ_k ξ^k·s_k at a point.
    pub fn batched_summands(&self, point: usize, xi: K) -> K {
        let values = self.evaluate(point);
        self.system.summands.iter().rev().fold(K::ZERO, |sum, s| sum * xi + values[s.value.0 as usize])
    }

    /// The sum of one expression over all rows.
    pub fn sum_over_rows(&self, node: Node) -> K {
        (0..self.size).map(|row| self.evaluate(row)[node.0 as usize]).sum()
    }

    /// Sets the projected columns, one K column per rule.
    pub fn set_projected(&mut self, columns: &[Vec<K>]) {
        self.columns[OracleId::Projected as usize] = columns.iter().flat_map(|column| split(column)).collect();
    }

    /// The projected columns by the rules, on the rows.
    pub fn honest_projection(&self) -> Vec<Vec<K>> {
        let values: Vec<Vec<K>> = (0..self.size).map(|row| self.evaluate(row)).collect();
        self.system.rules.iter().map(|rule| self.rule_column(*rule, &values)).collect()
    }

    fn rule_column(&self, rule: Rule, values: &[Vec<K>]) -> Vec<K> {
        let (challenges, period) = (self.scalars.challenges, self.scalars.period);
        match rule {
            Rule::Powers { ratio } => challenges[ratio].powers().take(self.rows).collect(),
            // Σ_j ratio^j·x(row − j·m): the unique solution of FOLD, whatever stands on rows ≥ m.
            Rule::Fold { source, ratio } => {
                let source = &self.columns[OracleId::Main as usize][source];
                let groups = self.rows / period;
                let powers: Vec<K> = challenges[ratio].powers().take(groups).collect();
                let cell = |row: usize| (0..groups).map(|j| scale(powers[j], source[(row + self.rows - j * period) % self.rows])).sum();
                (0..self.rows).map(cell).collect()
            }
            Rule::Quotient { numerator, denominator } => {
                values.iter().map(|v| v[numerator.0 as usize] / v[denominator.0 as usize]).collect()
            }
        }
    }

    /// w~ of a row: Σ_c γ'^c·W_c.
    pub fn combined_at(&self, row: usize, gamma_prime: K) -> K {
        let weights = &self.columns[0][..self.system.combined_columns];
        weights.iter().rev().fold(K::ZERO, |sum, column| sum * gamma_prime + lift(column[row]))
    }
}

/// The looked-up expressions (the last denominator's second factor, the table, left out) and the table's expression.
pub fn lookup_cells(system: &ConstraintSystem) -> (Vec<Node>, Node) {
    let ops = system.arena.ops();
    let subtrahend = |node: Node| match ops[node.0 as usize] {
        Op::Sub(_, cell) => cell,
        _ => panic!("a factor of a lookup is a difference"),
    };
    let mut cells = Vec::new();
    for rule in &system.rules {
        if let Rule::Quotient { denominator, .. } = rule {
            match ops[denominator.0 as usize] {
                Op::Mul(a, b) => cells.extend([subtrahend(a), subtrahend(b)]),
                _ => panic!("the denominator of a lookup is a product"),
            }
        }
    }
    let table = cells.pop().expect("a system has a table");
    (cells, table)
}

/// The F value of an expression without challenges.
pub fn base(value: K) -> F {
    let [c0, c1] = limbs(value);
    assert_eq!(c1, F::ZERO, "the value lies in F");
    c0
}
