//! An inference as tasks that different workers can do: each reads the results of those before it, as bytes, and gives bytes.
//!
//! All tasks but the last are deterministic: done again, anywhere, they give the same bytes. What a task reads is what others wrote, so it is
//! checked where it is used: lists by the model's sizes, the challenges by deriving them again from the request's own input, the oracle committed again
//! by its link, layers where their leaf finds that they do not fit, nodes by verifying them, and the end by verifying the published proof. What a device computed is verified before it is handed on as well:
//! proofs of layers, nodes (by the aggregator), and what is published. A commitment is verified with the proof of its layer, which opens it.

mod artifacts;
mod graph;
mod oracles;

use super::aggregation::leaf_job;
use super::stage::span;
use super::steps::{Bound, Inference, Tensors};
use super::{CommittedModel, InferenceRequest, LayerAggregator, PipelineError, ProvedInference};
use crate::backend::Backend;
use crate::encoding::{Canonical, DecodeError};
use crate::recursion::layers::ProvedLayer;
use crate::recursion::prover::{NodeProof, ProveError};
use artifacts::Link;

pub use graph::{NotATask, TaskId, TaskNode, inference_tasks};
pub use oracles::KeptOracles;

/// Why the result of another task cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ResultError {
    /// It was not given.
    #[error("the result of {0} is needed and was not given")]
    Missing(TaskId),
    /// It cannot be read.
    #[error("the result of {task} cannot be read: {source}")]
    Unreadable {
        /// The task.
        task: TaskId,
        /// What is wrong.
        source: DecodeError,
    },
    /// It is of another model or input.
    #[error("the result of {0} does not fit the model and input")]
    Foreign(TaskId),
    /// A layer's tensors, committed again, have another link than its commitment gave.
    #[error("the result of {} is not the link of the layer's tensors", TaskId::Commit(*.0))]
    Link(usize),
    /// They are proofs of something else, such as of challenges that were bound anew since.
    #[error("the results of {} do not prove what is read with them", names(.0))]
    Stale(Vec<TaskId>),
    /// The model has no such task.
    #[error("this inference has no task {0}")]
    NoSuchTask(TaskId),
    /// plonky2 cannot write a node.
    #[error("the result of {0} cannot be written")]
    Unwritable(TaskId),
}

impl ResultError {
    /// The tasks that must be done again before the result can be used; none if that would not help.
    pub fn to_do_again(&self) -> Vec<TaskId> {
        match self {
            Self::Missing(task) | Self::Unreadable { task, .. } | Self::Foreign(task) => vec![*task],
            // What was bound to the wrong link is wrong with it.
            Self::Link(index) => vec![TaskId::Commit(*index), TaskId::Bind],
            Self::Stale(tasks) => tasks.clone(),
            Self::NoSuchTask(_) | Self::Unwritable(_) => Vec::new(),
        }
    }
}

fn names(tasks: &[TaskId]) -> String {
    tasks.iter().map(TaskId::to_string).collect::<Vec<_>>().join(", ")
}

/// The results that a task may read.
pub trait Results {
    /// The bytes that a task gave.
    fn result(&self, task: TaskId) -> Option<&[u8]>;
}

/// What a task gives.
#[derive(Debug)]
pub enum TaskOutput {
    /// Bytes for other tasks.
    Internal(Vec<u8>),
    /// What the inference is for, verified.
    Published(Box<ProvedInference>),
}

/// One inference, task by task.
pub struct InferenceTasks<'a, B: Backend> {
    inference: Inference<'a, B>,
    kept: &'a KeptOracles<B>,
}

impl<'a, B: Backend> InferenceTasks<'a, B> {
    /// `kept` holds what this worker committed, from the commitment of a layer to its proof; it serves one inference.
    ///
    /// # Errors
    /// No circuits for the model's layers.
    pub fn new(
        backend: &'a B,
        aggregator: &'a LayerAggregator,
        model: &'a CommittedModel<B>,
        request: InferenceRequest<'a>,
        kept: &'a KeptOracles<B>,
    ) -> Result<Self, PipelineError> {
        Ok(Self { inference: Inference::new(backend, aggregator, model, request)?, kept })
    }

    /// All tasks, each after those that it needs.
    pub fn graph(&self) -> Vec<TaskNode> {
        inference_tasks(&self.inference.plan, self.inference.model.layers.len())
    }

    /// Does one task, given the results of those that it needs.
    ///
    /// # Errors
    /// [`PipelineError::Result`] if a result is missing or damaged; [`PipelineError::SelfCheck`] if what was computed does not verify; else what the step
    /// says.
    pub fn run(&self, task: TaskId, results: &dyn Results) -> Result<TaskOutput, PipelineError> {
        let (stage, index) = task.stage();
        let _span = span(stage.name(), index).entered();
        let bytes = match task {
            TaskId::Witness => self.inference.evaluate()?.0.to_bytes(),
            TaskId::Commit(index) => self.commit(index, results)?.to_bytes(),
            TaskId::Bind => self.bind(results)?.to_bytes(),
            TaskId::Layer(index) => self.layer(index, results)?.to_bytes(),
            TaskId::Leaf(index) => self.encode(task, &self.leaf(index, results)?)?,
            TaskId::Join { .. } => self.encode(task, &self.join(task, results)?)?,
            TaskId::Outer => return self.outer(results).map(|proved| TaskOutput::Published(Box::new(proved))),
        };
        Ok(TaskOutput::Internal(bytes))
    }

    fn commit(&self, index: usize, results: &dyn Results) -> Result<Link, PipelineError> {
        self.check_layer(TaskId::Commit(index), index)?;
        let main = self.commit_again(&self.tensors(results)?, index)?;
        let link = Link(main.link);
        self.kept.put(index, main);
        Ok(link)
    }

    fn commit_again(&self, tensors: &Tensors, index: usize) -> Result<crate::layer::prover::LinkedOracle<B>, PipelineError> {
        let (columns, _) = self.inference.columns(tensors, index)?;
        self.inference.commit(&columns, index)
    }

    fn bind(&self, results: &dyn Results) -> Result<Bound, PipelineError> {
        let links = (0..self.inference.model.layers.len()).map(|index| Ok(read::<Link>(results, TaskId::Commit(index))?.0));
        let links = links.collect::<Result<Vec<_>, ResultError>>()?;
        self.inference.bind(&self.tensors(results)?, links)
    }

    fn layer(&self, index: usize, results: &dyn Results) -> Result<ProvedLayer, PipelineError> {
        self.check_layer(TaskId::Layer(index), index)?;
        let (tensors, bound) = self.bound_tensors(results)?;
        let main = match self.kept.take(index) {
            Some(main) => main,
            None => self.commit_again(&tensors, index)?,
        };
        if main.link != bound.links[index] {
            return Err(ResultError::Link(index).into());
        }
        let proved = self.inference.prove_layer(&tensors, &bound, index, &main)?;
        self.inference.verify_layer(&tensors, &bound, index, &proved)?;
        Ok(proved)
    }

    fn leaf(&self, index: usize, results: &dyn Results) -> Result<NodeProof, PipelineError> {
        let node = self.inference.plan.get(index).ok_or(ResultError::NoSuchTask(TaskId::Leaf(index)))?;
        let (tensors, bound) = self.bound_tensors(results)?;
        let layers = node.layers.clone().map(|layer| read::<ProvedLayer>(results, TaskId::Layer(layer)));
        let layers = layers.collect::<Result<Vec<_>, ResultError>>()?;
        let chains = self.inference.chains(&bound.links[..node.layers.start]);
        let boundary = self.inference.boundary(&tensors);
        let job = leaf_job(node, chains, bound.challenges, layers.iter().collect(), Some(&boundary));
        self.inference.aggregator.prove_leaf(self.inference.backend, &job).map_err(|error| {
            let is_stale = |(layer, proved): &(usize, &ProvedLayer)| self.inference.verify_layer(&tensors, &bound, *layer, proved).is_err();
            let stale = node.layers.clone().zip(&layers).filter(is_stale).map(|(layer, _)| TaskId::Layer(layer));
            blame(error, stale.collect())
        })
    }

    fn join(&self, task: TaskId, results: &dyn Results) -> Result<NodeProof, PipelineError> {
        let graph = self.graph();
        let needs = graph.iter().find(|node| node.id == task).map(|node| node.needs.as_slice());
        let Some(&[left, right]) = needs else { return Err(ResultError::NoSuchTask(task).into()) };
        let nodes = [self.node(left, results)?, self.node(right, results)?];
        if !follow_each_other(&nodes) {
            // Each verifies. Which of them is older than what is bound now, whoever does them again finds out.
            return Err(ResultError::Stale(vec![left, right]).into());
        }
        let [left, right] = nodes;
        Ok(self.inference.aggregator.prove_join(self.inference.backend, &left, &right)?)
    }

    fn outer(&self, results: &dyn Results) -> Result<ProvedInference, PipelineError> {
        let graph = self.graph();
        let root = graph.last().and_then(|node| node.needs.last()).copied().ok_or(ResultError::NoSuchTask(TaskId::Outer))?;
        let (tensors, bound) = self.bound_tensors(results)?;
        let proved = self.inference.outer(&tensors, &bound, &self.node(root, results)?)?;
        self.inference.verify(&proved)?;
        Ok(proved)
    }

    fn check_layer(&self, task: TaskId, index: usize) -> Result<(), ResultError> {
        if index < self.inference.model.layers.len() { Ok(()) } else { Err(ResultError::NoSuchTask(task)) }
    }

    /// The tensors, of the sizes that the program has.
    fn tensors(&self, results: &dyn Results) -> Result<Tensors, ResultError> {
        let tensors: Tensors = read(results, TaskId::Witness)?;
        let program = &self.inference.model.program;
        let sizes = std::iter::once(program.boundary.n_inputs).chain(program.layers.iter().map(|layer| layer.n_outputs));
        let fits = tensors.0.iter().map(Vec::len).eq(sizes);
        if fits { Ok(tensors) } else { Err(ResultError::Foreign(TaskId::Witness)) }
    }

    /// The tensors with what was bound to them: derived once more from this request's own input, so that the results of another inference, right as
    /// they may be, are not taken for this one's.
    fn bound_tensors(&self, results: &dyn Results) -> Result<(Tensors, Bound), PipelineError> {
        let (tensors, bound): (Tensors, Bound) = (self.tensors(results)?, read(results, TaskId::Bind)?);
        let is_of_model = bound.links.len() == self.inference.model.layers.len();
        if is_of_model && self.inference.bind(&tensors, bound.links.clone())? == bound {
            return Ok((tensors, bound));
        }
        Err(ResultError::Foreign(TaskId::Bind).into())
    }

    fn node(&self, task: TaskId, results: &dyn Results) -> Result<NodeProof, ResultError> {
        let bytes = results.result(task).ok_or(ResultError::Missing(task))?;
        self.inference.aggregator.decode_node(bytes).ok_or(ResultError::Foreign(task))
    }

    fn encode(&self, task: TaskId, node: &NodeProof) -> Result<Vec<u8>, ResultError> {
        self.inference.aggregator.encode_node(node).ok_or(ResultError::Unwritable(task))
    }
}

/// Whether two nodes are of one run, and of layers that follow each other.
fn follow_each_other(nodes: &[NodeProof; 2]) -> bool {
    let [Some(left), Some(right)] = nodes.each_ref().map(NodeProof::public) else { return false };
    (left.kind, left.end, left.gamma_prime, left.delta) == (right.kind, right.start, right.gamma_prime, right.delta)
}

/// The error of a leaf's circuit: if it cannot be satisfied, and there are results to blame, that it is they.
fn blame(error: ProveError, stale: Vec<TaskId>) -> PipelineError {
    match error {
        ProveError::Unsatisfied { .. } if !stale.is_empty() => ResultError::Stale(stale).into(),
        other => other.into(),
    }
}

fn read<T: Canonical>(results: &dyn Results, task: TaskId) -> Result<T, ResultError> {
    let bytes = results.result(task).ok_or(ResultError::Missing(task))?;
    T::from_bytes(bytes).map_err(|source| ResultError::Unreadable { task, source })
}
