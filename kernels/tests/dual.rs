//! The bundled MNIST network on two backends at once: every buffer is compared on the way, and layer proofs are equal to the byte.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use plonky2::util::serialization::Write;
use zkinfer_circuits::backend::reference::Reference;
use zkinfer_circuits::backend::{Backend, BackendError, CommitShape};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::compile::{Compiled, compile};
use zkinfer_circuits::field::{C, D, Digest, F, H, K, ext, from_signed};
use zkinfer_circuits::key::VerifierKey;
use zkinfer_circuits::layer::prover::{LinkedOracle, balance, commit_linked, prove};
use zkinfer_circuits::layer::{LayerClaim, LayerProof, verify};
use zkinfer_circuits::model::{ImportLimits, QuantGraph, execute, import_onnx, quantize_qdq};
use zkinfer_circuits::npy::{NpyLimits, read_npy};
use zkinfer_circuits::ops::trace::main_columns;
use zkinfer_circuits::pipeline::model::CommittedLayer;
use zkinfer_circuits::pipeline::{CommittedModel, InferenceRequest, LayerAggregator, ModelSecret, Unobserved, prove_inference, register};
use zkinfer_circuits::recursion::kinds::leaf_kinds;
use zkinfer_circuits::recursion::parameters::Parameters;
use zkinfer_circuits::recursion::prover::CircuitStore;
use zkinfer_circuits::recursion::salt::Salt;
use zkinfer_circuits::security::{ProfileName, SecurityFloor};
use zkinfer_circuits::statement::ContextNonce;
use zkinfer_circuits::verify::{AcceptableParams, verify as verify_statement};
use zkinfer_kernels::{CpuBackend, DualBackend, Level};

/// Keeps entries in memory.
#[derive(Default)]
struct MemoryStore(Mutex<HashMap<String, Vec<u8>>>);

impl CircuitStore for MemoryStore {
    fn load(&self, key: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(key).cloned()
    }

    fn store(&self, key: &str, bytes: &[u8]) {
        self.0.lock().unwrap().insert(key.to_owned(), bytes.to_vec());
    }
}

fn read(path: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../models/mlp-mnist/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn network() -> QuantGraph {
    let model = import_onnx(&read("model_int8_qdq.onnx"), &ImportLimits::default()).unwrap();
    quantize_qdq(&model, &[]).unwrap().0
}

fn first_input(graph: &QuantGraph) -> Vec<u8> {
    let inputs = read_npy(&read("inputs.npy"), &NpyLimits::default()).unwrap();
    graph.quantize_input(&inputs.to_samples(graph.input.n_elements).unwrap()[0])
}

/// The network with public weights, committed on a backend.
fn committed<B: Backend>(backend: &B, graph: &QuantGraph, store: &dyn CircuitStore) -> CommittedModel<B> {
    let Compiled { program, constants, .. } = compile(graph).unwrap();
    let secret = ModelSecret { profile: ProfileName::Default, program, constants, salt: Salt::NONE };
    CommittedModel::commit(backend, secret, store, &Unobserved).unwrap()
}

/// What is left of a layer to prove.
struct Witness<B: Backend> {
    main: LinkedOracle<B>,
    input: Vec<i64>,
    output: Vec<i64>,
}

/// Evaluates the network, a chain of layers, and commits each layer's tensors.
fn witnesses<B: Backend>(backend: &B, model: &CommittedModel<B>, input: &[u8]) -> Vec<Witness<B>> {
    let offset = i64::from(model.program.boundary.input_offset);
    let mut tensor: Vec<i64> = input.iter().map(|&byte| i64::from(byte) - offset).collect();
    let mut witnesses = Vec::new();
    for layer in &model.layers {
        let none = Columns::zero(layer.spec.kind.rows(), 0);
        let (columns, output) = main_columns(&layer.shape.system, &layer.spec, &layer.constants, &none, [&tensor, &[]]).unwrap();
        let main = commit_linked(backend, &layer.shape, &columns).unwrap();
        witnesses.push(Witness { main, input: tensor, output: output.clone() });
        tensor = output;
    }
    witnesses
}

/// Canonical bytes of every layer proof of one inference; each proof is verified.
fn layer_proofs<B: Backend>(backend: &B, graph: &QuantGraph) -> Vec<Vec<u8>> {
    let model = committed(backend, graph, &MemoryStore::default());
    let witnesses = witnesses(backend, &model, &first_input(graph));
    // In an inference these come from the commitments of all layers: here from those of the first.
    let Digest { elements: [e0, e1, e2, e3] } = witnesses[0].main.link;
    let (gamma_prime, delta): (K, K) = (ext(e0, e1), ext(e2, e3));
    let prove_layer = |(index, (layer, witness)): (usize, (&CommittedLayer<B>, &Witness<B>))| {
        let claim = LayerClaim {
            theta: layer.theta.clone(),
            index,
            link_weights: layer.weights.link,
            link_main: witness.main.link,
            gamma_prime,
            delta,
            balance: balance(&layer.shape, &layer.theta, gamma_prime, delta, [&witness.input, &[]], &witness.output),
        };
        let proof = prove(backend, &layer.shape, &claim, &layer.weights, &witness.main).unwrap();
        verify(&layer.shape, &claim, &proof).unwrap();
        to_bytes(&proof)
    };
    model.layers.iter().zip(&witnesses).enumerate().map(prove_layer).collect()
}

fn to_bytes(proof: &LayerProof) -> Vec<u8> {
    let mut bytes = Vec::new();
    for cap in &proof.caps {
        bytes.write_merkle_cap::<F, H>(cap).unwrap();
    }
    bytes.write_field_ext::<F, D>(proof.balance).unwrap();
    for opened in &proof.openings {
        bytes.write_field_ext_vec::<F, D>(opened).unwrap();
    }
    bytes.write_fri_proof::<F, C, D>(&proof.fri).unwrap();
    bytes
}

/// The best level beside the portable one.
fn two_levels() -> DualBackend<CpuBackend, CpuBackend> {
    DualBackend::of_every_buffer(CpuBackend::new(), CpuBackend::with_level(Level::Portable).unwrap())
}

#[test]
fn layer_proofs_of_mnist_are_equal_to_the_byte_on_every_backend() {
    let graph = network();
    let expected = layer_proofs(&CpuBackend::new(), &graph);
    assert_eq!(expected.len(), 3);
    for level in Level::available() {
        assert!(layer_proofs(&CpuBackend::with_level(level).unwrap(), &graph) == expected, "{}", level.name());
    }
    assert!(layer_proofs(&Reference, &graph) == expected);
    // Beside each other, so that a difference would be named by the step in which it arises.
    assert!(layer_proofs(&DualBackend::of_every_buffer(CpuBackend::new(), Reference), &graph) == expected);
    assert!(layer_proofs(&two_levels(), &graph) == expected);
}

#[test]
fn mnist_is_registered_proved_and_verified_on_two_levels_that_agree_in_every_buffer() {
    let (graph, backend, store) = (network(), two_levels(), Arc::new(MemoryStore::default()));
    let input = first_input(&graph);
    let parameters = Arc::new(Parameters::embedded(ProfileName::Default).unwrap());
    let aggregator = LayerAggregator::new(Arc::clone(&parameters), leaf_kinds(), Box::new(MemoryStore::default())).unwrap();
    let model = committed(&backend, &graph, store.as_ref());
    let registration_proof = register(&backend, &aggregator, &model, &Unobserved).unwrap();
    // Committed weights come back from the store, on both backends.
    let model = committed(&backend, &graph, store.as_ref());
    let nonce = ContextNonce::of_context(b"two backends");
    let request = InferenceRequest { input: &input, input_salt: Salt::NONE, nonce };
    let proved = prove_inference(&backend, &aggregator, &model, &request, &Unobserved).unwrap();
    assert_eq!(proved.statement.outputs, execute(&graph, &input).unwrap().tensor(graph.output.tensor));

    let Compiled { input, output, .. } = compile(&graph).unwrap();
    let key = VerifierKey {
        profile: ProfileName::Default,
        parameters_id: parameters.id(),
        program: model.program,
        model_commitment: model.commitment,
        registration_proof,
        input,
        output,
    };
    let parameter_sets = vec![parameters.as_ref().clone()];
    let acceptable = AcceptableParams { parameter_sets, min_security: SecurityFloor::default(), context_nonce: nonce };
    verify_statement(&key, &proved.statement, &acceptable, &proved.proof).unwrap();
}

#[test]
fn damaged_entries_of_the_store_are_computed_again_and_replaced() {
    let (graph, backend, store) = (network(), CpuBackend::new(), MemoryStore::default());
    let expected = committed(&backend, &graph, &store);
    let entries = store.0.lock().unwrap().clone();
    assert_eq!(entries.len(), expected.layers.len());
    for name in entries.keys() {
        // A bit of a coefficient: the value is one of the field all the same.
        store.0.lock().unwrap().get_mut(name).unwrap()[1000] ^= 1;
    }
    let again = committed(&backend, &graph, &store);
    assert_eq!(again.commitment, expected.commitment);
    for (layer, expected) in again.layers.iter().zip(&expected.layers) {
        assert_eq!((layer.weights.link, &layer.weights.star_values), (expected.weights.link, &expected.weights.star_values));
    }
    assert!(*store.0.lock().unwrap() == entries, "the store holds what it held before the damage");
}

#[test]
fn backends_of_different_layouts_are_told_apart_by_what_they_save() {
    let columns = Columns::from_columns(8, &[(0..8).map(from_signed).collect()]);
    let shape = CommitShape { rate_bits: 1, cap_height: 1 };
    DualBackend::new(CpuBackend::new(), Reference).commit(&columns, shape).unwrap();
    DualBackend::of_one_layout(CpuBackend::new(), CpuBackend::new()).commit(&columns, shape).unwrap();
    let refused = DualBackend::of_one_layout(CpuBackend::new(), Reference).commit(&columns, shape);
    assert!(matches!(refused, Err(BackendError::Disagreement { step: "commit", .. })));
}
