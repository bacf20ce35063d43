//! A layer with a dishonest witness: cells changed before commitment, projected columns changed by a hook.

use std::collections::HashMap;

use plonky2::field::types::{Field, PrimeField64};
use plonky2::fri::FriConfig;
use zkinfer_circuits::air::{OracleId, Rule, Total};
use zkinfer_circuits::backend::Scalars;
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{F, K, ext, from_signed, to_signed};
use zkinfer_circuits::gadgets::requantize::requant_witness;
use zkinfer_circuits::kind::{Operator, Role};
use zkinfer_circuits::layer::prover::{LinkedOracle, balance, commit_linked, prove};
use zkinfer_circuits::layer::shape::fri_config;
use zkinfer_circuits::layer::{LayerClaim, LayerProof, LayerShape, OutputRule, scalars};

use super::forger::{Forger, ProjectHook};
use super::table::{Table, base, lookup_cells};
use super::{Layer, columns, gamma_delta, random_add, random_dense};

/// The FRI parameters of attacks: what is attacked is the argument, not FRI.
pub fn attack_config() -> FriConfig {
    fri_config(1, 8, 2)
}

/// A witness to lie with.
pub struct Forgery {
    pub layer: Layer,
    pub shape: LayerShape,
    pub weights: Columns,
    pub main: Columns,
    pub forger: Forger,
    /// What the honest layer outputs.
    pub output: Vec<i64>,
    /// Added to the balance that the committed columns have.
    pub balance_error: K,
}

/// The requantization cells of a row.
#[derive(Clone, Copy, Debug)]
pub struct RequantRow {
    pub u: i64,
    pub overshoot: i64,
    pub limbs: [i64; 5],
}

impl Forgery {
    /// The honest witness, to be changed.
    pub fn honest(layer: Layer, role: Role) -> Self {
        Self::with_config(layer, role, &attack_config())
    }

    pub fn with_config(layer: Layer, role: Role, config: &FriConfig) -> Self {
        layer.spec.check_shape().expect("the layer's description is valid");
        let shape = LayerShape::new(layer.spec.kind, role, config);
        let (weights, main, output) = columns(&layer, &shape);
        Self { layer, shape, weights, main, forger: Forger::default(), output, balance_error: K::ZERO }
    }

    fn locate(&self, oracle: OracleId, name: &str) -> usize {
        let names = &self.shape.system.columns[oracle as usize];
        names.iter().position(|n| n == name).unwrap_or_else(|| panic!("no column {name}"))
    }

    /// A column of weights, to be changed.
    pub fn weight(&mut self, name: &str) -> &mut [F] {
        let column = self.locate(OracleId::Weights, name);
        self.weights.column_mut(column)
    }

    /// A column of main, to be changed.
    pub fn main(&mut self, name: &str) -> &mut [F] {
        let column = self.locate(OracleId::Main, name);
        self.main.column_mut(column)
    }

    pub fn weight_cell(&self, name: &str, row: usize) -> i64 {
        to_signed(self.weights.column(self.locate(OracleId::Weights, name))[row])
    }

    pub fn main_cell(&self, name: &str, row: usize) -> i64 {
        to_signed(self.main.column(self.locate(OracleId::Main, name))[row])
    }

    /// Adds to a cell of main.
    pub fn shift(&mut self, name: &str, row: usize, by: i64) {
        self.main(name)[row] += from_signed(by);
    }

    pub fn requant_row(&self, row: usize) -> RequantRow {
        let limb = |name: &str, k: usize| self.main_cell(&format!("{name}{k}"), row);
        RequantRow {
            u: self.main_cell("u", row),
            overshoot: (0..3).map(|k| limb("e", k) << (8 * k)).sum(),
            limbs: [0, 1, 2, 3, 4].map(|k| limb("r", k)),
        }
    }

    /// R = hi − lo.
    pub fn range(&self) -> i64 {
        let (_, lo, hi) = self.layer.spec.requantization();
        hi - lo
    }

    /// First active row whose requantization suits.
    pub fn find(&self, suits: impl Fn(RequantRow) -> bool) -> usize {
        (0..self.layer.spec.n_outputs).find(|&row| suits(self.requant_row(row))).expect("some row suits the attack; choose another seed")
    }

    /// Commits another accumulator for a row of a dense layer, requantized honestly.
    pub fn set_accumulator(&mut self, row: usize, accumulator: i64) {
        let (shift, lo, hi) = self.layer.spec.requantization();
        let scaled = i128::from(accumulator) * i128::from(self.weight_cell("mult", row));
        let witness = requant_witness(scaled, shift, lo, hi);
        self.main("acc")[row] = from_signed(accumulator);
        self.main("u")[row] = from_signed(witness.output - lo);
        for k in 0..5 {
            self.main(&format!("r{k}"))[row] = F::from_canonical_u64((witness.remainder >> (8 * k)) & 255);
        }
        for k in 0..3 {
            self.main(&format!("e{k}"))[row] = F::from_canonical_u64((witness.overshoot >> (8 * k)) & 255);
        }
    }

    /// Runs `use_table` on the rows, with challenges derived from an arbitrary α.
    pub fn with_table<T>(&self, use_table: impl FnOnce(&mut Table<'_>) -> T) -> T {
        let theta = self.layer.spec.theta();
        let (gamma_prime, delta) = self.global();
        let alpha = ext(F::from_canonical_u64(0xabcdef), F::from_canonical_u64(0x123457));
        let challenges = scalars::derive(&self.shape.kind, self.shape.role, &theta, gamma_prime, delta, alpha);
        let scalars = Scalars { theta: &theta, challenges: &challenges, period: self.layer.spec.period() };
        use_table(&mut Table::of_rows(&self.shape.system, scalars, &self.weights, &self.main))
    }

    /// Counts every looked-up cell on the first row of the table that holds it; cells outside the table are not counted.
    pub fn recount(&mut self) {
        let (cells, table) = lookup_cells(&self.shape.system);
        let counts = self.with_table(|t| {
            let rows: Vec<Vec<K>> = (0..t.rows).map(|row| t.evaluate(row)).collect();
            let at = |row: usize, node: zkinfer_circuits::air::Node| base(rows[row][node.0 as usize]).to_canonical_u64();
            let mut first = HashMap::new();
            for row in 0..t.rows {
                first.entry(at(row, table)).or_insert(row);
            }
            let mut counts = vec![F::ZERO; t.rows];
            for row in 0..t.rows {
                for &cell in &cells {
                    if let Some(&found) = first.get(&at(row, cell)) {
                        counts[found] += F::ONE;
                    }
                }
            }
            counts
        });
        self.main("count").copy_from_slice(&counts);
    }

    /// Lets the k-th lookup helper absorb whatever the sum of all helpers lacks.
    pub fn absorb_in_helper(&mut self, k: usize, row: usize) {
        let helpers: Vec<usize> =
            (0..self.shape.system.rules.len()).filter(|&index| matches!(self.shape.system.rules[index], Rule::Quotient { .. })).collect();
        self.on_project(Box::new(move |_, columns| {
            let sum: K = helpers.iter().flat_map(|&helper| columns[helper].iter().copied()).sum();
            columns[helpers[k]][row] -= sum;
        }));
    }

    pub fn on_project(&mut self, hook: ProjectHook) {
        self.forger.on_project = Some(hook);
    }

    /// Index of the projected K column named `name`.
    pub fn projected(&self, name: &str) -> usize {
        self.locate(OracleId::Projected, &format!("{name}.0")) / 2
    }

    fn global(&self) -> (K, K) {
        if self.shape.role == Role::Registration { (K::ZERO, K::ZERO) } else { gamma_delta() }
    }

    /// The ledger's sum over the committed columns.
    pub fn committed_balance(&self) -> K {
        let ledger = self.shape.system.summands.iter().find(|s| s.total == Total::Balance);
        let Some(ledger) = ledger else { return K::ZERO };
        self.with_table(|table| {
            let projected = self.forger.projected_rows(table);
            table.set_projected(&projected);
            table.sum_over_rows(ledger.value)
        })
    }

    /// The balance of the true tensors.
    pub fn honest_balance(&self) -> K {
        if self.shape.role == Role::Registration {
            return K::ZERO;
        }
        let (gamma_prime, delta) = gamma_delta();
        let inputs = [self.layer.inputs[0].as_slice(), self.layer.inputs[1].as_slice()];
        balance(&self.shape, &self.layer.spec.theta(), gamma_prime, delta, inputs, &self.output)
    }

    /// The claim about given oracles, with the committed balance plus the error.
    pub fn claim(&self, weights: &LinkedOracle<Forger>, main: &LinkedOracle<Forger>) -> LayerClaim {
        let (gamma_prime, delta) = self.global();
        LayerClaim {
            theta: self.layer.spec.theta(),
            index: 0,
            link_weights: weights.link,
            link_main: main.link,
            gamma_prime,
            delta,
            balance: self.committed_balance() + self.balance_error,
        }
    }

    pub fn commit(&self) -> [LinkedOracle<Forger>; 2] {
        [&self.weights, &self.main].map(|columns| commit_linked(&self.forger, &self.shape, columns).expect("commit"))
    }

    /// Proves under a shape, which may lack constraints.
    pub fn prove(&self, shape: &LayerShape) -> (LayerClaim, LayerProof) {
        let [weights, main] = self.commit();
        let claim = self.claim(&weights, &main);
        let proof = prove(&self.forger, shape, &claim, &weights, &main).expect("prove");
        (claim, proof)
    }

    /// Whether the claim about the committed columns is false.
    pub fn is_false(&self, claim: &LayerClaim) -> bool {
        match self.shape.role {
            Role::Inference => claim.balance != self.honest_balance(),
            Role::Registration => self.is_out_of_register(),
        }
    }

    /// Whether a committed constant is outside its registered range, an addition has two of one multiplier, or `active` is not the first O rows.
    fn is_out_of_register(&self) -> bool {
        let spec = &self.layer.spec;
        self.shape.system.columns[0].iter().enumerate().any(|(index, name)| {
            let column = self.weights.column(index);
            let outside = |low: i64, high: i64| column.iter().any(|&cell| !(low..high).contains(&to_signed(cell)));
            match name.as_str() {
                "active" => column.iter().enumerate().any(|(row, &cell)| cell != F::from_bool(row < spec.n_outputs)),
                "bias" => outside(-(1 << spec.bias_bits), 1 << spec.bias_bits),
                "mult" => outside(0, 1 << spec.mult_bits),
                "mult1" | "mult2" => outside(0, 1 << spec.mult_bits) || column[..spec.n_outputs].iter().any(|&cell| cell != column[0]),
                _ => outside(-128, 128),
            }
        })
    }
}

/// A layer of 512 rows whose outputs spread over about ±60 before clamping.
pub fn spread_layer(operator: Operator, shift: u32, lo: i64, hi: i64, seed: u64) -> Layer {
    match operator {
        Operator::Dense => {
            let mut spec = super::dense_spec(9, 7, 16, 100, 60, OutputRule::Requantize { shift, lo, hi });
            spec.mult_bits = 24;
            let mut layer = random_dense(spec, seed);
            if let zkinfer_circuits::ops::trace::LayerConstants::Dense(constants) = &mut layer.constants {
                // Accumulators spread over about 2^16.
                let scale = (80u64 << shift) >> 16;
                constants.multipliers = (0..60).map(|o| (scale - scale * o / 120) as u32).collect();
            }
            layer
        }
        Operator::Add => {
            let mut layer = random_add(9, 200, seed);
            layer.spec.output = OutputRule::Requantize { shift, lo, hi };
            layer.spec.mult_bits = 31;
            let scale = (1u64 << (shift - 1)) as u32;
            layer.constants = zkinfer_circuits::ops::trace::LayerConstants::Add([scale - scale / 100, scale - scale / 7]);
            layer
        }
    }
}
