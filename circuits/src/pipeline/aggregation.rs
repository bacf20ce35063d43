//! From layer proofs to one node: leaves in order, then joins pairwise.

use super::PipelineError;
use super::stage::{Observer, Stage, step};
use crate::backend::Backend;
use crate::recursion::boundary::BoundaryWitness;
use crate::recursion::digest::{Chains, GlobalChallenges, LayerIdentity};
use crate::recursion::layers::{ProvedLayer, StarkLayers};
use crate::recursion::plan::NodePlan;
use crate::recursion::prover::{Aggregator, LeafJob, NodeProof};

/// The aggregator of real layers.
pub type LayerAggregator = Aggregator<StarkLayers>;

/// A proved layer and what it adds to the chains.
#[derive(Clone, Debug)]
pub(super) struct IdentifiedLayer {
    pub(super) identity: LayerIdentity,
    pub(super) proved: ProvedLayer,
}

/// The steps of aggregating a plan.
pub(super) fn stages(plan: &[NodePlan]) -> [(Stage, usize); 2] {
    [(Stage::Leaf, plan.len()), (Stage::Join, plan.len().saturating_sub(1))]
}

/// Proves the leaves of a plan and joins them.
pub(super) fn aggregate<B: Backend>(
    backend: &B,
    aggregator: &LayerAggregator,
    plan: &[NodePlan],
    layers: &[IdentifiedLayer],
    boundary: Option<&BoundaryWitness>,
    challenges: GlobalChallenges,
    observer: &dyn Observer,
) -> Result<NodeProof, PipelineError> {
    let mut chains = Chains::start();
    let mut nodes = Vec::with_capacity(plan.len());
    for (index, node) in plan.iter().enumerate() {
        let of_node = &layers[node.layers.clone()];
        let job = leaf_job(node, chains, challenges, of_node.iter().map(|layer| &layer.proved).collect(), boundary);
        nodes.push(step(observer, Stage::Leaf, index, || Ok::<_, PipelineError>(aggregator.prove_leaf(backend, &job)?))?);
        for (offset, layer) in of_node.iter().enumerate() {
            chains = chains.after(node.layers.start + offset, &layer.identity);
        }
    }
    join_all(backend, aggregator, nodes, observer)
}

/// What the leaf of a plan proves, given the chains before it.
pub(super) fn leaf_job<'a>(
    node: &NodePlan,
    start_chains: Chains,
    challenges: GlobalChallenges,
    layers: Vec<&'a ProvedLayer>,
    boundary: Option<&'a BoundaryWitness>,
) -> LeafJob<'a, StarkLayers> {
    let boundary = node.boundary.and(boundary);
    LeafJob { leaf: node.leaf, start_index: node.layers.start, start_chains, challenges, layers, boundary }
}

fn join_all<B: Backend>(
    backend: &B,
    aggregator: &LayerAggregator,
    mut nodes: Vec<NodeProof>,
    observer: &dyn Observer,
) -> Result<NodeProof, PipelineError> {
    let mut n_joins = 0;
    while nodes.len() > 1 {
        let mut above = Vec::with_capacity(nodes.len().div_ceil(2));
        let mut below = nodes.into_iter();
        while let Some(left) = below.next() {
            let Some(right) = below.next() else {
                above.push(left);
                break;
            };
            let join = || Ok::<_, PipelineError>(aggregator.prove_join(backend, &left, &right)?);
            above.push(step(observer, Stage::Join, n_joins, join)?);
            n_joins += 1;
        }
        nodes = above;
    }
    nodes.pop().ok_or(PipelineError::Aggregate(crate::recursion::prover::ProveError::NoNodes))
}
