//! The accelerators beside the CPU: transforms, Poseidon, trees, one layer proof; the reason, if there is no accelerator.
//!
//! `cargo bench -p zkinfer-kernels --features cuda --bench device > benches/results/NAME.json`. Figures are those of whole calls: on a device they
//! hold the copies that a call makes. All that is computed is compared with the CPU's. Bytes are those that a call takes and leaves behind.
//! The share of the roofline is the least time that the device's clocks allow for the counted instructions (docs/GPU.md) and these bytes, by the time
//! measured.

#[allow(dead_code, reason = "only the layer and its inputs are used")]
#[path = "../steps/layer.rs"]
mod layer;
#[allow(dead_code, reason = "the layer's own measure of memory is not used")]
#[path = "../steps/memory.rs"]
mod memory;
#[path = "../steps/meter.rs"]
mod meter;

use std::error::Error;
use std::time::Instant;

use plonky2::field::types::Field;
use plonky2::hash::merkle_tree::MerkleCap;
use plonky2::iop::challenger::Challenger;
use serde_json::{Map, Value, json};
use zkinfer_circuits::backend::{Backend, CommitShape};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{F, H, K};
use zkinfer_circuits::layer::prover::{balance, commit_linked, prove};
use zkinfer_circuits::layer::{LayerClaim, verify};
use zkinfer_circuits::ops::trace::{main_columns, weight_columns};
use zkinfer_kernels::CpuBackend;
use zkinfer_kernels::devices::{SpeedLimits, devices, open_tested};

use layer::{Layer, element};

const REPETITIONS: usize = 5;
const LOG_ROWS: usize = 16;
const RATE_BITS: usize = 3;
const CAP_HEIGHT: usize = 4;
/// Leaves of so few columns are copied, not hashed.
const UNHASHED_COLUMNS: usize = 4;
/// Columns of a recursion circuit's wires.
const HASHED_COLUMNS: usize = 135;
const GRINDING_BITS: u32 = 20;
/// Thread instructions of a permutation and of a butterfly with its share of loads and stores (docs/GPU.md, sm_90).
const PERMUTATION_INSTRUCTIONS: f64 = 19_770.0;
const BUTTERFLY_INSTRUCTIONS: f64 = 67.0;
/// Elements that a permutation absorbs.
const SPONGE_RATE: usize = 8;

/// What a backend computed, to be compared.
#[derive(PartialEq)]
struct Seen {
    caps: [MerkleCap<F, H>; 2],
    nonce: u64,
    proof: String,
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut report = Map::new();
    report.insert("command".to_owned(), json!("cargo bench -p zkinfer-kernels --features cuda --bench device"));
    report.insert("machine".to_owned(), meter::machine());
    match devices() {
        Err(none) => {
            report.insert("not_measured".to_owned(), json!(none.to_string()));
        }
        Ok(found) => {
            let cpu = CpuBackend::new();
            let (figures, expected) = measure(&cpu, None)?;
            report.insert(cpu.name(), figures);
            for device in found {
                let backend = open_tested(device.ordinal, u64::MAX)?;
                let (figures, seen) = measure(&backend, Some(device.limits))?;
                if seen != expected {
                    return Err(format!("{} and the CPU computed different things", backend.name()).into());
                }
                report.insert(backend.name(), figures);
            }
        }
    }
    emit(&Value::Object(report))
}

fn measure<B: Backend>(backend: &B, limits: Option<SpeedLimits>) -> Result<(Value, Seen), Box<dyn Error>> {
    let (levels, unhashed) = commit(backend, UNHASHED_COLUMNS, limits)?;
    let (oracle, hashed) = commit(backend, HASHED_COLUMNS, limits)?;
    let (poseidon, nonce) = grind(backend, limits)?;
    let (layer_proof, proof) = layer_proof(backend)?;
    let figures = json!({
        "transforms_and_levels_4x2^16_rate_1/8": levels,
        "transforms_and_tree_135x2^16_rate_1/8": oracle,
        "poseidon_by_grinding": poseidon,
        "layer_proof_2^14_rows": layer_proof,
    });
    Ok((figures, Seen { caps: [unhashed, hashed], nonce, proof }))
}

/// The least wall time of several calls, in ns, and what the last one gave.
fn least<T, E>(mut run: impl FnMut() -> Result<T, E>) -> Result<(f64, T), E> {
    let mut timed = || -> Result<(f64, T), E> {
        let start = Instant::now();
        let value = run()?;
        Ok((start.elapsed().as_secs_f64() * 1e9, value))
    };
    let (mut ns, mut value) = timed()?;
    for _ in 1..REPETITIONS {
        let next = timed()?;
        (ns, value) = (ns.min(next.0), next.1);
    }
    Ok((ns, value))
}

fn rounded(figure: f64) -> f64 {
    (figure * 1e3).round() / 1e3
}

/// Columns in, coefficients, extension and digests left behind.
fn commit<B: Backend>(backend: &B, n_columns: usize, limits: Option<SpeedLimits>) -> Result<(Value, MerkleCap<F, H>), Box<dyn Error>> {
    let values: Vec<F> = element(1).powers().take(n_columns << LOG_ROWS).map(|value: K| value.0[0]).collect();
    let columns = Columns::from_flat(1 << LOG_ROWS, values);
    let shape = CommitShape { rate_bits: RATE_BITS, cap_height: CAP_HEIGHT };
    let (ns, oracle) = least(|| backend.commit(&columns, shape))?;
    let n_elements = (n_columns << LOG_ROWS) as f64;
    let bytes = 8.0 * n_elements * (2.0 + f64::from(1 << RATE_BITS)) + (64_u64 << (LOG_ROWS + RATE_BITS)) as f64;
    let share = share_of_roofline(limits, commit_instructions(n_columns), bytes, ns);
    let figures =
        json!({ "ns": ns, "ns_per_element": rounded(ns / n_elements), "gb_per_s": rounded(bytes / ns), "percent_of_roofline": share });
    Ok((figures, backend.cap(&oracle)))
}

/// Butterflies of the inverse and of the extension, which is a transform on each of its cosets; permutations of leaves that are hashed, and of the levels above them.
fn commit_instructions(n_columns: usize) -> f64 {
    let (rows, leaves) = ((1_usize << LOG_ROWS) as f64, (1_usize << (LOG_ROWS + RATE_BITS)) as f64);
    let butterflies = n_columns as f64 * (rows + leaves) * LOG_ROWS as f64 / 2.0;
    let a_leaf = if n_columns > UNHASHED_COLUMNS { n_columns.div_ceil(SPONGE_RATE) } else { 0 };
    butterflies * BUTTERFLY_INSTRUCTIONS + leaves * (a_leaf + 1) as f64 * PERMUTATION_INSTRUCTIONS
}

/// In percent; nothing where limits are not known.
fn share_of_roofline(limits: Option<SpeedLimits>, instructions: f64, bytes: f64, ns: f64) -> Option<f64> {
    limits.map(|limits| rounded(100.0 * limits.least_ns(instructions, bytes) / ns))
}

/// Grinding is nothing but permutations, of all nonces up to the smallest that fits; those tried beyond it are not counted.
fn grind<B: Backend>(backend: &B, limits: Option<SpeedLimits>) -> Result<(Value, u64), Box<dyn Error>> {
    let mut challenger = Challenger::<F, H>::new();
    challenger.observe_element(element(2).0[0]);
    let (ns, nonce) = least(|| backend.grind(&challenger, GRINDING_BITS))?;
    let share = share_of_roofline(limits, (nonce + 1) as f64 * PERMUTATION_INSTRUCTIONS, 0.0, ns);
    let figures = json!({ "ns": ns, "nonce": nonce, "ns_per_nonce": rounded(ns / (nonce + 1) as f64), "percent_of_roofline": share });
    Ok((figures, nonce))
}

/// A proof over committed weights, the commitment of the activations included.
fn layer_proof<B: Backend>(backend: &B) -> Result<(Value, String), Box<dyn Error>> {
    let layer = Layer::dense(14, 10, 16);
    let shape = &layer.shape;
    let weight_columns = weight_columns(&layer.spec, &layer.constants);
    let (columns, output) = main_columns(&shape.system, &layer.spec, &layer.constants, &weight_columns, [&layer.input, &[]])?;
    let weights = commit_linked(backend, shape, &weight_columns)?;
    let theta = layer.spec.theta();
    let (gamma_prime, delta) = (element(1), element(2));
    let balance = balance(shape, &theta, gamma_prime, delta, [&layer.input, &[]], &output);
    let (commit_ns, main) = least(|| commit_linked(backend, shape, &columns))?;
    let claim = LayerClaim { theta, index: 0, link_weights: weights.link, link_main: main.link, gamma_prime, delta, balance };
    let (ns, proof) = least(|| prove(backend, shape, &claim, &weights, &main))?;
    verify(shape, &claim, &proof)?;
    Ok((json!({ "commit_ns": commit_ns, "proof_ns": ns }), format!("{proof:?}")))
}

#[allow(clippy::print_stdout)]
fn emit(report: &Value) -> Result<(), Box<dyn Error>> {
    println!("{}", serde_json::to_string_pretty(report)?);
    Ok(())
}
