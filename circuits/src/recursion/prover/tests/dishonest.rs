//! A dishonest prover of the boundary: it assigns wires itself, past the generators and the checks of honest code.

use plonky2::field::types::{Field, PrimeField64};
use plonky2::iop::generator::{GeneratedValues, SimpleGenerator, WitnessGeneratorRef};
use plonky2::iop::target::Target;
use plonky2::iop::witness::{PartialWitness, PartitionWitness};
use plonky2::plonk::circuit_data::CommonCircuitData;
use plonky2::util::serialization::{Buffer, IoError, IoResult};

use crate::backend::Backend;
use crate::backend::reference::Reference;
use crate::field::{C, D, F};
use crate::hash::pack_bytes;
use crate::recursion::boundary::{BoundaryTargets, BoundaryWitness};
use crate::recursion::gadgets::Proof;
use crate::recursion::node::Circuit;
use crate::recursion::prover::aggregator::{satisfied, set_leaf};
use crate::recursion::prover::circuits::{LeafGates, leaf_gates};
use crate::recursion::prover::tests::fixture::{BOUNDARY, FreeLayers, honest, prover, sample_boundary, test_kinds};
use crate::recursion::prover::{LeafJob, ProveError};

/// Stands in for a generator whose wires the dishonest prover sets.
#[derive(Debug, Default)]
struct Silent;

impl SimpleGenerator<F, D> for Silent {
    fn id(&self) -> String {
        "Silent".to_owned()
    }

    fn dependencies(&self) -> Vec<Target> {
        Vec::new()
    }

    fn run_once(&self, _: &PartitionWitness<F>, _: &mut GeneratedValues<F>) -> anyhow::Result<()> {
        Ok(())
    }

    fn serialize(&self, _: &mut Vec<u8>, _: &CommonCircuitData<F, D>) -> IoResult<()> {
        Err(IoError)
    }

    fn deserialize(_: &mut Buffer, _: &CommonCircuitData<F, D>) -> IoResult<Self> {
        Err(IoError)
    }
}

/// A boundary leaf of one's own, to tamper with.
struct Attack {
    circuit: Circuit,
    gates: LeafGates<FreeLayers>,
}

impl Attack {
    fn new() -> Self {
        let kind = &test_kinds()[BOUNDARY.0];
        let (builder, gates) = leaf_gates::<FreeLayers>(prover().parameters().profile(), kind).unwrap();
        Self { circuit: builder.build::<C>(), gates }
    }

    fn boundary(&self) -> &BoundaryTargets {
        self.gates.targets.boundary.as_ref().unwrap()
    }

    fn honest_witness(&self, boundary: &BoundaryWitness) -> PartialWitness<F> {
        let instance = &honest().instance;
        let job = LeafJob::<FreeLayers> {
            leaf: BOUNDARY,
            start_index: 2,
            start_chains: instance.chains(2),
            challenges: instance.challenges,
            layers: vec![],
            boundary: Some(boundary),
        };
        let mut witness = PartialWitness::new();
        set_leaf(&mut witness, &self.gates, &test_kinds()[BOUNDARY.0], &job).unwrap();
        witness
    }

    /// Silences the generator of the limbs of packed element 0, and gives the row of its gate.
    fn silence_first_limbs(&mut self) -> usize {
        let is_limbs = |generator: &WitnessGeneratorRef<F, D>| generator.0.id() == "BaseSplitGenerator + Base: 4";
        let position = self.circuit.prover_only.generators.iter().position(is_limbs).unwrap();
        let mut bytes = Vec::new();
        self.circuit.prover_only.generators[position].0.serialize(&mut bytes, &self.circuit.common).unwrap();
        self.circuit.prover_only.generators[position] = WitnessGeneratorRef::new(SimpleGenerator::<F, D>::adapter(Silent));
        u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
    }

    fn prove(&self, witness: PartialWitness<F>) -> Result<Proof, ProveError> {
        satisfied(&self.circuit, "boundary", || Reference.prove_circuit(&self.circuit, witness))
    }
}

fn base_4(mut value: u64) -> Vec<F> {
    let mut digit = || {
        let digit = value % 4;
        value /= 4;
        F::from_canonical_u64(digit)
    };
    (0..28).map(|_| digit()).collect()
}

fn set_limbs(witness: &mut PartialWitness<F>, row: usize, limbs: &[F]) {
    // Wire 0 of the gate is the sum.
    for (i, &limb) in limbs.iter().enumerate() {
        witness.target_values.insert(Target::wire(row, 1 + i), limb);
    }
}

#[track_caller]
fn assert_unsatisfied(result: Result<Proof, ProveError>, expected: &str) {
    match result {
        Err(ProveError::Unsatisfied { reason, .. }) => assert!(reason.contains(expected), "{reason}"),
        other => panic!("expected {expected:?}, got {:?}", other.map(|_| "a proof")),
    }
}

const NO_VANISHING: &str = "the constraints do not vanish";
const CONTRADICTION: &str = "was set twice with different values";

#[test]
fn limbs_outside_their_range_are_refused() {
    let mut attack = Attack::new();
    let row = attack.silence_first_limbs();
    let boundary = sample_boundary();
    let honest_limbs = base_4(pack_bytes(&boundary.input)[0].to_canonical_u64());
    let mut witness = attack.honest_witness(&boundary);
    set_limbs(&mut witness, row, &honest_limbs);
    assert!(attack.prove(witness).is_ok(), "the honest limbs, set by hand, are accepted");
    // The same sum with one limb 4 larger and the next 1 smaller: a byte outside 0..=255 or a byte moved.
    for position in [0, 3, 26] {
        let mut limbs = honest_limbs.clone();
        limbs[position] += F::from_canonical_u64(4);
        limbs[position + 1] -= F::ONE;
        let mut witness = attack.honest_witness(&boundary);
        set_limbs(&mut witness, row, &limbs);
        assert_unsatisfied(attack.prove(witness), NO_VANISHING);
    }
}

/// PITFALLS 20: an element that is no packing of seven bytes.
#[test]
fn a_packed_element_above_56_bits_is_refused() {
    let mut attack = Attack::new();
    let row = attack.silence_first_limbs();
    let boundary = sample_boundary();
    let value = pack_bytes(&boundary.input)[0].to_canonical_u64();
    let mut witness = attack.honest_witness(&boundary);
    set_limbs(&mut witness, row, &base_4(value));
    witness.target_values.insert(attack.boundary().packed[0], F::from_canonical_u64(value + (1 << 56)));
    assert_unsatisfied(attack.prove(witness), NO_VANISHING);
}

#[test]
fn bytes_beyond_the_input_and_false_sizes_are_refused() {
    let attack = Attack::new();
    let boundary = sample_boundary();
    let targets = attack.boundary();
    let one = F::ONE;
    let sevens = F::from_canonical_u64(1 << 16);
    let tampered: Vec<(&str, Vec<(Target, F)>)> = vec![
        // 30 bytes fill four elements and two bytes of the fifth.
        ("a byte in an element after the last", vec![(targets.packed[6], one)]),
        ("a byte in the unused part of the last element", vec![(targets.packed[4], sevens)]),
        ("a size below the last byte", vec![(targets.last[4].target, F::ZERO), (targets.last[3].target, one)]),
        ("no last element", vec![(targets.last[4].target, F::ZERO)]),
        ("two last elements", vec![(targets.last[2].target, one)]),
        ("a flag that is no bit", vec![(targets.last[4].target, F::TWO), (targets.last[3].target, -one)]),
        ("two numbers of unused bytes", vec![(targets.unused[0].target, one)]),
        ("consumers with a gap", vec![(targets.consumes[3].target, one)]),
        ("an edge of 17 bits", vec![(targets.output_edge, F::from_canonical_u64(1 << 16))]),
    ];
    for (what, changes) in tampered {
        let mut witness = attack.honest_witness(&boundary);
        witness.target_values.extend(changes);
        println!("{what}");
        assert_unsatisfied(attack.prove(witness), CONTRADICTION);
    }
}
