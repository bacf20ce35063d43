//! Which leaf circuits prove a model: a pure function of its layer kinds and the sizes of its boundary.

use std::ops::Range;

use thiserror::Error;

use crate::kind::{LayerKind, Role};
use crate::recursion::digest::{SizeError, input_capacity, output_capacity};
use crate::recursion::kinds::{BoundaryKind, LeafIndex, LeafKind, leaf_kinds};

/// One leaf of a plan. The leaves, in order, are joined pairwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodePlan {
    /// The circuit.
    pub leaf: LeafIndex,
    /// The model's layers that it proves.
    pub layers: Range<usize>,
    /// Whether it contains the boundary.
    pub boundary: Option<BoundaryKind>,
}

/// No leaf circuit fits.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlanError {
    /// A model without layers.
    #[error("the model has no layers to prove")]
    NoLayers,
    /// A layer kind without leaf.
    #[error("layer {layer} has the kind {kind:?}, for which there is no leaf circuit; choose one of LAYER_KINDS")]
    UnknownKind {
        /// Position in the model.
        layer: usize,
        /// Its kind.
        kind: LayerKind,
    },
    /// An input or output that does not fit.
    #[error(transparent)]
    Size(#[from] SizeError),
    /// A pair of capacities without leaf.
    #[error("there is no boundary circuit for {0:?}; choose one of BOUNDARY_KINDS")]
    UnknownBoundary(BoundaryKind),
}

/// The fewest leaves that prove `layers` in order, and `boundary` with or behind the last of them.
fn cover(role: Role, layers: &[LayerKind], boundary: Option<BoundaryKind>) -> Result<Vec<NodePlan>, PlanError> {
    if layers.is_empty() {
        return Err(PlanError::NoLayers);
    }
    let kinds: Vec<LeafKind> = leaf_kinds();
    // best[i]: the leaves from layer i on; the last entry is the boundary alone, or nothing.
    let mut best: Vec<Option<Vec<NodePlan>>> = vec![None; layers.len() + 1];
    for start in (0..=layers.len()).rev() {
        let mut choices: Vec<Vec<NodePlan>> = Vec::new();
        if boundary.is_none() && start == layers.len() {
            choices.push(Vec::new());
        }
        for (index, kind) in kinds.iter().enumerate().filter(|(_, kind)| kind.role == role && layers[start..].starts_with(&kind.layers)) {
            let end = start + kind.layers.len();
            let leaf = NodePlan { leaf: LeafIndex(index), layers: start..end, boundary: kind.boundary };
            let rest = match kind.boundary {
                None if end > start => best[end].clone(),
                Some(_) if kind.boundary == boundary && end == layers.len() => Some(Vec::new()),
                _ => None,
            };
            choices.extend(rest.map(|rest| [vec![leaf], rest].concat()));
        }
        best[start] = choices.into_iter().min_by_key(Vec::len);
    }
    match best.swap_remove(0) {
        Some(nodes) => Ok(nodes),
        None => Err(missing(&kinds, role, layers, boundary)),
    }
}

/// Why there is no cover: every kind of layer and every boundary needs a leaf of its own.
fn missing(kinds: &[LeafKind], role: Role, layers: &[LayerKind], boundary: Option<BoundaryKind>) -> PlanError {
    let has =
        |layers: &[LayerKind], boundary| kinds.iter().any(|kind| kind.role == role && kind.layers == layers && kind.boundary == boundary);
    let unknown = layers.iter().enumerate().find(|(_, kind)| !has(std::slice::from_ref(kind), None));
    match (unknown, boundary) {
        (Some((layer, &kind)), _) => PlanError::UnknownKind { layer, kind },
        (None, Some(boundary)) => PlanError::UnknownBoundary(boundary),
        (None, None) => PlanError::NoLayers,
    }
}

/// The fewest leaves of an inference.
///
/// # Errors
/// A kind, input or output for which there is no circuit.
pub fn plan(layers: &[LayerKind], n_inputs: usize, n_outputs: usize) -> Result<Vec<NodePlan>, PlanError> {
    let boundary = BoundaryKind { input_capacity: input_capacity(n_inputs)?, output_capacity: output_capacity(n_outputs)? };
    cover(Role::Inference, layers, Some(boundary))
}

/// The fewest leaves of a registration.
///
/// # Errors
/// A kind for which there is no circuit.
pub fn plan_registration(layers: &[LayerKind]) -> Result<Vec<NodePlan>, PlanError> {
    cover(Role::Registration, layers, None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recursion::kinds::dense;

    #[test]
    fn a_whole_model_takes_its_group() {
        let nodes = plan(&[dense(10, 128), dense(8, 64), dense(8, 16)], 784, 10).unwrap();
        assert_eq!(nodes.len(), 1);
        assert_eq!(nodes[0].layers, 0..3);
        assert_eq!(leaf_kinds()[nodes[0].leaf.0].layers.len(), 3);
    }

    #[test]
    fn other_models_take_one_leaf_a_layer_and_the_boundary() {
        let nodes = plan(&[dense(10, 128), dense(8, 64)], 784, 10).unwrap();
        assert_eq!(nodes.iter().map(|node| node.layers.clone()).collect::<Vec<_>>(), [0..1, 1..2, 2..2]);
        assert_eq!(nodes[2].boundary, Some(BoundaryKind { input_capacity: 1024, output_capacity: 16 }));
        let nodes = plan_registration(&[dense(10, 128), dense(8, 64)]).unwrap();
        assert_eq!(leaf_kinds()[nodes[1].leaf.0].role, Role::Registration);
    }

    #[test]
    fn neighbours_share_a_leaf_and_the_boundary_joins_the_last() {
        let wide = dense(12, 256);
        let nodes = plan(&[dense(10, 16), wide, wide, wide, wide], 4, 1024).unwrap();
        assert_eq!(nodes.iter().map(|node| node.layers.clone()).collect::<Vec<_>>(), [0..1, 1..3, 3..5]);
        assert_eq!(nodes[2].boundary, Some(BoundaryKind { input_capacity: 64, output_capacity: 1024 }));
        let nodes = plan(&[wide, wide, wide, wide], 1000, 1000).unwrap();
        assert_eq!(nodes.iter().map(|node| node.layers.clone()).collect::<Vec<_>>(), [0..2, 2..4, 4..4]);
        let nodes = plan_registration(&[wide, dense(10, 16), wide]).unwrap();
        assert_eq!(nodes.len(), 2);
    }

    #[test]
    fn names_the_layer_that_no_circuit_proves() {
        let error = plan(&[dense(8, 16), dense(9, 16)], 10, 10).unwrap_err();
        assert_eq!(error, PlanError::UnknownKind { layer: 1, kind: dense(9, 16) });
        assert_eq!(plan(&[], 10, 10).unwrap_err(), PlanError::NoLayers);
    }
}
