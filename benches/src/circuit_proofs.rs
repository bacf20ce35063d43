//! The proof of one recursion-sized circuit: the backend's prover and plonky2's own, in pairs.

use plonky2::field::types::Field;
use plonky2::iop::target::Target;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use zkinfer_circuits::backend::{Backend, Circuit};
use zkinfer_circuits::field::{Builder, F, H};
use zkinfer_circuits::security::Profile;

use crate::record::Record;
use crate::usage::measure;

/// A circuit of hashes and multiplications that fills a node's rows.
struct HashChain {
    circuit: Circuit,
    start: Target,
}

impl HashChain {
    /// As many hashes as fit the rows of a node: a hash is one row, and so are 20 multiplications.
    fn new(profile: &Profile) -> Self {
        let mut builder = Builder::new(profile.node_config());
        let start = builder.add_virtual_public_input();
        let mut digest = builder.hash_n_to_hash_no_pad::<H>(vec![start]);
        while builder.num_gates() < (1 << profile.node_log_rows()) - 100 {
            let product = builder.mul(digest.elements[0], digest.elements[1]);
            digest = builder.hash_n_to_hash_no_pad::<H>(vec![product, digest.elements[2], start, digest.elements[3]]);
        }
        builder.register_public_inputs(&digest.elements);
        Self { circuit: builder.build(), start }
    }

    fn inputs(&self, value: u64) -> anyhow::Result<PartialWitness<F>> {
        let mut inputs = PartialWitness::new();
        inputs.set_target(self.start, F::from_canonical_u64(value))?;
        Ok(inputs)
    }
}

/// Proves `repetitions` inputs twice each: on the backend and with plonky2's prover; both proofs are verified.
///
/// # Errors
/// A failing prover, or a proof that does not verify.
pub fn run<B: Backend>(backend: &B, profile: &Profile, repetitions: usize, record: &mut Record) -> anyhow::Result<()> {
    let chain = HashChain::new(profile);
    let rows = chain.circuit.common.degree();
    record.set("circuit_rows", rows);
    record.set("circuit_fri", format!("{:?}", profile.node_config().fri_config));
    let (mut ours, mut stock) = (Vec::new(), Vec::new());
    for value in 0..=repetitions as u64 {
        let inputs = chain.inputs(value)?;
        let (proof, usage) = measure(|| backend.prove_circuit(&chain.circuit, inputs));
        chain.circuit.verify(proof?)?;
        ours.push(usage);
        let inputs = chain.inputs(value)?;
        let (proof, usage) = measure(|| chain.circuit.prove(inputs));
        chain.circuit.verify(proof?)?;
        stock.push(usage);
    }
    // The first pair warms caches and tables.
    for (name, usages) in [("backend", &ours[1..]), ("plonky2", &stock[1..])] {
        let wall: Vec<f64> = usages.iter().map(|usage| usage.wall_s).collect();
        let cpu: Vec<f64> = usages.iter().map(|usage| usage.cpu_s).collect();
        record.add(&format!("circuit_{name}_wall_s"), &wall);
        record.add(&format!("circuit_{name}_cpu_s"), &cpu);
    }
    Ok(())
}
