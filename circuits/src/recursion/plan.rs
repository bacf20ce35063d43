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

fn find(kinds: &[LeafKind], role: Role, layers: &[LayerKind], boundary: Option<BoundaryKind>) -> Option<LeafIndex> {
    let matches = |kind: &LeafKind| kind.role == role && kind.layers == layers && kind.boundary == boundary;
    kinds.iter().position(matches).map(LeafIndex)
}

fn singles(kinds: &[LeafKind], role: Role, layers: &[LayerKind]) -> Result<Vec<NodePlan>, PlanError> {
    if layers.is_empty() {
        return Err(PlanError::NoLayers);
    }
    let single = |(layer, kind): (usize, &LayerKind)| {
        let leaf = find(kinds, role, std::slice::from_ref(kind), None);
        let leaf = leaf.ok_or(PlanError::UnknownKind { layer, kind: *kind })?;
        Ok(NodePlan { leaf, layers: layer..layer + 1, boundary: None })
    };
    layers.iter().enumerate().map(single).collect()
}

/// The leaves of an inference: a group if one matches the whole model, else one leaf a layer and the boundary last.
///
/// # Errors
/// A kind, input or output for which there is no circuit.
pub fn plan(layers: &[LayerKind], n_inputs: usize, n_outputs: usize) -> Result<Vec<NodePlan>, PlanError> {
    let kinds = leaf_kinds();
    let boundary = BoundaryKind { input_capacity: input_capacity(n_inputs)?, output_capacity: output_capacity(n_outputs)? };
    if let Some(leaf) = find(&kinds, Role::Inference, layers, Some(boundary)).filter(|_| !layers.is_empty()) {
        return Ok(vec![NodePlan { leaf, layers: 0..layers.len(), boundary: Some(boundary) }]);
    }
    let mut nodes = singles(&kinds, Role::Inference, layers)?;
    let leaf = find(&kinds, Role::Inference, &[], Some(boundary)).ok_or(PlanError::UnknownBoundary(boundary))?;
    nodes.push(NodePlan { leaf, layers: layers.len()..layers.len(), boundary: Some(boundary) });
    Ok(nodes)
}

/// The leaves of a registration: a group if one matches the whole model, else one leaf a layer.
///
/// # Errors
/// A kind for which there is no circuit.
pub fn plan_registration(layers: &[LayerKind]) -> Result<Vec<NodePlan>, PlanError> {
    let kinds = leaf_kinds();
    match find(&kinds, Role::Registration, layers, None) {
        Some(leaf) => Ok(vec![NodePlan { leaf, layers: 0..layers.len(), boundary: None }]),
        None => singles(&kinds, Role::Registration, layers),
    }
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
    fn names_the_layer_that_no_circuit_proves() {
        let error = plan(&[dense(8, 16), dense(9, 16)], 10, 10).unwrap_err();
        assert_eq!(error, PlanError::UnknownKind { layer: 1, kind: dense(9, 16) });
        assert_eq!(plan(&[], 10, 10).unwrap_err(), PlanError::NoLayers);
    }
}
