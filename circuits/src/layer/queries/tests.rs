//! The queries in circuit against plonky2's native verifier. Challenges are inputs here, not results of a transcript, so that a change of
//! one value meets the check of that value alone.

use std::panic::{AssertUnwindSafe, catch_unwind};

use plonky2::field::polynomial::PolynomialValues;
use plonky2::field::types::{Field, PrimeField64};
use plonky2::fri::oracle::PolynomialBatch;
use plonky2::fri::proof::{FriChallenges, FriProof};
use plonky2::fri::structure::{FriOpeningBatch, FriOpenings};
use plonky2::fri::verifier::verify_fri_proof;
use plonky2::fri::witness_util::set_fri_proof_target;
use plonky2::hash::merkle_tree::MerkleCap;
use plonky2::iop::challenger::Challenger;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use plonky2::plonk::circuit_data::CircuitConfig;
use plonky2::util::timing::TimingTree;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::air::ORACLES;
use crate::field::{C, K, ext};
use crate::kind::{LayerKind, Operator, Role};
use crate::layer::shape::fri_config;
use crate::recursion::node::Circuit;
use crate::recursion::serialize::{Gates, Generators};

mod attacks;
mod lists;

/// Openings of random columns, with everything that a verifier of FRI reads.
#[derive(Clone)]
struct Sample {
    points: [K; 5],
    openings: [Vec<K>; 5],
    caps: [MerkleCap<F, H>; 4],
    proof: FriProof<F, H, D>,
    alpha: K,
    betas: Vec<K>,
    pow_response: F,
    /// The challenges that the indices are the low bits of.
    indices: Vec<F>,
}

fn random_f(rng: &mut StdRng) -> F {
    F::from_noncanonical_u64(rng.r#gen())
}

fn random_k(rng: &mut StdRng) -> K {
    ext(random_f(rng), random_f(rng))
}

impl Sample {
    fn honest(shape: &LayerShape, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let config = &shape.fri.config;
        let oracles = shape.oracle_widths().map(|width| {
            let column = |_| PolynomialValues::new((0..shape.kind.rows()).map(|_| random_f(&mut rng)).collect());
            let columns = (0..width).map(column).collect();
            PolynomialBatch::<F, C, D>::from_values(columns, config.rate_bits, false, config.cap_height, &mut TimingTree::default(), None)
        });
        let points = [(); 5].map(|()| random_k(&mut rng));
        let open = |cells: Vec<crate::air::Cell>, point: K| -> Vec<K> {
            cells.iter().map(|cell| oracles[cell.oracle as usize].polynomials[cell.column].to_extension::<D>().eval(point)).collect()
        };
        let mut number = 0;
        let openings = shape.batches().map(|cells| {
            number += 1;
            open(cells, points[number - 1])
        });
        let instance = shape.instance(points);
        let mut challenger = Challenger::<F, H>::new();
        let references = ORACLES.map(|oracle| &oracles[oracle as usize]);
        let timing = &mut TimingTree::default();
        let proof = PolynomialBatch::prove_openings(&instance, &references, &mut challenger, &shape.fri, None, None, timing);
        let mut sample = Self {
            points,
            openings,
            caps: [0, 1, 2, 3].map(|oracle| oracles[oracle].merkle_tree.cap.clone()),
            proof,
            alpha: K::ZERO,
            betas: Vec::new(),
            pow_response: F::ZERO,
            indices: Vec::new(),
        };
        sample.draw(shape);
        sample
    }

    /// The challenges of the proof; high bits of the indices are set at will, the top one in the first query.
    fn draw(&mut self, shape: &LayerShape) {
        let challenges = Challenger::<F, H>::new().fri_challenges::<C, D>(
            &self.proof.commit_phase_merkle_caps,
            &self.proof.final_poly,
            self.proof.pow_witness,
            shape.log_rows(),
            &shape.fri.config,
            None,
            None,
        );
        (self.alpha, self.betas, self.pow_response) = (challenges.fri_alpha, challenges.fri_betas, challenges.fri_pow_response);
        let high = [1u64 << 63 | 1 << 40, 1 << 50, 0];
        let indices = challenges.fri_query_indices.iter().zip(high.iter().cycle());
        self.indices = indices.map(|(&index, high)| F::from_canonical_u64(index as u64 | high)).collect();
    }

    fn is_accepted_natively(&self, shape: &LayerShape) -> bool {
        let mask = (1 << shape.fri.lde_bits()) - 1;
        let challenges = FriChallenges {
            fri_alpha: self.alpha,
            fri_betas: self.betas.clone(),
            fri_pow_response: self.pow_response,
            fri_query_indices: self.indices.iter().map(|index| index.to_canonical_u64() as usize & mask).collect(),
        };
        let batches = self.openings.iter().filter(|batch| !batch.is_empty());
        let openings = FriOpenings { batches: batches.map(|values| FriOpeningBatch { values: values.clone() }).collect() };
        verify_fri_proof::<F, C, D>(&shape.instance(self.points), &openings, &challenges, &self.caps, &self.proof, &shape.fri).is_ok()
    }
}

/// Targets of everything that the queries are checked against.
struct QueryTargets {
    points: [Ext; 5],
    openings: [Vec<Ext>; 5],
    caps: [MerkleCapTarget; 4],
    proof: FriProofTarget<D>,
    challenges: FriChallengesTarget<D>,
}

impl QueryTargets {
    fn new(builder: &mut Builder, shape: &LayerShape) -> Self {
        let points = [(); 5].map(|()| builder.add_virtual_extension_target());
        let openings = shape.batch_lengths().map(|length| builder.add_virtual_extension_targets(length));
        let caps = [(); 4].map(|()| builder.add_virtual_cap(shape.fri.config.cap_height));
        let proof = builder.add_virtual_fri_proof(&shape.oracle_widths(), &shape.fri);
        let challenges = FriChallengesTarget {
            fri_alpha: builder.add_virtual_extension_target(),
            fri_betas: builder.add_virtual_extension_targets(shape.fri.reduction_arity_bits.len()),
            fri_pow_response: builder.add_virtual_target(),
            fri_query_indices: builder.add_virtual_targets(shape.fri.config.num_query_rounds),
        };
        Self { points, openings, caps, proof, challenges }
    }

    fn queries<'a>(&'a self, shape: &'a LayerShape) -> Queries<'a> {
        let Self { points, openings, caps, proof, challenges } = self;
        Queries { shape, points: *points, openings, caps, proof, challenges }
    }
}

/// A circuit of the queries alone, as it comes out of a store.
struct QueriesCircuit {
    circuit: Circuit,
    targets: QueryTargets,
}

impl QueriesCircuit {
    fn new(shape: &LayerShape) -> Self {
        let mut builder = Builder::new(CircuitConfig::standard_recursion_config());
        let targets = QueryTargets::new(&mut builder, shape);
        targets.queries(shape).verify(&mut builder).expect("the targets are of the shape");
        let bytes = builder.build::<C>().to_bytes(&Gates, &Generators).expect("every generator is written");
        let circuit = Circuit::from_bytes(&bytes, &Gates, &Generators).expect("what was written is read");
        Self { circuit, targets }
    }

    fn witness(&self, sample: &Sample) -> anyhow::Result<PartialWitness<F>> {
        let mut witness = PartialWitness::new();
        let QueryTargets { points, openings, caps, proof, challenges } = &self.targets;
        witness.set_extension_targets(points, &sample.points)?;
        for (targets, values) in openings.iter().zip(&sample.openings) {
            witness.set_extension_targets(targets, values)?;
        }
        for (target, cap) in caps.iter().zip(&sample.caps) {
            witness.set_cap_target(target, cap)?;
        }
        set_fri_proof_target(&mut witness, proof, &sample.proof)?;
        witness.set_extension_target(challenges.fri_alpha, sample.alpha)?;
        witness.set_extension_targets(&challenges.fri_betas, &sample.betas)?;
        witness.set_target(challenges.fri_pow_response, sample.pow_response)?;
        for (&target, &index) in challenges.fri_query_indices.iter().zip(&sample.indices) {
            witness.set_target(target, index)?;
        }
        Ok(witness)
    }

    fn accepts(&self, sample: &Sample) -> bool {
        let witness = self.witness(sample).expect("a sample has the circuit's shape");
        is_satisfied(&self.circuit, witness)
    }
}

/// Whether a proof comes out and verifies; plonky2's prover panics on some witnesses that satisfy nothing.
fn is_satisfied(circuit: &Circuit, witness: PartialWitness<F>) -> bool {
    let proved = catch_unwind(AssertUnwindSafe(|| circuit.prove(witness)));
    proved.is_ok_and(|proof| proof.and_then(|proof| circuit.verify(proof)).is_ok())
}

type Change = (String, Box<dyn Fn(&mut Sample)>);

fn change(name: impl Into<String>, change: impl Fn(&mut Sample) + 'static) -> Change {
    (name.into(), Box::new(change))
}

/// Changes of each challenge and of what each query reads.
fn challenge_changes(shape: &LayerShape) -> Vec<Change> {
    let mut changes =
        vec![change("α", |sample| sample.alpha += K::ONE), change("the proof of work", |sample| sample.pow_response = F::NEG_ONE)];
    for number in 0..shape.fri.reduction_arity_bits.len() {
        changes.push(change(format!("β of folding {number}"), move |sample| sample.betas[number] += K::ONE));
    }
    // A bit below each folding (the last of these is one of the path, if there are less than three), and one of the cap.
    for bit in [0, 5, shape.fri.lde_bits() - 6, shape.fri.lde_bits() - 1] {
        changes.push(change(format!("bit {bit} of an index"), move |sample| {
            let index = sample.indices[1].to_canonical_u64() ^ 1 << bit;
            sample.indices[1] = F::from_canonical_u64(index);
        }));
    }
    changes
}

/// Changes of points and opened values.
fn opening_changes(shape: &LayerShape) -> Vec<Change> {
    let mut changes = Vec::new();
    for (batch, length) in shape.batch_lengths().into_iter().enumerate().filter(|&(_, length)| length > 0) {
        changes.push(change(format!("point {batch}"), move |sample| sample.points[batch] += K::ONE));
        changes.push(change(format!("first opening of batch {batch}"), move |sample| sample.openings[batch][0] += K::ONE));
        changes.push(change(format!("last opening of batch {batch}"), move |sample| sample.openings[batch][length - 1] += K::ONE));
    }
    changes
}

/// Changes of FRI's proof and of the caps.
fn proof_changes(shape: &LayerShape) -> Vec<Change> {
    let bump_cap = |cap: &mut MerkleCap<F, H>| cap.0.iter_mut().for_each(|digest| digest.elements[2] += F::ONE);
    let mut changes = vec![change("the final polynomial", |sample| sample.proof.final_poly.coeffs[1] += K::ONE)];
    for oracle in 0..4 {
        changes.push(change(format!("cap {oracle}"), move |sample| bump_cap(&mut sample.caps[oracle])));
        changes.push(change(format!("a column of oracle {oracle}"), move |sample| {
            let (columns, _) = &mut sample.proof.query_round_proofs[0].initial_trees_proof.evals_proofs[oracle];
            *columns.last_mut().expect("columns") += F::ONE;
        }));
        changes.push(change(format!("a sibling in oracle {oracle}"), move |sample| {
            let (_, path) = &mut sample.proof.query_round_proofs[1].initial_trees_proof.evals_proofs[oracle];
            path.siblings[1].elements[3] += F::ONE;
        }));
    }
    for step in 0..shape.fri.reduction_arity_bits.len() {
        changes.push(change(format!("cap of folding {step}"), move |sample| bump_cap(&mut sample.proof.commit_phase_merkle_caps[step])));
        changes.push(change(format!("a value of folding {step}"), move |sample| {
            sample.proof.query_round_proofs[0].steps[step].evals[7] += K::ONE;
        }));
        changes.push(change(format!("a sibling in folding {step}"), move |sample| {
            sample.proof.query_round_proofs[1].steps[step].merkle_proof.siblings[0].elements[0] += F::ONE;
        }));
    }
    changes
}

fn check(shape: &LayerShape, seed: u64) {
    let circuit = QueriesCircuit::new(shape);
    let honest = Sample::honest(shape, seed);
    assert!(honest.is_accepted_natively(shape) && circuit.accepts(&honest), "an honest proof of {}", shape.system.name);
    for (name, change) in [challenge_changes(shape), opening_changes(shape), proof_changes(shape)].into_iter().flatten() {
        let mut changed = honest.clone();
        change(&mut changed);
        assert!(!changed.is_accepted_natively(shape), "natively: {name} of {}", shape.system.name);
        assert!(!circuit.accepts(&changed), "in circuit: {name} of {}", shape.system.name);
    }
}

/// Two foldings, five batches, 45 columns of weights: a full row of the reducing gate and two terms more.
fn dense_shape() -> LayerShape {
    let kind = LayerKind { operator: Operator::Dense, log_rows: 10, n_columns: 42 };
    let shape = LayerShape::new(kind, Role::Inference, &fri_config(3, 2, 3));
    assert_eq!(shape.fri.reduction_arity_bits, [4, 4]);
    shape
}

/// One folding, an empty batch, few columns.
fn add_shape() -> LayerShape {
    let kind = LayerKind { operator: Operator::Add, log_rows: 8, n_columns: 0 };
    let shape = LayerShape::new(kind, Role::Inference, &fri_config(1, 2, 3));
    assert!(shape.batch_lengths()[2] == 0 && shape.fri.reduction_arity_bits == [4]);
    shape
}

/// Three foldings, as many as the largest layers have; the tree of the last has one level below its cap.
fn deep_shape() -> LayerShape {
    let kind = LayerKind { operator: Operator::Add, log_rows: 14, n_columns: 0 };
    let shape = LayerShape::new(kind, Role::Inference, &fri_config(3, 2, 3));
    assert_eq!((shape.fri.reduction_arity_bits.as_slice(), shape.fri.lde_bits()), ([4, 4, 4].as_slice(), 17));
    shape
}

#[test]
fn queries_of_a_dense_layer_are_those_of_the_native_verifier() {
    check(&dense_shape(), 71);
}

#[test]
fn queries_of_an_add_layer_are_those_of_the_native_verifier() {
    check(&add_shape(), 72);
}

#[test]
fn queries_with_three_foldings_are_those_of_the_native_verifier() {
    check(&deep_shape(), 73);
}

/// Whether `challenge` may be taken apart with this top bit.
fn may_have_top_bit(challenge: u64, top: u64) -> bool {
    let mut builder = Builder::new(CircuitConfig::standard_recursion_config());
    let (element, bit) = (builder.add_virtual_target(), builder.add_virtual_bool_target_safe());
    let bits = index::low_bits(&mut builder, element, bit, 13);
    let low = builder.le_sum(bits.iter());
    let expected = builder.constant(F::from_canonical_u64(challenge & ((1 << 13) - 1)));
    builder.connect(low, expected);
    let mut witness = PartialWitness::new();
    witness.set_target(element, F::from_canonical_u64(challenge)).expect("unset");
    witness.set_target(bit.target, F::from_canonical_u64(top)).expect("unset");
    is_satisfied(&builder.build::<C>(), witness)
}

#[test]
fn a_challenge_has_one_top_bit() {
    for (challenge, top) in [(1 << 40, 0), ((1 << 63) - 1, 0), (1 << 63, 1), (crate::field::ORDER - 1, 1)] {
        for other in 0..=2 {
            assert_eq!(may_have_top_bit(challenge, other), other == top, "{challenge} with {other}");
        }
    }
}
