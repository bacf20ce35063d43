//! The steps of a model's proofs with what each is expected to take: a pure function of the program.

use std::collections::HashMap;

use zkinfer_circuits::kind::LayerKind;
use zkinfer_circuits::pipeline::PipelineError;
use zkinfer_circuits::pipeline::tasks::{Results, TaskId, TaskNode, inference_tasks};
use zkinfer_circuits::program::Program;
use zkinfer_circuits::recursion::plan::plan;

use super::{StepPlan, StepResults};
use crate::placement::cost::{self, Estimate, LayerSize};

/// The steps, each after those that it needs.
///
/// # Errors
/// No circuits for the model's layers.
pub(super) fn steps(program: &Program) -> Result<Vec<StepPlan>, PipelineError> {
    let plan = plan(&program.kinds(), program.boundary.n_inputs, program.boundary.n_outputs)?;
    let tasks = inference_tasks(&plan, program.layers.len());
    let places: HashMap<TaskId, u32> = tasks.iter().map(|task| task.id).zip(0..).collect();
    let sizes: Vec<LayerSize> = program.layers.iter().map(|layer| size(layer.kind)).collect();
    let step = |task: &TaskNode| {
        let Estimate { micros, device_bytes, .. } = estimate(task.id, &sizes);
        StepPlan {
            name: task.id.to_string(),
            kind: task.id.stage().0.name(),
            needs: task.needs.iter().map(|id| places[id]).collect(),
            estimated_ms: micros.div_ceil(1_000),
            device_bytes,
            load_ms: load_micros(task.id, &sizes).div_ceil(1_000),
        }
    };
    Ok(tasks.iter().map(step).collect())
}

/// Results by the names of their tasks.
pub(super) struct Named<'a>(pub(super) &'a dyn StepResults);

impl Results for Named<'_> {
    fn result(&self, task: TaskId) -> Option<&[u8]> {
        self.0.result(&task.to_string())
    }
}

/// What a task is expected to take, its weights loaded.
fn estimate(task: TaskId, sizes: &[LayerSize]) -> Estimate {
    match task {
        TaskId::Witness => cost::witness(sizes),
        TaskId::Commit(layer) => cost::commit(&sizes[layer]),
        TaskId::Bind => cost::bind(sizes.len() as u64),
        TaskId::Layer(layer) => cost::layer(&sizes[layer]),
        TaskId::Leaf(_) => cost::leaf(),
        TaskId::Join { .. } => cost::join(),
        TaskId::Outer => cost::outer(),
    }
}

/// What it takes longer where the weights that it works with do not lie ready.
fn load_micros(task: TaskId, sizes: &[LayerSize]) -> u64 {
    match task {
        TaskId::Layer(layer) => cost::load_micros(sizes[layer].weights_bytes()),
        TaskId::Witness | TaskId::Commit(_) | TaskId::Bind | TaskId::Leaf(_) | TaskId::Join { .. } | TaskId::Outer => 0,
    }
}

/// One input uses each weight once.
fn size(kind: LayerKind) -> LayerSize {
    let (rows, columns) = (kind.rows() as u64, kind.n_columns as u64);
    LayerSize { rows, columns, multiplications: rows * columns }
}
