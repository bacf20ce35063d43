//! Every list of a proof with an element more and with one less: always the same error, natively and in circuit.

use plonky2::hash::hash_types::{HashOut, HashOutTarget};

use super::*;
use crate::field::Digest;
use crate::layer::circuit::{LayerTargets, set_layer, verify_layer};
use crate::layer::{LayerClaim, LayerProof, theta, verify};

/// Changes the length of one list of those that it is shown.
struct Resize {
    /// Number of the list to change.
    number: usize,
    longer: bool,
    /// Lists that were shown.
    shown: usize,
    /// The error that the changed list must give.
    expected: Option<LayerVerifyError>,
}

impl Resize {
    fn new(number: usize, longer: bool) -> Self {
        Self { number, longer, shown: 0, expected: None }
    }

    fn list<T>(&mut self, part: &'static str, list: &mut Vec<T>, element: T) {
        let expected = list.len();
        // An empty list can't be shorter.
        if self.shown == self.number && (self.longer || expected > 0) {
            if self.longer {
                list.push(element);
            } else {
                list.pop();
            }
            self.expected = Some(LayerVerifyError::Shape { part, got: list.len(), expected });
        }
        self.shown += 1;
    }

    fn proof(&mut self, proof: &mut LayerProof) {
        proof.caps.iter_mut().for_each(|cap| self.list("cap", &mut cap.0, HashOut::ZERO));
        proof.openings.iter_mut().for_each(|batch| self.list("openings", batch, K::ZERO));
        let fri = &mut proof.fri;
        self.list("final polynomial", &mut fri.final_poly.coeffs, K::ZERO);
        fri.commit_phase_merkle_caps.iter_mut().for_each(|cap| self.list("cap", &mut cap.0, HashOut::ZERO));
        for query in &mut fri.query_round_proofs {
            let trees = &mut query.initial_trees_proof.evals_proofs;
            for (row, path) in trees.iter_mut() {
                self.list("row of an oracle", row, F::ZERO);
                self.list("path of an oracle", &mut path.siblings, HashOut::ZERO);
            }
            for step in &mut query.steps {
                self.list("values of a folding", &mut step.evals, K::ZERO);
                self.list("path of a folding", &mut step.merkle_proof.siblings, HashOut::ZERO);
            }
            let (tree, step) = (trees[0].clone(), query.steps[0].clone());
            self.list("oracles of a query", trees, tree);
            self.list("foldings of a query", &mut query.steps, step);
        }
        let (cap, query) = (fri.commit_phase_merkle_caps[0].clone(), fri.query_round_proofs[0].clone());
        self.list("fri caps", &mut fri.commit_phase_merkle_caps, cap);
        self.list("queries", &mut fri.query_round_proofs, query);
    }

    fn targets(&mut self, targets: &mut QueryTargets) {
        let target = Target::VirtualTarget { index: 0 };
        let (value, digest) = (ExtensionTarget([target; D]), HashOutTarget { elements: [target; 4] });
        targets.caps.iter_mut().for_each(|cap| self.list("cap", &mut cap.0, digest));
        targets.openings.iter_mut().for_each(|batch| self.list("openings", batch, value));
        let fri = &mut targets.proof;
        self.list("final polynomial", &mut fri.final_poly.0, value);
        fri.commit_phase_merkle_caps.iter_mut().for_each(|cap| self.list("cap", &mut cap.0, digest));
        for query in &mut fri.query_round_proofs {
            let trees = &mut query.initial_trees_proof.evals_proofs;
            for (row, path) in trees.iter_mut() {
                self.list("row of an oracle", row, target);
                self.list("path of an oracle", &mut path.siblings, digest);
            }
            for step in &mut query.steps {
                self.list("values of a folding", &mut step.evals, value);
                self.list("path of a folding", &mut step.merkle_proof.siblings, digest);
            }
            let (tree, step) = (trees[0].clone(), query.steps[0].clone());
            self.list("oracles of a query", trees, tree);
            self.list("foldings of a query", &mut query.steps, step);
        }
        let (cap, query) = (fri.commit_phase_merkle_caps[0].clone(), fri.query_round_proofs[0].clone());
        self.list("fri caps", &mut fri.commit_phase_merkle_caps, cap);
        self.list("queries", &mut fri.query_round_proofs, query);
        self.list("challenges of foldings", &mut targets.challenges.fri_betas, value);
        self.list("indices of queries", &mut targets.challenges.fri_query_indices, target);
    }
}

/// Calls `check` with each list of `whole()` changed in each way, and the error that this must give; returns the number of lists.
fn for_each_change<T>(whole: impl Fn() -> T, walk: impl Fn(&mut Resize, &mut T), check: impl Fn(T, LayerVerifyError)) -> usize {
    let mut count = Resize::new(usize::MAX, true);
    walk(&mut count, &mut whole());
    for number in 0..count.shown {
        for longer in [false, true] {
            let (mut resize, mut changed) = (Resize::new(number, longer), whole());
            walk(&mut resize, &mut changed);
            if let Some(expected) = resize.expected {
                check(changed, expected);
            }
        }
    }
    count.shown
}

/// Lists of a proof of this shape.
fn n_lists(shape: &LayerShape) -> usize {
    let (queries, foldings) = (shape.fri.config.num_query_rounds, shape.fri.reduction_arity_bits.len());
    4 + 5 + 1 + foldings + queries * (2 * 4 + 2 * foldings + 2) + 2
}

/// An honest opening in a proof of nothing, with a claim of the right shape.
fn sample_proof(shape: &LayerShape) -> (LayerClaim, LayerProof) {
    let sample = Sample::honest(shape, 91);
    let nothing = Digest::ZERO;
    let claim = LayerClaim {
        theta: vec![F::ZERO; theta::LENGTH],
        index: 0,
        link_weights: nothing,
        link_main: nothing,
        gamma_prime: K::ZERO,
        delta: K::ZERO,
        balance: K::ZERO,
    };
    (claim, LayerProof { caps: sample.caps, balance: K::ZERO, openings: sample.openings, fri: sample.proof })
}

fn layer_targets(shape: &LayerShape) -> LayerTargets {
    verify_layer(&mut Builder::new(CircuitConfig::standard_recursion_config()), shape)
}

fn assign(targets: &LayerTargets, claim: &LayerClaim, proof: &LayerProof) -> anyhow::Result<()> {
    set_layer(&mut PartialWitness::new(), targets, &claim.theta, proof)
}

#[test]
fn a_list_of_another_length_is_refused_natively_and_where_it_is_assigned() {
    for shape in [add_shape(), dense_shape(), deep_shape()] {
        let ((claim, proof), targets) = (sample_proof(&shape), layer_targets(&shape));
        // Of the right shape, if about nothing.
        assert_eq!(verify(&shape, &claim, &proof), Err(LayerVerifyError::Link { oracle: crate::air::OracleId::Weights }));
        assign(&targets, &claim, &proof).expect("the right shape");
        let check = |changed: LayerProof, expected: LayerVerifyError| {
            assert!(assign(&targets, &claim, &changed).is_err(), "{expected}");
            assert_eq!(verify(&shape, &claim, &changed), Err(expected));
        };
        assert_eq!(for_each_change(|| proof.clone(), Resize::proof, check), n_lists(&shape));
        for length in [theta::LENGTH - 1, theta::LENGTH + 1] {
            let other = LayerClaim { theta: vec![F::ZERO; length], ..claim.clone() };
            let expected = LayerVerifyError::Shape { part: "theta", got: length, expected: theta::LENGTH };
            assert_eq!(verify(&shape, &other, &proof), Err(expected));
            assert!(assign(&targets, &other, &proof).is_err());
        }
    }
}

/// A folding among the oracles: the lengths of all lists, one after another, are the same.
#[test]
fn a_folding_in_the_place_of_an_oracle_is_refused() {
    let shape = dense_shape();
    let ((claim, mut proof), targets) = (sample_proof(&shape), layer_targets(&shape));
    let query = &mut proof.fri.query_round_proofs[0];
    let step = query.steps.remove(0);
    query.initial_trees_proof.evals_proofs.push((vec![F::ZERO; step.evals.len()], step.merkle_proof));
    assert!(assign(&targets, &claim, &proof).is_err());
    let expected = LayerVerifyError::Shape { part: "oracles of a query", got: 5, expected: 4 };
    assert_eq!(verify(&shape, &claim, &proof), Err(expected));
}

#[test]
fn a_list_of_another_length_is_refused_in_circuit() {
    for shape in [add_shape(), dense_shape(), deep_shape()] {
        let targets = || QueryTargets::new(&mut Builder::new(CircuitConfig::standard_recursion_config()), &shape);
        assert_eq!(targets().queries(&shape).check_shape(), Ok(()));
        let check = |changed: QueryTargets, expected: LayerVerifyError| {
            let mut builder = Builder::new(CircuitConfig::standard_recursion_config());
            assert_eq!(changed.queries(&shape).verify(&mut builder), Err(expected));
            assert_eq!(builder.num_gates(), 0, "nothing is added");
        };
        assert_eq!(for_each_change(targets, Resize::targets, check), n_lists(&shape) + 2);
    }
}
