//! The proof of one large dense layer, on a backend.

use anyhow::{Context, anyhow};
use plonky2::field::types::Field;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use zkinfer_circuits::backend::Backend;
use zkinfer_circuits::field::{F, K, ext};
use zkinfer_circuits::kind::{LayerKind, Operator, Role};
use zkinfer_circuits::layer::prover::{LinkedOracle, balance, commit_linked, prove};
use zkinfer_circuits::layer::verifier::verify;
use zkinfer_circuits::layer::{LayerClaim, LayerProof, LayerShape, LayerSpec, OutputRule};
use zkinfer_circuits::ops::dense::trace::DenseConstants;
use zkinfer_circuits::ops::trace::{LayerConstants, main_columns, weight_columns};
use zkinfer_circuits::security::Profile;

use crate::record::Record;
use crate::usage::{Usage, measure};

/// A dense layer that fills its table: 2^log_rows inputs, as many outputs as columns.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// log₂ of the inputs.
    pub log_rows: usize,
    /// Outputs.
    pub n_columns: usize,
}

impl Size {
    /// Weights of the layer.
    pub fn n_weights(&self) -> usize {
        self.n_columns << self.log_rows
    }

    fn spec(&self) -> LayerSpec {
        LayerSpec {
            kind: LayerKind { operator: Operator::Dense, log_rows: self.log_rows, n_columns: self.n_columns },
            n_inputs: 1 << self.log_rows,
            n_outputs: self.n_columns,
            log_period: self.log_rows,
            output: OutputRule::Requantize { shift: 30, lo: -127, hi: 127 },
            bias_bits: 16,
            mult_bits: 16,
            edges_in: [1, 0],
            edge_out: 2,
            fan_out: 1,
        }
    }
}

/// A layer whose weights are committed, with random constants.
struct Committed<B: Backend> {
    spec: LayerSpec,
    shape: LayerShape,
    constants: LayerConstants,
    weights: LinkedOracle<B>,
}

/// Measures the commitment of the weights once, then `repetitions` proofs of different inputs; each is verified.
///
/// # Errors
/// A failing backend, or a proof that does not verify.
pub fn run<B: Backend>(backend: &B, profile: &Profile, size: Size, repetitions: usize, record: &mut Record) -> anyhow::Result<()> {
    let mut rng = StdRng::seed_from_u64(1);
    let name = format!("layer_2^{}x{}", size.log_rows, size.n_columns);
    record.set(&format!("{name}_fri"), format!("{:?}", profile.layer(size.log_rows)));
    let (committed, usage) = measure(|| commit(backend, profile, size, &mut rng));
    let committed = committed?;
    record.add_single(&format!("{name}_commit_weights_wall_s"), usage.wall_s);
    record.add_single(&format!("{name}_commit_weights_cpu_s"), usage.cpu_s);
    // Warms caches and tables.
    prove_once(backend, &committed, &mut rng)?;
    let usages = (0..repetitions).map(|_| prove_once(backend, &committed, &mut rng)).collect::<anyhow::Result<Vec<_>>>()?;
    let column = |figure: fn(&(Usage, Usage)) -> f64| usages.iter().map(figure).collect::<Vec<f64>>();
    record.add(&format!("{name}_prove_wall_s"), &column(|(prove, _)| prove.wall_s));
    record.add(&format!("{name}_prove_cpu_s"), &column(|(prove, _)| prove.cpu_s));
    record.add(&format!("{name}_verify_wall_s"), &column(|(_, verify)| verify.wall_s));
    Ok(())
}

fn commit<B: Backend>(backend: &B, profile: &Profile, size: Size, rng: &mut StdRng) -> anyhow::Result<Committed<B>> {
    let spec = size.spec();
    let constants = LayerConstants::Dense(DenseConstants {
        weights: (0..size.n_weights()).map(|_| rng.gen_range(-127..=127i8)).collect(),
        bias: (0..spec.n_outputs).map(|_| rng.gen_range(-40_000..40_000)).collect(),
        multipliers: (0..spec.n_outputs).map(|_| rng.gen_range(1 << 15..1 << 16)).collect(),
    });
    let shape = LayerShape::new(spec.kind, Role::Inference, &profile.layer_fri(size.log_rows));
    let weights = commit_linked(backend, &shape, &weight_columns(&spec, &constants))?;
    Ok(Committed { spec, shape, constants, weights })
}

/// Usage of one proof, from the input to the proof, and of its verification.
fn prove_once<B: Backend>(backend: &B, layer: &Committed<B>, rng: &mut StdRng) -> anyhow::Result<(Usage, Usage)> {
    let input: Vec<i64> = (0..layer.spec.n_inputs).map(|_| rng.gen_range(-127..=127)).collect();
    let (proved, prove_usage) = measure(|| prove_input(backend, layer, &input));
    let (claim, proof) = proved?;
    let (verdict, verify_usage) = measure(|| verify(&layer.shape, &claim, &proof));
    verdict.map_err(|error| anyhow!("the layer proof does not verify: {error}"))?;
    Ok((prove_usage, verify_usage))
}

fn prove_input<B: Backend>(backend: &B, layer: &Committed<B>, input: &[i64]) -> anyhow::Result<(LayerClaim, LayerProof)> {
    let Committed { spec, shape, constants, weights } = layer;
    let none = zkinfer_circuits::columns::Columns::zero(shape.kind.rows(), 0);
    let inputs = [input, &[]];
    let (columns, output) = main_columns(&shape.system, spec, constants, &none, inputs).context("the input is in range")?;
    let main = commit_linked(backend, shape, &columns)?;
    // In a proof of a network these come from the commitments of all layers.
    let elements = main.link.elements;
    let (gamma_prime, delta): (K, K) = (ext(elements[0], elements[1]), ext(elements[2], elements[3] + F::ONE));
    let theta = spec.theta();
    let balance = balance(shape, &theta, gamma_prime, delta, inputs, &output);
    let claim = LayerClaim { theta, index: 0, link_weights: weights.link, link_main: main.link, gamma_prime, delta, balance };
    let proof = prove(backend, shape, &claim, weights, &main)?;
    Ok((claim, proof))
}
