//! One layer proof, step by step and whole; one circuit proof.

use std::error::Error;

use plonky2::field::types::Field;
use plonky2::iop::challenger::Challenger;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use plonky2::plonk::circuit_data::CircuitConfig;
use serde_json::{Value, json};
use zkinfer_circuits::air::OracleId;
use zkinfer_circuits::backend::reference::Reference;
use zkinfer_circuits::backend::{Backend, BackendError, OpenedColumns, OpeningBatch, Scalars, SumsChallenges};
use zkinfer_circuits::field::{Builder, F, H, K, ext};
use zkinfer_circuits::kind::{LayerKind, Operator, Role};
use zkinfer_circuits::layer::prover::{LinkedOracle, balance, commit_linked, commit_shape, prove};
use zkinfer_circuits::layer::shape::fri_config;
use zkinfer_circuits::layer::{LayerClaim, LayerShape, LayerSpec, OutputRule, theta, verify};
use zkinfer_circuits::ops::dense::trace::DenseConstants;
use zkinfer_circuits::ops::trace::{LayerConstants, main_columns, weight_columns};
use zkinfer_kernels::CpuBackend;

use crate::memory::{self, held_bytes, peak_bytes};
use crate::meter::time;

const REPETITIONS: usize = 3;

/// A fixed element of K.
pub(crate) fn element(seed: u64) -> K {
    let coordinate = |salt: u64| {
        F::from_noncanonical_u64(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(salt).wrapping_mul(0xbf58_476d_1ce4_e5b9))
    };
    ext(coordinate(1), coordinate(2))
}

/// A dense layer that fills its table, with honest columns.
pub(crate) struct Layer {
    pub(crate) shape: LayerShape,
    pub(crate) spec: LayerSpec,
    pub(crate) constants: LayerConstants,
    pub(crate) input: Vec<i64>,
}

impl Layer {
    pub(crate) fn dense(log_rows: usize, log_period: usize, n_columns: usize) -> Self {
        let kind = LayerKind { operator: Operator::Dense, log_rows, n_columns };
        let (n_inputs, n_outputs) = (1usize << log_period, (n_columns << (log_rows - log_period)).min(1 << log_rows));
        let spec = LayerSpec {
            kind,
            n_inputs,
            n_outputs,
            log_period,
            output: OutputRule::Requantize { shift: 28, lo: 0, hi: 127 },
            bias_bits: 16,
            mult_bits: 16,
            edges_in: [1, 0],
            edge_out: 2,
            fan_out: 1,
        };
        let small = |index: usize| (index.wrapping_mul(2_654_435_761) >> 7) as i8;
        let constants = LayerConstants::Dense(DenseConstants {
            weights: (0..n_inputs * n_outputs).map(small).collect(),
            bias: (0..n_outputs).map(|index| i64::from(small(index))).collect(),
            multipliers: (0..n_outputs).map(|index| 1000 + index as u32).collect(),
        });
        let input = (0..n_inputs).map(|index| i64::from(small(index + 99))).collect();
        Self { shape: LayerShape::new(kind, Role::Inference, &fri_config(3, 28, 16)), spec, constants, input }
    }
}

/// What a layer's proof is about, once its oracles are committed.
fn claim(layer: &Layer, weights: &Linked, main: &Linked, output: &[i64]) -> LayerClaim {
    let (theta, gamma_prime, delta) = (layer.spec.theta(), element(1), element(2));
    let balance = balance(&layer.shape, &theta, gamma_prime, delta, [&layer.input, &[]], output);
    LayerClaim { theta, index: 0, link_weights: weights.link, link_main: main.link, gamma_prime, delta, balance }
}

/// Peak memory of committing weights and tensors and proving, beside what the four oracles must hold. The columns given are not counted. To be
/// called before other work, whose freed memory would not be counted either.
pub(crate) fn measure_memory(log_rows: usize, log_period: usize, n_columns: usize) -> Result<Value, Box<dyn Error>> {
    let layer = Layer::dense(log_rows, log_period, n_columns);
    let (shape, system) = (&layer.shape, &layer.shape.system);
    let weight_columns = weight_columns(&layer.spec, &layer.constants);
    let (main_columns, output) = main_columns(system, &layer.spec, &layer.constants, &weight_columns, [&layer.input, &[]])?;
    let (peak, proved) = peak_bytes(|| -> Result<_, BackendError> {
        let cpu = CpuBackend::new();
        let (weights, main) = (commit_linked(&cpu, shape, &weight_columns)?, commit_linked(&cpu, shape, &main_columns)?);
        let claim = claim(&layer, &weights, &main, &output);
        let proof = prove(&cpu, shape, &claim, &weights, &main)?;
        Ok((claim, proof))
    });
    let (claim, proof) = proved?;
    verify(shape, &claim, &proof)?;
    let of_oracle = |oracle| held_bytes(system.width(oracle), shape.log_rows(), commit_shape(shape));
    Ok(memory::report(peak, [OracleId::Weights, OracleId::Main, OracleId::Projected, OracleId::Sums].map(of_oracle).into_iter().sum()))
}

/// The steps, with given scalars, and the whole proof.
pub(crate) fn measure(log_rows: usize, log_period: usize, n_columns: usize) -> Result<Value, Box<dyn Error>> {
    let layer = Layer::dense(log_rows, log_period, n_columns);
    let (cpu, shape) = (CpuBackend::new(), &layer.shape);
    let weight_columns = weight_columns(&layer.spec, &layer.constants);
    let (main_columns, output) = main_columns(&shape.system, &layer.spec, &layer.constants, &weight_columns, [&layer.input, &[]])?;
    let (commit_weights, weights) = time(1, || commit_linked(&cpu, shape, &weight_columns));
    let (commit_main, main) = time(REPETITIONS, || commit_linked(&cpu, shape, &main_columns));
    let (weights, main) = (weights?, main?);
    let claim = claim(&layer, &weights, &main, &output);
    let (whole, proof) = time(REPETITIONS, || prove(&cpu, shape, &claim, &weights, &main));
    verify(shape, &claim, &proof?)?;
    let (save, bytes) = time(1, || cpu.save(&weights.oracle));
    let bytes = bytes?;
    let (load, loaded) = time(1, || cpu.load(&bytes));
    loaded?;
    let steps = steps(&cpu, &layer, &claim.theta, [&weights.oracle, &main.oracle])?;
    Ok(json!({
        "proof_with_committed_oracles": whole,
        "commit_weights_once": commit_weights,
        "commit_main": commit_main,
        "save_weights": save,
        "load_weights": load,
        "saved_bytes": bytes.len(),
        "steps": steps,
    }))
}

type Oracle = <CpuBackend as Backend>::Oracle;
type Linked = LinkedOracle<CpuBackend>;

fn steps(cpu: &CpuBackend, layer: &Layer, theta: &[F], [weights, main]: [&Oracle; 2]) -> Result<Value, Box<dyn Error>> {
    let (system, commit) = (&layer.shape.system, commit_shape(&layer.shape));
    let challenges: Vec<K> = (0..theta::N_CHALLENGES as u64).map(|index| element(10 + index)).collect();
    let scalars = Scalars { theta, challenges: &challenges, period: layer.spec.period() };
    let coefficients: Vec<K> = element(3).powers().take(system.combined_columns).collect();
    let (combine, combination) = time(REPETITIONS, || cpu.combine(weights, &coefficients));
    let combination = combination?;
    let (project, projected) = time(REPETITIONS, || cpu.project(system, scalars, [weights, main], commit));
    let projected = projected?;
    let sums_challenges = SumsChallenges { gamma: element(4), xi: element(5), total: element(6) };
    let oracles = [weights, main, &projected];
    let (sums, sums_oracle) = time(REPETITIONS, || cpu.sums(system, scalars, sums_challenges, oracles, Some(&combination), commit));
    let sums_oracle = sums_oracle?;
    let oracles = [weights, main, &projected, &sums_oracle];
    let whole = |oracle: OracleId| OpenedColumns { oracle: oracle as usize, columns: 0..system.width(oracle) };
    let all: Vec<OpenedColumns> = [OracleId::Weights, OracleId::Main, OracleId::Projected, OracleId::Sums].map(whole).into();
    let (openings, values) = time(REPETITIONS, || {
        all.iter().map(|opened| cpu.evaluate(oracles[opened.oracle], opened.columns.clone(), element(7))).collect::<Result<Vec<_>, _>>()
    });
    values?;
    let batches = [
        OpeningBatch { point: element(7), opened: all.clone() },
        OpeningBatch { point: element(8), opened: vec![OpenedColumns { oracle: 3, columns: 0..2 }] },
        OpeningBatch { point: element(9), opened: vec![whole(OracleId::Weights)] },
        OpeningBatch { point: element(10), opened: vec![whole(OracleId::Main)] },
    ];
    let (batch, codeword) = time(REPETITIONS, || cpu.batch(&oracles, &batches, element(11)));
    let mut codeword = Some(codeword?);
    let cap_height = commit.cap_height;
    let (fold, folded) = time(1, || -> Result<(), Box<dyn Error>> {
        for &arity in &layer.shape.fri.reduction_arity_bits {
            let current = codeword.take().ok_or("folded once")?;
            cpu.fold_commit(&current, arity, cap_height)?;
            codeword = Some(cpu.fold(current, arity, element(12))?);
        }
        Ok(())
    });
    folded?;
    let (grind, nonce) = time(1, || cpu.grind(&Challenger::<F, H>::new(), 16));
    nonce?;
    Ok(json!({
        "combine": combine, "project_and_commit": project, "sums_and_commit": sums, "open_all_at_a_point": openings,
        "batch": batch, "fold_and_commit": fold, "grind_16_bits": grind,
    }))
}

/// A chain of hashes that fills 2^13 rows, by this crate and by plonky2 itself.
pub(crate) fn measure_circuit() -> Result<Value, Box<dyn Error>> {
    let mut builder = Builder::new(CircuitConfig::standard_recursion_config());
    let start = builder.add_virtual_public_input();
    let mut digest = builder.hash_n_to_hash_no_pad::<H>(vec![start]);
    while builder.num_gates() < 8000 {
        let product = builder.mul(digest.elements[0], digest.elements[1]);
        digest = builder.hash_n_to_hash_no_pad::<H>(vec![product]);
    }
    builder.register_public_inputs(&digest.elements);
    let circuit = builder.build();
    let mut inputs = PartialWitness::new();
    inputs.set_target(start, F::TWO)?;
    let cpu = CpuBackend::new();
    let (ours, proof) = time(REPETITIONS, || cpu.prove_circuit(&circuit, inputs.clone()));
    circuit.verify(proof?)?;
    let (stock, proof) = time(REPETITIONS, || Reference.prove_circuit(&circuit, inputs.clone()));
    circuit.verify(proof?)?;
    Ok(json!({ "rows": circuit.common.degree(), "this_crate": ours, "plonky2": stock }))
}
