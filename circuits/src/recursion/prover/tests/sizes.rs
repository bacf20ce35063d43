//! Row counts: what fits a node, and how close.

use crate::field::Digest;
use crate::kind::Role;
use crate::recursion::join::JoinTargets;
use crate::recursion::kinds::BOUNDARY_KINDS;
use crate::recursion::leaf::build_leaf;
use crate::recursion::node::{node_builder, node_common};
use crate::security::{Profile, ProfileName};

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
