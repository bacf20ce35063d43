//! Lengths of all lists of a layer proof, against its shape: exact, so that no element is missing and none is there that nobody reads.
//!
//! Written once for a proof and for a circuit's targets. plonky2's native verifier of FRI checks the lists that it reads too, but does not
//! say which one is wrong; its in-circuit verifier, and the function that assigns a proof to targets, walk lists together and count on
//! equal lengths.

use plonky2::fri::FriParams;
use plonky2::fri::proof::FriProof;
#[cfg(feature = "prover")]
use plonky2::fri::proof::FriProofTarget;
#[cfg(feature = "prover")]
use plonky2::hash::hash_types::MerkleCapTarget;
#[cfg(feature = "prover")]
use plonky2::iop::ext_target::ExtensionTarget;

use super::proof::LayerProof;
use super::shape::LayerShape;
use super::verifier::{LayerVerifyError, check_length};
#[cfg(feature = "prover")]
use crate::field::D;

/// Lengths of the lists of a layer proof, in their order and with their nesting.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lengths {
    caps: [usize; 4],
    openings: [usize; 5],
    fold_caps: Vec<usize>,
    final_polynomial: usize,
    queries: Vec<QueryLengths>,
}

/// The same of one query.
#[derive(Debug, PartialEq, Eq)]
struct QueryLengths {
    /// Row and path of each oracle.
    oracles: Vec<[usize; 2]>,
    /// Values and path of each folding.
    foldings: Vec<[usize; 2]>,
}

impl Lengths {
    /// Lengths of a proof.
    pub(super) fn of_proof(proof: &LayerProof) -> Self {
        let FriProof { commit_phase_merkle_caps, query_round_proofs, final_poly, pow_witness: _ } = &proof.fri;
        let queries = query_round_proofs.iter().map(|query| QueryLengths {
            oracles: query.initial_trees_proof.evals_proofs.iter().map(|(row, path)| [row.len(), path.siblings.len()]).collect(),
            foldings: query.steps.iter().map(|step| [step.evals.len(), step.merkle_proof.siblings.len()]).collect(),
        });
        Self {
            caps: proof.caps.each_ref().map(|cap| cap.0.len()),
            openings: proof.openings.each_ref().map(Vec::len),
            fold_caps: commit_phase_merkle_caps.iter().map(|cap| cap.0.len()).collect(),
            final_polynomial: final_poly.coeffs.len(),
            queries: queries.collect(),
        }
    }

    /// Lengths of the targets of a proof.
    #[cfg(feature = "prover")]
    pub(super) fn of_targets(caps: &[MerkleCapTarget; 4], openings: &[Vec<ExtensionTarget<D>>; 5], fri: &FriProofTarget<D>) -> Self {
        let FriProofTarget { commit_phase_merkle_caps, query_round_proofs, final_poly, pow_witness: _ } = fri;
        let queries = query_round_proofs.iter().map(|query| QueryLengths {
            oracles: query.initial_trees_proof.evals_proofs.iter().map(|(row, path)| [row.len(), path.siblings.len()]).collect(),
            foldings: query.steps.iter().map(|step| [step.evals.len(), step.merkle_proof.siblings.len()]).collect(),
        });
        Self {
            caps: caps.each_ref().map(|cap| cap.0.len()),
            openings: openings.each_ref().map(Vec::len),
            fold_caps: commit_phase_merkle_caps.iter().map(|cap| cap.0.len()).collect(),
            final_polynomial: final_poly.len(),
            queries: queries.collect(),
        }
    }

    /// Checks every list.
    ///
    /// # Errors
    /// [`LayerVerifyError::Shape`] of the first list that is longer or shorter than the shape says.
    pub(super) fn check(&self, shape: &LayerShape) -> Result<(), LayerVerifyError> {
        let fri = &shape.fri;
        for &cap in self.caps.iter().chain(&self.fold_caps) {
            check_length("cap", cap, 1 << fri.config.cap_height)?;
        }
        check_length("fri caps", self.fold_caps.len(), fri.reduction_arity_bits.len())?;
        for (batch, expected) in self.openings.into_iter().zip(shape.batch_lengths()) {
            check_length("openings", batch, expected)?;
        }
        check_length("final polynomial", self.final_polynomial, fri.final_poly_len())?;
        check_length("queries", self.queries.len(), fri.config.num_query_rounds)?;
        let widths = shape.oracle_widths();
        self.queries.iter().try_for_each(|query| query.check(fri, widths))
    }
}

impl QueryLengths {
    fn check(&self, fri: &FriParams, widths: [usize; 4]) -> Result<(), LayerVerifyError> {
        // Siblings between a leaf and its cap.
        let mut height = fri.lde_bits() - fri.config.cap_height;
        check_length("oracles of a query", self.oracles.len(), widths.len())?;
        for (&[row, path], width) in self.oracles.iter().zip(widths) {
            check_length("row of an oracle", row, width)?;
            check_length("path of an oracle", path, height)?;
        }
        check_length("foldings of a query", self.foldings.len(), fri.reduction_arity_bits.len())?;
        for (&[values, path], &arity_bits) in self.foldings.iter().zip(&fri.reduction_arity_bits) {
            height -= arity_bits;
            check_length("values of a folding", values, 1 << arity_bits)?;
            check_length("path of a folding", path, height)?;
        }
        Ok(())
    }
}
