//! Circuit proofs on the device. Witness, wires and products are made on the host and copied up; all else of the four oracles, the quotients
//! and FRI stays on the device.

pub(crate) mod cache;
pub(crate) mod gates;
mod quotient;

use std::sync::Arc;

use plonky2::iop::witness::PartialWitness;
use zkinfer_circuits::backend::{BackendError, Circuit, CircuitProof, CommitShape, OpeningBatch};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{F, K};

use super::device::Device;
use super::lane::Lane;
use super::launch::Recorder;
use super::transform::{MAX_LOG_LEAVES, interpolate};
use super::{Codeword, CudaBackend, KeptOracle, Oracle, batch, on_device, polynomial};
use crate::circuit::{CircuitBackend, Host, QuotientInputs, prove, prove_blinded};

type Inputs<'a> = QuotientInputs<'a, Oracle>;
type Prove<B> = fn(&B, Host<'_>, &Circuit, &PartialWitness<F>) -> Result<CircuitProof, BackendError>;

impl CudaBackend {
    /// Drops what is kept on the device of circuits that are not being proved. The next proof of each uploads it again.
    pub fn forget_circuits(&self) {
        self.device.circuits.release();
    }

    pub(super) fn prove_deterministic(&self, circuit: &Circuit, inputs: &PartialWitness<F>) -> Result<CircuitProof, BackendError> {
        self.prove_by(prove, prove, circuit, inputs)
    }

    pub(super) fn prove_with_zero_knowledge(&self, circuit: &Circuit, inputs: &PartialWitness<F>) -> Result<CircuitProof, BackendError> {
        self.prove_by(prove_blinded, prove_blinded, circuit, inputs)
    }

    /// On the device, if it knows all gates, else on the host.
    fn prove_by(
        &self,
        device: Prove<Self>,
        host: Prove<crate::CpuBackend>,
        circuit: &Circuit,
        inputs: &PartialWitness<F>,
    ) -> Result<CircuitProof, BackendError> {
        match gates::check_gates(&circuit.common) {
            Ok(()) => device(self, self.cpu.host(), circuit, inputs),
            Err(unknown) => {
                tracing::warn!(%unknown, "a circuit is proved on the CPU");
                host(&self.cpu, self.cpu.host(), circuit, inputs)
            }
        }
    }
}

/// Constants and σ of a circuit: its values, transformed and hashed on the device, which must give the circuit's own cap.
fn upload_fixed(device: &Device, circuit: &Circuit) -> Result<Oracle, BackendError> {
    let lane = device.lane();
    let commitment = &circuit.prover_only.constants_sigmas_commitment;
    let (columns, log_rows) = (&commitment.polynomials, commitment.degree_log);
    let coefficients = lane.upload_with(columns.len() << log_rows, |first, words| {
        for (index, word) in (first..).zip(words) {
            *word = columns[index >> log_rows].coeffs[index & ((1 << log_rows) - 1)].0;
        }
    })?;
    let shape = CommitShape { rate_bits: commitment.rate_bits, cap_height: commitment.merkle_tree.cap.height() };
    let oracle = Oracle::commit_salted(lane, coefficients, log_rows, &[], shape)?;
    if oracle.tree.cap == commitment.merkle_tree.cap {
        return Ok(oracle);
    }
    Err(BackendError::Device { device: device.name().to_owned(), message: "a circuit's constants have another cap there".to_owned() })
}

/// Interpolates, extends and commits columns of the host.
fn commit_salted(lane: Lane<'_>, columns: &Columns, salt: &[F], shape: CommitShape) -> Result<Oracle, BackendError> {
    let log_rows = columns.rows().trailing_zeros() as usize;
    let flat = columns.as_flat();
    let recorder = Recorder::default();
    let lane = lane.gathering(&recorder, flat.len().saturating_mul(1 << shape.rate_bits.min(MAX_LOG_LEAVES)));
    let values = lane.upload_elements(flat)?;
    let mut coefficients = lane.allocate(flat.len())?;
    interpolate(lane, values.view(), coefficients.view_mut(), log_rows)?;
    drop(values);
    Oracle::commit_salted(lane, coefficients, log_rows, salt, shape)
}

impl CircuitBackend for CudaBackend {
    type Fixed<'a> = Arc<Oracle>;

    fn fixed(&self, circuit: &Circuit) -> Result<Arc<Oracle>, BackendError> {
        let digest = circuit.prover_only.circuit_digest;
        if let Some(oracle) = self.device.circuits.find(&digest) {
            return Ok(oracle);
        }
        let oracle = Arc::new(upload_fixed(&self.device, circuit)?);
        self.device.circuits.keep(digest, Arc::clone(&oracle));
        Ok(oracle)
    }

    fn commit_salted(&self, columns: &Columns, salt: &[F], shape: CommitShape) -> Result<KeptOracle, BackendError> {
        Ok(self.keep(commit_salted(self.device.lane(), columns, salt, shape)?))
    }

    fn commit_quotients(
        &self,
        fixed: &Arc<Oracle>,
        inputs: &QuotientInputs<'_, KeptOracle>,
        salt: &[F],
        shape: CommitShape,
    ) -> Result<KeptOracle, BackendError> {
        let lane = self.device.lane();
        let [wires, products] = on_device(lane, [inputs.wires, inputs.products])?;
        let QuotientInputs { circuit, permutation, alphas, public_inputs_hash, .. } = *inputs;
        let recorder = Recorder::default();
        let lane = lane.gathering(&recorder, wires.n_columns << wires.log_leaves());
        let inputs = Inputs { circuit, wires: &wires, products: &products, permutation, alphas, public_inputs_hash };
        let coefficients = quotient::chunks(lane, fixed, &inputs)?;
        Ok(self.keep(Oracle::commit_salted(lane, coefficients, wires.log_rows, salt, shape)?))
    }

    fn evaluate_fixed(&self, fixed: &Arc<Oracle>, point: K) -> Result<Vec<K>, BackendError> {
        polynomial::evaluate(self.device.lane(), fixed.coefficients(0..fixed.n_columns), fixed.log_rows, point)
    }

    fn batch_with_fixed(
        &self,
        fixed: &Arc<Oracle>,
        oracles: [&KeptOracle; 3],
        batches: &[OpeningBatch],
        alpha: K,
    ) -> Result<Codeword, BackendError> {
        let lane = self.device.lane();
        let [wires, products, quotients] = on_device(lane, oracles)?;
        batch(lane, &[fixed, &wires, &products, &quotients], batches, alpha)
    }
}
