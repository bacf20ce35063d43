//! The steps of a model's proofs with what each is expected to take: a pure function of the program.
//!
//! Times are those of two cores with AVX-512, from the stages of `benches/results/end-to-end-dense.json`; only their proportions and the sum's order of
//! magnitude matter, since they rank tasks and tell long jobs from short ones.

use zkinfer_circuits::pipeline::PipelineError;
use zkinfer_circuits::pipeline::tasks::{TaskId, inference_tasks};
use zkinfer_circuits::program::Program;
use zkinfer_circuits::recursion::plan::plan;

use super::StepPlan;

/// Columns of a layer beside its weights', about.
const OTHER_COLUMNS: u64 = 48;
/// Field elements that a millisecond commits.
const COMMITTED_PER_MS: u64 = 90_000;
/// Field elements of a layer's table that a millisecond proves.
const PROVED_PER_MS: u64 = 40_000;
/// Of a circuit.
const CIRCUIT_MS: u64 = 280;
const OUTER_MS: u64 = 270;
/// A circuit on a device: 2^15 points of some 400 columns at rate 1/8, and trees.
const CIRCUIT_DEVICE_BYTES: u64 = 1 << 30;
/// Bytes on a device for each element of a layer's table: coefficients, extension, tree.
const DEVICE_BYTES_PER_ELEMENT: u64 = 40;

/// The steps, each after those that it needs.
///
/// # Errors
/// No circuits for the model's layers.
pub(super) fn steps(program: &Program) -> Result<Vec<StepPlan>, PipelineError> {
    let plan = plan(&program.kinds(), program.boundary.n_inputs, program.boundary.n_outputs)?;
    let tasks = inference_tasks(&plan, program.layers.len());
    let place = |id: TaskId| tasks.iter().position(|task| task.id == id).expect("a task needs tasks of its graph") as u32;
    let step = |task: &zkinfer_circuits::pipeline::tasks::TaskNode| {
        let (estimated_ms, device_bytes) = cost(task.id, program);
        StepPlan {
            name: task.id.to_string(),
            kind: kind(task.id),
            needs: task.needs.iter().map(|&id| place(id)).collect(),
            estimated_ms,
            device_bytes,
        }
    };
    Ok(tasks.iter().map(step).collect())
}

fn kind(task: TaskId) -> &'static str {
    match task {
        TaskId::Witness => "witness",
        TaskId::Commit(_) => "commit",
        TaskId::Bind => "bind",
        TaskId::Layer(_) => "layer",
        TaskId::Leaf(_) => "leaf",
        TaskId::Join { .. } => "join",
        TaskId::Outer => "outer",
    }
}

/// Expected milliseconds, and device memory in bytes.
fn cost(task: TaskId, program: &Program) -> (u64, u64) {
    let elements = |layer: usize| {
        let kind = program.layers.get(layer).map(|layer| layer.kind);
        kind.map_or(0, |kind| (kind.n_columns as u64 + OTHER_COLUMNS) << kind.log_rows)
    };
    let on_layer = |layer: usize, per_ms: u64| (1 + elements(layer) / per_ms, elements(layer) * DEVICE_BYTES_PER_ELEMENT);
    match task {
        TaskId::Witness => (2 + (0..program.layers.len()).map(elements).sum::<u64>() / (10 * COMMITTED_PER_MS), 0),
        TaskId::Bind => (2, 0),
        TaskId::Commit(layer) => on_layer(layer, COMMITTED_PER_MS),
        TaskId::Layer(layer) => on_layer(layer, PROVED_PER_MS),
        TaskId::Leaf(_) | TaskId::Join { .. } => (CIRCUIT_MS, CIRCUIT_DEVICE_BYTES),
        TaskId::Outer => (OUTER_MS, CIRCUIT_DEVICE_BYTES),
    }
}
