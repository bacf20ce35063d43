//! Two codewords behind one cap. With few queries and no work a tree that mixes two codewords answers for either, if the nonce
//! is chosen. The opening at z*, a point that the cap itself gives, tells them apart: the links differ, and with them all that is hashed from links.

use plonky2::field::types::Field;
use plonky2::fri::FriConfig;
use plonky2::hash::merkle_tree::MerkleTree;
use zkinfer_circuits::air::OracleId;
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{Digest, F};
use zkinfer_circuits::hash::{Tag, hash};
use zkinfer_circuits::kind::Role;
use zkinfer_circuits::layer::prover::{LinkedOracle, commit_shape, open_linked, prove};
use zkinfer_circuits::layer::shape::fri_config;
use zkinfer_circuits::layer::{LayerClaim, LayerProof, LayerVerifyError, verify};

use crate::support::circuit::{LayerCircuit, Outcome};
use crate::support::forge::Forgery;
use crate::support::forger::{Forger, Polynomials, interpolate};
use crate::support::{Layer, dense_spec, random_dense, requantize};

const QUERIES: usize = 6;

/// Six queries, no proof of work.
fn weak_config() -> FriConfig {
    fri_config(3, QUERIES, 0)
}

fn layer(input_seed: u64) -> Layer {
    let spec = dense_spec(8, 8, 4, 60, 4, requantize(20, -60, 60));
    let mut layer = random_dense(spec.clone(), 111);
    layer.inputs = random_dense(spec, input_seed).inputs;
    layer
}

fn is_even(leaf: usize) -> bool {
    leaf.is_multiple_of(2)
}

fn is_odd(leaf: usize) -> bool {
    leaf % 2 == 1
}

/// Both columns behind one tree: the first in its even leaves, the second in its odd ones.
fn mix(forgery: &Forgery, columns: [&Columns; 2]) -> [Polynomials; 2] {
    let shape = commit_shape(&forgery.shape);
    let mut pair = columns.map(|columns| Polynomials::new(columns.rows(), columns.iter().map(interpolate).collect(), shape));
    let leaves = (0..pair[0].tree.leaves.len()).map(|leaf| pair[leaf % 2].tree.leaves[leaf].clone()).collect();
    let tree = MerkleTree::new(leaves, shape.cap_height);
    for polynomials in &mut pair {
        polynomials.tree = tree.clone();
    }
    pair
}

fn link(forgery: &Forgery, polynomials: &Polynomials) -> LinkedOracle<Forger> {
    let columns = polynomials.coefficients.len();
    open_linked(&forgery.forger, &forgery.shape, polynomials.clone(), columns).expect("open")
}

fn prove_over(forgery: &Forgery, weights: &LinkedOracle<Forger>, main: &LinkedOracle<Forger>) -> (LayerClaim, LayerProof) {
    let claim = forgery.claim(weights, main);
    let proof = prove(&forgery.forger, &forgery.shape, &claim, weights, main).expect("prove");
    (claim, proof)
}

/// Two inferences on different inputs; each prover chooses a nonce that queries its own half.
fn two_inferences() -> [Forgery; 2] {
    [(112, is_even as fn(usize) -> bool), (113, is_odd)].map(|(seed, wanted)| {
        let mut forgery = Forgery::with_config(layer(seed), Role::Inference, &weak_config());
        forgery.forger.chosen_queries = Some((QUERIES, wanted));
        forgery
    })
}

/// What the shared challenges and the model commitment are hashed from.
fn chains(claim: &LayerClaim) -> [Digest; 2] {
    [(Tag::MainChain, claim.link_main), (Tag::SecretChain, claim.link_weights)].map(|(tag, link)| {
        let start = [F::ZERO; 4];
        hash(tag, &[start, link.elements].concat())
    })
}

#[test]
fn two_inputs_behind_one_cap_have_two_links() {
    let forgeries = two_inferences();
    let mains = mix(&forgeries[0], [&forgeries[0].main, &forgeries[1].main]);
    let weights = forgeries[0].commit();
    let proofs = [0, 1].map(|k| prove_over(&forgeries[k], &weights[0], &link(&forgeries[k], &mains[k])));
    let shape = &forgeries[0].shape;
    let [(first_claim, first), (second_claim, second)] = &proofs;
    // The equivocation works: one cap, two statements, both accepted.
    assert_eq!(verify(shape, first_claim, first), Ok(()));
    assert_eq!(verify(shape, second_claim, second), Ok(()));
    assert_eq!((&first.caps[0], &first.caps[1]), (&second.caps[0], &second.caps[1]));
    assert_ne!(first_claim.balance, second_claim.balance);
    // But the challenges that all layers share would not be the same.
    assert_eq!(first_claim.link_weights, second_claim.link_weights);
    assert_ne!(first_claim.link_main, second_claim.link_main);
    assert_ne!(chains(first_claim)[0], chains(second_claim)[0]);
    let mut claim = second_claim.clone();
    claim.link_main = first_claim.link_main;
    assert_eq!(verify(shape, &claim, second), Err(LayerVerifyError::Link { oracle: OracleId::Main }));
}

#[test]
fn circuit_publishes_the_link_of_the_codeword_that_was_used() {
    let forgeries = two_inferences();
    let mains = mix(&forgeries[0], [&forgeries[0].main, &forgeries[1].main]);
    let weights = forgeries[0].commit();
    let circuit = LayerCircuit::new(&forgeries[0].shape);
    let links = [0, 1].map(|k| {
        let (claim, proof) = prove_over(&forgeries[k], &weights[0], &link(&forgeries[k], &mains[k]));
        let expected = LayerCircuit::expected(&forgeries[k].shape, &claim);
        assert_eq!(circuit.run(&claim, &proof), Outcome::Accepted(expected));
        claim.link_main
    });
    assert_ne!(links[0], links[1]);
}

/// The second statement under the first link: the values at z* are those of the other codeword, and FRI notices.
#[test]
fn star_values_of_the_other_codeword_are_refused() {
    let forgeries = two_inferences();
    let mains = mix(&forgeries[0], [&forgeries[0].main, &forgeries[1].main]);
    let weights = forgeries[0].commit();
    let first = link(&forgeries[0], &mains[0]);
    let claimed = LinkedOracle { oracle: mains[1].clone(), ..first };
    let (claim, proof) = prove_over(&forgeries[1], &weights[0], &claimed);
    assert!(matches!(verify(&forgeries[1].shape, &claim, &proof), Err(LayerVerifyError::Fri(_))));
}

/// Weights in range are registered, others are used: same cap, another link, hence another model commitment.
#[test]
fn registered_weights_are_not_those_behind_the_same_cap() {
    let mut registration = Forgery::with_config(layer(114), Role::Registration, &weak_config());
    let mut inference = Forgery::with_config(layer(114), Role::Inference, &weak_config());
    registration.forger.chosen_queries = Some((QUERIES, is_even));
    inference.forger.chosen_queries = Some((QUERIES, is_odd));
    // A weight of 1000, with the accumulator that it gives.
    let change = 1000 - inference.weight_cell("w1", 5);
    inference.weight("w1")[5] = F::from_canonical_u64(1000);
    let accumulator = inference.main_cell("acc", 1) + change * inference.main_cell("x", 5);
    inference.set_accumulator(1, accumulator);
    inference.recount();
    let weights = mix(&inference, [&registration.weights, &inference.weights]);
    let [registered, used] =
        [(&registration, &weights[0]), (&inference, &weights[1])].map(|(f, w)| prove_over(f, &link(f, w), &f.commit()[1]));
    assert_eq!(verify(&registration.shape, &registered.0, &registered.1), Ok(()));
    assert_eq!(verify(&inference.shape, &used.0, &used.1), Ok(()));
    assert_eq!(registered.1.caps[0], used.1.caps[0]);
    assert_ne!(registered.0.link_weights, used.0.link_weights);
    assert_ne!(chains(&registered.0)[1], chains(&used.0)[1]);
    let mut claim = used.0.clone();
    claim.link_weights = registered.0.link_weights;
    assert_eq!(verify(&inference.shape, &claim, &used.1), Err(LayerVerifyError::Link { oracle: OracleId::Weights }));
}
