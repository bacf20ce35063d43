//! Row counts: what fits a node, and how close.

use crate::field::Digest;
use crate::kind::Role;
use crate::layer::LayerShape;
use crate::recursion::join::JoinTargets;
use crate::recursion::kinds::{BOUNDARY_KINDS, dense, leaf_kinds};
use crate::recursion::layers::{StarkLayers, layer_shape, verify_shape};
use crate::recursion::leaf::{LayerCircuit, LayerSlot, build_leaf};
use crate::recursion::node::{finish_node, node_builder, node_common};
use crate::recursion::prover::circuits::leaf_name;
use crate::rows::count::rows_by_part;
use crate::security::{FriLevel, INNER_ARITY_BITS, Profile, ProfileName};

#[test]
fn every_leaf_fits_a_node() {
    let profile = Profile::new(ProfileName::Default);
    let limit = 1 << profile.node_log_rows();
    let mut too_large = Vec::new();
    for kind in leaf_kinds() {
        let mut builder = node_builder(&profile);
        let slots: Vec<LayerSlot> =
            kind.layers.iter().map(|layer| StarkLayers::verify(&mut builder, layer, kind.role, &profile).0).collect();
        build_leaf(&mut builder, kind.role, &slots, kind.boundary);
        println!("{}: {} gates", leaf_name(&kind), builder.num_gates());
        if leaf_name(&kind) == "inference-dense10x128" {
            assert!(builder.num_gates() <= 2_400, "docs/PROTOCOL.md §6 says how many");
        }
        if finish_node(&mut builder, &profile, "leaf").is_err() {
            too_large.push(leaf_name(&kind));
        }
    }
    assert!(too_large.is_empty(), "{too_large:?} exceed {limit} rows");
}

#[test]
fn join_and_largest_boundary_fit_a_node() {
    let profile = Profile::new(ProfileName::Default);
    let limit = 1 << profile.node_log_rows();
    let common = node_common(&profile);
    let mut builder = node_builder(&profile);
    JoinTargets::build(&mut builder, &common, Digest::ZERO);
    println!("join: {} gates of {limit}", builder.num_gates());
    assert!(builder.num_gates() < limit);
    for kind in BOUNDARY_KINDS {
        let mut builder = node_builder(&profile);
        build_leaf(&mut builder, Role::Inference, &[], Some(kind));
        println!("{kind:?}: {} gates", builder.num_gates());
        assert!(builder.num_gates() < limit);
    }
}

/// The leaf of one layer of 128 outputs and 1,024 inputs, and its rows by purpose.
fn rows_of_leaf(shape: &LayerShape) -> usize {
    let mut builder = node_builder(&Profile::new(ProfileName::Default));
    let slot = verify_shape(&mut builder, shape).0;
    build_leaf(&mut builder, Role::Inference, &[slot], None);
    let parts = rows_by_part(&builder);
    for (name, rows) in &parts {
        println!("{rows:6} {name}");
    }
    println!(
        "{:6} in all, {} queries at rate 1/{}",
        builder.num_gates(),
        shape.fri.config.num_query_rounds,
        1 << shape.fri.config.rate_bits
    );
    assert_eq!(parts.values().sum::<usize>(), builder.num_gates(), "every row is in one part");
    builder.num_gates()
}

/// The figures of docs/PROTOCOL.md §6, by purpose.
#[test]
fn layer_of_128_outputs_and_1024_inputs_takes_the_documented_rows() {
    let kind = dense(10, 128);
    let level = FriLevel { rate_bits: 3, n_queries: 28, pow_bits: 16, arity_bits: INNER_ARITY_BITS, final_poly_bits: 6 };
    let rows = rows_of_leaf(&LayerShape::new(kind, Role::Inference, &level.config()));
    assert!(rows <= 2_700, "28 queries at rate 1/8 take {rows} rows");
    let rows = rows_of_leaf(&layer_shape(kind, Role::Inference, &Profile::new(ProfileName::Default)));
    assert!(rows <= 2_400, "23 queries at rate 1/16 take {rows} rows");
}
