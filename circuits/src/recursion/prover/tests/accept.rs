//! What is accepted, and that published proofs are what their statement says.

use std::collections::HashSet;

use plonky2::field::types::{Field, PrimeField64};
use plonky2::fri::oracle::SALT_SIZE;

use crate::backend::reference::Reference;
use crate::field::{Digest, K, ORDER};
use crate::recursion::digest::{GlobalChallenges, registration_digest};
use crate::recursion::outer::RegistrationWitness;
use crate::recursion::proof::{DecodeError, ProofKind, decode_proof, proof_bytes};
use crate::recursion::prover::LeafJob;
use crate::recursion::prover::tests::fixture::{FreeLayer, REGISTRATION, honest, prover};
use crate::recursion::verify::{VerifyError, verify_outer, verify_registration};

#[test]
fn joined_nodes_give_a_published_proof_of_exactly_their_statement() {
    let honest = honest();
    let parameters = prover().parameters();
    let instance = &honest.instance;
    let start = std::time::Instant::now();
    let bytes = prover().prove_outer(&honest.root, &instance.witness()).unwrap();
    println!("outer proof: {} bytes in {:?}", bytes.len(), start.elapsed());
    assert_eq!(bytes.len(), proof_bytes(&parameters.outer().common));
    assert!(bytes.len() <= 200_000);
    let digest = instance.statement.digest();
    let start = std::time::Instant::now();
    assert_eq!(verify_outer(parameters, digest, &bytes), Ok(()));
    println!("verified in {:?}", start.elapsed());

    let mut other = instance.statement;
    other.output = Digest::ZERO;
    let refused = verify_outer(parameters, other.digest(), &bytes);
    assert!(matches!(refused, Err(VerifyError::Invalid { .. })), "{refused:?}");
    decoding_refuses_other_bytes(digest, &bytes);
    every_flipped_byte_is_refused(digest, &bytes);

    let again = prover().prove_outer(&honest.root, &instance.witness()).unwrap();
    no_randomness_is_shared(digest, &bytes, &again);
}

/// PITFALLS 15: no digest of the caps of wires, permutation and quotient, and no salt of any opened leaf, occurs in both proofs.
fn no_randomness_is_shared(digest: Digest, first: &[u8], second: &[u8]) {
    let parameters = prover().parameters();
    let drawn = |bytes: &[u8]| -> HashSet<Vec<u64>> {
        let public_inputs = digest.elements.to_vec();
        let decoded = decode_proof(ProofKind::Inference, parameters.id(), &parameters.outer().common, public_inputs, bytes);
        let proof = decoded.expect("a proof just made").proof;
        let caps = [&proof.wires_cap, &proof.plonk_zs_partial_products_cap, &proof.quotient_polys_cap];
        let digests = caps.iter().flat_map(|cap| cap.0.iter().map(|digest| digest.elements.to_vec()));
        let rounds = &proof.opening_proof.query_round_proofs;
        let leaves = rounds.iter().flat_map(|round| round.initial_trees_proof.evals_proofs.iter().skip(1));
        let salts = leaves.map(|(leaf, _)| leaf[leaf.len() - SALT_SIZE..].to_vec());
        digests.chain(salts).map(|list| list.iter().map(|element| element.to_canonical_u64()).collect()).collect()
    };
    let (first, second) = (drawn(first), drawn(second));
    assert!(first.len() > 3 * 16 && second.len() > 3 * 16, "caps and salts");
    assert!(first.is_disjoint(&second), "two proofs of one statement share a cap's digest or a salt");
}

fn decoding_refuses_other_bytes(digest: Digest, bytes: &[u8]) {
    let parameters = prover().parameters();
    let verify = |bytes: &[u8]| verify_outer(parameters, digest, bytes).unwrap_err();
    let changed = |position: usize, value: u8| {
        let mut bytes = bytes.to_vec();
        bytes[position] = value;
        bytes
    };
    assert_eq!(verify(&[]), DecodeError::Magic.into());
    assert_eq!(verify(&changed(0, 0)), DecodeError::Magic.into());
    assert_eq!(verify(&changed(4, 9)), DecodeError::Version { got: 9 }.into());
    let kind = DecodeError::Kind { kind: ProofKind::Inference, expected: 0, got: 1 };
    assert_eq!(verify(&changed(6, 1)), kind.into());
    assert_eq!(verify(&changed(7, 1)), DecodeError::Reserved { got: 1 }.into());
    assert_eq!(verify(&changed(8, bytes[8] ^ 1)), DecodeError::Parameters.into());
    let expected = bytes.len();
    assert_eq!(verify(&bytes[..expected - 1]), DecodeError::Length { expected, got: expected - 1 }.into());
    assert_eq!(verify(&[bytes, &[0]].concat()), DecodeError::Length { expected, got: expected + 1 }.into());
    // PITFALLS 14: the element plus p, where that fits eight bytes, and the largest number elsewhere.
    for index in (0..(expected - 40) / 8).step_by(131) {
        let place = 40 + 8 * index..48 + 8 * index;
        let value = u64::from_le_bytes(bytes[place.clone()].try_into().unwrap());
        let mut bytes = bytes.to_vec();
        bytes[place].copy_from_slice(&value.saturating_add(ORDER).to_le_bytes());
        assert_eq!(verify(&bytes), DecodeError::NonCanonical { index }.into());
    }
}

/// One byte in each of 97 equal parts of the proof, caps, openings, queries, final polynomial and nonce among them.
fn every_flipped_byte_is_refused(digest: Digest, bytes: &[u8]) {
    let parameters = prover().parameters();
    let positions = (0..97).map(|part| part * bytes.len() / 97).chain([bytes.len() - 1, bytes.len() - 8]);
    for position in positions {
        let mut changed = bytes.to_vec();
        changed[position] ^= 1;
        assert!(verify_outer(parameters, digest, &changed).is_err(), "byte {position} changes nothing");
    }
}

#[test]
fn a_whole_model_in_one_leaf_is_accepted() {
    let instance = &honest().instance;
    let group = instance.group().unwrap();
    assert_eq!(group.public().map(|public| public.end.index), honest().root.public().map(|public| public.end.index));
    let bytes = prover().prove_outer(&group, &instance.witness()).unwrap();
    assert_eq!(verify_outer(prover().parameters(), instance.statement.digest(), &bytes), Ok(()));
}

#[test]
fn a_registration_is_accepted_for_its_model_only() {
    let instance = &honest().instance;
    let layers = instance.layers.map(|layer| FreeLayer { balance: K::ZERO, ..layer });
    let leaf = |index: usize| {
        prover().prove_leaf(&LeafJob {
            leaf: REGISTRATION,
            start_index: index,
            start_chains: instance.chains(index),
            challenges: GlobalChallenges::zero(),
            layers: vec![&layers[index]],
            boundary: None,
        })
    };
    let root = prover().aggregate(&Reference, vec![leaf(0).unwrap(), leaf(1).unwrap()]).unwrap();
    let parameters = prover().parameters();
    let witness =
        RegistrationWitness { parameters_id: parameters.id(), model_salt: instance.model_salt, boundary: instance.boundary.shape.digest() };
    let bytes = prover().prove_registration(&Reference, &root, &witness).unwrap();
    let statement = &instance.statement;
    let digest = registration_digest(parameters.id(), statement.program, statement.model);
    assert_eq!(verify_registration(parameters, digest, &bytes), Ok(()));
    let other = registration_digest(parameters.id(), statement.program, Digest::ZERO);
    let refused = verify_registration(parameters, other, &bytes);
    assert!(matches!(refused, Err(VerifyError::Invalid { .. })), "{refused:?}");
    let refused = verify_outer(parameters, digest, &bytes);
    assert_eq!(refused, Err(DecodeError::Kind { kind: ProofKind::Inference, expected: 0, got: 1 }.into()));
}
