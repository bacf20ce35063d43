//! Whole models, from ONNX bytes to verified statements, on the CPU backend.
#![allow(clippy::print_stdout, reason = "figures for whoever runs it with --nocapture")]
#![allow(missing_docs)]

mod tasks;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use zkinfer_circuits::compile::{Compiled, compile};
use zkinfer_circuits::encoding::Canonical;
use zkinfer_circuits::key::VerifierKey;
use zkinfer_circuits::model::{ImportLimits, QuantGraph, QuantOptions, execute, import_onnx, quantize, quantize_qdq};
use zkinfer_circuits::npy::{NpyLimits, read_npy};
use zkinfer_circuits::pipeline::{
    Cancelled, CommittedModel, InferenceRequest, LayerAggregator, ModelSecret, Observer, Stage, Unobserved, prove_inference, register,
};
use zkinfer_circuits::recursion::kinds::leaf_kinds;
use zkinfer_circuits::recursion::parameters::Parameters;
use zkinfer_circuits::recursion::proof::DecodeError;
use zkinfer_circuits::recursion::prover::CircuitStore;
use zkinfer_circuits::recursion::salt::Salt;
use zkinfer_circuits::recursion::verify::VerifyError as ProofRefusal;
use zkinfer_circuits::security::{ProfileName, SecurityFloor};
use zkinfer_circuits::statement::{ContextNonce, Statement};
use zkinfer_circuits::verify::{AcceptableParams, VerifyError, verify, verify_bytes};
use zkinfer_kernels::CpuBackend;

/// Keeps entries in memory.
#[derive(Clone, Default)]
struct MemoryStore(Arc<Mutex<HashMap<String, Vec<u8>>>>);

impl CircuitStore for MemoryStore {
    fn load(&self, key: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap().get(key).cloned()
    }

    fn store(&self, key: &str, bytes: &[u8]) {
        self.0.lock().unwrap().insert(key.to_owned(), bytes.to_vec());
    }
}

struct Prover {
    backend: CpuBackend,
    parameters: Arc<Parameters>,
    aggregator: LayerAggregator,
    store: MemoryStore,
}

struct Registered {
    model: CommittedModel<CpuBackend>,
    key: VerifierKey,
    graph: QuantGraph,
}

impl Prover {
    fn new() -> Self {
        Self::with_profile(ProfileName::Default)
    }

    fn with_profile(profile: ProfileName) -> Self {
        let parameters = Arc::new(Parameters::embedded(profile).unwrap());
        let store = MemoryStore::default();
        let aggregator = LayerAggregator::new(Arc::clone(&parameters), leaf_kinds(), Box::new(store.clone())).unwrap();
        Self { backend: CpuBackend::new(), parameters, aggregator, store }
    }

    /// A network with its weights committed, not registered.
    fn commit(&self, graph: &QuantGraph) -> CommittedModel<CpuBackend> {
        let Compiled { program, constants, .. } = compile(graph).unwrap();
        let secret = ModelSecret { profile: self.parameters.profile().name(), program, constants, salt: Salt::NONE };
        CommittedModel::commit(&self.backend, secret, &self.store, &Unobserved).unwrap()
    }

    fn register(&self, graph: QuantGraph, salt: Salt) -> Registered {
        let start = Instant::now();
        let Compiled { program, constants, input, output } = compile(&graph).unwrap();
        println!("kinds {:?}", program.kinds());
        let profile = self.parameters.profile();
        let secret =
            ModelSecret::from_secret_bytes(&ModelSecret { profile: profile.name(), program, constants, salt }.to_secret_bytes()).unwrap();
        let model = CommittedModel::commit(&self.backend, secret, &self.store, &Unobserved).unwrap();
        let registration_proof = register(&self.backend, &self.aggregator, &model, &Timed::default()).unwrap();
        println!("registered in {:.1?}, {} bytes", start.elapsed(), registration_proof.len());
        let key = VerifierKey {
            profile: profile.name(),
            parameters_id: self.parameters.id(),
            program: model.program.clone(),
            model_commitment: model.commitment,
            registration_proof,
            input,
            output,
        };
        Registered { model, key, graph }
    }

    fn acceptable(&self, context_nonce: ContextNonce) -> AcceptableParams<Parameters> {
        AcceptableParams { parameter_sets: vec![self.parameters.as_ref().clone()], min_security: SecurityFloor::default(), context_nonce }
    }

    fn prove(&self, registered: &Registered, input: &[u8], input_salt: Salt) -> (Statement, Vec<u8>) {
        let nonce = ContextNonce::of_context(b"pipeline test");
        let request = InferenceRequest { input, input_salt, nonce };
        let start = Instant::now();
        let proved = prove_inference(&self.backend, &self.aggregator, &registered.model, &request, &Timed::default()).unwrap();
        println!("proved in {:.1?}, {} bytes", start.elapsed(), proved.proof.len());
        let expected = execute(&registered.graph, input).unwrap();
        assert_eq!(proved.statement.outputs, expected.tensor(registered.graph.output.tensor));
        let start = Instant::now();
        verify(&registered.key, &proved.statement, &self.acceptable(nonce), &proved.proof).unwrap();
        println!("verified key and proof in {:.1?}", start.elapsed());
        (proved.statement, proved.proof)
    }
}

/// Prints how long each step takes.
#[derive(Default)]
struct Timed(Mutex<Option<Instant>>);

impl Observer for Timed {
    fn plan(&self, _: &[(Stage, usize)]) {}

    fn begin(&self, _: Stage, _: usize) -> Result<(), Cancelled> {
        *self.0.lock().unwrap() = Some(Instant::now());
        Ok(())
    }

    fn end(&self, stage: Stage, step: usize) {
        let start = self.0.lock().unwrap().take().unwrap();
        println!("  {} {step}: {:.2?}", stage.name(), start.elapsed());
    }
}

fn read(path: &str) -> Vec<u8> {
    std::fs::read(format!("{}/../models/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn float_model(name: &str) -> QuantGraph {
    let model = import_onnx(&read(&format!("{name}/model.onnx")), &ImportLimits::default()).unwrap();
    let inputs = read_npy(&read(&format!("{name}/inputs.npy")), &NpyLimits::default()).unwrap();
    let samples = inputs.to_samples(model.n_inputs()).unwrap();
    quantize(&model, &samples, &QuantOptions::default()).unwrap().0
}

fn first_input(graph: &QuantGraph, name: &str) -> Vec<u8> {
    let inputs = read_npy(&read(&format!("{name}/inputs.npy")), &NpyLimits::default()).unwrap();
    graph.quantize_input(&inputs.to_samples(graph.input.n_elements).unwrap()[0])
}

#[test]
fn breast_cancer_is_registered_proved_and_every_lie_about_it_refused() {
    let prover = Prover::new();
    let graph = float_model("mlp-breast-cancer");
    let input = first_input(&graph, "mlp-breast-cancer");
    let registered = prover.register(graph, Salt::fresh().unwrap());
    let (statement, proof) = prover.prove(&registered, &input, Salt::NONE);
    let acceptable = prover.acceptable(statement.context_nonce);
    let check = |statement: &Statement, key: &VerifierKey| verify(key, statement, &acceptable, &proof);

    let mut changed = statement.clone();
    changed.outputs[0] += 1;
    assert!(matches!(check(&changed, &registered.key), Err(VerifyError::Proof(_))));
    let mut other = input.clone();
    other[3] ^= 1;
    changed = statement.clone();
    changed.input = zkinfer_circuits::statement::StatementInput::Public(other);
    assert!(matches!(check(&changed, &registered.key), Err(VerifyError::Proof(_))));
    let mut key = registered.key.clone();
    key.model_commitment.elements.swap(0, 1);
    assert!(matches!(check(&statement, &key), Err(VerifyError::Unregistered(_))));
    let mut key = registered.key.clone();
    key.program.layers[0].mult_bits -= 1;
    assert!(matches!(check(&statement, &key), Err(VerifyError::Unregistered(_))));

    // Who demands more than the default profile gives, by list or by bits, is not served by it.
    let [default_id, strict_id] = [ProfileName::Default, ProfileName::Strict].map(|name| Parameters::embedded(name).unwrap().id());
    let documents = (&registered.key, &statement, proof.as_slice());
    let refused = refusal(documents, ProfileName::Strict, SecurityFloor::default());
    assert_eq!(refused, VerifyError::UnknownParameters { got: default_id, accepted: vec![strict_id] });
    let refused = refusal(documents, ProfileName::Default, SecurityFloor { proven_bits: 85.0, ..SecurityFloor::default() });
    let VerifyError::WeakParameters(weak) = refused else { panic!("{refused:?}") };
    assert_eq!((weak.figure, weak.required), ("proven", 85.0));

    // Proofs of one statement share no bytes that blinding should hide: caps come first in the encoding.
    let (again, second) = prover.prove(&registered, &input, Salt::NONE);
    assert_eq!(again, statement);
    let head = |proof: &[u8]| proof[proof.len() / 4..proof.len() / 4 + 64].to_vec();
    assert_ne!(head(&proof), head(&second));

    // A committed input: the statement does not show it.
    let (hidden, hidden_proof) = prover.prove(&registered, &input, Salt::fresh().unwrap());
    assert_ne!(hidden.input_commitment().unwrap(), statement.input_commitment().unwrap());
    let bytes = hidden.to_bytes();
    assert!(!bytes.windows(input.len()).any(|window| window == input));
    verify_bytes(&registered.key.to_bytes(), &bytes, &acceptable, &hidden_proof).unwrap();
    assert!(matches!(verify(&registered.key, &hidden, &acceptable, &proof), Err(VerifyError::Proof(_))));
}

/// Documents under a verifier that accepts one profile and demands some security.
fn refusal(documents: (&VerifierKey, &Statement, &[u8]), accepted: ProfileName, min_security: SecurityFloor) -> VerifyError {
    let (key, statement, proof) = documents;
    let parameter_sets = vec![Parameters::embedded(accepted).unwrap()];
    let acceptable = AcceptableParams { parameter_sets, min_security, context_nonce: statement.context_nonce };
    verify(key, statement, &acceptable, proof).unwrap_err()
}

#[test]
fn strict_profile_is_proved_and_no_verifier_of_one_profile_accepts_the_other() {
    let [default_id, strict_id] = [ProfileName::Default, ProfileName::Strict].map(|name| Parameters::embedded(name).unwrap().id());
    let prover = Prover::with_profile(ProfileName::Strict);
    let graph = float_model("mlp-breast-cancer");
    let input = first_input(&graph, "mlp-breast-cancer");
    let registered = prover.register(graph, Salt::fresh().unwrap());
    let (statement, proof) = prover.prove(&registered, &input, Salt::NONE);
    let documents = (&registered.key, &statement, proof.as_slice());

    // Accepted where 85 proven bits are demanded, refused by who believes in the default set alone.
    let demanding = AcceptableParams {
        min_security: SecurityFloor { heuristic_bits: 99.0, proven_bits: 85.0 },
        ..prover.acceptable(statement.context_nonce)
    };
    assert_eq!(verify(&registered.key, &statement, &demanding, &proof), Ok(()));
    let refused = refusal(documents, ProfileName::Default, SecurityFloor::default());
    assert_eq!(refused, VerifyError::UnknownParameters { got: strict_id, accepted: vec![default_id] });
    // The same documents, called what they are not.
    let mut key = registered.key.clone();
    (key.profile, key.parameters_id) = (ProfileName::Default, default_id);
    let refused = refusal((&key, &statement, &proof), ProfileName::Default, SecurityFloor::default());
    assert_eq!(refused, VerifyError::Unregistered(ProofRefusal::Decode(DecodeError::Parameters)));
    let mut renamed = statement.clone();
    renamed.parameters_id = default_id;
    let refused = refusal((&registered.key, &renamed, &proof), ProfileName::Strict, SecurityFloor::default());
    assert_eq!(refused, VerifyError::OtherParameters { expected: strict_id, got: default_id });
}

#[test]
fn mnist_is_proved_from_its_quantized_file() {
    let prover = Prover::new();
    let model = import_onnx(&read("mlp-mnist/model_int8_qdq.onnx"), &ImportLimits::default()).unwrap();
    let (graph, _) = quantize_qdq(&model, &[]).unwrap();
    let input = first_input(&graph, "mlp-mnist");
    // Public weights: no salt, so that everybody can recompute the commitment.
    let registered = prover.register(graph, Salt::NONE);
    prover.prove(&registered, &input, Salt::NONE);
    prover.prove(&registered, &input, Salt::NONE);
}

fn residual_network() -> QuantGraph {
    let model = import_onnx(&read("residual/model_uint8_per_channel_qdq.onnx"), &ImportLimits::default()).unwrap();
    quantize_qdq(&model, &[]).unwrap().0
}

/// Bytes of all sizes.
fn varied_input(graph: &QuantGraph) -> Vec<u8> {
    (0..graph.input.n_elements).map(|i| (i * 37 % 256) as u8).collect()
}

#[test]
fn residual_network_is_proved_through_joins() {
    let prover = Prover::new();
    let graph = residual_network();
    let input = varied_input(&graph);
    let registered = prover.register(graph, Salt::fresh().unwrap());
    prover.prove(&registered, &input, Salt::NONE);
}
