//! The constraints and summands of a dense layer by hand, point by point, against the interpreter.

use std::error::Error;

use plonky2::field::types::Field;
use rayon::prelude::*;
use serde_json::{Value, json};
use zkinfer_circuits::air::Domain;
use zkinfer_circuits::backend::{Backend, Scalars, SumsChallenges};
use zkinfer_circuits::field::{F, K, ext, lift, scale};
use zkinfer_circuits::layer::prover::commit_shape;
use zkinfer_circuits::layer::theta;
use zkinfer_circuits::ops::trace::{main_columns, weight_columns};
use zkinfer_kernels::CpuBackend;
use zkinfer_kernels::cpu::Oracle;

use crate::layer::{Layer, element};
use crate::meter::time;

/// Weight columns: this measurement is of the constraints, to which they contribute only w~.
const N_COLUMNS: usize = 2;

pub(crate) fn measure(log_rows: usize) -> Result<Value, Box<dyn Error>> {
    let layer = Layer::dense(log_rows, log_rows, N_COLUMNS);
    let (cpu, system, shape) = (CpuBackend::new(), &layer.shape.system, commit_shape(&layer.shape));
    let weight_columns = weight_columns(&layer.spec, &layer.constants);
    let (main, _) = main_columns(system, &layer.spec, &layer.constants, &weight_columns, [&layer.input, &[]])?;
    let (weights, main) = (cpu.commit(&weight_columns, shape)?, cpu.commit(&main, shape)?);
    let theta = layer.spec.theta();
    let challenges: Vec<K> = (0..theta::N_CHALLENGES as u64).map(|index| element(10 + index)).collect();
    let scalars = Scalars { theta: &theta, challenges: &challenges, period: layer.spec.period() };
    let projected = cpu.project(system, scalars, [&weights, &main], shape)?;
    let sums = SumsChallenges { gamma: element(4), xi: element(5), total: element(6) };
    // w~ = W_0: its values are then a column that both sides read.
    let combination = cpu.combine(&weights, &[K::ONE])?;
    let gamma_powers: Vec<K> = sums.gamma.powers().take(system.constraints.len()).collect();
    let weight_of = |id: &str| {
        let position = system.constraints.iter().position(|constraint| constraint.id == id).expect("the constraint exists");
        gamma_powers[system.constraints.len() - 1 - position]
    };
    let domains = [Domain::Every, Domain::First, Domain::Last, Domain::Step];
    assert!(system.constraints.iter().all(|constraint| domains.contains(&constraint.domain)));
    let by_hand = Handwritten {
        columns: [&weights, &main, &projected],
        theta: &theta,
        challenges: &challenges,
        xi: sums.xi,
        weights: IDS.map(weight_of),
        log_rows,
        period: layer.spec.period(),
    };
    let oracles = [&weights, &main, &projected];
    let (interpreted, values) = time(10, || cpu.interpret_constraints(system, scalars, sums, oracles, Some(&combination)));
    let (handwritten, expected) = time(10, || by_hand.all());
    let agree = values? == expected;
    if !agree {
        return Err("the interpreter and the hand-written constraints differ".into());
    }
    let cpu_of = |value: &Value| value["cpu_ms"].as_f64().unwrap_or(f64::NAN);
    let ratio = (cpu_of(&interpreted) / cpu_of(&handwritten) * 1000.0).round() / 1000.0;
    Ok(json!({ "points": 2 << log_rows, "interpreter": interpreted, "handwritten": handwritten, "cpu_ratio": ratio }))
}

const IDS: [&str; 15] = [
    "TABLE-FIRST",
    "TABLE-STEP",
    "TABLE-LAST",
    "POWERS-FIRST",
    "POWERS-STEP",
    "FOLD",
    "MASK-OUT",
    "CLAMP",
    "REQUANT",
    "LOOKUP-0",
    "LOOKUP-1",
    "LOOKUP-2",
    "LOOKUP-3",
    "LOOKUP-4",
    "LOOKUP-5",
];

/// All inputs of the hand-written evaluation.
struct Handwritten<'a> {
    columns: [&'a Oracle; 3],
    theta: &'a [F],
    challenges: &'a [K],
    xi: K,
    /// Batching weights in the order of [`IDS`].
    weights: [K; 15],
    log_rows: usize,
    period: usize,
}

/// `value·scalar` with a scalar of F on the left.
fn times(scalar: F, value: K) -> K {
    scale(value, scalar)
}

impl Handwritten<'_> {
    fn all(&self) -> Vec<[K; 5]> {
        (0..2usize << self.log_rows).into_par_iter().with_min_len(128).map(|point| self.at(point)).collect()
    }

    fn rotated(&self, point: usize, rows: usize) -> usize {
        let mask = (1usize << self.log_rows) - 1;
        let reverse = |index: usize| index.reverse_bits() >> (usize::BITS as usize - self.log_rows);
        (point & !mask) | reverse((reverse(point & mask) + rows) & mask)
    }

    /// Summands, then constraints by domain: every, first, last, step.
    fn at(&self, point: usize) -> [K; 5] {
        let [weights, main, projected] = self.columns;
        let weight = |column: usize| weights.extension(column)[point];
        let cell = |column: usize| main.extension(column)[point];
        let pair = |column: usize, point: usize| ext(projected.extension(column)[point], projected.extension(column + 1)[point]);
        let (next, there) = (self.rotated(point, 1), self.rotated(point, self.period));
        let [bias, multiplier, active] = [0, 1, 2].map(|index| weight(N_COLUMNS + index));
        let (x, u, accumulator, table, count) = (cell(0), cell(1), cell(10), cell(11), cell(12));
        let r = [2, 3, 4, 5, 6].map(cell);
        let e = [7, 8, 9].map(cell);
        let (powers, folded) = (pair(0, point), pair(2, point));
        let h = [4, 6, 8, 10, 12, 14].map(|column| pair(column, point));
        let t = |index: usize| self.theta[index];
        let w = &self.weights;
        let dot = |first: usize| -> F { (0..5).map(|k| t(first + k) * r[k]).sum() };
        let (remainder, top) = (dot(theta::REMAINDER), dot(theta::REMAINDER_TOP));
        let overshoot = e[0] + F::from_canonical_u64(1 << 8) * e[1] + F::from_canonical_u64(1 << 16) * e[2];
        let headroom = t(theta::RANGE) - u;
        // Every row.
        let there_x = main.extension(0)[there];
        let fold = pair(2, there) - self.challenges[theta::FOLD_RATIO] * folded - times(there_x, self.challenges[theta::FOLD_WRAP]);
        let sign = t(theta::INVERSE_RANGE).double() * u - F::ONE;
        let right = (u + t(theta::LO) + sign * overshoot) * t(theta::SCALE) + remainder - t(theta::HALF);
        let mut every = w[5] * fold;
        every += times((F::ONE - active) * u, w[6]) + times(overshoot * u * headroom, w[7]);
        every += times(active * (accumulator * multiplier - right), w[8]);
        let alpha = self.challenges[theta::ALPHA];
        let cells = [(u, headroom), (r[0], r[1]), (r[2], r[3]), (r[4], top), (e[0], e[1])];
        for (k, (a, b)) in cells.into_iter().enumerate() {
            let (from_a, from_b) = (alpha - lift(a), alpha - lift(b));
            every += w[9 + k] * (h[k] * (from_a * from_b) - (from_a + from_b));
        }
        let (from_e, from_table) = (alpha - lift(e[2]), alpha - lift(table));
        every += w[14] * (h[5] * (from_e * from_table) - (from_table - times(count, from_e)));
        // First, last and all but the last.
        let first = times(table, w[0]) + w[3] * (powers - K::ONE);
        let last = times(table - F::from_canonical_u64(255), w[2]);
        let rise = main.extension(11)[next] - table;
        let step = times(rise * (rise - F::ONE), w[1]) + w[4] * (pair(0, next) - self.challenges[theta::GAMMA_PRIME] * powers);
        // Summands: lookups, dense, ledger.
        let output = u + t(theta::LO) * active;
        let chosen = output + t(theta::RAW) * (accumulator - output);
        let ledger = times(chosen, self.challenges[theta::D_OUT]) - times(x, self.challenges[theta::D_IN_1]);
        let dense = times(weight(0), folded) - times(accumulator - bias, powers);
        let lookups: K = h.into_iter().sum();
        let summands = lookups + self.xi * (dense + self.xi * (powers * ledger));
        [summands, every, first, last, step]
    }
}
