//! Random dense networks of one to four layers: compiled, committed, bound by (γ', δ), proved and registered layer by layer. Every proof
//! verifies, the ledger balances with the boundary, and the outputs are the reference executor's.
#![cfg(feature = "prover")]
#![allow(missing_docs)]

mod support;

use plonky2::field::types::Field;
use rand::{Rng, SeedableRng, rngs::StdRng};
use support::forge::attack_config;
use zkinfer_circuits::backend::reference::Reference;
use zkinfer_circuits::compile::{Compiled, compile};
use zkinfer_circuits::field::{Digest, F, K, from_signed, lift};
use zkinfer_circuits::kind::Role;
use zkinfer_circuits::layer::prover::{LinkedOracle, balance, commit_linked, prove};
use zkinfer_circuits::layer::spec::layer_key;
use zkinfer_circuits::layer::{LayerClaim, LayerShape, LayerSpec, verify};
use zkinfer_circuits::model::{DenseLayer, InputSpec, OutputSpec, QuantGraph, QuantLayer, QuantOp, Requant, TensorId, execute};
use zkinfer_circuits::ops::trace::{LayerConstants, main_columns, registration_columns, weight_columns};
use zkinfer_circuits::program::Program;
use zkinfer_circuits::recursion::digest::{
    BoundaryShape, Chains, GlobalChallenges, GlobalInputs, LayerIdentity, input_commitment, model_commitment, output_commitment,
};

/// Widths of the tensors of each case, the input's first: odd sizes, inputs far fewer and far more than the 256 rows of the smallest table.
const WIDTHS: [&[usize]; 10] = [
    &[1, 1],
    &[3, 7, 1],
    &[255, 257],
    &[1, 300, 1],
    &[13, 31, 63, 5],
    &[700, 3, 129, 9],
    &[17, 1, 1, 17, 11],
    &[1025, 33, 2],
    &[65, 127, 64, 33, 10],
    &[2, 511, 3, 1, 1],
];
const SHIFT: u32 = 24;
const MULT_BITS: u32 = 20;

fn choose(rng: &mut StdRng, is_extreme: bool) -> i64 {
    if is_extreme { [-127, 127][rng.gen_range(0..2)] } else { rng.gen_range(-128..=127) }
}

fn dense(rng: &mut StdRng, input: usize, n_in: usize, n_out: usize, is_extreme: bool, is_raw: bool) -> QuantLayer {
    let weights = (0..n_in * n_out).map(|_| choose(rng, is_extreme) as i8).collect();
    let largest = (1i64 << 16) - 1;
    let bias = (0..n_out).map(|_| if is_extreme { [-largest, largest][rng.gen_range(0..2)] } else { rng.gen_range(-9000..9000) }).collect();
    // Spreads the accumulators, of about 5000·√n, over the clamps.
    let scale = ((40u64 << SHIFT) as f64 / (5000.0 * (n_in as f64).sqrt())) as u32;
    let lo = rng.gen_range(-128..=-20);
    let requant = Requant {
        multipliers: (0..n_out).map(|_| rng.gen_range(0..=scale)).collect(),
        shift: SHIFT,
        lo,
        hi: lo + rng.gen_range(1..=255),
        mult_bits: MULT_BITS,
    };
    let requant = (!is_raw).then_some(requant);
    let op = DenseLayer { input: TensorId(input), n_in, n_out, weights, bias, bias_bits: 16, requant };
    QuantLayer { name: format!("layer {input}"), op: QuantOp::Dense(op), scale: 1.0 }
}

fn network(case: usize) -> (QuantGraph, Vec<u8>) {
    let mut rng = StdRng::seed_from_u64(500 + case as u64);
    let (widths, is_extreme) = (WIDTHS[case], case % 3 == 1);
    let n_layers = widths.len() - 1;
    let layers = (0..n_layers)
        .map(|layer| dense(&mut rng, layer, widths[layer], widths[layer + 1], is_extreme, layer + 1 == n_layers && case.is_multiple_of(2)))
        .collect();
    let (n_in, n_out) = (widths[0], widths[n_layers]);
    let offset = [0, 128, 255][case % 3];
    let input = InputSpec { name: "x".into(), shape: vec![1, n_in], n_elements: n_in, offset, scale: 1.0 };
    let output = OutputSpec { tensor: TensorId(n_layers), name: "y".into(), shape: vec![1, n_out], scale: 1.0 };
    // offset 128: −127 and 127.
    let bytes = (0..n_in).map(|_| if is_extreme { [1, 255][rng.gen_range(0..2)] } else { rng.gen_range(0..=255u32) as u8 }).collect();
    (QuantGraph { input, layers, output }, bytes)
}

/// A layer on its tensors, committed.
struct Committed {
    spec: LayerSpec,
    constants: LayerConstants,
    shape: LayerShape,
    weights: LinkedOracle<Reference>,
    main: LinkedOracle<Reference>,
    input: Vec<i64>,
    output: Vec<i64>,
}

impl Committed {
    fn new(spec: &LayerSpec, constants: LayerConstants, input: &[i64]) -> Self {
        let shape = LayerShape::new(spec.kind, Role::Inference, &attack_config());
        let weights = weight_columns(spec, &constants);
        let (main, output) = main_columns(&shape.system, spec, &constants, &weights, [input, &[]]).expect("in range");
        let [weights, main] = [weights, main].map(|columns| commit_linked(&Reference, &shape, &columns).expect("commit"));
        Self { spec: spec.clone(), constants, shape, weights, main, input: input.to_vec(), output }
    }

    fn identity(&self) -> LayerIdentity {
        let key = layer_key(self.shape.kind_digest, &self.spec.theta());
        LayerIdentity { key, link_weights: self.weights.link, link_main: self.main.link }
    }

    /// Proves and verifies the inference; returns its balance.
    fn prove(&self, index: usize, challenges: GlobalChallenges) -> K {
        let GlobalChallenges { gamma_prime, delta } = challenges;
        let theta = self.spec.theta();
        let balance = balance(&self.shape, &theta, gamma_prime, delta, [&self.input, &[]], &self.output);
        let (link_weights, link_main) = (self.weights.link, self.main.link);
        let claim = LayerClaim { theta, index, link_weights, link_main, gamma_prime, delta, balance };
        let proof = prove(&Reference, &self.shape, &claim, &self.weights, &self.main).expect("prove");
        assert_eq!(verify(&self.shape, &claim, &proof), Ok(()), "layer {index}");
        balance
    }

    fn register(&self, index: usize) {
        let shape = LayerShape::new(self.spec.kind, Role::Registration, &attack_config());
        let columns = registration_columns(&shape.system, &self.spec, &weight_columns(&self.spec, &self.constants)).expect("in range");
        let main = commit_linked(&Reference, &shape, &columns).expect("commit");
        let theta = self.spec.theta();
        let (link_weights, link_main) = (self.weights.link, main.link);
        let claim = LayerClaim { theta, index, link_weights, link_main, gamma_prime: K::ZERO, delta: K::ZERO, balance: K::ZERO };
        let proof = prove(&Reference, &shape, &claim, &self.weights, &main).expect("prove");
        assert_eq!(verify(&shape, &claim, &proof), Ok(()), "registration of layer {index}");
    }
}

fn elements(values: &[i64]) -> Vec<F> {
    values.iter().map(|&value| from_signed(value)).collect()
}

fn bind(program: &Program, layers: &[Committed], input: &[u8], output: &[i64]) -> GlobalChallenges {
    let chains = layers.iter().enumerate().fold(Chains::start(), |chains, (index, layer)| chains.after(index, &layer.identity()));
    let program = zkinfer_circuits::recursion::digest::program_digest(layers.len(), chains.public, program.boundary_digest());
    GlobalInputs {
        parameters_id: Digest::ZERO,
        model: model_commitment(Digest::ZERO, program, chains.secret),
        program,
        input: input_commitment(input, Digest::ZERO).expect("a capacity"),
        output: output_commitment(&elements(output), Digest::ZERO).expect("a capacity"),
        n_layers: layers.len(),
        main_chain: chains.main,
    }
    .challenges()
}

/// `D_in·Σ γ'^i x_i − δ^out·Σ γ'^i v_i`.
fn boundary_balance(shape: &BoundaryShape, challenges: GlobalChallenges, input: &[i64], output: &[i64]) -> K {
    let GlobalChallenges { gamma_prime, delta } = challenges;
    let weigh =
        |values: &[i64]| -> K { elements(values).into_iter().zip(gamma_prime.powers()).map(|(value, power)| power * lift(value)).sum() };
    let edges = shape.first_input_edge..shape.first_input_edge + shape.input_fan_out;
    let consumers: K = edges.map(|edge| delta.exp_u64(edge as u64)).sum();
    consumers * weigh(input) - delta.exp_u64(shape.output_edge as u64) * weigh(output)
}

fn prove_and_compare(case: usize) {
    let (graph, bytes) = network(case);
    let Compiled { program, constants, .. } = compile(&graph).expect("a valid network");
    let tensors = execute(&graph, &bytes).expect("an input of the right length");
    let mut layers: Vec<Committed> = Vec::new();
    let input: Vec<i64> = bytes.iter().map(|&byte| i64::from(byte) - graph.input.offset).collect();
    for (spec, constants) in program.layers.iter().zip(constants) {
        let read = layers.last().map_or(&input, |layer| &layer.output).clone();
        layers.push(Committed::new(spec, constants, &read));
        assert_eq!(layers[layers.len() - 1].output, tensors.tensor(TensorId(layers.len())), "case {case}");
    }
    let output = layers.last().expect("a layer").output.clone();
    let challenges = bind(&program, &layers, &bytes, &output);
    let balances: K = layers.iter().enumerate().map(|(index, layer)| layer.prove(index, challenges)).sum();
    layers.iter().enumerate().for_each(|(index, layer)| layer.register(index));
    let ledger = |output: &[i64]| balances + boundary_balance(&program.boundary, challenges, &input, output);
    assert_eq!(ledger(&output), K::ZERO, "case {case}");
    let mut other = output.clone();
    other[0] += 1;
    assert_ne!(ledger(&other), K::ZERO, "case {case}: an output off by one");
}

#[test]
fn random_networks_of_even_cases_verify_with_the_executors_outputs() {
    (0..WIDTHS.len()).step_by(2).for_each(prove_and_compare);
}

#[test]
fn random_networks_of_odd_cases_verify_with_the_executors_outputs() {
    (1..WIDTHS.len()).step_by(2).for_each(prove_and_compare);
}
