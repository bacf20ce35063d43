//! A device with the CPU behind it: a step that the device cannot do is done again on the second backend, and the reason is kept.
//!
//! Repeated are steps that fail with [`BackendError::OutOfMemory`] or [`BackendError::Device`]; oracles that the second backend then needs are moved to
//! it by [`Backend::save`] and [`Backend::load`], whose bytes both backends understand. After a device error nothing more is given to the first
//! backend. What lies on a lost device, or a codeword on a full one, cannot be moved: such an error is returned, the first backend is retired,
//! and the job, begun again from host data, runs on the second alone. Results are the same bytes either way.

use std::ops::{Deref, Range};
use std::sync::{Mutex, PoisonError};

use plonky2::hash::merkle_tree::MerkleCap;
use plonky2::iop::challenger::Challenger;
use plonky2::iop::witness::PartialWitness;
use zkinfer_circuits::air::ConstraintSystem;
use zkinfer_circuits::backend::{
    Backend, BackendError, Circuit, CircuitProof, CommitShape, Condition, OpeningBatch, OracleSizes, QueryAnswer, Scalars, SumsChallenges,
};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{F, H, K};

/// A value on either backend.
#[derive(Debug)]
pub enum Either<A, B> {
    /// On the first.
    First(A),
    /// On the second.
    Second(B),
}

/// w~, with what it takes to combine it again.
#[derive(Debug)]
pub struct Combination<A, B> {
    value: Either<A, B>,
    coefficients: Vec<K>,
}

/// A value that is borrowed, or was made for one step.
enum Held<'a, T> {
    Borrowed(&'a T),
    Made(Box<T>),
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        match self {
            Self::Borrowed(value) => value,
            Self::Made(value) => value,
        }
    }
}

/// Runs on `first` while it works, on `second` else.
#[derive(Debug)]
pub struct FallbackBackend<A, B> {
    first: Option<A>,
    second: B,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    is_retired: bool,
    reasons: Vec<String>,
    n_memory: u64,
    n_device: u64,
    /// What the first backend's device had taken when it was retired, if nothing was marked since.
    retired_peak: u64,
}

/// Reasons kept; later ones are only counted by the log.
const MAX_REASONS: usize = 100;

type OracleOf<A, B> = Either<<A as Backend>::Oracle, <B as Backend>::Oracle>;

/// The first backend's oracles, if all are there.
fn all_first<A, B, const N: usize>(oracles: [&Either<A, B>; N]) -> Option<[&A; N]> {
    let found: Vec<&A> =
        oracles.into_iter().filter_map(|oracle| if let Either::First(oracle) = oracle { Some(oracle) } else { None }).collect();
    found.try_into().ok()
}

impl<A: Backend, B: Backend> FallbackBackend<A, B> {
    /// `first`, if there is one, backed by `second`. Both must read each other's saved oracles.
    pub fn new(first: Option<A>, second: B) -> Self {
        Self { first, second, state: Mutex::default() }
    }

    /// Why steps were done on the second backend although there is a first, in order.
    pub fn reasons(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).reasons.clone()
    }

    /// The first backend, unless there is none or it was retired.
    fn first(&self) -> Option<&A> {
        let is_retired = self.state.lock().unwrap_or_else(PoisonError::into_inner).is_retired;
        self.first.as_ref().filter(|_| !is_retired)
    }

    fn note(&self, step: &str, error: &BackendError, retires: bool) {
        let reason = format!("{step} on the CPU: {error}");
        tracing::warn!(step, %error, retires, "a device failed");
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if retires && !state.is_retired {
            state.is_retired = true;
            state.retired_peak = self.original().peak_since_mark();
        }
        match error {
            BackendError::OutOfMemory { .. } => state.n_memory += 1,
            _ => state.n_device += 1,
        }
        if state.reasons.len() < MAX_REASONS {
            state.reasons.push(reason);
        }
    }

    /// Does a step on the first backend, given its inputs there, or else on the second.
    fn attempt<I, T, U>(
        &self,
        step: &str,
        inputs: Option<I>,
        first: impl FnOnce(&A, I) -> Result<T, BackendError>,
        second: impl FnOnce(&B) -> Result<U, BackendError>,
    ) -> Result<Either<T, U>, BackendError> {
        let span = tracing::debug_span!("backend", otel.name = step, step, on = tracing::field::Empty).entered();
        if let (Some(backend), Some(inputs)) = (self.first(), inputs) {
            span.record("on", "first");
            match first(backend, inputs) {
                Ok(value) => return Ok(Either::First(value)),
                Err(error @ BackendError::OutOfMemory { .. }) => self.note(step, &error, false),
                Err(error @ BackendError::Device { .. }) => self.note(step, &error, true),
                Err(error) => return Err(error),
            }
        }
        span.record("on", "second");
        second(&self.second).map(Either::Second)
    }

    /// As [`Self::attempt`], for a result on the host.
    fn attempt_value<I, T>(
        &self,
        step: &str,
        inputs: Option<I>,
        first: impl FnOnce(&A, I) -> Result<T, BackendError>,
        second: impl FnOnce(&B) -> Result<T, BackendError>,
    ) -> Result<T, BackendError> {
        self.attempt(step, inputs, first, second).map(|value| match value {
            Either::First(value) | Either::Second(value) => value,
        })
    }

    /// An error of a step whose input cannot be moved: the first backend is retired, so that the job begun again runs on the second.
    fn unmovable<T>(&self, step: &str, result: Result<T, BackendError>) -> Result<T, BackendError> {
        if let Err(error @ (BackendError::OutOfMemory { .. } | BackendError::Device { .. })) = &result {
            self.note(step, error, true);
        }
        result
    }

    fn original(&self) -> &A {
        self.first.as_ref().expect("only the first backend makes values of its own")
    }

    /// The oracle on the second backend.
    fn moved<'a>(&self, oracle: &'a OracleOf<A, B>) -> Result<Held<'a, B::Oracle>, BackendError> {
        match oracle {
            Either::Second(oracle) => Ok(Held::Borrowed(oracle)),
            Either::First(oracle) => {
                let bytes = self.unmovable("save", self.original().save(oracle))?;
                Ok(Held::Made(Box::new(self.second.load(&bytes)?)))
            }
        }
    }

    fn moved_all<'a, const N: usize>(&self, oracles: [&'a OracleOf<A, B>; N]) -> Result<Vec<Held<'a, B::Oracle>>, BackendError> {
        oracles.into_iter().map(|oracle| self.moved(oracle)).collect()
    }
}

impl<A: Backend, B: Backend> Backend for FallbackBackend<A, B> {
    type Oracle = OracleOf<A, B>;
    type Combination = Combination<A::Combination, B::Combination>;
    type Codeword = Either<A::Codeword, B::Codeword>;
    type FoldTree = Either<A::FoldTree, B::FoldTree>;

    fn name(&self) -> String {
        match self.first() {
            Some(first) => format!("{}, else {}", first.name(), self.second.name()),
            None => self.second.name(),
        }
    }

    /// The first backend was retired.
    fn is_degraded(&self) -> bool {
        self.first.is_some() && self.first().is_none()
    }

    fn condition(&self) -> Condition {
        let memory = self.first().and_then(|first| first.condition().memory);
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        Condition { memory, n_fallbacks_memory: state.n_memory, n_fallbacks_device: state.n_device }
    }

    fn mark_memory(&self) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).retired_peak = 0;
        if let Some(first) = self.first() {
            first.mark_memory();
        }
    }

    fn peak_since_mark(&self) -> u64 {
        match self.first() {
            Some(first) => first.peak_since_mark(),
            None => self.state.lock().unwrap_or_else(PoisonError::into_inner).retired_peak,
        }
    }

    fn commit(&self, columns: &Columns, shape: CommitShape) -> Result<Self::Oracle, BackendError> {
        self.attempt("commit", Some(()), |first, ()| first.commit(columns, shape), |second| second.commit(columns, shape))
    }

    fn cap(&self, oracle: &Self::Oracle) -> MerkleCap<F, H> {
        match oracle {
            Either::First(oracle) => self.original().cap(oracle),
            Either::Second(oracle) => self.second.cap(oracle),
        }
    }

    fn sizes(&self, oracle: &Self::Oracle) -> OracleSizes {
        match oracle {
            Either::First(oracle) => self.original().sizes(oracle),
            Either::Second(oracle) => self.second.sizes(oracle),
        }
    }

    fn save(&self, oracle: &Self::Oracle) -> Result<Vec<u8>, BackendError> {
        match oracle {
            Either::First(oracle) => self.unmovable("save", self.original().save(oracle)),
            Either::Second(oracle) => self.second.save(oracle),
        }
    }

    fn load(&self, bytes: &[u8]) -> Result<Self::Oracle, BackendError> {
        self.attempt("load", Some(()), |first, ()| first.load(bytes), |second| second.load(bytes))
    }

    fn evaluate(&self, oracle: &Self::Oracle, columns: Range<usize>, point: K) -> Result<Vec<K>, BackendError> {
        self.attempt_value(
            "evaluate",
            all_first([oracle]),
            |first, [oracle]| first.evaluate(oracle, columns.clone(), point),
            |second| second.evaluate(&*self.moved(oracle)?, columns.clone(), point),
        )
    }

    fn combine(&self, weights: &Self::Oracle, coefficients: &[K]) -> Result<Self::Combination, BackendError> {
        let value = self.attempt(
            "combine",
            all_first([weights]),
            |first, [weights]| first.combine(weights, coefficients),
            |second| second.combine(&*self.moved(weights)?, coefficients),
        )?;
        Ok(Combination { value, coefficients: coefficients.to_vec() })
    }

    fn project(
        &self,
        system: &ConstraintSystem,
        scalars: Scalars<'_>,
        oracles: [&Self::Oracle; 2],
        shape: CommitShape,
    ) -> Result<Self::Oracle, BackendError> {
        self.attempt(
            "project",
            all_first(oracles),
            |first, oracles| first.project(system, scalars, oracles, shape),
            |second| {
                let [weights, main] = [self.moved(oracles[0])?, self.moved(oracles[1])?];
                second.project(system, scalars, [&*weights, &*main], shape)
            },
        )
    }

    fn sums(
        &self,
        system: &ConstraintSystem,
        scalars: Scalars<'_>,
        challenges: SumsChallenges,
        oracles: [&Self::Oracle; 3],
        combination: Option<&Self::Combination>,
        shape: CommitShape,
    ) -> Result<Self::Oracle, BackendError> {
        let on_first = match combination.map(|combination| &combination.value) {
            None => Some(None),
            Some(Either::First(combination)) => Some(Some(combination)),
            Some(Either::Second(_)) => None,
        };
        self.attempt(
            "sums",
            all_first(oracles).zip(on_first),
            |first, (oracles, combination)| first.sums(system, scalars, challenges, oracles, combination, shape),
            |second| {
                let moved = self.moved_all(oracles)?;
                let combination = match combination {
                    None => None,
                    Some(Combination { value: Either::Second(value), .. }) => Some(Held::Borrowed(value)),
                    // The first oracle is the weights'.
                    Some(Combination { coefficients, .. }) => Some(Held::Made(Box::new(second.combine(&moved[0], coefficients)?))),
                };
                let oracles = [&*moved[0], &*moved[1], &*moved[2]];
                second.sums(system, scalars, challenges, oracles, combination.as_deref(), shape)
            },
        )
    }

    fn batch(&self, oracles: &[&Self::Oracle], batches: &[OpeningBatch], alpha: K) -> Result<Self::Codeword, BackendError> {
        let on_first: Option<Vec<&A::Oracle>> =
            oracles.iter().map(|oracle| if let Either::First(oracle) = oracle { Some(oracle) } else { None }).collect();
        self.attempt(
            "batch",
            on_first,
            |first, oracles| first.batch(&oracles, batches, alpha),
            |second| {
                let moved = oracles.iter().map(|oracle| self.moved(oracle)).collect::<Result<Vec<_>, _>>()?;
                second.batch(&moved.iter().map(|oracle| &**oracle).collect::<Vec<_>>(), batches, alpha)
            },
        )
    }

    fn fold_commit(&self, codeword: &Self::Codeword, arity_bits: usize, cap_height: usize) -> Result<Self::FoldTree, BackendError> {
        match codeword {
            Either::First(codeword) => {
                self.unmovable("fold_commit", self.original().fold_commit(codeword, arity_bits, cap_height)).map(Either::First)
            }
            Either::Second(codeword) => self.second.fold_commit(codeword, arity_bits, cap_height).map(Either::Second),
        }
    }

    fn fold_cap(&self, tree: &Self::FoldTree) -> MerkleCap<F, H> {
        match tree {
            Either::First(tree) => self.original().fold_cap(tree),
            Either::Second(tree) => self.second.fold_cap(tree),
        }
    }

    fn fold(&self, codeword: Self::Codeword, arity_bits: usize, beta: K) -> Result<Self::Codeword, BackendError> {
        match codeword {
            Either::First(codeword) => self.unmovable("fold", self.original().fold(codeword, arity_bits, beta)).map(Either::First),
            Either::Second(codeword) => self.second.fold(codeword, arity_bits, beta).map(Either::Second),
        }
    }

    fn final_polynomial(&self, codeword: &Self::Codeword, rate_bits: usize) -> Result<Vec<K>, BackendError> {
        match codeword {
            Either::First(codeword) => self.unmovable("final_polynomial", self.original().final_polynomial(codeword, rate_bits)),
            Either::Second(codeword) => self.second.final_polynomial(codeword, rate_bits),
        }
    }

    fn grind(&self, challenger: &Challenger<F, H>, bits: u32) -> Result<u64, BackendError> {
        self.attempt_value("grind", Some(()), |first, ()| first.grind(challenger, bits), |second| second.grind(challenger, bits))
    }

    fn query(&self, oracle: &Self::Oracle, leaves: &[usize]) -> Result<Vec<QueryAnswer>, BackendError> {
        let on_second = |second: &B| second.query(&*self.moved(oracle)?, leaves);
        self.attempt_value("query", all_first([oracle]), |first, [oracle]| first.query(oracle, leaves), on_second)
    }

    fn query_fold(&self, tree: &Self::FoldTree, leaves: &[usize]) -> Result<Vec<QueryAnswer>, BackendError> {
        match tree {
            Either::First(tree) => self.unmovable("query_fold", self.original().query_fold(tree, leaves)),
            Either::Second(tree) => self.second.query_fold(tree, leaves),
        }
    }

    fn prove_circuit(&self, circuit: &Circuit, inputs: PartialWitness<F>) -> Result<CircuitProof, BackendError> {
        self.attempt_value(
            "prove_circuit",
            Some(()),
            |first, ()| first.prove_circuit(circuit, inputs.clone()),
            |second| second.prove_circuit(circuit, inputs.clone()),
        )
    }

    fn prove_blinded_circuit(&self, circuit: &Circuit, inputs: PartialWitness<F>) -> Result<CircuitProof, BackendError> {
        self.attempt_value(
            "prove_blinded_circuit",
            Some(()),
            |first, ()| first.prove_blinded_circuit(circuit, inputs.clone()),
            |second| second.prove_blinded_circuit(circuit, inputs.clone()),
        )
    }
}
