//! Measures proofs of recursive verification, by this crate and by plonky2 itself, in turns.
//!
//! `cargo bench -p zkinfer-kernels --bench circuit [-- REPETITIONS] > benches/results/NAME.json`. Two circuits: one of 2^12 rows that verifies a
//! proof, in plonky2's standard configuration for recursion, and one with zero knowledge that verifies a proof of the first. Wall and
//! CPU time in milliseconds: least and median, of ours, of plonky2's, and of the ratio within each turn. Every proof is verified by plonky2.

#[path = "../steps/meter.rs"]
mod meter;

use std::error::Error;

use plonky2::field::types::Field;
use plonky2::iop::target::Target;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use plonky2::plonk::circuit_data::{CircuitConfig, VerifierCircuitTarget};
use plonky2::plonk::proof::ProofWithPublicInputsTarget;
use serde_json::{Map, Value, json};
use zkinfer_circuits::backend::{Backend, BackendError, Circuit, CircuitProof};
use zkinfer_circuits::field::{Builder, C, D, F, H};
use zkinfer_kernels::{CpuBackend, Level};

use meter::time;

type Outcome<T> = Result<T, Box<dyn Error>>;

/// A circuit of hashes.
fn hashes() -> Outcome<(Circuit, Target)> {
    let mut builder = Builder::new(CircuitConfig::standard_recursion_config());
    let start = builder.add_virtual_public_input();
    let mut digest = builder.hash_n_to_hash_no_pad::<H>(vec![start]);
    while builder.num_gates() < 3000 {
        digest = builder.hash_n_to_hash_no_pad::<H>(digest.elements.to_vec());
    }
    builder.register_public_inputs(&digest.elements);
    Ok((builder.build(), start))
}

/// A circuit that verifies a proof of another.
struct Verification {
    circuit: Circuit,
    proof: ProofWithPublicInputsTarget<D>,
    verifier: VerifierCircuitTarget,
}

impl Verification {
    fn new(config: CircuitConfig, inner: &Circuit) -> Self {
        let mut builder = Builder::new(config);
        let proof = builder.add_virtual_proof_with_pis(&inner.common);
        let verifier = builder.add_virtual_verifier_data(inner.common.config.fri_config.cap_height);
        builder.verify_proof::<C>(&proof, &verifier, &inner.common);
        builder.register_public_inputs(&proof.public_inputs);
        Self { circuit: builder.build(), proof, verifier }
    }

    fn inputs(&self, inner: &Circuit, proof: &CircuitProof) -> Outcome<PartialWitness<F>> {
        let mut inputs = PartialWitness::new();
        inputs.set_proof_with_pis_target(&self.proof, proof)?;
        inputs.set_verifier_data_target(&self.verifier, &inner.verifier_only)?;
        Ok(inputs)
    }
}

/// Wall and CPU times of one of the provers.
#[derive(Default)]
struct Times {
    wall_ms: Vec<f64>,
    cpu_ms: Vec<f64>,
}

impl Times {
    fn measure<T>(&mut self, run: impl FnMut() -> T) -> T {
        let (times, result) = time(1, run);
        let of = |name: &str| times[name].as_f64().unwrap_or(f64::NAN);
        self.wall_ms.push(of("wall_ms"));
        self.cpu_ms.push(of("cpu_ms"));
        result
    }

    fn summary(&self) -> Value {
        json!({ "wall_ms": summary(&self.wall_ms), "cpu_ms": summary(&self.cpu_ms) })
    }
}

fn summary(values: &[f64]) -> Value {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    json!({ "least": rounded(values[0]), "median": rounded(values[values.len() / 2]) })
}

/// Ours, then plonky2's, again and again.
fn in_turns(
    circuit: &Circuit,
    inputs: &PartialWitness<F>,
    repetitions: usize,
    prove: impl Fn(PartialWitness<F>) -> Result<CircuitProof, BackendError>,
) -> Outcome<(Value, CircuitProof)> {
    let (mut ours, mut plonky2) = (Times::default(), Times::default());
    // The first proof of a circuit also finds the order of its generators.
    let mut proof = prove(inputs.clone())?;
    for _ in 0..repetitions {
        proof = ours.measure(|| prove(inputs.clone()))?;
        circuit.verify(proof.clone())?;
        circuit.verify(plonky2.measure(|| circuit.prove(inputs.clone()))?)?;
    }
    let ratios =
        |ours: &[f64], plonky2: &[f64]| summary(&plonky2.iter().zip(ours).map(|(plonky2, ours)| plonky2 / ours).collect::<Vec<_>>());
    let report = json!({
        "rows": circuit.common.degree(), "ours": ours.summary(), "plonky2": plonky2.summary(),
        "times_as_fast": { "wall": ratios(&ours.wall_ms, &plonky2.wall_ms), "cpu": ratios(&ours.cpu_ms, &plonky2.cpu_ms) },
    });
    Ok((report, proof))
}

fn main() -> Outcome<()> {
    let repetitions = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(7);
    let mut report = Map::new();
    report.insert("command".to_owned(), json!("cargo bench -p zkinfer-kernels --bench circuit"));
    report.insert("machine".to_owned(), meter::machine());
    report.insert("level".to_owned(), json!(Level::detect().name()));
    let cpu = CpuBackend::new();
    let (hashes, start) = hashes()?;
    let mut inputs = PartialWitness::new();
    inputs.set_target(start, F::TWO)?;
    let proof = cpu.prove_circuit(&hashes, inputs)?;

    let recursive = Verification::new(CircuitConfig::standard_recursion_config(), &hashes);
    let inputs = recursive.inputs(&hashes, &proof)?;
    let (measured, proof) = in_turns(&recursive.circuit, &inputs, repetitions, |inputs| cpu.prove_circuit(&recursive.circuit, inputs))?;
    report.insert("recursive".to_owned(), measured);

    let outer = Verification::new(CircuitConfig::standard_recursion_zk_config(), &recursive.circuit);
    let inputs = outer.inputs(&recursive.circuit, &proof)?;
    let (measured, _) = in_turns(&outer.circuit, &inputs, repetitions, |inputs| cpu.prove_blinded_circuit(&outer.circuit, inputs))?;
    report.insert("recursive_with_zero_knowledge".to_owned(), measured);
    emit(&Value::Object(report))
}

#[allow(clippy::print_stdout)]
fn emit(report: &Value) -> Outcome<()> {
    println!("{}", serde_json::to_string_pretty(report)?);
    Ok(())
}
