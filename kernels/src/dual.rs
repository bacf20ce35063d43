//! Two backends at once: every step runs on both, and every output that the host sees is compared.
//!
//! For commissioning a device and for tests; the answer is the first backend's. A difference is [`BackendError::Disagreement`].
//!
//! What stays inside a backend is compared as soon as it is hashed or opened: an oracle by its cap, w~ by the cap of the sums oracle that is
//! computed from it, a codeword by the cap of its FRI layer, the last one by the final polynomial. Between backends that save in one layout,
//! [`DualBackend::of_one_layout`] compares coefficients, extension and every digest of every oracle as well; between backends whose buffers can be
//! read, [`DualBackend::of_every_buffer`] compares each buffer at the step that left it.

use std::fmt::{self, Debug, Formatter};
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

use crate::inspect::Inspect;

/// Runs `first` and `second`, and compares.
#[derive(Clone, Debug)]
pub struct DualBackend<A: Backend, B: Backend> {
    first: A,
    second: B,
    compared: Compared<A, B>,
}

/// What is compared beside that which the host sees.
#[derive(Clone, Debug)]
enum Compared<A: Backend, B: Backend> {
    /// Nothing.
    Seen,
    /// All that is saved of an oracle.
    SavedBytes,
    /// Every buffer.
    Everything(Arc<(Views<A>, Views<B>)>),
}

/// How a buffer is read.
type View<B, T> = fn(&B, &T) -> Result<Vec<F>, BackendError>;

/// The functions of [`Inspect`], so that a [`DualBackend`] of backends without them is of the same type.
struct Views<B: Backend> {
    oracle: View<B, B::Oracle>,
    combination: View<B, B::Combination>,
    codeword: View<B, B::Codeword>,
    fold_tree: View<B, B::FoldTree>,
}

impl<B: Backend> Debug for Views<B> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Views").finish_non_exhaustive()
    }
}

impl<B: Inspect> Views<B> {
    fn new() -> Self {
        Self { oracle: B::oracle_values, combination: B::combination_values, codeword: B::codeword_values, fold_tree: B::fold_tree_values }
    }
}

impl<A: Backend, B: Backend> DualBackend<A, B> {
    /// Compares `second` with `first`.
    pub fn new(first: A, second: B) -> Self {
        Self { first, second, compared: Compared::Seen }
    }

    /// The same, for two backends that save oracles in one layout (those of this crate do): an oracle's saved bytes are compared too.
    pub fn of_one_layout(first: A, second: B) -> Self {
        Self { first, second, compared: Compared::SavedBytes }
    }

    /// The same, for two backends whose buffers can be read: every buffer is compared at the step that left it.
    pub fn of_every_buffer(first: A, second: B) -> Self
    where
        A: Inspect,
        B: Inspect,
    {
        Self { first, second, compared: Compared::Everything(Arc::new((Views::new(), Views::new()))) }
    }

    /// The backend that is compared.
    pub fn second(&self) -> &B {
        &self.second
    }

    fn agree<T: PartialEq + Debug>(&self, step: &'static str, first: T, second: T) -> Result<T, BackendError> {
        if first == second { Ok(first) } else { Err(self.disagreement(step)) }
    }

    fn disagreement(&self, step: &'static str) -> BackendError {
        BackendError::Disagreement { step, first: self.first.name(), second: self.second.name() }
    }

    fn committed(&self, step: &'static str, first: A::Oracle, second: B::Oracle) -> Result<(A::Oracle, B::Oracle), BackendError> {
        self.agree(step, self.first.cap(&first), self.second.cap(&second))?;
        self.agree(step, self.first.sizes(&first), self.second.sizes(&second))?;
        if matches!(self.compared, Compared::SavedBytes) && self.first.save(&first)? != self.second.save(&second)? {
            return Err(self.disagreement(step));
        }
        self.left(step, (first, second), |views| views.oracle, |views| views.oracle)
    }

    /// The buffers that a step left, compared if they can be.
    fn left<X, Y>(
        &self,
        step: &'static str,
        (first, second): (X, Y),
        of_first: impl Fn(&Views<A>) -> View<A, X>,
        of_second: impl Fn(&Views<B>) -> View<B, Y>,
    ) -> Result<(X, Y), BackendError> {
        if let Compared::Everything(views) = &self.compared {
            let (views, others) = &**views;
            self.agree(step, of_first(views)(&self.first, &first)?, of_second(others)(&self.second, &second)?)?;
        }
        Ok((first, second))
    }
}

fn pairs<X, Y, const N: usize>(oracles: [&(X, Y); N]) -> ([&X; N], [&Y; N]) {
    (oracles.map(|(first, _)| first), oracles.map(|(_, second)| second))
}

/// Whether two proofs of one circuit agree in everything that is fixed before the nonce, and, if their nonces are equal, in all.
///
/// plonky2's own prover takes any nonce that satisfies the proof of work; positions of queries follow from it.
pub fn agree_up_to_nonce(a: &CircuitProof, b: &CircuitProof) -> bool {
    let (fri_a, fri_b) = (&a.proof.opening_proof, &b.proof.opening_proof);
    a.public_inputs == b.public_inputs
        && a.proof.wires_cap == b.proof.wires_cap
        && a.proof.plonk_zs_partial_products_cap == b.proof.plonk_zs_partial_products_cap
        && a.proof.quotient_polys_cap == b.proof.quotient_polys_cap
        && a.proof.openings == b.proof.openings
        && fri_a.commit_phase_merkle_caps == fri_b.commit_phase_merkle_caps
        && fri_a.final_poly == fri_b.final_poly
        && (fri_a.pow_witness != fri_b.pow_witness || a == b)
}

impl<A: Backend, B: Backend> Backend for DualBackend<A, B> {
    type Oracle = (A::Oracle, B::Oracle);
    type Combination = (A::Combination, B::Combination);
    type Codeword = (A::Codeword, B::Codeword);
    type FoldTree = (A::FoldTree, B::FoldTree);

    fn name(&self) -> String {
        format!("{}, compared with {}", self.first.name(), self.second.name())
    }

    fn commit(&self, columns: &Columns, shape: CommitShape) -> Result<Self::Oracle, BackendError> {
        self.committed("commit", self.first.commit(columns, shape)?, self.second.commit(columns, shape)?)
    }

    fn cap(&self, (first, _): &Self::Oracle) -> MerkleCap<F, H> {
        self.first.cap(first)
    }

    fn sizes(&self, (first, _): &Self::Oracle) -> OracleSizes {
        self.first.sizes(first)
    }

    /// The length of the first backend's bytes, its bytes, the second's.
    fn save(&self, (first, second): &Self::Oracle) -> Result<Vec<u8>, BackendError> {
        let first = self.first.save(first)?;
        let length = (first.len() as u64).to_le_bytes().to_vec();
        Ok([length, first, self.second.save(second)?].concat())
    }

    fn load(&self, bytes: &[u8]) -> Result<Self::Oracle, BackendError> {
        let damaged = || BackendError::Damaged("the two backends' parts cannot be told apart".to_owned());
        let (length, rest) = bytes.split_first_chunk::<8>().ok_or_else(damaged)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| damaged())?;
        let (first, second) = rest.split_at_checked(length).ok_or_else(damaged)?;
        self.committed("load", self.first.load(first)?, self.second.load(second)?)
    }

    fn evaluate(&self, (first, second): &Self::Oracle, columns: Range<usize>, point: K) -> Result<Vec<K>, BackendError> {
        let values = self.first.evaluate(first, columns.clone(), point)?;
        self.agree("evaluate", values, self.second.evaluate(second, columns, point)?)
    }

    fn combine(&self, (first, second): &Self::Oracle, coefficients: &[K]) -> Result<Self::Combination, BackendError> {
        let combined = (self.first.combine(first, coefficients)?, self.second.combine(second, coefficients)?);
        self.left("combine", combined, |views| views.combination, |views| views.combination)
    }

    fn project(
        &self,
        system: &ConstraintSystem,
        scalars: Scalars<'_>,
        oracles: [&Self::Oracle; 2],
        shape: CommitShape,
    ) -> Result<Self::Oracle, BackendError> {
        let (first, second) = pairs(oracles);
        let first = self.first.project(system, scalars, first, shape)?;
        self.committed("project", first, self.second.project(system, scalars, second, shape)?)
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
        let (first, second) = pairs(oracles);
        let first = self.first.sums(system, scalars, challenges, first, combination.map(|(first, _)| first), shape)?;
        let second = self.second.sums(system, scalars, challenges, second, combination.map(|(_, second)| second), shape)?;
        self.committed("sums", first, second)
    }

    fn batch(&self, oracles: &[&Self::Oracle], batches: &[OpeningBatch], alpha: K) -> Result<Self::Codeword, BackendError> {
        let (first, second): (Vec<_>, Vec<_>) = oracles.iter().map(|(first, second)| (first, second)).unzip();
        let codewords = (self.first.batch(&first, batches, alpha)?, self.second.batch(&second, batches, alpha)?);
        self.left("batch", codewords, |views| views.codeword, |views| views.codeword)
    }

    fn fold_commit(&self, (first, second): &Self::Codeword, arity_bits: usize, cap_height: usize) -> Result<Self::FoldTree, BackendError> {
        let first = self.first.fold_commit(first, arity_bits, cap_height)?;
        let second = self.second.fold_commit(second, arity_bits, cap_height)?;
        self.agree("fold_commit", self.first.fold_cap(&first), self.second.fold_cap(&second))?;
        self.left("fold_commit", (first, second), |views| views.fold_tree, |views| views.fold_tree)
    }

    fn fold_cap(&self, (first, _): &Self::FoldTree) -> MerkleCap<F, H> {
        self.first.fold_cap(first)
    }

    fn fold(&self, (first, second): Self::Codeword, arity_bits: usize, beta: K) -> Result<Self::Codeword, BackendError> {
        let folded = (self.first.fold(first, arity_bits, beta)?, self.second.fold(second, arity_bits, beta)?);
        self.left("fold", folded, |views| views.codeword, |views| views.codeword)
    }

    fn final_polynomial(&self, (first, second): &Self::Codeword, rate_bits: usize) -> Result<Vec<K>, BackendError> {
        let polynomial = self.first.final_polynomial(first, rate_bits)?;
        self.agree("final_polynomial", polynomial, self.second.final_polynomial(second, rate_bits)?)
    }

    fn grind(&self, challenger: &Challenger<F, H>, bits: u32) -> Result<u64, BackendError> {
        self.agree("grind", self.first.grind(challenger, bits)?, self.second.grind(challenger, bits)?)
    }

    fn query(&self, (first, second): &Self::Oracle, leaves: &[usize]) -> Result<Vec<QueryAnswer>, BackendError> {
        self.agree("query", self.first.query(first, leaves)?, self.second.query(second, leaves)?)
    }

    fn query_fold(&self, (first, second): &Self::FoldTree, leaves: &[usize]) -> Result<Vec<QueryAnswer>, BackendError> {
        self.agree("query_fold", self.first.query_fold(first, leaves)?, self.second.query_fold(second, leaves)?)
    }

    fn prove_circuit(&self, circuit: &Circuit, inputs: PartialWitness<F>) -> Result<CircuitProof, BackendError> {
        let first = self.first.prove_circuit(circuit, inputs.clone())?;
        let second = self.second.prove_circuit(circuit, inputs)?;
        if agree_up_to_nonce(&first, &second) { Ok(first) } else { Err(self.disagreement("prove_circuit")) }
    }

    /// Both proofs are random: only their public inputs can be compared.
    fn prove_blinded_circuit(&self, circuit: &Circuit, inputs: PartialWitness<F>) -> Result<CircuitProof, BackendError> {
        let first = self.first.prove_blinded_circuit(circuit, inputs.clone())?;
        let second = self.second.prove_blinded_circuit(circuit, inputs)?;
        self.agree("prove_blinded_circuit", &first.public_inputs, &second.public_inputs)?;
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::check_layer;
    use crate::cpu::{Codeword, Combination, CpuBackend, FoldTree, Oracle};
    use crate::faulty::{Fault, FaultSwitch, FaultyBackend, Spoilers};
    use plonky2::field::types::Field;
    use zkinfer_circuits::backend::reference::Reference;

    fn bump(value: &mut F) {
        *value += F::ONE;
    }

    /// Changes one value, of all that a step leaves.
    fn spoilers() -> Spoilers<CpuBackend> {
        Spoilers {
            oracle: |oracle| bump(&mut oracle.extension[7]),
            combination: |combination| bump(&mut combination.0[1][5]),
            codeword: |codeword| bump(&mut codeword.values[0][9]),
            fold_tree: |tree| bump(&mut tree.leaves[11]),
        }
    }

    /// The step that is blamed when a layer's rounds are computed with a wrong value in what `step` leaves.
    fn blamed(step: &'static str, spoilers: Spoilers<CpuBackend>) -> Option<&'static str> {
        let switch = FaultSwitch::default();
        switch.fail_at(step, Fault::Wrong);
        let checked = check_layer(FaultyBackend::with_spoilers(CpuBackend::new(), switch.clone(), spoilers));
        assert!(!switch.is_armed(), "the rounds have the step {step}");
        match checked.map_err(|error| error.source) {
            Ok(()) => None,
            Err(BackendError::Disagreement { step, .. }) => Some(step),
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn one_wrong_value_in_any_buffer_is_blamed_on_the_step_that_left_it() {
        for step in ["commit", "combine", "project", "sums", "batch", "fold_commit", "fold"] {
            assert_eq!(blamed(step, spoilers()), Some(step));
        }
    }

    #[test]
    fn one_wrong_value_in_every_part_of_a_buffer_is_seen() {
        let oracle = |spoil: fn(&mut Oracle)| Spoilers { oracle: spoil, ..spoilers() };
        assert_eq!(blamed("commit", oracle(|oracle| bump(&mut oracle.coefficients[3]))), Some("commit"));
        assert_eq!(blamed("sums", oracle(|oracle| oracle.tree.change_digest(|digest| bump(&mut digest.elements[2])))), Some("sums"));
        let combination = Spoilers { combination: |combination: &mut Combination| bump(&mut combination.0[0][0]), ..spoilers() };
        assert_eq!(blamed("combine", combination), Some("combine"));
        let codeword = |spoil: fn(&mut Codeword)| Spoilers { codeword: spoil, ..spoilers() };
        assert_eq!(blamed("batch", codeword(|codeword| bump(&mut codeword.coefficients[1][2]))), Some("batch"));
        assert_eq!(blamed("fold", codeword(|codeword| bump(&mut codeword.values[1][0]))), Some("fold"));
        let tree = |spoil: fn(&mut FoldTree)| Spoilers { fold_tree: spoil, ..spoilers() };
        assert_eq!(
            blamed("fold_commit", tree(|tree| tree.tree.change_digest(|digest| bump(&mut digest.elements[0])))),
            Some("fold_commit")
        );
    }

    #[test]
    fn what_the_host_does_not_see_is_missed_without_reading_buffers() {
        let switch = FaultSwitch::default();
        let faulty = FaultyBackend::with_spoilers(CpuBackend::new(), switch.clone(), spoilers());
        let dual = DualBackend::new(Reference, faulty);
        switch.fail_at("commit", Fault::Wrong);
        let shape = CommitShape { rate_bits: 1, cap_height: 0 };
        dual.commit(&Columns::zero(8, 5), shape).unwrap();
        assert!(!switch.is_armed());
    }
}
