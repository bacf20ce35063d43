//! The leaf circuits of version 1: one list, in registry order.
//!
//! A leaf verifies a fixed list of layer kinds, in order, and may contain the boundary. Changing the list changes the registry root, hence
//! the parameters id: rebuild the parameters file.

use serde::{Deserialize, Serialize};

use crate::kind::{LayerKind, Operator, Role};

/// Capacities of a boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BoundaryKind {
    /// Input bytes.
    pub input_capacity: usize,
    /// Output values.
    pub output_capacity: usize,
}

/// A leaf circuit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeafKind {
    /// What is proved about its layers.
    pub role: Role,
    /// Its layers, in order.
    pub layers: Vec<LayerKind>,
    /// Its boundary, if it contains one.
    pub boundary: Option<BoundaryKind>,
}

/// Number of a leaf circuit: its slot in the registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LeafIndex(pub usize);

/// A dense layer kind.
pub const fn dense(log_rows: usize, n_columns: usize) -> LayerKind {
    LayerKind { operator: Operator::Dense, log_rows, n_columns }
}

/// An add layer kind.
pub const fn add(log_rows: usize) -> LayerKind {
    LayerKind { operator: Operator::Add, log_rows, n_columns: 0 }
}

const fn boundary(input_capacity: usize, output_capacity: usize) -> BoundaryKind {
    BoundaryKind { input_capacity, output_capacity }
}

/// Layer kinds that have a leaf of their own, for both roles.
pub const LAYER_KINDS: [LayerKind; 18] = [
    dense(8, 16),
    dense(8, 32),
    dense(8, 64),
    dense(8, 256),
    dense(10, 16),
    dense(10, 64),
    dense(10, 128),
    dense(10, 256),
    dense(12, 16),
    dense(12, 64),
    dense(12, 256),
    dense(14, 16),
    dense(14, 64),
    dense(14, 256),
    dense(16, 256),
    add(8),
    add(10),
    add(12),
];

/// Boundaries that have a leaf of their own.
pub const BOUNDARY_KINDS: [BoundaryKind; 12] = [
    boundary(64, 16),
    boundary(64, 256),
    boundary(64, 1024),
    boundary(1024, 16),
    boundary(1024, 256),
    boundary(1024, 1024),
    boundary(4096, 16),
    boundary(4096, 256),
    boundary(4096, 1024),
    boundary(16384, 16),
    boundary(16384, 256),
    boundary(16384, 1024),
];

/// Several layers in one leaf: whole small models, and neighbours that are frequent in larger ones.
pub fn groups() -> Vec<LeafKind> {
    const SMALL: [LayerKind; 3] = [dense(10, 128), dense(8, 64), dense(8, 16)];
    const SMALLER: [LayerKind; 3] = [dense(8, 32), dense(8, 32), dense(8, 16)];
    const SMALLEST: [LayerKind; 3] = [dense(8, 32), dense(8, 16), dense(8, 16)];
    const WIDENING: [LayerKind; 2] = [dense(10, 16), dense(12, 256)];
    const WIDE: [LayerKind; 2] = [dense(12, 256), dense(12, 256)];
    const NARROWING: [LayerKind; 2] = [dense(12, 256), dense(10, 16)];
    let group = |role, layers: &[LayerKind], boundary| LeafKind { role, layers: layers.to_vec(), boundary };
    let inference = |layers: &[LayerKind], boundary| group(Role::Inference, layers, boundary);
    let registration = |layers: &[LayerKind]| group(Role::Registration, layers, None);
    vec![
        inference(&SMALL, Some(boundary(1024, 16))),
        inference(&SMALLER, Some(boundary(64, 16))),
        inference(&SMALLEST, Some(boundary(64, 16))),
        inference(&WIDENING, None),
        inference(&WIDE, None),
        inference(&WIDE, Some(boundary(64, 1024))),
        inference(&NARROWING, Some(boundary(1024, 16))),
        registration(&SMALL),
        registration(&SMALLER),
        registration(&SMALLEST),
        registration(&WIDENING),
        registration(&NARROWING),
    ]
}

/// All leaf circuits, in registry order.
pub fn leaf_kinds() -> Vec<LeafKind> {
    let mut kinds = Vec::new();
    for role in [Role::Inference, Role::Registration] {
        kinds.extend(LAYER_KINDS.iter().map(|&layer| LeafKind { role, layers: vec![layer], boundary: None }));
    }
    kinds.extend(BOUNDARY_KINDS.iter().map(|&boundary| LeafKind { role: Role::Inference, layers: Vec::new(), boundary: Some(boundary) }));
    kinds.extend(groups());
    kinds
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recursion::digest::{INPUT_CAPACITIES, OUTPUT_CAPACITIES};
    use crate::recursion::registry::REGISTRY_SLOTS;

    #[test]
    fn list_fits_the_registry_without_repetition() {
        let kinds = leaf_kinds();
        assert!(kinds.len() <= REGISTRY_SLOTS, "{} kinds", kinds.len());
        let mut unique = kinds.clone();
        unique.sort();
        unique.dedup();
        assert_eq!(unique.len(), kinds.len());
    }

    #[test]
    fn every_capacity_has_a_boundary_leaf() {
        for input in INPUT_CAPACITIES {
            for output in OUTPUT_CAPACITIES {
                assert!(BOUNDARY_KINDS.contains(&boundary(input, output)), "{input} × {output}");
            }
        }
    }
}
