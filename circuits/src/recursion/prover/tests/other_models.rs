//! Another model's layers, weights or wrap below the outer: the layer proofs are true, the nodes are satisfied, the ledger balances;
//! the outer refuses the honest statement, and what can be proved under other challenges is another statement.

use plonky2::field::types::Field;

use crate::backend::reference::Reference;
use crate::field::F;
use crate::layer::{LayerSpec, OutputRule};
use crate::ops::dense::trace::DenseConstants;
use crate::recursion::digest::GlobalChallenges;
use crate::recursion::prover::tests::real::{
    Claim, Layer, REGISTRATION, Step, WIDE_KIND, centered, real_prover, sample_boundary, sample_claim, sample_constants, sample_input,
    sample_layers, sample_spec, sample_steps,
};
use crate::recursion::prover::tests::refuse::assert_contradiction;
use crate::recursion::prover::{LeafJob, NodeProof};
use crate::recursion::verify::{VerifyError, verify_outer};

/// The ledger of a node.
fn balance(node: &NodeProof) -> [F; 2] {
    node.public().expect("a node").balance
}

/// Under the challenges of `stated`, the forged layers balance, and the outer refuses them for any of the two statements.
fn assert_refused_under_stated_challenges(what: &str, forged: &Claim<'_>, stated: &Claim<'_>) {
    let root = forged.leaf_or_root(stated.global().challenges());
    assert_eq!(balance(&root), [F::ZERO; 2], "{what}: the ledger balances");
    for statement in [stated.witness(), forged.witness()] {
        assert_contradiction("outer", real_prover().prove_outer(&Reference, &root, &statement));
    }
}

/// Under its own challenges the forged claim has a proof: of its own statement, not of `stated`.
fn assert_proves_another_statement(what: &str, forged: &Claim<'_>, stated: &Claim<'_>) {
    let root = forged.leaf_or_root(forged.global().challenges());
    let proof = real_prover().prove_outer(&Reference, &root, &forged.witness()).expect("a true claim");
    let parameters = real_prover().parameters();
    assert_eq!(verify_outer(parameters, forged.statement().digest(), &proof), Ok(()), "{what}");
    let refused = verify_outer(parameters, stated.statement().digest(), &proof);
    assert!(matches!(refused, Err(VerifyError::Invalid { .. })), "{what}: {refused:?}");
    assert_ne!(forged.global().model, stated.global().model, "{what}: another model");
}

#[test]
fn the_sample_network_is_accepted() {
    let claim = sample_claim();
    let root = claim.root(claim.global().challenges());
    let proof = real_prover().prove_outer(&Reference, &root, &claim.witness()).expect("a true claim");
    assert_eq!(verify_outer(real_prover().parameters(), claim.statement().digest(), &proof), Ok(()));
}

#[test]
fn swapped_layers_are_refused() {
    let stated = sample_claim();
    let [first, second] = sample_steps();
    let forged = Claim { steps: vec![second, first], ..stated.clone() };
    assert_refused_under_stated_challenges("swapped", &forged, &stated);
    assert_proves_another_statement("swapped", &forged, &stated);
}

/// A change to the second layer.
type Change = fn(&mut LayerSpec, &mut DenseConstants);

#[test]
fn another_layer_in_place_of_the_stated_one_is_refused() {
    let changes: [(&str, Change); 6] = [
        ("another model's weights", |spec, constants| *constants = sample_constants(spec, 999)),
        ("bias", |_, constants| constants.bias.iter_mut().for_each(|bias| *bias += 4000)),
        ("multiplier", |_, constants| constants.multipliers.iter_mut().for_each(|multiplier| *multiplier += 9000)),
        ("clamp", |spec, _| spec.output = OutputRule::Requantize { shift: 24, lo: -127, hi: 1 }),
        ("registered width", |spec, _| spec.mult_bits = 20),
        ("kind, hence wrap", |spec, _| (spec.kind, spec.log_period) = (WIDE_KIND, 8)),
    ];
    let stated = sample_claim();
    let [first, _] = sample_steps();
    for (what, change) in changes {
        let (mut spec, original) = (sample_spec(1), &sample_layers()[1].constants);
        let mut constants = original.clone();
        change(&mut spec, &mut constants);
        let other = Layer::new(spec, constants);
        let step = other.run(&first.output);
        let forged = Claim { steps: vec![first, &step], boundary: sample_boundary(sample_input(), &step.output) };
        // The output differs, except where the change is one of form.
        let is_of_form = ["registered width", "kind, hence wrap"].contains(&what);
        assert_eq!(forged.boundary.output == stated.boundary.output, is_of_form, "{what}");
        assert!(other.register(1).1, "{what}: the layer is registered, in its own model");
        assert_refused_under_stated_challenges(what, &forged, &stated);
        if what == "another model's weights" {
            assert_proves_another_statement(what, &forged, &stated);
        }
    }
}

/// A layer that reads zeros and adds to the output edge whatever its bias says.
fn compensating_layer(difference: &[i64]) -> Layer {
    let mut spec = sample_spec(1);
    spec.output = OutputRule::Raw;
    (spec.edges_in, spec.edge_out) = ([9, 0], 3);
    let weights = vec![0; spec.n_inputs * spec.n_outputs];
    Layer::new(spec, DenseConstants { weights, bias: difference.to_vec(), multipliers: vec![] })
}

#[test]
fn extra_layer_with_a_compensating_balance_is_refused() {
    let [first, second] = sample_steps();
    let mut difference = vec![0; second.output.len()];
    difference[3] = 40 - second.output[3];
    let extra = compensating_layer(&difference);
    let extra = extra.run(&[0; 12]);
    let mut output = second.output.clone();
    output[3] = 40;
    // What the verifier is told: the network's two layers gave the false output.
    let stated = Claim { steps: vec![first, second], boundary: sample_boundary(sample_input(), &output) };
    let forged = Claim { steps: vec![first, second, &extra], ..stated.clone() };
    assert_refused_under_stated_challenges("extra", &forged, &stated);
    assert_proves_another_statement("extra", &forged, &stated);
}

/// The second layer alone, its input given out as the graph's: as the ledger has edge 2 where the program has 1, the boundary differs.
#[test]
fn truncated_network_is_refused() {
    let stated = sample_claim();
    let [first, second] = sample_steps();
    let hidden: Vec<u8> = first.output.iter().map(|&value| (value + 128) as u8).collect();
    assert_eq!(centered(&hidden), first.output);
    let mut boundary = sample_boundary(hidden, &second.output);
    boundary.shape.first_input_edge = 2;
    let forged = Claim { steps: vec![second], boundary };
    assert_refused_under_stated_challenges("truncated", &forged, &stated);
}

/// The first layer twice: what it writes is counted twice and read once.
#[test]
fn repeated_layer_unbalances_the_ledger() {
    let stated = sample_claim();
    let [first, second] = sample_steps();
    let forged = Claim { steps: vec![first, first, second], ..stated.clone() };
    let root = forged.root(stated.global().challenges());
    assert_ne!(balance(&root), [F::ZERO; 2]);
    assert_contradiction("outer", real_prover().prove_outer(&Reference, &root, &stated.witness()));
    let root = forged.root(forged.global().challenges());
    assert_ne!(balance(&root), [F::ZERO; 2]);
    assert_contradiction("outer", real_prover().prove_outer(&Reference, &root, &forged.witness()));
}

/// Layers that ran on another input than the committed one, or that gave another output: each claim under its own challenges.
#[test]
fn false_input_or_output_unbalances_the_ledger() {
    let honest = sample_claim();
    let mut input = honest.clone();
    input.boundary.input[4] ^= 1;
    let mut output = honest.clone();
    output.boundary.output[4] += F::ONE;
    for forged in [input, output] {
        let root = forged.leaf_or_root(forged.global().challenges());
        assert_ne!(balance(&root), [F::ZERO; 2]);
        assert_contradiction("outer", real_prover().prove_outer(&Reference, &root, &forged.witness()));
    }
}

/// Two consistent halves of different inputs: each layer proof is true, the second did not read what the first wrote.
#[test]
fn layer_on_another_hidden_tensor_unbalances_the_ledger() {
    let honest = sample_claim();
    let [first, _] = sample_steps();
    let mut hidden = first.output.clone();
    hidden[2] += if hidden[2] > 0 { -1 } else { 1 };
    let step: Step<'_> = sample_layers()[1].run(&hidden);
    let forged = Claim { steps: vec![first, &step], boundary: sample_boundary(sample_input(), &step.output) };
    assert_eq!(forged.global().model, honest.global().model, "nothing but the ledger is wrong");
    let root = forged.leaf_or_root(forged.global().challenges());
    assert_ne!(balance(&root), [F::ZERO; 2]);
    assert_contradiction("outer", real_prover().prove_outer(&Reference, &root, &forged.witness()));
}

/// The registration of the very model is no inference, although its chains are the same.
#[test]
fn registration_in_place_of_an_inference_is_refused() {
    let claim = sample_claim();
    let layers = [0, 1].map(|index| {
        let (proved, is_accepted) = sample_layers()[index].register(index);
        assert!(is_accepted);
        proved
    });
    let job = LeafJob {
        leaf: REGISTRATION,
        start_index: 0,
        start_chains: claim.chains(0),
        challenges: GlobalChallenges::zero(),
        layers: layers.iter().collect(),
        boundary: None,
    };
    let node = real_prover().prove_leaf(&Reference, &job).expect("a true registration");
    assert_eq!(node.public().expect("a node").end.public, claim.chains(2).public.elements);
    assert_eq!(node.public().expect("a node").end.secret, claim.chains(2).secret.elements);
    assert_contradiction("outer", real_prover().prove_outer(&Reference, &node, &claim.witness()));
}
