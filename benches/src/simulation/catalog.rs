//! The networks: their layers, the leaves that the circuits' plan gives them, and their tasks with costs and ranks.

use anyhow::Context;
use zkinfer_circuits::kind::LayerKind;
use zkinfer_circuits::pipeline::tasks::{TaskId, inference_tasks};
use zkinfer_circuits::recursion::kinds::dense;
use zkinfer_circuits::recursion::plan::plan;
use zkinfer_server::placement::TaskKind;
use zkinfer_server::placement::cost::{self, Estimate, LayerSize};
use zkinfer_server::placement::rank::ranks;

/// A task of a network.
#[derive(Debug, Clone)]
pub(super) struct TaskPlan {
    pub(super) kind: TaskKind,
    pub(super) estimate: Estimate,
    pub(super) rank_ms: u64,
    /// Which of the network's weights it works with.
    pub(super) weights: Option<usize>,
    /// The layer that it commits, or proves.
    pub(super) layer: Option<usize>,
    /// Committing that layer again, in microseconds.
    pub(super) commit_again_us: u64,
    pub(super) n_needs: u16,
    pub(super) successors: Vec<u16>,
}

/// A network.
#[derive(Debug, Clone)]
pub(super) struct Network {
    pub(super) name: &'static str,
    pub(super) tasks: Vec<TaskPlan>,
    pub(super) n_layers: usize,
    /// Bytes of the weights that are moved as one: all of a small network, or each layer's.
    pub(super) weights_bytes: Vec<u64>,
}

/// How an inference becomes tasks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Split {
    /// One task.
    Whole,
    /// The tasks of the protocol; weights move together.
    Tasks,
    /// The tasks of the protocol; the weights of each layer move alone.
    Layers,
}

/// Layers with the multiplications of each.
fn sizes(kinds: &[LayerKind], widths: &[u64]) -> Vec<LayerSize> {
    let size = |(kind, width): (&LayerKind, &[u64])| LayerSize {
        rows: kind.rows() as u64,
        columns: kind.n_columns as u64,
        multiplications: width[0] * width[1],
    };
    kinds.iter().zip(widths.windows(2)).map(size).collect()
}

fn estimate(task: TaskId, sizes: &[LayerSize]) -> (TaskKind, Estimate, Option<usize>) {
    match task {
        TaskId::Witness => (TaskKind::Witness, cost::witness(sizes), None),
        TaskId::Commit(layer) => (TaskKind::Commit, cost::commit(&sizes[layer]), Some(layer)),
        TaskId::Bind => (TaskKind::Bind, cost::bind(sizes.len() as u64), None),
        TaskId::Layer(layer) => (TaskKind::Layer, cost::layer(&sizes[layer]), Some(layer)),
        TaskId::Leaf(_) => (TaskKind::Leaf, cost::leaf(), None),
        TaskId::Join { .. } => (TaskKind::Join, cost::join(), None),
        TaskId::Outer => (TaskKind::Outer, cost::outer(), None),
    }
}

impl Network {
    /// `widths` are the sizes of the tensors, from the input to the output.
    fn new(name: &'static str, kinds: &[LayerKind], widths: &[u64], split: Split) -> anyhow::Result<Self> {
        let sizes = sizes(kinds, widths);
        let (n_inputs, n_outputs) = (widths[0] as usize, widths[kinds.len()] as usize);
        let leaves = plan(kinds, n_inputs, n_outputs).with_context(|| format!("{name} has no plan"))?;
        let by_layer: Vec<u64> = sizes.iter().map(LayerSize::weights_bytes).collect();
        let all = vec![by_layer.iter().sum()];
        if split == Split::Whole {
            let estimate = cost::prove(&sizes, leaves.len() as u64);
            let task = TaskPlan { rank_ms: estimate.micros / 1_000, weights: Some(0), ..TaskPlan::new(TaskKind::Prove, estimate) };
            return Ok(Self { name, tasks: vec![task], n_layers: 0, weights_bytes: all });
        }
        let graph = inference_tasks(&leaves, kinds.len());
        let position = |id: &TaskId| graph.iter().position(|node| node.id == *id).context("a task needs one that is not there");
        let needs = graph.iter().map(|node| node.needs.iter().map(position).collect()).collect::<anyhow::Result<Vec<Vec<usize>>>>()?;
        let mut tasks = Vec::new();
        for node in &graph {
            let (kind, estimate, layer) = estimate(node.id, &sizes);
            let weights = layer.map(|layer| if split == Split::Layers { layer } else { 0 });
            let commit_again_us = layer.map_or(0, |layer| cost::commit(&sizes[layer]).micros);
            tasks.push(TaskPlan { weights, layer, commit_again_us, ..TaskPlan::new(kind, estimate) });
        }
        let costs: Vec<u64> = tasks.iter().map(|task| task.estimate.micros).collect();
        for (task, rank) in ranks(&costs, &needs)?.into_iter().enumerate() {
            tasks[task].rank_ms = rank / 1_000;
            tasks[task].n_needs = u16::try_from(needs[task].len())?;
            for &need in &needs[task] {
                tasks[need].successors.push(u16::try_from(task)?);
            }
        }
        let weights_bytes = if split == Split::Layers { by_layer } else { all };
        Ok(Self { name, tasks, n_layers: kinds.len(), weights_bytes })
    }

    /// Work of an inference where nothing has to be moved, in microseconds.
    pub(super) fn micros(&self) -> u64 {
        self.tasks.iter().map(|task| task.estimate.micros).sum()
    }
}

impl TaskPlan {
    fn new(kind: TaskKind, estimate: Estimate) -> Self {
        Self { kind, estimate, rank_ms: 0, weights: None, layer: None, commit_again_us: 0, n_needs: 0, successors: Vec::new() }
    }
}

/// The networks of the simulation, shortest first: the two of the committed measurements, and two with layers of the sizes that were measured alone.
pub(super) fn networks() -> anyhow::Result<Vec<Network>> {
    let (narrow, wide) = (dense(10, 16), dense(12, 256));
    let deep = [dense(14, 256); 12];
    let large = [dense(16, 256); 24];
    Ok(vec![
        Network::new("mlp-mnist", &[dense(10, 128), dense(8, 64), dense(8, 16)], &[784, 128, 64, 10], Split::Whole)?,
        Network::new("dense-5x1024", &[narrow, wide, wide, wide, wide], &[4, 1024, 1024, 1024, 1024, 1024], Split::Tasks)?,
        Network::new("deep-12", &deep, &[&[2048; 12][..], &[1024]].concat(), Split::Layers)?,
        Network::new("large-24", &large, &[&[4096; 24][..], &[1024]].concat(), Split::Layers)?,
    ])
}
