//! PITFALLS 18: a registered wrap that publishes another layer's key or index, attacked at each level with real layers; and a wrap that
//! is not registered.

use plonky2::field::types::Field;
use plonky2::iop::target::Target;
use plonky2::iop::witness::PartialWitness;

use crate::backend::Backend;
use crate::backend::reference::Reference;
use crate::field::{C, Digest, F};
use crate::recursion::digest::{Chains, verifier_data_digest};
use crate::recursion::gadgets::Proof;
use crate::recursion::layers::{ProvedLayer, StarkLayers};
use crate::recursion::node::Circuit;
use crate::recursion::prover::aggregator::{satisfied, set_leaf};
use crate::recursion::prover::circuits::{LeafGates, leaf_gates};
use crate::recursion::prover::tests::fixture::{FreeLayer, FreeLayers};
use crate::recursion::prover::tests::real::{LAST_WIDE, SINGLE, real_kinds, real_prover, sample_claim};
use crate::recursion::prover::tests::refuse::{assert_contradiction, with_public};
use crate::recursion::prover::{LeafJob, NodeProof, ProveError};

const LEAF: &str = "inference-dense8x16";

/// The registered wrap of one layer, with its wires open.
struct Wrap {
    circuit: Circuit,
    gates: LeafGates<StarkLayers>,
}

impl Wrap {
    fn new() -> Self {
        let (builder, gates) = leaf_gates::<StarkLayers>(real_prover().parameters().profile(), &real_kinds()[SINGLE.0]).unwrap();
        let circuit = builder.build::<C>();
        assert_eq!(verifier_data_digest(&circuit.verifier_only), real_prover().parameters().registry().leaves()[SINGLE.0]);
        Self { circuit, gates }
    }

    fn prove(&self, start_index: usize, start_chains: Chains, layer: &ProvedLayer, lies: &[(Target, F)]) -> Result<Proof, ProveError> {
        let claim = sample_claim();
        let challenges = claim.global().challenges();
        let job = LeafJob::<StarkLayers> { leaf: SINGLE, start_index, start_chains, challenges, layers: vec![layer], boundary: None };
        let mut witness = PartialWitness::new();
        set_leaf(&mut witness, &self.gates, &real_kinds()[SINGLE.0], &job).unwrap();
        witness.target_values.extend(lies.iter().copied());
        satisfied(&self.circuit, LEAF, || Reference.prove_circuit(&self.circuit, witness))
    }
}

fn lies_about(targets: &[Target; 4], digest: Digest) -> Vec<(Target, F)> {
    targets.iter().copied().zip(digest.elements).collect()
}

/// The first layer's wrap, told to publish what belongs to the second: its key, its links, its index, its scalars.
#[test]
fn wrap_cannot_publish_another_layers_key_or_index() {
    let claim = sample_claim();
    let challenges = claim.global().challenges();
    let wrap = Wrap::new();
    let start = claim.chains(0);
    let layer = claim.steps[0].prove(0, challenges);
    wrap.prove(0, start, &layer, &[]).expect("the true layer at its own index");
    let other = claim.steps[1].identity();
    let targets = &wrap.gates.layers[0];
    let lies = [
        ("key", lies_about(&targets.layer_key.elements, other.key)),
        ("link of weights", lies_about(&targets.link_weights.elements, other.link_weights)),
        ("link of main", lies_about(&targets.link_main.elements, other.link_main)),
        ("index", vec![(targets.index, F::ONE)]),
    ];
    for (what, lies) in lies {
        println!("{what}");
        assert_contradiction(LEAF, wrap.prove(0, start, &layer, &lies));
    }
    // The whole wrap at another index, and the other layer's scalars with this layer's proof: another transcript.
    assert_contradiction(LEAF, wrap.prove(1, claim.chains(1), &layer, &[]));
    let scalars = ProvedLayer { theta: claim.steps[1].layer.spec.theta(), ..layer.clone() };
    assert_contradiction(LEAF, wrap.prove(0, start, &scalars, &[]));
}

/// True layer, true wrap, false public inputs: the chain that the second layer's key, or the index 1, would give.
#[test]
fn published_chains_of_another_key_are_refused_in_join_and_outer() {
    let claim = sample_claim();
    let challenges = claim.global().challenges();
    let (first, last) = (claim.first_leaf(challenges), claim.last_leaf(challenges));
    let true_public = first.public().expect("a node");
    let with_other_key = claim.chains(0).after(0, &claim.steps[1].identity());
    let with_other_index = claim.chains(0).after(1, &claim.steps[0].identity());
    assert_eq!(true_public.end.public, claim.chains(1).public.elements);
    for false_chain in [with_other_key.public, with_other_index.public] {
        let mut public = true_public;
        public.end.public = false_chain.elements;
        let forged = with_public(&first, |list| *list = public.to_vec());
        assert_contradiction("join", real_prover().prove_join(&Reference, &forged, &last));
        assert_contradiction("outer", real_prover().prove_outer(&Reference, &forged, &claim.witness()));
    }
    // The true nodes in a false order, and a node twice.
    assert_contradiction("join", real_prover().prove_join(&Reference, &last, &first));
    assert_contradiction("join", real_prover().prove_join(&Reference, &first, &first));
}

/// A wrap for layers of another kind takes no proof of this one.
#[test]
fn wrap_of_another_kind_is_refused() {
    let claim = sample_claim();
    let layer = claim.steps[1].prove(1, claim.global().challenges());
    let job = LeafJob {
        leaf: LAST_WIDE,
        start_index: 1,
        start_chains: claim.chains(1),
        challenges: claim.global().challenges(),
        layers: vec![&layer],
        boundary: Some(&claim.boundary),
    };
    match real_prover().prove_leaf(&Reference, &job).map(|_| ()) {
        Err(ProveError::Unsatisfied { name, reason }) => {
            assert_eq!(name, "inference-dense8x32-boundary64x256");
            assert_eq!(reason, "the layer proof has another shape than the circuit verifies");
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// A wrap of the right shape that verifies nothing, in the place of the first layer's: it publishes the true key and links, and a
/// balance that makes a false output fit. Its circuit is in no registry.
#[test]
fn wrap_that_verifies_nothing_is_refused() {
    let mut claim = sample_claim();
    claim.boundary.output[0] += F::ONE;
    let challenges = claim.global().challenges();
    let last = claim.last_leaf(challenges);
    let kind = &real_kinds()[SINGLE.0];
    let (builder, gates) = leaf_gates::<FreeLayers>(real_prover().parameters().profile(), kind).unwrap();
    let circuit = builder.build::<C>();
    let of_last = last.public().expect("a node").balance;
    let layer = FreeLayer { identity: claim.steps[0].identity(), balance: -crate::field::ext(of_last[0], of_last[1]) };
    let job = LeafJob::<FreeLayers> {
        leaf: SINGLE,
        start_index: 0,
        start_chains: claim.chains(0),
        challenges,
        layers: vec![&layer],
        boundary: None,
    };
    let mut witness = PartialWitness::new();
    set_leaf(&mut witness, &gates, kind, &job).unwrap();
    let proof = satisfied(&circuit, LEAF, || Reference.prove_circuit(&circuit, witness)).expect("it verifies nothing");
    let node = |slot| NodeProof { proof: proof.clone(), verifier_data: circuit.verifier_only.clone(), slot };
    let public = node(None).public().expect("a node");
    assert_eq!(public.end.public, claim.chains(1).public.elements, "everything it says fits");
    for slot in [Some(SINGLE.0), None] {
        assert_contradiction("join", real_prover().prove_join(&Reference, &node(slot), &last));
        assert_contradiction("outer", real_prover().prove_outer(&Reference, &node(slot), &claim.witness()));
    }
    // Under the registered wrap's identity the proof does not verify.
    let registered = claim.first_leaf(challenges).verifier_data;
    let disguised = NodeProof { verifier_data: registered, ..node(Some(SINGLE.0)) };
    assert_contradiction("join", real_prover().prove_join(&Reference, &disguised, &last));
}
