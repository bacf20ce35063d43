//! The seam between the protocol and the hardware: one trait, one method per heavy protocol step.
//!
//! A backend keeps data where it computes (an [`Backend::Oracle`] may live on a device) and returns only what the protocol needs
//! on the host: caps, openings, query answers. All backends give byte-identical results; [`reference::Reference`] is the slow, obvious one.

mod condition;
pub mod reference;
pub mod witness;

use std::ops::Range;

use plonky2::field::extension::Extendable;
use plonky2::hash::hash_types::RichField;
use plonky2::hash::merkle_proofs::MerkleProof;
use plonky2::hash::merkle_tree::MerkleCap;
use plonky2::iop::challenger::Challenger;
use plonky2::iop::witness::PartialWitness;
use plonky2::plonk::circuit_data::CircuitData;
use plonky2::plonk::proof::ProofWithPublicInputs;

use crate::air::{ConstraintSystem, OracleId};
use crate::columns::Columns;
use crate::field::{C, D, F, H, K};

pub use condition::{Condition, DeviceMemory};

const _: fn() = || {
    fn is_field<T: RichField + Extendable<D>>() {}
    is_field::<F>();
};

/// A proof of a recursion circuit.
pub type CircuitProof = ProofWithPublicInputs<F, C, D>;
/// A recursion circuit with its prover data.
pub type Circuit = CircuitData<F, C, D>;

/// Why a backend could not do its work. Never a statement about a proof.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// Not enough memory on the device or host.
    #[error("out of memory: {needed_bytes} bytes needed on {device}")]
    OutOfMemory {
        /// The device.
        device: String,
        /// Bytes that were asked for.
        needed_bytes: u64,
    },
    /// The device failed; data on it is lost.
    #[error("device {device} failed: {message}")]
    Device {
        /// The device.
        device: String,
        /// What it said.
        message: String,
    },
    /// Saved bytes cannot be read back.
    #[error("a saved oracle is damaged: {0}")]
    Damaged(String),
    /// A request that the backend cannot serve: a size out of range, a missing input. An error of the caller.
    #[error("the backend cannot do this: {0}")]
    Unsupported(String),
    /// Two backends that must give equal results do not: a defect of one of them, or of its device.
    #[error("{first} and {second} disagree in {step}")]
    Disagreement {
        /// The step.
        step: &'static str,
        /// One backend.
        first: String,
        /// The other.
        second: String,
    },
    /// The witness does not satisfy the circuit: a bug, or a dishonest caller.
    #[error("the circuit's witness is unsatisfiable: {0}")]
    Witness(String),
}

/// Rate and cap of a commitment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitShape {
    /// log₂ of the blow-up.
    pub rate_bits: usize,
    /// log₂ of the number of cap digests.
    pub cap_height: usize,
}

/// How large a committed oracle is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OracleSizes {
    /// log₂ of the rows.
    pub log_rows: usize,
    /// F columns.
    pub n_columns: usize,
    /// Rate and cap.
    pub shape: CommitShape,
}

/// Scalars of one argument: θ, and the challenges derived from the transcript.
#[derive(Clone, Copy, Debug)]
pub struct Scalars<'a> {
    /// θ, [`crate::layer::theta::LENGTH`] elements.
    pub theta: &'a [F],
    /// Derived challenges, [`crate::layer::theta::N_CHALLENGES`] elements.
    pub challenges: &'a [K],
    /// Rows of a group, m.
    pub period: usize,
}

/// Challenges and totals of the sums round.
#[derive(Clone, Copy, Debug)]
pub struct SumsChallenges {
    /// Batches the constraints: Σ_k γ^(N−1−k)·c_k.
    pub gamma: K,
    /// Batches the summands: Σ_k ξ^k·s_k.
    pub xi: K,
    /// Σ_k ξ^k·T_k.
    pub total: K,
}

/// Columns of one oracle opened at a point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenedColumns {
    /// Index of the oracle in the caller's list.
    pub oracle: usize,
    /// Its F columns.
    pub columns: Range<usize>,
}

/// One batch of openings.
#[derive(Clone, Debug, PartialEq)]
pub struct OpeningBatch {
    /// The point, in K.
    pub point: K,
    /// What is opened there, in order.
    pub opened: Vec<OpenedColumns>,
}

/// One answer to a FRI query: a row and its Merkle path.
pub type QueryAnswer = (Vec<F>, MerkleProof<F, H>);

/// The heavy steps of the prover.
///
/// Rows are in natural order on the host; leaves of trees are bit-reversed, as in plonky2's `PolynomialBatch`, whose cap, leaves and
/// paths every implementation reproduces exactly (coset shift 7, Poseidon `hash_or_noop` leaves).
pub trait Backend: Send + Sync + 'static {
    /// A committed oracle: coefficients, low-degree extension, Merkle tree.
    type Oracle: Send + Sync;
    /// w~ in coefficient form.
    type Combination: Send + Sync;
    /// The polynomial in FRI, with its evaluations.
    type Codeword: Send;
    /// The Merkle tree of one FRI layer.
    type FoldTree: Send;

    /// Name of the implementation and device, for logs.
    fn name(&self) -> String;

    /// Whether what it was made to compute on has failed, so that it computes on something slower from then on.
    fn is_degraded(&self) -> bool {
        false
    }

    /// Memory of its device and what it could not do there, for those who watch over it.
    fn condition(&self) -> Condition {
        Condition::default()
    }

    /// What [`Self::peak_since_mark`] tells is measured anew, from what is allocated now.
    fn mark_memory(&self) {}

    /// Memory of its device that was allocated at most since [`Self::mark_memory`], in bytes; 0 if it has no device.
    fn peak_since_mark(&self) -> u64 {
        0
    }

    /// Interpolates columns over G, extends and commits them.
    fn commit(&self, columns: &Columns, shape: CommitShape) -> Result<Self::Oracle, BackendError>;

    /// The cap of an oracle.
    fn cap(&self, oracle: &Self::Oracle) -> MerkleCap<F, H>;

    /// The sizes of an oracle.
    fn sizes(&self, oracle: &Self::Oracle) -> OracleSizes;

    /// Bytes from which [`Backend::load`] restores an oracle without hashing or transforming.
    fn save(&self, oracle: &Self::Oracle) -> Result<Vec<u8>, BackendError>;

    /// Restores an oracle. The bytes come from a trusted cache: whether they are those of the wanted columns is for the caller to check.
    ///
    /// # Errors
    /// [`BackendError::Damaged`]: another length than its sizes make, a field element that is not below p, or what else the layout can tell.
    fn load(&self, bytes: &[u8]) -> Result<Self::Oracle, BackendError>;

    /// `f(point)` for each F column of the range.
    fn evaluate(&self, oracle: &Self::Oracle, columns: Range<usize>, point: K) -> Result<Vec<K>, BackendError>;

    /// `w~ = Σ_c coefficients_c · W_c` over the first columns.
    fn combine(&self, weights: &Self::Oracle, coefficients: &[K]) -> Result<Self::Combination, BackendError>;

    /// Computes the projected columns by the system's rules and commits them. `oracles` are weights and main.
    fn project(
        &self,
        system: &ConstraintSystem,
        scalars: Scalars<'_>,
        oracles: [&Self::Oracle; 2],
        shape: CommitShape,
    ) -> Result<Self::Oracle, BackendError>;

    /// Commits S, q_S, q_0, q_1 (`docs/PROTOCOL.md` §2, §3). `oracles` are weights, main, projected.
    ///
    /// S starts at 0 on row 0. `S(gX) − S − Σ_k ξ^k s_k + total/n = Z·q_S`; `Σ_k γ^(N−1−k) c_k = Z·(q_0 + X^n q_1)`.
    fn sums(
        &self,
        system: &ConstraintSystem,
        scalars: Scalars<'_>,
        challenges: SumsChallenges,
        oracles: [&Self::Oracle; 3],
        combination: Option<&Self::Combination>,
        shape: CommitShape,
    ) -> Result<Self::Oracle, BackendError>;

    /// `Σ_batches α^… (Σ_j α^j f_j − Σ_j α^j f_j(point)) / (X − point)` in plonky2's order (`PolynomialBatch::prove_openings`), on the extended domain.
    fn batch(&self, oracles: &[&Self::Oracle], batches: &[OpeningBatch], alpha: K) -> Result<Self::Codeword, BackendError>;

    /// Commits the codeword in cosets of 2^arity_bits.
    fn fold_commit(&self, codeword: &Self::Codeword, arity_bits: usize, cap_height: usize) -> Result<Self::FoldTree, BackendError>;

    /// The cap of a FRI layer.
    fn fold_cap(&self, tree: &Self::FoldTree) -> MerkleCap<F, H>;

    /// Folds by β.
    fn fold(&self, codeword: Self::Codeword, arity_bits: usize, beta: K) -> Result<Self::Codeword, BackendError>;

    /// The coefficients of the last polynomial, `len / 2^rate_bits` of them.
    fn final_polynomial(&self, codeword: &Self::Codeword, rate_bits: usize) -> Result<Vec<K>, BackendError>;

    /// The smallest nonce whose challenge has `bits` leading zeros.
    fn grind(&self, challenger: &Challenger<F, H>, bits: u32) -> Result<u64, BackendError>;

    /// Rows and paths of an oracle's leaves, in the order asked.
    fn query(&self, oracle: &Self::Oracle, leaves: &[usize]) -> Result<Vec<QueryAnswer>, BackendError>;

    /// Rows and paths of a FRI layer's leaves, in the order asked.
    fn query_fold(&self, tree: &Self::FoldTree, leaves: &[usize]) -> Result<Vec<QueryAnswer>, BackendError>;

    /// Proves a recursion circuit without zero knowledge, on [`witness::deterministic_witness`]; plonky2's verifier accepts the proof.
    /// The nonce is the smallest, except in [`reference::Reference`], whose prover takes any.
    fn prove_circuit(&self, circuit: &Circuit, inputs: PartialWitness<F>) -> Result<CircuitProof, BackendError>;

    /// Proves a circuit with `zero_knowledge = true`, blinded by the operating system's entropy.
    fn prove_blinded_circuit(&self, circuit: &Circuit, inputs: PartialWitness<F>) -> Result<CircuitProof, BackendError>;
}

/// What several trees answered, each to all queries, as what each query was answered by all trees.
pub fn by_query(of_trees: Vec<Vec<QueryAnswer>>, n_queries: usize) -> Vec<Vec<QueryAnswer>> {
    let mut of_trees: Vec<_> = of_trees.into_iter().map(Vec::into_iter).collect();
    (0..n_queries).map(|_| of_trees.iter_mut().filter_map(Iterator::next).collect()).collect()
}

/// The F columns of an oracle in a system, as a range.
pub fn all_columns(system: &ConstraintSystem, oracle: OracleId) -> Range<usize> {
    0..system.width(oracle)
}
