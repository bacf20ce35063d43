//! The CUDA backend: oracles, trees and codewords stay on one device from upload to proof.
//!
//! A device is a value; several backends may share a machine, one for each device. Every method takes one of the device's streams and returns when
//! its work there is done, so that an error is reported by the call that caused it and nothing outlives its buffers; callers on several threads
//! overlap. Layouts are those of the CPU backend.

mod circuit;
mod device;
mod fri;
mod grind;
mod memory;
mod oracle;
mod polynomial;
mod program;
mod project;
mod sums;
mod transform;
mod tree;

use std::ops::Range;
use std::sync::Arc;

use plonky2::hash::merkle_tree::MerkleCap;
use plonky2::iop::challenger::Challenger;
use plonky2::iop::witness::PartialWitness;
use zkinfer_circuits::air::ConstraintSystem;
use zkinfer_circuits::backend::{
    Backend, BackendError, Circuit, CircuitProof, CommitShape, OpeningBatch, QueryAnswer, Scalars, SumsChallenges,
};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{F, H, K};

use crate::{CpuBackend, conformance};
use device::Device;
use memory::Buffer;

pub use fri::{Codeword, FoldTree};
pub use memory::MemoryUse;
pub use oracle::Oracle;

/// One CUDA device. Clones share it.
#[derive(Clone, Debug)]
pub struct CudaBackend {
    device: Arc<Device>,
    /// For witnesses of circuits, and for circuits with gates that the device does not know.
    cpu: CpuBackend,
}

/// w~ by coordinate, in coefficient form.
#[derive(Debug)]
pub struct Combination {
    limbs: Buffer,
    log_rows: usize,
}

impl CudaBackend {
    /// Opens device `ordinal` (from 0, in the driver's order) and loads the kernels. Its buffers never take more than `limit_bytes`.
    ///
    /// # Errors
    /// [`BackendError::Device`] if there is no driver, no such device, or no code for it.
    pub fn open(ordinal: usize, limit_bytes: u64) -> Result<Self, BackendError> {
        Ok(Self { device: Arc::new(Device::open(ordinal, limit_bytes)?), cpu: CpuBackend::new() })
    }

    /// What the backend's buffers take on the device.
    pub fn memory(&self) -> MemoryUse {
        self.device.memory()
    }

    /// Bytes of the device that the driver could still give, when all work is done.
    ///
    /// # Errors
    /// [`BackendError::Device`] if the device failed.
    pub fn free_bytes(&self) -> Result<u64, BackendError> {
        self.device.free_bytes()
    }

    /// Computes the rounds of a small layer on the device, then a proof of a small circuit, and compares all that the host sees with the reference.
    ///
    /// # Errors
    /// [`BackendError::Disagreement`] if the device computes something else; what the device failed with, if it failed.
    pub fn self_test(&self) -> Result<(), BackendError> {
        conformance::check_layer(self.clone()).map_err(|error| error.source)?;
        let circuit = conformance::check_circuit(self.clone()).map_err(|error| error.source);
        self.forget_circuits();
        circuit
    }
}

fn check_columns(oracle: &Oracle, columns: &Range<usize>) -> Result<(), BackendError> {
    if columns.start <= columns.end && columns.end <= oracle.n_columns {
        return Ok(());
    }
    Err(BackendError::Unsupported(format!("columns {columns:?} were asked of an oracle of {}", oracle.n_columns)))
}

fn check_openings(oracles: &[&Oracle], batches: &[OpeningBatch]) -> Result<(), BackendError> {
    for opened in batches.iter().flat_map(|batch| &batch.opened) {
        let oracle = oracles.get(opened.oracle);
        let oracle = oracle.ok_or_else(|| BackendError::Unsupported(format!("oracle {} is opened, but not given", opened.oracle)))?;
        check_columns(oracle, &opened.columns)?;
    }
    let Some(first) = oracles.first() else {
        return Err(BackendError::Unsupported("nothing is opened".to_owned()));
    };
    if oracles.iter().any(|oracle| (oracle.log_rows, oracle.shape.rate_bits) != (first.log_rows, first.shape.rate_bits)) {
        return Err(BackendError::Unsupported("oracles of different sizes are opened together".to_owned()));
    }
    Ok(())
}

impl Backend for CudaBackend {
    type Oracle = Oracle;
    type Combination = Combination;
    type Codeword = Codeword;
    type FoldTree = FoldTree;

    fn name(&self) -> String {
        self.device.name().to_owned()
    }

    fn commit(&self, columns: &Columns, shape: CommitShape) -> Result<Oracle, BackendError> {
        Oracle::commit(self.device.lane(), columns, shape)
    }

    fn cap(&self, oracle: &Oracle) -> MerkleCap<F, H> {
        oracle.tree.cap.clone()
    }

    fn save(&self, oracle: &Oracle) -> Result<Vec<u8>, BackendError> {
        oracle.save(self.device.lane())
    }

    fn load(&self, bytes: &[u8]) -> Result<Oracle, BackendError> {
        Oracle::load(self.device.lane(), bytes)
    }

    fn evaluate(&self, oracle: &Oracle, columns: Range<usize>, point: K) -> Result<Vec<K>, BackendError> {
        check_columns(oracle, &columns)?;
        polynomial::evaluate(self.device.lane(), oracle.coefficients(columns), oracle.log_rows, point)
    }

    fn combine(&self, weights: &Oracle, coefficients: &[K]) -> Result<Combination, BackendError> {
        check_columns(weights, &(0..coefficients.len()))?;
        let lane = self.device.lane();
        let limbs = polynomial::combine(lane, weights.coefficients(0..coefficients.len()), coefficients, weights.log_rows)?;
        lane.finish()?;
        Ok(Combination { limbs, log_rows: weights.log_rows })
    }

    fn project(
        &self,
        system: &ConstraintSystem,
        scalars: Scalars<'_>,
        oracles: [&Oracle; 2],
        shape: CommitShape,
    ) -> Result<Oracle, BackendError> {
        let lane = self.device.lane();
        let columns = project::project(lane, system, scalars, oracles)?;
        Oracle::commit_values(lane, &columns.view(), oracles[0].log_rows, shape)
    }

    fn sums(
        &self,
        system: &ConstraintSystem,
        scalars: Scalars<'_>,
        challenges: SumsChallenges,
        oracles: [&Oracle; 3],
        combination: Option<&Combination>,
        shape: CommitShape,
    ) -> Result<Oracle, BackendError> {
        let lane = self.device.lane();
        let log_rows = oracles[0].log_rows;
        if combination.is_some_and(|combination| combination.log_rows != log_rows) {
            return Err(BackendError::Unsupported("w~ and the oracles differ in size".to_owned()));
        }
        let combination = combination.map(|combination| &combination.limbs);
        let coefficients = sums::sums(lane, &sums::Inputs { system, scalars, challenges, oracles, combination })?;
        Oracle::commit_coefficients(lane, coefficients, 8, log_rows, shape)
    }

    fn batch(&self, oracles: &[&Oracle], batches: &[OpeningBatch], alpha: K) -> Result<Codeword, BackendError> {
        check_openings(oracles, batches)?;
        let lane = self.device.lane();
        let codeword = fri::batch(lane, oracles, batches, alpha)?;
        lane.finish()?;
        Ok(codeword)
    }

    fn fold_commit(&self, codeword: &Codeword, arity_bits: usize, cap_height: usize) -> Result<FoldTree, BackendError> {
        fri::fold_commit(self.device.lane(), codeword, arity_bits, cap_height)
    }

    fn fold_cap(&self, tree: &FoldTree) -> MerkleCap<F, H> {
        tree.tree.cap.clone()
    }

    fn fold(&self, codeword: Codeword, arity_bits: usize, beta: K) -> Result<Codeword, BackendError> {
        let lane = self.device.lane();
        let folded = fri::fold(lane, &codeword, arity_bits, beta)?;
        lane.finish()?;
        Ok(folded)
    }

    fn final_polynomial(&self, codeword: &Codeword, rate_bits: usize) -> Result<Vec<K>, BackendError> {
        fri::final_polynomial(self.device.lane(), codeword, rate_bits)
    }

    fn grind(&self, challenger: &Challenger<F, H>, bits: u32) -> Result<u64, BackendError> {
        grind::grind(self.device.lane(), challenger, bits)
    }

    fn query(&self, oracle: &Oracle, leaf: usize) -> Result<QueryAnswer, BackendError> {
        oracle.query(self.device.lane(), leaf)
    }

    fn query_fold(&self, tree: &FoldTree, leaf: usize) -> Result<QueryAnswer, BackendError> {
        tree.query(self.device.lane(), leaf)
    }

    fn prove_circuit(&self, circuit: &Circuit, inputs: PartialWitness<F>) -> Result<CircuitProof, BackendError> {
        self.prove_deterministic(circuit, &inputs)
    }

    fn prove_blinded_circuit(&self, circuit: &Circuit, inputs: PartialWitness<F>) -> Result<CircuitProof, BackendError> {
        self.prove_with_zero_knowledge(circuit, &inputs)
    }
}
