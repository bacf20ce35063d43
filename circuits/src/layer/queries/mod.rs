//! FRI's queries in circuit: the checks of plonky2's verifier, cheaper for the openings of a layer.
//!
//! A layer opens weights and main twice, at ζ and at their own z*. plonky2's circuit combines the columns of every batch anew; here the
//! combination of an oracle is computed once and enters both batches (`combine.rs`). Every value is the one that plonky2's native verifier
//! computes, and the tests compare the two; proofs, transcript and soundness are untouched.

mod combine;
mod fold;
mod index;
mod reduce;
#[cfg(test)]
mod tests;

use plonky2::field::types::Field;
use plonky2::fri::proof::{FriChallengesTarget, FriInitialTreeProofTarget, FriProofTarget, FriQueryRoundTarget};
use plonky2::hash::hash_types::MerkleCapTarget;
use plonky2::iop::ext_target::ExtensionTarget;
use plonky2::iop::target::{BoolTarget, Target};

use super::lengths::Lengths;
use super::shape::LayerShape;
use super::verifier::{LayerVerifyError, check_length};
use crate::field::{Builder, D, F, H};
use crate::rows::part;
use combine::Combination;

pub(crate) use fold::interpolation_gate;
pub(crate) use index::TopBitGenerator;

type Ext = ExtensionTarget<D>;

/// Everything that the queries of one layer proof are checked against.
pub(super) struct Queries<'a> {
    /// The layer's shape.
    pub(super) shape: &'a LayerShape,
    /// Points of the five batches; that of an empty batch is not used.
    pub(super) points: [Ext; 5],
    /// Opened values of the five batches.
    pub(super) openings: &'a [Vec<Ext>; 5],
    /// Caps of the four oracles.
    pub(super) caps: &'a [MerkleCapTarget; 4],
    /// FRI's proof.
    pub(super) proof: &'a FriProofTarget<D>,
    /// FRI's challenges.
    pub(super) challenges: &'a FriChallengesTarget<D>,
}

impl Queries<'_> {
    /// Adds the check of the proof of work and of every query.
    ///
    /// # Errors
    /// A list of another length than the shape says, before anything is added: an error of the programmer.
    pub(super) fn verify(&self, builder: &mut Builder) -> Result<(), LayerVerifyError> {
        self.check_shape()?;
        let pow_bits = self.shape.fri.config.proof_of_work_bits as usize;
        part(builder, "proof of work", |builder| builder.range_check(self.challenges.fri_pow_response, 64 - pow_bits));
        let combination = part(builder, "opened values", |builder| {
            Combination::new(builder, self.shape, self.challenges.fri_alpha, &self.points, self.openings)
        });
        for (&index, round) in self.challenges.fri_query_indices.iter().zip(&self.proof.query_round_proofs) {
            self.verify_query(builder, &combination, index, round);
        }
        Ok(())
    }

    /// Every list has the length that the shape says: what lists are walked together would be left unchecked from the end of the shorter on.
    fn check_shape(&self) -> Result<(), LayerVerifyError> {
        let fri = &self.shape.fri;
        Lengths::of_targets(self.caps, self.openings, self.proof).check(self.shape)?;
        check_length("challenges of foldings", self.challenges.fri_betas.len(), fri.reduction_arity_bits.len())?;
        check_length("indices of queries", self.challenges.fri_query_indices.len(), fri.config.num_query_rounds)
    }

    /// One query: paths of the oracles, the combination of their columns, its foldings down to the final polynomial.
    fn verify_query(&self, builder: &mut Builder, combination: &Combination, index: Target, round: &FriQueryRoundTarget<D>) {
        let fri = &self.shape.fri;
        let first_arity = fri.reduction_arity_bits.first().copied().unwrap_or(0);
        let mut bits = part(builder, "query index", |builder| index::index_bits(builder, index, fri.lde_bits()));
        self.verify_paths(builder, &bits, &round.initial_trees_proof);
        let (mut coset_start, mut x) = part(builder, "query point", |builder| query_point(builder, &bits, first_arity));
        let columns = &round.initial_trees_proof.evals_proofs;
        let mut value = part(builder, "combination of columns", |builder| {
            combination.evaluate(builder, [0, 1, 2, 3].map(|oracle| columns[oracle].0.as_slice()), x)
        });
        for (number, (step, &arity_bits)) in round.steps.iter().zip(&fri.reduction_arity_bits).enumerate() {
            if number > 0 {
                coset_start = part(builder, "query point", |builder| fold::coset_start(builder, x, &bits[..arity_bits]));
            }
            let beta = self.challenges.fri_betas[number];
            value = part(builder, "foldings", |builder| fold::fold(builder, &bits[..arity_bits], &step.evals, value, coset_start, beta));
            bits.drain(..arity_bits);
            let leaf = step.evals.iter().flat_map(|value| value.0).collect();
            let cap = &self.proof.commit_phase_merkle_caps[number];
            part(builder, "paths of foldings", |builder| builder.verify_merkle_proof_to_cap::<H>(leaf, &bits, cap, &step.merkle_proof));
            // The start of a coset is a root of unity times x: the same power.
            x = part(builder, "query point", |builder| builder.exp_power_of_2(coset_start, arity_bits));
        }
        let last = part(builder, "final polynomial", |builder| self.proof.final_poly.eval_scalar(builder, x));
        builder.connect_extension(last, value);
    }

    fn verify_paths(&self, builder: &mut Builder, bits: &[BoolTarget], trees: &FriInitialTreeProofTarget) {
        let names = ["paths of weights", "paths of main", "paths of projected", "paths of sums"];
        for (((columns, path), cap), name) in trees.evals_proofs.iter().zip(self.caps).zip(names) {
            part(builder, name, |builder| builder.verify_merkle_proof_to_cap::<H>(columns.clone(), bits, cap, path));
        }
    }
}

/// The point of an index, and the start of its coset in the first folding: x with the index's low `arity_bits` bits cleared.
fn query_point(builder: &mut Builder, bits: &[BoolTarget], arity_bits: usize) -> (Target, Target) {
    let shift = builder.constant(F::coset_shift());
    let coset_start = index::walk(builder, shift, F::primitive_root_of_unity(bits.len()), &bits[arity_bits..]);
    let x = index::walk(builder, coset_start, F::primitive_root_of_unity(arity_bits), &bits[..arity_bits]);
    (coset_start, x)
}
