//! Row counts: what fits a node, and how close.

use crate::field::Digest;
use crate::kind::Role;
use crate::recursion::join::JoinTargets;
use crate::recursion::kinds::{BOUNDARY_KINDS, leaf_kinds};
use crate::recursion::layers::StarkLayers;
use crate::recursion::leaf::{LayerCircuit, LayerSlot, build_leaf};
use crate::recursion::node::{finish_node, node_builder, node_common};
use crate::recursion::prover::circuits::leaf_name;
use crate::security::{Profile, ProfileName};

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
            assert!(builder.num_gates() <= 2_500, "docs/PROTOCOL.md §6 says how many");
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
