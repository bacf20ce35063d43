//! Layers to prove in tests: random dense and add layers with their honest witnesses.
#![allow(dead_code, missing_docs, unreachable_pub)]

pub mod circuit;
pub mod forge;
pub mod forger;
pub mod golden;
pub mod table;

use rand::{Rng, SeedableRng, rngs::StdRng};
use zkinfer_circuits::backend::Backend;
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{F, K, ext};
use zkinfer_circuits::kind::{LayerKind, Operator, Role};
use zkinfer_circuits::layer::prover::{LinkedOracle, balance, commit_linked, prove};
use zkinfer_circuits::layer::shape::fri_config;
use zkinfer_circuits::layer::{LayerClaim, LayerProof, LayerShape, LayerSpec, OutputRule};
use zkinfer_circuits::ops::dense::trace::DenseConstants;
use zkinfer_circuits::ops::trace::{LayerConstants, main_columns, registration_columns, weight_columns};

use plonky2::field::types::Field;

/// A layer with honest constants and inputs.
#[derive(Clone)]
pub struct Layer {
    pub spec: LayerSpec,
    pub constants: LayerConstants,
    pub inputs: [Vec<i64>; 2],
}

/// FRI parameters that keep tests quick; soundness of the argument itself does not depend on them.
pub fn test_config() -> plonky2::fri::FriConfig {
    fri_config(3, 10, 4)
}

pub fn requantize(shift: u32, lo: i64, hi: i64) -> OutputRule {
    OutputRule::Requantize { shift, lo, hi }
}

pub fn dense_spec(
    log_rows: usize,
    log_period: usize,
    n_columns: usize,
    n_inputs: usize,
    n_outputs: usize,
    output: OutputRule,
) -> LayerSpec {
    LayerSpec {
        kind: LayerKind { operator: Operator::Dense, log_rows, n_columns },
        n_inputs,
        n_outputs,
        log_period,
        output,
        bias_bits: 16,
        mult_bits: 16,
        edges_in: [1, 0],
        edge_out: 2,
        fan_out: 1,
    }
}

pub fn random_dense(spec: LayerSpec, seed: u64) -> Layer {
    let mut rng = StdRng::seed_from_u64(seed);
    let raw = spec.output == OutputRule::Raw;
    let constants = DenseConstants {
        weights: (0..spec.n_inputs * spec.n_outputs).map(|_| rng.gen_range(-128..=127i8)).collect(),
        bias: (0..spec.n_outputs).map(|_| rng.gen_range(-40_000..40_000)).collect(),
        multipliers: if raw { vec![] } else { (0..spec.n_outputs).map(|_| rng.gen_range(0..1 << 16)).collect() },
    };
    let input = (0..spec.n_inputs).map(|_| rng.gen_range(-128..=127)).collect();
    Layer { spec, constants: LayerConstants::Dense(constants), inputs: [input, vec![]] }
}

pub fn random_add(log_rows: usize, n: usize, seed: u64) -> Layer {
    let mut rng = StdRng::seed_from_u64(seed);
    let spec = LayerSpec {
        kind: LayerKind { operator: Operator::Add, log_rows, n_columns: 0 },
        n_inputs: n,
        n_outputs: n,
        log_period: log_rows,
        output: requantize(15, -127, 127),
        bias_bits: 8,
        mult_bits: 16,
        edges_in: [1, 2],
        edge_out: 3,
        fan_out: 2,
    };
    let mut tensor = || (0..n).map(|_| rng.gen_range(-127..=127)).collect::<Vec<i64>>();
    let inputs = [tensor(), tensor()];
    Layer { spec, constants: LayerConstants::Add([30_000, 20_001]), inputs }
}

pub fn gamma_delta() -> (K, K) {
    (
        ext(F::from_canonical_u64(0x1234_5678_9abc), F::from_canonical_u64(77)),
        ext(F::from_canonical_u64(31_337), F::from_canonical_u64(0xfeed)),
    )
}

/// Columns of a layer in a role.
pub fn columns(layer: &Layer, shape: &LayerShape) -> (Columns, Columns, Vec<i64>) {
    let weights = weight_columns(&layer.spec, &layer.constants);
    match shape.role {
        Role::Inference => {
            let inputs = [layer.inputs[0].as_slice(), layer.inputs[1].as_slice()];
            let (main, output) = main_columns(&shape.system, &layer.spec, &layer.constants, &weights, inputs).expect("honest");
            (weights, main, output)
        }
        Role::Registration => {
            let main = registration_columns(&shape.system, &layer.spec, &weights).expect("honest");
            (weights, main, vec![])
        }
    }
}

/// Commits given columns and proves the layer over them, honest or not.
pub fn prove_columns<B: Backend>(
    backend: &B,
    layer: &Layer,
    shape: &LayerShape,
    weights: &Columns,
    main: &Columns,
    output: &[i64],
) -> (LayerClaim, LayerProof) {
    let weights: LinkedOracle<B> = commit_linked(backend, shape, weights).expect("commit");
    let main = commit_linked(backend, shape, main).expect("commit");
    let theta = layer.spec.theta();
    let registration = shape.role == Role::Registration;
    let (gamma_prime, delta) = if registration { (K::ZERO, K::ZERO) } else { gamma_delta() };
    let inputs = [layer.inputs[0].as_slice(), layer.inputs[1].as_slice()];
    let balance = if registration { K::ZERO } else { balance(shape, &theta, gamma_prime, delta, inputs, output) };
    let claim = LayerClaim { theta, index: 0, link_weights: weights.link, link_main: main.link, gamma_prime, delta, balance };
    let proof = prove(backend, shape, &claim, &weights, &main).expect("prove");
    (claim, proof)
}

pub fn prove_layer<B: Backend>(backend: &B, layer: &Layer, role: Role) -> (LayerShape, LayerClaim, LayerProof) {
    let shape = LayerShape::new(layer.spec.kind, role, &test_config());
    let (weights, main, output) = columns(layer, &shape);
    let (claim, proof) = prove_columns(backend, layer, &shape, &weights, &main, &output);
    (shape, claim, proof)
}
