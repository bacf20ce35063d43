//! What is refused, by which check. Every attack starts from honest nodes; the dishonest prover sets the wires itself.

use plonky2::field::types::Field;
use plonky2::iop::witness::PartialWitness;

use crate::field::{Digest, F, K};
use crate::recursion::digest::GlobalChallenges;
use crate::recursion::gadgets::VerifierData;
use crate::recursion::prover::tests::fixture::{
    BOUNDARY, FreeLayers, GROUP, Instance, LAYER, REGISTRATION, boundary_balance, changed, digest, honest, prover, sample_boundary,
};
use crate::recursion::prover::{LeafJob, NodeProof, ProveError};
use crate::recursion::salt::Salt;

/// plonky2 names the wire where two values meet: the reason of every violated equality.
#[track_caller]
pub(super) fn assert_contradiction<T: std::fmt::Debug>(circuit: &str, result: Result<T, ProveError>) {
    match result {
        Err(ProveError::Unsatisfied { name, reason }) => {
            assert_eq!(name, circuit);
            assert!(reason.contains("was set twice with different values"), "{reason}");
        }
        other => panic!("expected a contradiction in {circuit}, got {other:?}"),
    }
}

pub(super) fn with_public(node: &NodeProof, change: impl FnOnce(&mut Vec<F>)) -> NodeProof {
    let mut node = node.clone();
    change(&mut node.proof.public_inputs);
    node
}

#[test]
fn join_refuses_nodes_that_do_not_follow_each_other() {
    let honest = honest();
    let [first, second] = &honest.layers;
    assert_contradiction("join", prover().prove_join(second, first));
    assert_contradiction("join", prover().prove_join(first, first));
    assert_contradiction("join", prover().prove_join(first, &honest.boundary));
    assert_contradiction("join", prover().prove_join(&honest.joined_layers, second));
}

fn layer_under(instance: &Instance, index: usize, challenges: GlobalChallenges) -> NodeProof {
    let job = LeafJob::<FreeLayers> {
        leaf: LAYER,
        start_index: index,
        start_chains: instance.chains(index),
        challenges,
        layers: vec![&instance.layers[index]],
        boundary: None,
    };
    prover().prove_leaf(&job).expect("free layers accept any challenges")
}

#[test]
fn join_refuses_unequal_challenges() {
    let honest = honest();
    let instance = &honest.instance;
    let mut challenges = instance.challenges;
    challenges.gamma_prime += K::ONE;
    let other = layer_under(instance, 1, challenges);
    assert_contradiction("join", prover().prove_join(&honest.layers[0], &other));
    let mut challenges = instance.challenges;
    challenges.delta += K::ONE;
    let other = layer_under(instance, 1, challenges);
    assert_contradiction("join", prover().prove_join(&honest.layers[0], &other));
}

#[test]
fn join_refuses_another_kind_and_a_second_boundary() {
    let honest = honest();
    let instance = &honest.instance;
    let registration = prover()
        .prove_leaf(&LeafJob::<FreeLayers> {
            leaf: REGISTRATION,
            start_index: 1,
            start_chains: instance.chains(1),
            challenges: instance.challenges,
            layers: vec![&instance.layers[1]],
            boundary: None,
        })
        .unwrap();
    assert_contradiction("join", prover().prove_join(&honest.layers[0], &registration));
    assert_contradiction("join", prover().prove_join(&honest.boundary, &honest.boundary));
}

#[test]
fn outer_refuses_what_is_no_whole_inference() {
    let honest = honest();
    let witness = honest.instance.witness();
    // No boundary; a tail of the layers; a boundary without layers.
    for node in [&honest.joined_layers, &honest.layers[1], &honest.boundary] {
        assert_contradiction("outer", prover().prove_outer(node, &witness));
    }
}

#[test]
fn outer_refuses_an_unbalanced_ledger() {
    let mut instance = honest().instance.clone();
    instance.layers[1].balance += K::ONE;
    let group = instance.group().unwrap();
    assert_contradiction("outer", prover().prove_outer(&group, &instance.witness()));
}

#[test]
fn outer_refuses_challenges_that_hash_something_else() {
    let mut instance = honest().instance.clone();
    instance.challenges.delta += K::ONE;
    instance.layers[1].balance = -instance.layers[0].balance - boundary_balance(&instance.boundary, &instance.challenges);
    let group = instance.group().unwrap();
    assert_contradiction("outer", prover().prove_outer(&group, &instance.witness()));
}

#[test]
fn outer_refuses_every_changed_digest_of_the_statement() {
    let honest = honest();
    let good = honest.instance.witness();
    let other = Salt::from_stored(digest(1234));
    let changed = [
        ("parameters id", changed(good, |w| w.parameters_id = Digest::ZERO)),
        ("model salt", changed(good, |w| w.model_salt = other)),
        ("boundary", changed(good, |w| w.boundary = Digest::ZERO)),
        ("input", changed(good, |w| w.input = Digest::ZERO)),
        ("output", changed(good, |w| w.output = Digest::ZERO)),
    ];
    for (what, witness) in changed {
        println!("{what}");
        assert_contradiction("outer", prover().prove_outer(&honest.root, &witness));
    }
}

/// PITFALLS 19: a boundary with another shape than the program's has another payload, so the outer refuses it.
#[test]
fn boundary_of_another_shape_is_refused() {
    let honest = honest();
    let mut shapes = Vec::new();
    let good = sample_boundary();
    for (what, change) in [
        ("edge", (|w| w.shape.first_input_edge += 1) as fn(&mut crate::recursion::boundary::BoundaryWitness)),
        ("fan-out", |w| w.shape.input_fan_out -= 1),
        ("offset", |w| w.shape.input_offset -= 1),
        ("output edge", |w| w.shape.output_edge += 1),
        ("size", |w| {
            w.shape.n_inputs -= 1;
            w.input.pop();
        }),
        ("output size", |w| {
            w.shape.n_outputs -= 1;
            w.output.pop();
        }),
    ] {
        let mut boundary = good.clone();
        change(&mut boundary);
        shapes.push((what, boundary));
    }
    for (what, boundary) in shapes {
        println!("{what}");
        let mut instance = honest.instance.clone();
        instance.layers[1].balance = -instance.layers[0].balance - boundary_balance(&boundary, &instance.challenges);
        instance.boundary = boundary;
        let group = instance.group().unwrap();
        let statement = honest.instance.witness();
        assert_contradiction("outer", prover().prove_outer(&group, &statement));
    }
}

#[test]
fn leaf_jobs_are_checked_against_their_circuit() {
    let instance = &honest().instance;
    let job = |leaf, n_layers: usize| LeafJob::<FreeLayers> {
        leaf,
        start_index: 0,
        start_chains: instance.chains(0),
        challenges: instance.challenges,
        layers: instance.layers[..n_layers].iter().collect(),
        boundary: None,
    };
    let message = |job| prover().prove_leaf(&job).unwrap_err().to_string();
    let name = "inference-dense8x16+dense8x16-boundary64x16";
    assert_eq!(message(job(GROUP, 1)), format!("leaf {name} verifies 2 layers, got 1 layer proofs"));
    assert_eq!(message(job(GROUP, 2)), format!("leaf {name} has a boundary, the job gives none"));
    let mut large = instance.boundary.clone();
    large.input = vec![0; 65];
    large.shape.n_inputs = 65;
    let too_large = LeafJob { boundary: Some(&large), ..job(BOUNDARY, 0) };
    assert_eq!(message(too_large), "n_inputs is 65, outside 1 to 64 of the boundary circuit");
}

/// PITFALLS 5: a foreign circuit under the honest circuit_digest, and the honest circuit's cap under another digest.
#[test]
fn foreign_verifier_data_is_refused_in_join_and_outer() {
    let honest = honest();
    let [first, second] = &honest.layers;
    let foreign = &honest.boundary.verifier_data;
    let own = &first.verifier_data;
    let mixed = [
        VerifierData { circuit_digest: own.circuit_digest, constants_sigmas_cap: foreign.constants_sigmas_cap.clone() },
        VerifierData { circuit_digest: foreign.circuit_digest, constants_sigmas_cap: own.constants_sigmas_cap.clone() },
    ];
    for verifier_data in mixed {
        let node = NodeProof { verifier_data, ..first.clone() };
        assert_contradiction("join", prover().prove_join(&node, second));
        assert_contradiction("outer", prover().prove_outer(&node, &honest.instance.witness()));
    }
    // The honest verifier data under another slot, and a leaf that claims to be a join.
    let slot = NodeProof { slot: Some(BOUNDARY.0), ..first.clone() };
    assert_contradiction("join", prover().prove_join(&slot, second));
    let leaf_as_join = NodeProof { slot: None, ..first.clone() };
    assert_contradiction("join", prover().prove_join(&leaf_as_join, second));
    let join_as_leaf = NodeProof { slot: Some(LAYER.0), ..honest.joined_layers.clone() };
    assert_contradiction("join", prover().prove_join(&join_as_leaf, &honest.boundary));
}

#[test]
fn changed_public_inputs_of_a_child_are_refused() {
    let honest = honest();
    for position in 0..crate::recursion::public::N_NODE_PUBLIC {
        let node = with_public(&honest.layers[0], |list| list[position] += F::ONE);
        assert_contradiction("join", prover().prove_join(&node, &honest.layers[1]));
    }
}

/// A join that demands another digest J of its children is refused by the outer, and cannot take honest joins.
#[test]
fn another_join_digest_is_refused() {
    let honest = honest();
    let other = digest(4321);
    let join = prover().join_circuit().unwrap();
    let (targets, circuit) = join.as_ref();
    let prove = |left: &NodeProof, right: &NodeProof| {
        let paths = [left, right].map(|node| prover().path(node).unwrap());
        let children = [(&left.proof, &left.verifier_data, paths[0].as_ref()), (&right.proof, &right.verifier_data, paths[1].as_ref())];
        let mut witness = PartialWitness::new();
        targets.set(&mut witness, children, other).unwrap();
        circuit.prove(witness)
    };
    let error = prove(&honest.joined_layers, &honest.boundary).unwrap_err();
    assert!(error.to_string().contains("was set twice with different values"));
    // Two leaves under a false J: the join itself is satisfied, the outer compares J.
    let proof = prove(&honest.layers[0], &honest.layers[1]).unwrap();
    let node = NodeProof { proof, verifier_data: circuit.verifier_only.clone(), slot: None };
    assert_contradiction("join", prover().prove_join(&node, &honest.boundary));
    assert_contradiction("outer", prover().prove_outer(&node, &honest.instance.witness()));
}
