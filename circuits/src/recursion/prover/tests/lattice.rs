//! PITFALLS 4: an output that is not hashed before (γ', δ) can be swapped by a lattice vector. The vector is a golden file; the attack
//! works on a ledger whose challenges ignore the output, and is refused where they do not.

use plonky2::field::types::Field;

use crate::backend::reference::Reference;
use crate::field::{Digest, F, K, ext, lift};
use crate::recursion::digest::{GlobalChallenges, GlobalInputs, payload};
use crate::recursion::prover::tests::fixture::digest;
use crate::recursion::prover::tests::real::{Claim, N_OUTPUTS, elements, real_prover, sample_claim, sample_steps};
use crate::recursion::prover::tests::refuse::assert_contradiction;

/// Made by the script beside it, with the command in its second line.
static GOLDEN: &str = include_str!("../../../../tests/golden/output_lattice.txt");

fn numbers<T: std::str::FromStr>(name: &str) -> Vec<T> {
    let line = GOLDEN.lines().find_map(|line| line.strip_prefix(name)).expect("a line of that name");
    line.split_whitespace().map(|word| word.parse().ok().expect("a number")).collect()
}

/// The challenges of a protocol that does not hash the output. The other commitments are constants here, so that the golden vector
/// outlives changes of the circuits.
fn challenges_without_the_output() -> GlobalChallenges {
    let [parameters_id, model, program, input, main_chain] = [1, 2, 3, 4, 5].map(digest);
    GlobalInputs { parameters_id, model, program, input, output: Digest::ZERO, n_layers: 2, main_chain }.challenges()
}

/// Σ γ'^i d_i.
fn weigh(difference: &[i64], gamma_prime: K) -> K {
    elements(difference).into_iter().zip(gamma_prime.powers()).map(|(d, power)| power * lift(d)).sum()
}

fn difference() -> Vec<i64> {
    numbers("difference")
}

/// The true claim with its output swapped.
fn forged() -> Claim<'static> {
    let mut claim = sample_claim();
    let swapped: Vec<i64> = sample_steps()[1].output.iter().zip(difference()).map(|(v, d)| v + d).collect();
    // An output that the program could have: the verifier's own check of the range does not see it.
    assert!(swapped.iter().all(|value| (-127..=127).contains(value)), "{swapped:?}");
    claim.boundary.output = elements(&swapped);
    claim
}

#[test]
fn golden_difference_weighs_nothing_under_its_challenge() {
    let golden = numbers::<u64>("gamma_prime");
    let gamma_prime = challenges_without_the_output().gamma_prime;
    assert_eq!(gamma_prime, ext(F::from_canonical_u64(golden[0]), F::from_canonical_u64(golden[1])), "run the script for {gamma_prime:?}");
    let difference = difference();
    assert_eq!(difference.len(), N_OUTPUTS);
    assert!(difference.iter().any(|&d| d != 0));
    assert_eq!(weigh(&difference, gamma_prime), K::ZERO);
    assert_ne!(weigh(&difference, gamma_prime + K::ONE), K::ZERO);
}

#[test]
fn output_swapped_by_a_lattice_vector_is_refused() {
    let (honest, forged) = (sample_claim(), forged());
    let known = challenges_without_the_output();
    // The attack is real: true layer proofs, a false output, and the ledger balances.
    let root = forged.leaf_or_root(known);
    let public = root.public().expect("a node");
    assert_eq!(public.balance, [F::ZERO; 2]);
    let GlobalInputs { input, output, .. } = forged.global();
    assert_eq!(public.payload, payload(forged.boundary.shape.digest(), input, output).elements, "the node is about the false output");
    // The outer hashes the output before (γ', δ), so that these challenges are not the claim's: for neither output.
    for statement in [forged.witness(), honest.witness()] {
        assert_contradiction("outer", real_prover().prove_outer(&Reference, &root, &statement));
    }
}

/// Under the challenges that follow from the swapped output itself the ledger does not balance.
#[test]
fn swapped_output_does_not_balance_under_its_own_challenges() {
    let (honest, forged) = (sample_claim(), forged());
    let (own, honest_challenges) = (forged.global().challenges(), honest.global().challenges());
    assert_ne!(own.gamma_prime, honest_challenges.gamma_prime);
    assert_ne!(own.delta, honest_challenges.delta);
    assert_ne!(weigh(&difference(), own.gamma_prime), K::ZERO);
    let root = forged.leaf_or_root(own);
    assert_ne!(root.public().expect("a node").balance, [F::ZERO; 2]);
    assert_contradiction("outer", real_prover().prove_outer(&Reference, &root, &forged.witness()));
}
