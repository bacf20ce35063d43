//! The interpreter of constraints against code written by hand for a dense layer, on the same vectors, in turns.

use std::error::Error;

use plonky2::field::types::Field;
use serde_json::{Map, Value, json};
use zkinfer_circuits::backend::{Backend, Scalars, SumsChallenges};
use zkinfer_circuits::field::K;
use zkinfer_circuits::layer::prover::commit_shape;
use zkinfer_circuits::layer::theta;
use zkinfer_circuits::ops::trace::{main_columns, weight_columns};
use zkinfer_kernels::{CpuBackend, Level};

use crate::layer::{Layer, element};
use crate::meter::time;

/// Weight columns: this measurement is of the constraints, to which they contribute only w~.
const N_COLUMNS: usize = 2;
const TURNS: usize = 15;

/// At every level: least times, and the median over turns of the interpreter's CPU time over the other's.
pub(crate) fn measure(log_rows: usize) -> Result<Value, Box<dyn Error>> {
    let mut report = Map::new();
    report.insert("points".to_owned(), json!(2 << log_rows));
    for level in Level::available() {
        report.insert(level.name().to_owned(), measure_level(log_rows, level)?);
    }
    Ok(Value::Object(report))
}

fn measure_level(log_rows: usize, level: Level) -> Result<Value, Box<dyn Error>> {
    let layer = Layer::dense(log_rows, log_rows, N_COLUMNS);
    let (cpu, system, shape) = (CpuBackend::with_level(level)?, &layer.shape.system, commit_shape(&layer.shape));
    let weight_columns = weight_columns(&layer.spec, &layer.constants);
    let (main, _) = main_columns(system, &layer.spec, &layer.constants, &weight_columns, [&layer.input, &[]])?;
    let (weights, main) = (cpu.commit(&weight_columns, shape)?, cpu.commit(&main, shape)?);
    let theta = layer.spec.theta();
    let challenges: Vec<K> = (0..theta::N_CHALLENGES as u64).map(|index| element(10 + index)).collect();
    let scalars = Scalars { theta: &theta, challenges: &challenges, period: layer.spec.period() };
    let projected = cpu.project(system, scalars, [&weights, &main], shape)?;
    let sums = SumsChallenges { gamma: element(4), xi: element(5), total: element(6) };
    let coefficients: Vec<K> = element(3).powers().take(system.combined_columns).collect();
    let combination = cpu.combine(&weights, &coefficients)?;
    let oracles = [&weights, &main, &projected];
    let [mut interpreted, mut by_hand, mut ratios] = [(); 3].map(|()| Vec::with_capacity(TURNS));
    for _ in 0..TURNS {
        let (interpreter, values) = time(1, || cpu.interpret_constraints(system, scalars, sums, oracles, Some(&combination)));
        let (hand, expected) = time(1, || cpu.constraints_by_hand(system, scalars, sums, oracles, Some(&combination)));
        if values? != expected? {
            return Err("the interpreter and the hand-written constraints differ".into());
        }
        let [interpreter, hand] = [interpreter, hand].map(|time| time["cpu_ms"].as_f64().unwrap_or(f64::NAN));
        interpreted.push(interpreter);
        by_hand.push(hand);
        ratios.push(interpreter / hand);
    }
    [&mut interpreted, &mut by_hand, &mut ratios].into_iter().for_each(|figures| figures.sort_by(f64::total_cmp));
    let ratio = (ratios[TURNS / 2] * 1000.0).round() / 1000.0;
    Ok(json!({ "interpreter_cpu_ms": interpreted[0], "by_hand_cpu_ms": by_hand[0], "median_ratio": ratio }))
}
