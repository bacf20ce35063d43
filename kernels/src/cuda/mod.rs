//! The CUDA backend: oracles, trees and codewords stay on one device from upload to proof.
//!
//! A device is a value; several backends may share a machine, one for each device. Every method takes one of the device's streams and, if it succeeds,
//! returns when its work there is done, so that nothing outlives its buffers; one that fails gives up its results with what may still write them.
//! Callers on several threads overlap. Layouts are those of the CPU backend.

mod arena;
mod circuit;
mod device;
mod fri;
mod graph;
mod grind;
mod lane;
mod launch;
mod memory;
mod oracle;
mod polynomial;
mod program;
mod project;
mod residency;
mod streams;
mod sums;
mod transform;
mod tree;

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use plonky2::hash::merkle_tree::MerkleCap;
use plonky2::iop::challenger::Challenger;
use plonky2::iop::witness::PartialWitness;
use zkinfer_circuits::air::ConstraintSystem;
use zkinfer_circuits::backend::{
    Backend, BackendError, Circuit, CircuitProof, CommitShape, Condition, DeviceMemory, OpeningBatch, OracleSizes, QueryAnswer, Scalars,
    SumsChallenges,
};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{F, H, K};

use crate::{CpuBackend, conformance};
use device::Device;
use lane::Lane;
use launch::Recorder;
use memory::Buffer;
use oracle::Oracle;
use tree::elements;

pub use arena::ChunkPolicy;
pub use fri::{Codeword, FoldTree};
pub use graph::{GraphPolicy, GraphUse};
pub use memory::MemoryUse;
pub use residency::KeptOracle;

/// How a device is used. What is computed does not depend on it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceOptions {
    /// How memory is taken from the driver.
    pub chunks: ChunkPolicy,
    /// Which sequences of launches become graphs.
    pub graphs: GraphPolicy,
}

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
    /// Opens device `ordinal` (from 0, in the driver's order) and loads the kernels. What it takes of the device's memory for buffers never exceeds
    /// `limit_bytes`.
    ///
    /// # Errors
    /// [`BackendError::Device`] if there is no driver, no such device, or no code for it.
    pub fn open(ordinal: usize, limit_bytes: u64) -> Result<Self, BackendError> {
        Self::open_with(ordinal, limit_bytes, DeviceOptions::default())
    }

    /// As [`Self::open`], with options.
    ///
    /// # Errors
    /// As those of [`Self::open`].
    pub fn open_with(ordinal: usize, limit_bytes: u64, options: DeviceOptions) -> Result<Self, BackendError> {
        Ok(Self { device: Arc::new(Device::open(ordinal, limit_bytes, options)?), cpu: CpuBackend::new() })
    }

    /// As [`crate::Inspect::oracle_values`].
    pub(crate) fn read_oracle(&self, oracle: &KeptOracle) -> Result<Vec<F>, BackendError> {
        let lane = self.device.lane();
        let host = oracle.on_device(lane)?.download(lane)?;
        Ok(host.values())
    }

    /// As [`crate::Inspect::combination_values`].
    pub(crate) fn read_combination(&self, combination: &Combination) -> Result<Vec<F>, BackendError> {
        Ok(elements(&self.device.lane().download(&combination.limbs.part(0, 2 << combination.log_rows))?))
    }

    /// As [`crate::Inspect::fold_tree_values`].
    pub(crate) fn read_fold_tree(&self, tree: &FoldTree) -> Result<Vec<F>, BackendError> {
        tree.values(self.device.lane())
    }

    /// Coefficients of the polynomial with these values on shift·⟨w⟩, in the order of leaves; a power of two of them. For tests: a transform that no
    /// method of a backend gives alone.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] if there are too many values, or their number is no power of two; what the device failed with, if it failed.
    pub fn interpolate_coset(&self, values: &[F], shift: F) -> Result<Vec<F>, BackendError> {
        if !values.len().is_power_of_two() {
            return Err(BackendError::Unsupported(format!("a transform of {} values: give a power of two", values.len())));
        }
        let log_size = values.len().trailing_zeros() as usize;
        Device::check_log_leaves(log_size)?;
        let lane = self.device.lane();
        let mut words = lane.upload_elements(values)?;
        transform::interpolate_coset(lane, words.view_mut(), log_size, shift)?;
        Ok(elements(&lane.download(&words.view())?))
    }

    fn keep(&self, oracle: Oracle) -> KeptOracle {
        self.device.residents.keep(oracle)
    }

    /// What the backend takes of the device's memory.
    pub fn memory(&self) -> MemoryUse {
        self.device.memory()
    }

    /// Every kernel, by name, and how often it was launched on the device so far.
    pub fn launches(&self) -> BTreeMap<&'static str, u64> {
        self.device.launches()
    }

    /// How launches reached the driver so far.
    pub fn graph_use(&self) -> GraphUse {
        self.device.graphs.usage()
    }

    /// How often callers waited for the device so far, to read results or to end a step.
    pub fn n_waits(&self) -> u64 {
        self.device.n_waits()
    }

    /// Bytes of the device that the driver could still give, when all work is done.
    ///
    /// # Errors
    /// [`BackendError::Device`] if the device failed.
    pub fn free_bytes(&self) -> Result<u64, BackendError> {
        self.device.free_bytes()
    }

    /// Computes the rounds of a small layer on the device and compares every buffer, and all that the host sees, with the reference; then proves a small
    /// circuit.
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

/// Oracles on the device, all at once: uploading one moves none of the others away.
fn on_device<const N: usize>(lane: Lane<'_>, oracles: [&KeptOracle; N]) -> Result<[Arc<Oracle>; N], BackendError> {
    let found: Vec<Arc<Oracle>> = oracles.into_iter().map(|oracle| oracle.on_device(lane)).collect::<Result<_, _>>()?;
    Ok(found.try_into().expect("as many as were asked for"))
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

/// As [`Backend::batch`], of oracles on the device.
fn batch(lane: Lane<'_>, oracles: &[&Oracle], batches: &[OpeningBatch], alpha: K) -> Result<Codeword, BackendError> {
    check_openings(oracles, batches)?;
    let recorder = Recorder::default();
    let lane = lane.gathering(&recorder, oracles.iter().map(|oracle| oracle.n_columns << oracle.log_rows).sum());
    let codeword = fri::batch(lane, oracles, batches, alpha)?;
    lane.finish()?;
    Ok(codeword)
}

impl Backend for CudaBackend {
    type Oracle = KeptOracle;
    type Combination = Combination;
    type Codeword = Codeword;
    type FoldTree = FoldTree;

    fn name(&self) -> String {
        self.device.name().to_owned()
    }

    fn condition(&self) -> Condition {
        let MemoryUse { used_bytes, peak_bytes, limit_bytes, .. } = self.memory();
        Condition { memory: Some(DeviceMemory { used_bytes, peak_bytes, limit_bytes }), ..Condition::default() }
    }

    fn mark_memory(&self) {
        self.device.mark_memory();
    }

    fn peak_since_mark(&self) -> u64 {
        self.memory().recent_peak_bytes
    }

    fn commit(&self, columns: &Columns, shape: CommitShape) -> Result<KeptOracle, BackendError> {
        Ok(self.keep(Oracle::commit(self.device.lane(), columns, shape)?))
    }

    fn cap(&self, oracle: &KeptOracle) -> MerkleCap<F, H> {
        oracle.cap().clone()
    }

    fn sizes(&self, oracle: &KeptOracle) -> OracleSizes {
        oracle.sizes()
    }

    fn save(&self, oracle: &KeptOracle) -> Result<Vec<u8>, BackendError> {
        oracle.save(self.device.lane())
    }

    fn load(&self, bytes: &[u8]) -> Result<KeptOracle, BackendError> {
        Ok(self.keep(Oracle::load(self.device.lane(), bytes)?))
    }

    fn evaluate(&self, oracle: &KeptOracle, columns: Range<usize>, point: K) -> Result<Vec<K>, BackendError> {
        let lane = self.device.lane();
        let oracle = oracle.on_device(lane)?;
        check_columns(&oracle, &columns)?;
        let recorder = Recorder::default();
        let lane = lane.gathering(&recorder, columns.len() << oracle.log_rows);
        polynomial::evaluate(lane, oracle.coefficients(columns), oracle.log_rows, point)
    }

    fn combine(&self, weights: &KeptOracle, coefficients: &[K]) -> Result<Combination, BackendError> {
        let lane = self.device.lane();
        let weights = weights.on_device(lane)?;
        check_columns(&weights, &(0..coefficients.len()))?;
        let recorder = Recorder::default();
        let lane = lane.gathering(&recorder, coefficients.len() << weights.log_rows);
        let limbs = polynomial::combine(lane, weights.coefficients(0..coefficients.len()), coefficients, weights.log_rows)?;
        lane.finish()?;
        Ok(Combination { limbs, log_rows: weights.log_rows })
    }

    fn project(
        &self,
        system: &ConstraintSystem,
        scalars: Scalars<'_>,
        oracles: [&KeptOracle; 2],
        shape: CommitShape,
    ) -> Result<KeptOracle, BackendError> {
        let lane = self.device.lane();
        let [weights, main] = on_device(lane, oracles)?;
        let recorder = Recorder::default();
        let lane = lane.gathering(&recorder, (2 * system.rules.len()) << main.log_leaves());
        let columns = project::project(lane, system, scalars, [&weights, &main])?;
        Ok(self.keep(Oracle::commit_values(lane, &columns.view(), main.log_rows, shape)?))
    }

    fn sums(
        &self,
        system: &ConstraintSystem,
        scalars: Scalars<'_>,
        challenges: SumsChallenges,
        oracles: [&KeptOracle; 3],
        combination: Option<&Combination>,
        shape: CommitShape,
    ) -> Result<KeptOracle, BackendError> {
        let lane = self.device.lane();
        let oracles = on_device(lane, oracles)?;
        let oracles = oracles.each_ref().map(|oracle| &**oracle);
        let log_rows = oracles[0].log_rows;
        if combination.is_some_and(|combination| combination.log_rows != log_rows) {
            return Err(BackendError::Unsupported("w~ and the oracles differ in size".to_owned()));
        }
        let combination = combination.map(|combination| &combination.limbs);
        let recorder = Recorder::default();
        let lane = lane.gathering(&recorder, 8 << oracles[0].log_leaves());
        let coefficients = sums::sums(lane, &sums::Inputs { system, scalars, challenges, oracles, combination })?;
        Ok(self.keep(Oracle::commit_coefficients(lane, coefficients, 8, log_rows, shape)?))
    }

    fn batch(&self, oracles: &[&KeptOracle], batches: &[OpeningBatch], alpha: K) -> Result<Codeword, BackendError> {
        let lane = self.device.lane();
        let oracles: Vec<_> = oracles.iter().map(|oracle| oracle.on_device(lane)).collect::<Result<_, _>>()?;
        let oracles: Vec<&Oracle> = oracles.iter().map(|oracle| &**oracle).collect();
        batch(lane, &oracles, batches, alpha)
    }

    fn fold_commit(&self, codeword: &Codeword, arity_bits: usize, cap_height: usize) -> Result<FoldTree, BackendError> {
        let recorder = Recorder::default();
        fri::fold_commit(self.device.lane().gathering(&recorder, codeword.n_words()), codeword, arity_bits, cap_height)
    }

    fn fold_cap(&self, tree: &FoldTree) -> MerkleCap<F, H> {
        tree.tree.cap.clone()
    }

    fn fold(&self, codeword: Codeword, arity_bits: usize, beta: K) -> Result<Codeword, BackendError> {
        let recorder = Recorder::default();
        let lane = self.device.lane().gathering(&recorder, codeword.n_words());
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

    fn query(&self, oracle: &KeptOracle, leaves: &[usize]) -> Result<Vec<QueryAnswer>, BackendError> {
        let lane = self.device.lane();
        oracle.on_device(lane)?.query(lane, leaves)
    }

    fn query_fold(&self, tree: &FoldTree, leaves: &[usize]) -> Result<Vec<QueryAnswer>, BackendError> {
        tree.query(self.device.lane(), leaves)
    }

    fn prove_circuit(&self, circuit: &Circuit, inputs: PartialWitness<F>) -> Result<CircuitProof, BackendError> {
        self.prove_deterministic(circuit, &inputs)
    }

    fn prove_blinded_circuit(&self, circuit: &Circuit, inputs: PartialWitness<F>) -> Result<CircuitProof, BackendError> {
        self.prove_with_zero_knowledge(circuit, &inputs)
    }
}
