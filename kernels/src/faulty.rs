//! A device for tests: another backend, which fails when it is told to.

use std::fmt::{self, Debug, Formatter};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use plonky2::hash::merkle_tree::MerkleCap;
use plonky2::iop::challenger::Challenger;
use plonky2::iop::witness::PartialWitness;
use zkinfer_circuits::air::ConstraintSystem;
use zkinfer_circuits::backend::{
    Backend, BackendError, Circuit, CircuitProof, CommitShape, Condition, OpeningBatch, OracleSizes, QueryAnswer, Scalars, SumsChallenges,
};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{F, H, K};

/// How a step fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// That one call has not enough memory.
    OutOfMemory,
    /// The device is lost at that call: every later one fails as well.
    Lost,
    /// What that call leaves on the device is wrong, by the backend's [`Spoilers`].
    Wrong,
}

/// How buffers are spoilt by [`Fault::Wrong`]: each changes what it is given a little.
pub struct Spoilers<B: Backend> {
    /// Of commit, load, project and sums.
    pub oracle: fn(&mut B::Oracle),
    /// Of combine.
    pub combination: fn(&mut B::Combination),
    /// Of batch and fold.
    pub codeword: fn(&mut B::Codeword),
    /// Of fold_commit.
    pub fold_tree: fn(&mut B::FoldTree),
}

impl<B: Backend> Debug for Spoilers<B> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Spoilers").finish_non_exhaustive()
    }
}

/// Makes a [`FaultyBackend`] fail. Clones belong to the same backend.
#[derive(Clone, Debug, Default)]
pub struct FaultSwitch(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    is_lost: bool,
    next: Option<(&'static str, Fault)>,
    /// Every call of this step is wrong.
    wrong: Option<&'static str>,
    peak_since_mark: u64,
    peak_of_each: u64,
}

impl FaultSwitch {
    /// The next call of `step`, a method of [`Backend`], fails.
    pub fn fail_at(&self, step: &'static str, fault: Fault) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next = Some((step, fault));
    }

    /// What every call of `step` leaves on the device is wrong from now on.
    pub fn spoil_all(&self, step: &'static str) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).wrong = Some(step);
    }

    /// Whatever is done takes so many bytes of its device from now on.
    pub fn take_memory(&self, bytes: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).peak_of_each = bytes;
    }

    /// Whether a fault is still to come.
    pub fn is_armed(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).next.is_some()
    }
}

/// `B`, until its switch says otherwise.
#[derive(Clone, Debug)]
pub struct FaultyBackend<B: Backend> {
    inner: B,
    switch: FaultSwitch,
    spoilers: Option<Arc<Spoilers<B>>>,
}

impl<B: Backend> FaultyBackend<B> {
    /// Works as `inner` does, until `switch` says otherwise.
    pub fn new(inner: B, switch: FaultSwitch) -> Self {
        Self { inner, switch, spoilers: None }
    }

    /// The same, with what [`Fault::Wrong`] does to buffers.
    pub fn with_spoilers(inner: B, switch: FaultSwitch, spoilers: Spoilers<B>) -> Self {
        Self { inner, switch, spoilers: Some(Arc::new(spoilers)) }
    }

    pub(crate) fn inner(&self) -> &B {
        &self.inner
    }

    /// The result of a step, spoilt if that is due.
    fn leave<T>(
        &self,
        step: &'static str,
        result: Result<T, BackendError>,
        spoiler: impl Fn(&Spoilers<B>) -> fn(&mut T),
    ) -> Result<T, BackendError> {
        let mut value = result?;
        let mut state = self.switch.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = state.next.take_if(|next| *next == (step, Fault::Wrong)).is_some() || state.wrong == Some(step);
        if let (true, Some(spoilers)) = (is_due, &self.spoilers) {
            spoiler(spoilers)(&mut value);
        }
        Ok(value)
    }

    fn enter(&self, step: &'static str) -> Result<&B, BackendError> {
        let mut state = self.switch.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.peak_since_mark = state.peak_since_mark.max(state.peak_of_each);
        let due = state.next.take_if(|(at, fault)| *at == step && *fault != Fault::Wrong).map(|(_, fault)| fault);
        state.is_lost |= due == Some(Fault::Lost);
        if state.is_lost {
            return Err(BackendError::Device { device: self.name(), message: "lost, as told".to_owned() });
        }
        match due {
            None => Ok(&self.inner),
            Some(_) => Err(BackendError::OutOfMemory { device: self.name(), needed_bytes: 1 }),
        }
    }
}

impl<B: Backend> Backend for FaultyBackend<B> {
    type Oracle = B::Oracle;
    type Combination = B::Combination;
    type Codeword = B::Codeword;
    type FoldTree = B::FoldTree;

    fn name(&self) -> String {
        format!("faulty {}", self.inner.name())
    }

    fn condition(&self) -> Condition {
        self.inner.condition()
    }

    fn mark_memory(&self) {
        self.switch.0.lock().unwrap_or_else(PoisonError::into_inner).peak_since_mark = 0;
        self.inner.mark_memory();
    }

    fn peak_since_mark(&self) -> u64 {
        let told = self.switch.0.lock().unwrap_or_else(PoisonError::into_inner).peak_since_mark;
        told.max(self.inner.peak_since_mark())
    }

    fn commit(&self, columns: &Columns, shape: CommitShape) -> Result<B::Oracle, BackendError> {
        self.leave("commit", self.enter("commit")?.commit(columns, shape), |spoilers| spoilers.oracle)
    }

    fn cap(&self, oracle: &B::Oracle) -> MerkleCap<F, H> {
        self.inner.cap(oracle)
    }

    fn sizes(&self, oracle: &B::Oracle) -> OracleSizes {
        self.inner.sizes(oracle)
    }

    fn save(&self, oracle: &B::Oracle) -> Result<Vec<u8>, BackendError> {
        self.enter("save")?.save(oracle)
    }

    fn load(&self, bytes: &[u8]) -> Result<B::Oracle, BackendError> {
        self.leave("load", self.enter("load")?.load(bytes), |spoilers| spoilers.oracle)
    }

    fn evaluate(&self, oracle: &B::Oracle, columns: Range<usize>, point: K) -> Result<Vec<K>, BackendError> {
        self.enter("evaluate")?.evaluate(oracle, columns, point)
    }

    fn combine(&self, weights: &B::Oracle, coefficients: &[K]) -> Result<B::Combination, BackendError> {
        self.leave("combine", self.enter("combine")?.combine(weights, coefficients), |spoilers| spoilers.combination)
    }

    fn project(
        &self,
        system: &ConstraintSystem,
        scalars: Scalars<'_>,
        oracles: [&B::Oracle; 2],
        shape: CommitShape,
    ) -> Result<B::Oracle, BackendError> {
        let projected = self.enter("project")?.project(system, scalars, oracles, shape);
        self.leave("project", projected, |spoilers| spoilers.oracle)
    }

    fn sums(
        &self,
        system: &ConstraintSystem,
        scalars: Scalars<'_>,
        challenges: SumsChallenges,
        oracles: [&B::Oracle; 3],
        combination: Option<&B::Combination>,
        shape: CommitShape,
    ) -> Result<B::Oracle, BackendError> {
        let sums = self.enter("sums")?.sums(system, scalars, challenges, oracles, combination, shape);
        self.leave("sums", sums, |spoilers| spoilers.oracle)
    }

    fn batch(&self, oracles: &[&B::Oracle], batches: &[OpeningBatch], alpha: K) -> Result<B::Codeword, BackendError> {
        self.leave("batch", self.enter("batch")?.batch(oracles, batches, alpha), |spoilers| spoilers.codeword)
    }

    fn fold_commit(&self, codeword: &B::Codeword, arity_bits: usize, cap_height: usize) -> Result<B::FoldTree, BackendError> {
        let tree = self.enter("fold_commit")?.fold_commit(codeword, arity_bits, cap_height);
        self.leave("fold_commit", tree, |spoilers| spoilers.fold_tree)
    }

    fn fold_cap(&self, tree: &B::FoldTree) -> MerkleCap<F, H> {
        self.inner.fold_cap(tree)
    }

    fn fold(&self, codeword: B::Codeword, arity_bits: usize, beta: K) -> Result<B::Codeword, BackendError> {
        self.leave("fold", self.enter("fold")?.fold(codeword, arity_bits, beta), |spoilers| spoilers.codeword)
    }

    fn final_polynomial(&self, codeword: &B::Codeword, rate_bits: usize) -> Result<Vec<K>, BackendError> {
        self.enter("final_polynomial")?.final_polynomial(codeword, rate_bits)
    }

    fn grind(&self, challenger: &Challenger<F, H>, bits: u32) -> Result<u64, BackendError> {
        self.enter("grind")?.grind(challenger, bits)
    }

    fn query(&self, oracle: &B::Oracle, leaves: &[usize]) -> Result<Vec<QueryAnswer>, BackendError> {
        self.enter("query")?.query(oracle, leaves)
    }

    fn query_fold(&self, tree: &B::FoldTree, leaves: &[usize]) -> Result<Vec<QueryAnswer>, BackendError> {
        self.enter("query_fold")?.query_fold(tree, leaves)
    }

    fn prove_circuit(&self, circuit: &Circuit, inputs: PartialWitness<F>) -> Result<CircuitProof, BackendError> {
        self.enter("prove_circuit")?.prove_circuit(circuit, inputs)
    }

    fn prove_blinded_circuit(&self, circuit: &Circuit, inputs: PartialWitness<F>) -> Result<CircuitProof, BackendError> {
        self.enter("prove_blinded_circuit")?.prove_blinded_circuit(circuit, inputs)
    }
}
