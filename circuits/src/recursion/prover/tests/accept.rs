//! What is accepted, and that published proofs are what their statement says.

use plonky2::field::types::Field;

use crate::backend::reference::Reference;
use crate::field::{Digest, K};
use crate::recursion::digest::{GlobalChallenges, registration_digest};
use crate::recursion::outer::RegistrationWitness;
use crate::recursion::proof::{DecodeError, ProofKind, proof_bytes};
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

    let again = prover().prove_outer(&honest.root, &instance.witness()).unwrap();
    let shared = bytes[40..].chunks_exact(32).take(16).filter(|cap| again[40..].chunks_exact(32).any(|c| c == *cap));
    assert_eq!(shared.count(), 0, "two proofs of one statement share a digest of the wires cap");
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
    let mut bytes = bytes.to_vec();
    bytes[48..56].copy_from_slice(&u64::MAX.to_le_bytes());
    assert_eq!(verify(&bytes), DecodeError::NonCanonical { index: 1 }.into());
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
    let witness = RegistrationWitness {
        parameters_id: parameters.id(),
        model_salt: instance.model_salt,
        boundary: instance.boundary.shape.digest(),
    };
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
