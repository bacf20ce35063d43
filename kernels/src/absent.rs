//! The accelerator of a build that has none: a type without a value, so that [`crate::SelectedBackend`] is one type in every build.

use std::ops::Range;

use plonky2::hash::merkle_tree::MerkleCap;
use plonky2::iop::challenger::Challenger;
use plonky2::iop::witness::PartialWitness;
use zkinfer_circuits::air::ConstraintSystem;
use zkinfer_circuits::backend::{
    Backend, BackendError, Circuit, CircuitProof, CommitShape, OpeningBatch, OracleSizes, QueryAnswer, Scalars, SumsChallenges,
};
use zkinfer_circuits::columns::Columns;
use zkinfer_circuits::field::{F, H, K};

/// No accelerator.
#[derive(Clone, Copy, Debug)]
pub enum Absent {}

impl Backend for Absent {
    type Oracle = Self;
    type Combination = Self;
    type Codeword = Self;
    type FoldTree = Self;

    fn name(&self) -> String {
        match *self {}
    }

    fn commit(&self, _: &Columns, _: CommitShape) -> Result<Self, BackendError> {
        match *self {}
    }

    fn cap(&self, _: &Self) -> MerkleCap<F, H> {
        match *self {}
    }

    fn sizes(&self, _: &Self) -> OracleSizes {
        match *self {}
    }

    fn save(&self, _: &Self) -> Result<Vec<u8>, BackendError> {
        match *self {}
    }

    fn load(&self, _: &[u8]) -> Result<Self, BackendError> {
        match *self {}
    }

    fn evaluate(&self, _: &Self, _: Range<usize>, _: K) -> Result<Vec<K>, BackendError> {
        match *self {}
    }

    fn combine(&self, _: &Self, _: &[K]) -> Result<Self, BackendError> {
        match *self {}
    }

    fn project(&self, _: &ConstraintSystem, _: Scalars<'_>, _: [&Self; 2], _: CommitShape) -> Result<Self, BackendError> {
        match *self {}
    }

    fn sums(
        &self,
        _: &ConstraintSystem,
        _: Scalars<'_>,
        _: SumsChallenges,
        _: [&Self; 3],
        _: Option<&Self>,
        _: CommitShape,
    ) -> Result<Self, BackendError> {
        match *self {}
    }

    fn batch(&self, _: &[&Self], _: &[OpeningBatch], _: K) -> Result<Self, BackendError> {
        match *self {}
    }

    fn fold_commit(&self, _: &Self, _: usize, _: usize) -> Result<Self, BackendError> {
        match *self {}
    }

    fn fold_cap(&self, _: &Self) -> MerkleCap<F, H> {
        match *self {}
    }

    fn fold(&self, _: Self, _: usize, _: K) -> Result<Self, BackendError> {
        match *self {}
    }

    fn final_polynomial(&self, _: &Self, _: usize) -> Result<Vec<K>, BackendError> {
        match *self {}
    }

    fn grind(&self, _: &Challenger<F, H>, _: u32) -> Result<u64, BackendError> {
        match *self {}
    }

    fn query(&self, _: &Self, _: &[usize]) -> Result<Vec<QueryAnswer>, BackendError> {
        match *self {}
    }

    fn query_fold(&self, _: &Self, _: &[usize]) -> Result<Vec<QueryAnswer>, BackendError> {
        match *self {}
    }

    fn prove_circuit(&self, _: &Circuit, _: PartialWitness<F>) -> Result<CircuitProof, BackendError> {
        match *self {}
    }

    fn prove_blinded_circuit(&self, _: &Circuit, _: PartialWitness<F>) -> Result<CircuitProof, BackendError> {
        match *self {}
    }
}
