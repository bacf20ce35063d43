//! Measures proofs of recursive verification, by this crate and by plonky2 itself, in turns.
//!
//! `cargo bench -p zkinfer-kernels --bench circuit [-- REPETITIONS] > benches/results/NAME.json`. Two circuits: one of 2^12 rows that verifies a
//! proof, in plonky2's standard configuration for recursion, and one with zero knowledge that verifies a proof of the first. Wall time in
//! milliseconds: least and median, of ours, of plonky2's, and of the ratio within each turn. Every proof is verified by plonky2.

#[path = "../steps/meter.rs"]
mod meter;

use std::error::Error;
use std::time::Instant;

use plonky2::field::types::Field;
use plonky2::iop::target::Target;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use plonky2::plonk::circuit_data::{CircuitConfig, VerifierCircuitTarget};
use plonky2::plonk::proof::ProofWithPublicInputsTarget;
use serde_json::{Map, Value, json};
use zkinfer_circuits::backend::{Backend, BackendError, Circuit, CircuitProof};
use zkinfer_circuits::field::{Builder, C, D, F, H};
use zkinfer_kernels::{CpuBackend, Level};

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

/// Ours, then plonky2's, again and again.
fn in_turns(
    circuit: &Circuit,
    inputs: &PartialWitness<F>,
    repetitions: usize,
    ours: impl Fn(PartialWitness<F>) -> Result<CircuitProof, BackendError>,
) -> Outcome<(Value, CircuitProof)> {
    let (mut of_ours, mut of_plonky2, mut ratios, mut last) = (Vec::new(), Vec::new(), Vec::new(), None);
    for _ in 0..repetitions {
        let (start, inputs_of_ours) = (Instant::now(), inputs.clone());
        let proof = ours(inputs_of_ours)?;
        let our_ms = start.elapsed().as_secs_f64() * 1e3;
        circuit.verify(proof.clone())?;
        let (start, inputs_of_plonky2) = (Instant::now(), inputs.clone());
        circuit.verify(circuit.prove(inputs_of_plonky2)?)?;
        let plonky2_ms = start.elapsed().as_secs_f64() * 1e3;
        of_ours.push(our_ms);
        of_plonky2.push(plonky2_ms);
        ratios.push(plonky2_ms / our_ms);
        last = Some(proof);
    }
    let proof = last.ok_or("there is at least one repetition")?;
    let report = json!({
        "rows": circuit.common.degree(),
        "ours_ms": summary(of_ours), "plonky2_ms": summary(of_plonky2), "times_as_fast": summary(ratios),
    });
    Ok((report, proof))
}

fn summary(mut values: Vec<f64>) -> Value {
    values.sort_by(f64::total_cmp);
    let rounded = |value: f64| (value * 100.0).round() / 100.0;
    json!({ "least": rounded(values[0]), "median": rounded(values[values.len() / 2]) })
}

fn main() -> Outcome<()> {
    let repetitions = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(5);
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
