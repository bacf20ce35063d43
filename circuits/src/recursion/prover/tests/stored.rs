//! Circuits read back from a store prove like those just built, and damaged entries are built again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use plonky2::field::types::Field;

use crate::backend::reference::Reference;
use crate::field::F;
use crate::recursion::prover::tests::fixture::{BOUNDARY, FreeLayers, GROUP, honest, prover, test_kinds};
use crate::recursion::prover::{Aggregator, CircuitError, CircuitStore, LeafJob, NodeProof, ProveError};

#[derive(Default)]
struct Memory {
    entries: Mutex<HashMap<String, Vec<u8>>>,
    hits: Mutex<usize>,
}

impl CircuitStore for Arc<Memory> {
    fn load(&self, key: &str) -> Option<Vec<u8>> {
        let entry = self.entries.lock().unwrap().get(key).cloned();
        *self.hits.lock().unwrap() += usize::from(entry.is_some());
        entry
    }

    fn store(&self, key: &str, bytes: &[u8]) {
        self.entries.lock().unwrap().insert(key.to_owned(), bytes.to_vec());
    }
}

fn with_store(memory: &Arc<Memory>) -> Aggregator<FreeLayers> {
    let parameters = Arc::new(prover().parameters().clone());
    Aggregator::new(parameters, test_kinds(), Box::new(Arc::clone(memory))).unwrap()
}

#[test]
fn a_stored_circuit_proves_and_a_damaged_one_is_built_again() {
    let memory = Arc::new(Memory::default());
    with_store(&memory).warm_leaf(BOUNDARY).unwrap();
    let instance = &honest().instance;
    let job = LeafJob {
        leaf: BOUNDARY,
        start_index: 2,
        start_chains: instance.chains(2),
        challenges: instance.challenges,
        layers: vec![],
        boundary: Some(&instance.boundary),
    };
    let start = std::time::Instant::now();
    let second = with_store(&memory);
    second.warm_leaf(BOUNDARY).unwrap();
    let bytes: usize = memory.entries.lock().unwrap().values().map(Vec::len).sum();
    println!("loaded {bytes} bytes in {:?}", start.elapsed());
    assert_eq!(*memory.hits.lock().unwrap(), 1);
    let node = second.prove_leaf(&Reference, &job).unwrap();
    assert_eq!(node.public(), honest().boundary.public());
    prover().prove_join(&honest().joined_layers, &node).unwrap();

    for entry in memory.entries.lock().unwrap().values_mut() {
        entry[1000] ^= 1;
    }
    with_store(&memory).warm_leaf(BOUNDARY).unwrap();
}

#[test]
fn a_saved_node_comes_back_and_a_damaged_or_foreign_one_does_not() {
    let memory = Arc::new(Memory::default());
    let aggregator = with_store(&memory);
    let (leaf, join) = (&honest().boundary, &honest().root);
    aggregator.save_node("leaf", leaf);
    aggregator.save_node("join", join);
    assert_eq!(aggregator.load_node("leaf").unwrap().public(), leaf.public());
    assert_eq!(aggregator.load_node("join").unwrap().public(), join.public());
    assert!(aggregator.load_node("another").is_none());

    // A proof of one circuit under the slot of another.
    let foreign = NodeProof { slot: Some(GROUP.0), ..leaf.clone() };
    aggregator.save_node("foreign", &foreign);
    assert!(aggregator.load_node("foreign").is_none());
    // A proof of other public inputs.
    let mut lying = leaf.clone();
    lying.proof.public_inputs[0] += F::ONE;
    aggregator.save_node("lying", &lying);
    assert!(aggregator.load_node("lying").is_none());
    memory.entries.lock().unwrap().get_mut("leaf").unwrap()[1000] ^= 1;
    assert!(aggregator.load_node("leaf").is_none());
}

/// Sealed well, and with a proof that verifies: what follows the proof in its part is refused all the same.
#[test]
fn a_node_has_one_encoding() {
    let aggregator = with_store(&Arc::new(Memory::default()));
    let leaf = &honest().boundary;
    let bytes = aggregator.encode_node(leaf).unwrap();
    assert_eq!(aggregator.decode_node(&bytes).unwrap().public(), leaf.public());
    // The proof is the last part, behind its length; a checksum follows it.
    let (body, _) = bytes.split_last_chunk::<32>().unwrap();
    let n_bytes = leaf.proof.to_bytes().len();
    let mut longer = [body, &[0]].concat();
    let length = &mut longer[body.len() - n_bytes - 8..][..8];
    assert_eq!(length, (n_bytes as u64).to_le_bytes());
    length.copy_from_slice(&(n_bytes as u64 + 1).to_le_bytes());
    longer.extend(*blake3::hash(&longer).as_bytes());
    assert!(aggregator.decode_node(&longer).is_none());
}

#[test]
fn circuits_of_other_parameters_are_refused() {
    let mut kinds = test_kinds();
    kinds.swap(BOUNDARY.0, GROUP.0);
    let parameters = Arc::new(prover().parameters().clone());
    let swapped = Aggregator::<FreeLayers>::new(parameters, kinds, Box::new(Arc::new(Memory::default()))).unwrap();
    match swapped.warm_leaf(BOUNDARY).unwrap_err() {
        ProveError::Circuit(CircuitError::Mismatch { name }) => {
            assert_eq!(name, "inference-dense8x16+dense8x16-boundary64x16");
        }
        other => panic!("expected a mismatch, got {other}"),
    }
}
