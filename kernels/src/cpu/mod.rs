//! The CPU backend: parallel Rust on the host's processors.
//!
//! It gives the bytes of `zkinfer_circuits::backend::reference::Reference`. Columns lie one after another in flat buffers; extensions are kept
//! in the order of Merkle leaves, so that no step permutes or transposes. Vector instructions are chosen when the backend is made: see [`Level`].

mod buffer;
mod butterflies;
mod by_hand;
mod circuit;
mod fri;
mod interpreter;
pub(crate) mod oracle;
mod passes;
pub(crate) mod program;
pub(crate) mod project;
pub(crate) mod saved;
pub(crate) mod sums;
pub(crate) mod transform;
pub(crate) mod tree;
mod wide;

use std::ops::Range;
use std::sync::Arc;

use plonky2::hash::merkle_tree::MerkleCap;
use plonky2::iop::challenger::Challenger;
use plonky2::iop::witness::PartialWitness;
use zkinfer_circuits::air::ConstraintSystem;
use zkinfer_circuits::backend::{
    Backend, BackendError, Circuit, CircuitProof, CommitShape, OpeningBatch, OracleSizes, QueryAnswer, Scalars, SumsChallenges,
};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{F, H, K};

pub use fri::{Codeword, FoldTree};
pub use oracle::Oracle;

use crate::circuit::{Plans, prove, prove_blinded};
use crate::vector::{Dispatch, Level, UnavailableLevel};

use transform::RootTables;

/// The CPU backend. Clones share their tables of roots of unity and their plans of circuits' witnesses.
#[derive(Clone, Debug)]
pub struct CpuBackend {
    tables: Arc<RootTables>,
    plans: Arc<Plans>,
}

impl CpuBackend {
    /// A backend that computes on rayon's current thread pool, with the best vectors of this processor.
    pub fn new() -> Self {
        Self::with_dispatch(Dispatch::detect())
    }

    /// The same with the vectors of one level: the bytes do not depend on it.
    ///
    /// # Errors
    /// [`UnavailableLevel`] if this processor lacks it.
    pub fn with_level(level: Level) -> Result<Self, UnavailableLevel> {
        Ok(Self::with_dispatch(Dispatch::new(level)?))
    }

    fn with_dispatch(dispatch: Dispatch) -> Self {
        Self { tables: Arc::new(RootTables::new(dispatch)), plans: Arc::default() }
    }

    /// The vectors that this backend computes with.
    pub fn level(&self) -> Level {
        self.tables.dispatch().level()
    }

    /// Threads that this backend computes on, called from this thread.
    pub fn threads() -> usize {
        rayon::current_num_threads()
    }
}

impl Default for CpuBackend {
    fn default() -> Self {
        Self::new()
    }
}

/// w~ by coordinate, in coefficient form.
#[derive(Debug)]
pub struct Combination(pub(crate) [Vec<F>; 2]);

impl CpuBackend {
    /// The interpreter of constraints alone, to be measured: over every block of points of the coset of 2n points, in the order of leaves,
    /// by coordinate: `Σ_k ξ^k s_k`, then `Σ_k γ^(N−1−k) c_k` over the constraints of each domain: every, first, last, step.
    ///
    /// # Errors
    /// As [`Backend::sums`].
    pub fn interpret_constraints(
        &self,
        system: &ConstraintSystem,
        scalars: Scalars<'_>,
        challenges: SumsChallenges,
        oracles: [&Oracle; 3],
        combination: Option<&Combination>,
    ) -> Result<Vec<Vec<[Vec<F>; 2]>>, BackendError> {
        let combination = combination.map(|Combination(limbs)| limbs);
        let inputs = sums::Inputs { system, scalars, challenges, oracles, combination };
        sums::interpret(&self.tables, &inputs, |_, outputs| outputs.to_vec())
    }

    /// The same of a dense layer's inference, by code written for it alone: what the interpreter is measured against.
    ///
    /// # Errors
    /// [`BackendError::Unsupported`] if the system is of another layer.
    pub fn constraints_by_hand(
        &self,
        system: &ConstraintSystem,
        scalars: Scalars<'_>,
        challenges: SumsChallenges,
        oracles: [&Oracle; 3],
        combination: Option<&Combination>,
    ) -> Result<Vec<Vec<[Vec<F>; 2]>>, BackendError> {
        let combination = combination.map(|Combination(limbs)| limbs);
        by_hand::evaluate(&self.tables, &sums::Inputs { system, scalars, challenges, oracles, combination })
    }
}

fn check_columns(oracle: &Oracle, columns: &Range<usize>) -> Result<(), BackendError> {
    if columns.end <= oracle.n_columns() {
        return Ok(());
    }
    Err(BackendError::Unsupported(format!("columns {columns:?} were asked of an oracle of {}", oracle.n_columns())))
}

impl Backend for CpuBackend {
    type Oracle = Oracle;
    type Combination = Combination;
    type Codeword = Codeword;
    type FoldTree = FoldTree;

    fn name(&self) -> String {
        format!("cpu {} ({} threads)", self.level().name(), rayon::current_num_threads())
    }

    fn commit(&self, columns: &Columns, shape: CommitShape) -> Result<Oracle, BackendError> {
        Oracle::commit(&self.tables, columns, shape)
    }

    fn cap(&self, oracle: &Oracle) -> MerkleCap<F, H> {
        oracle.tree.cap()
    }

    fn sizes(&self, oracle: &Oracle) -> OracleSizes {
        oracle.sizes()
    }

    fn save(&self, oracle: &Oracle) -> Result<Vec<u8>, BackendError> {
        Ok(saved::save(oracle))
    }

    fn load(&self, bytes: &[u8]) -> Result<Oracle, BackendError> {
        saved::load(bytes)
    }

    fn evaluate(&self, oracle: &Oracle, columns: Range<usize>, point: K) -> Result<Vec<K>, BackendError> {
        check_columns(oracle, &columns)?;
        let polynomials: Vec<&[F]> = columns.map(|column| oracle.coefficients(column)).collect();
        Ok(wide::evaluate(self.tables.dispatch(), &polynomials, point))
    }

    fn combine(&self, weights: &Oracle, coefficients: &[K]) -> Result<Combination, BackendError> {
        check_columns(weights, &(0..coefficients.len()))?;
        let columns: Vec<&[F]> = (0..coefficients.len()).map(|column| weights.coefficients(column)).collect();
        Ok(Combination(wide::combine(self.tables.dispatch(), &columns, coefficients, weights.n_rows())))
    }

    fn project(
        &self,
        system: &ConstraintSystem,
        scalars: Scalars<'_>,
        oracles: [&Oracle; 2],
        shape: CommitShape,
    ) -> Result<Oracle, BackendError> {
        let columns = project::project(&self.tables, system, scalars, oracles)?;
        Oracle::commit(&self.tables, &columns, shape)
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
        let combination = combination.map(|Combination(limbs)| limbs);
        let inputs = sums::Inputs { system, scalars, challenges, oracles, combination };
        let coefficients = sums::sums(&self.tables, &inputs)?;
        Oracle::commit_coefficients(&self.tables, oracles[0].log_rows, coefficients, shape)
    }

    fn batch(&self, oracles: &[&Oracle], batches: &[OpeningBatch], alpha: K) -> Result<Codeword, BackendError> {
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
        let polynomials: Vec<&dyn fri::Polynomials> = oracles.iter().map(|&oracle| oracle as &dyn fri::Polynomials).collect();
        Ok(fri::batch(&self.tables, &polynomials, batches, alpha, first.shape.rate_bits))
    }

    fn fold_commit(&self, codeword: &Codeword, arity_bits: usize, cap_height: usize) -> Result<FoldTree, BackendError> {
        fri::fold_commit(self.tables.dispatch(), codeword, arity_bits, cap_height)
    }

    fn fold_cap(&self, tree: &FoldTree) -> MerkleCap<F, H> {
        tree.tree.cap()
    }

    fn fold(&self, codeword: Codeword, arity_bits: usize, beta: K) -> Result<Codeword, BackendError> {
        fri::fold(&self.tables, codeword, arity_bits, beta)
    }

    fn final_polynomial(&self, codeword: &Codeword, rate_bits: usize) -> Result<Vec<K>, BackendError> {
        Ok(fri::final_polynomial(codeword, rate_bits))
    }

    fn grind(&self, challenger: &Challenger<F, H>, bits: u32) -> Result<u64, BackendError> {
        fri::grind(self.tables.dispatch(), challenger, bits)
    }

    fn query(&self, oracle: &Oracle, leaves: &[usize]) -> Result<Vec<QueryAnswer>, BackendError> {
        leaves.iter().map(|&leaf| oracle.query(leaf)).collect()
    }

    fn query_fold(&self, tree: &FoldTree, leaves: &[usize]) -> Result<Vec<QueryAnswer>, BackendError> {
        leaves.iter().map(|&leaf| tree.query(leaf)).collect()
    }

    fn prove_circuit(&self, circuit: &Circuit, inputs: PartialWitness<F>) -> Result<CircuitProof, BackendError> {
        prove(self, self.host(), circuit, &inputs)
    }

    fn prove_blinded_circuit(&self, circuit: &Circuit, inputs: PartialWitness<F>) -> Result<CircuitProof, BackendError> {
        prove_blinded(self, self.host(), circuit, &inputs)
    }
}
