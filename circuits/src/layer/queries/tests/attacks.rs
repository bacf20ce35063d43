//! A dishonest prover of the queries: it writes wires itself, past the generators, and lets nothing that follows contradict what it wrote.
//!
//! Copies of a wire are always equal here, so what refuses a forgery is a gate and nothing else.

use plonky2::iop::generator::GeneratedValues;
use plonky2::iop::witness::{PartitionWitness, Witness};
use plonky2::plonk::prover::prove_with_partition_witness;
use plonky2::util::serialization::{Buffer, Read};

use super::*;

/// A wire with its value.
type Wire = (Target, F);
/// The query whose wires are forged. The top bit of its challenge is 1.
const QUERY: usize = 0;
/// Bits of a challenge below the top one.
const LOW_BITS: usize = 63;

impl QueriesCircuit {
    /// All wires: those of `by_hand`, then the inputs, then what the generators make of them.
    fn fill(&self, sample: &Sample, by_hand: &[Wire]) -> PartitionWitness<'_, F> {
        let (common, data) = (&self.circuit.common, &self.circuit.prover_only);
        let mut witness = PartitionWitness::new(common.config.num_wires, common.degree(), &data.representative_map);
        for &(target, value) in by_hand {
            witness.set_target(target, value).expect("forged wires are no copies of one another");
        }
        for (target, value) in self.witness(sample).expect("a sample has the circuit's shape").target_values {
            // An error is a contradiction to what was written first, which stays. Likewise below.
            let _ = witness.set_target(target, value);
        }
        // Cells that plonky2 fills at random, and reads nowhere, stay empty: equal wires are equal values.
        let mut has_run: Vec<bool> = data.generators.iter().map(|generator| generator.0.id() == "RandomValueGenerator").collect();
        let mut waiting: Vec<usize> = (0..data.generators.len()).collect();
        let mut made = GeneratedValues::empty();
        while let Some(number) = waiting.pop() {
            if has_run[number] {
                continue;
            }
            has_run[number] = data.generators[number].0.run(&witness, &mut made);
            for (target, value) in made.target_values.drain(..) {
                if let Ok(Some(written)) = witness.set_target_returning_rep(target, value) {
                    waiting.extend(data.generator_indices_by_watches.get(&written).into_iter().flatten());
                }
            }
        }
        assert!(has_run.into_iter().all(|has_run| has_run), "every wire is made from what is known");
        witness
    }

    /// Whether the wires make a proof that verifies.
    fn accepts_wires(&self, witness: PartitionWitness<'_, F>) -> bool {
        let (common, data) = (&self.circuit.common, &self.circuit.prover_only);
        let prove = || prove_with_partition_witness::<F, C, D>(data, common, witness, &mut TimingTree::default());
        catch_unwind(AssertUnwindSafe(prove)).is_ok_and(|proof| proof.and_then(|proof| self.circuit.verify(proof)).is_ok())
    }

    /// The generators of a name, as they are stored.
    fn generators<'a>(&'a self, id: &'a str) -> impl Iterator<Item = Vec<u8>> + 'a {
        self.circuit.prover_only.generators.iter().filter(move |generator| generator.0.id() == id).map(move |generator| {
            let mut bytes = Vec::new();
            generator.0.serialize(&mut bytes, &self.circuit.common).expect("every generator is written");
            bytes
        })
    }

    /// The row that takes a query's challenge apart. Wire 0 is the challenge without its top bit, its bits follow.
    fn index_row(&self, honest: &PartitionWitness<'_, F>, challenge: F) -> usize {
        let low = F::from_canonical_u64(low_part(challenge));
        let row = |bytes: Vec<u8>| Buffer::new(&bytes).read_usize().expect("a row comes first");
        let rows: Vec<usize> = self.generators("BaseSplitGenerator + Base: 2").map(row).collect();
        let found: Vec<usize> = rows.into_iter().filter(|&row| honest.get_target(Target::wire(row, 0)) == low).collect();
        assert_eq!(found.len(), 1, "rows that take the challenge apart");
        found[0]
    }

    /// The top bit of a query's challenge.
    fn top_bit(&self, honest: &PartitionWitness<'_, F>, challenge: F) -> Target {
        let targets = |bytes: Vec<u8>| {
            let mut buffer = Buffer::new(&bytes);
            [(); 2].map(|()| buffer.read_target().expect("challenge and top bit"))
        };
        let found: Vec<[Target; 2]> = self.generators("zkinfer TopBitGenerator").map(targets).collect();
        let of_challenge = found.into_iter().find(|[integer, _]| honest.get_target(*integer) == challenge);
        of_challenge.expect("the query's generator")[1]
    }
}

/// A challenge without its top bit.
fn low_part(challenge: F) -> u64 {
    challenge.to_canonical_u64() & ((1 << LOW_BITS) - 1)
}

/// A circuit to attack, and an opening that it accepts.
struct Attack {
    circuit: QueriesCircuit,
    sample: Sample,
    /// The wires that were accepted.
    honest: Vec<Option<F>>,
}

impl Attack {
    fn new(shape: &LayerShape, seed: u64) -> Self {
        let (circuit, sample) = (QueriesCircuit::new(shape), Sample::honest(shape, seed));
        let wires = circuit.fill(&sample, &[]);
        let honest = wires.values.clone();
        assert!(circuit.accepts_wires(wires));
        Self { circuit, sample, honest }
    }

    /// Refused with forged wires; with the honest values of the same wires it is what was accepted.
    fn check(&self, what: &str, honest: &[Wire], forged: (&Sample, &[Wire])) {
        let targets = |wires: &[Wire]| wires.iter().map(|wire| wire.0).collect::<Vec<_>>();
        assert_eq!(targets(honest), targets(forged.1));
        assert!(self.circuit.fill(&self.sample, honest).values == self.honest, "the honest twin of {what}");
        assert!(!self.circuit.accepts_wires(self.circuit.fill(forged.0, forged.1)), "{what}");
    }
}

/// One wire of everything that the query reads, by name.
fn read_wires(circuit: &QueriesCircuit, shape: &LayerShape, sample: &Sample) -> Vec<(String, Target)> {
    let QueryTargets { openings, caps, proof, challenges, .. } = &circuit.targets;
    let round = &proof.query_round_proofs[QUERY];
    let index = sample.indices[QUERY].to_canonical_u64() as usize & (shape.fri.lde_size() - 1);
    let cap_digest = index >> (shape.fri.lde_bits() - shape.fri.config.cap_height);
    let mut wires =
        vec![("α".to_owned(), challenges.fri_alpha.0[1]), ("a coefficient of the final polynomial".to_owned(), proof.final_poly.0[1].0[0])];
    for (batch, opened) in openings.iter().enumerate() {
        wires.extend(opened.last().map(|value| (format!("an opening of batch {batch}"), value.0[batch % D])));
    }
    for (oracle, (row, path)) in round.initial_trees_proof.evals_proofs.iter().enumerate() {
        wires.push((format!("a column of oracle {oracle}"), row[row.len() - 1]));
        wires.push((format!("a sibling in oracle {oracle}"), path.siblings[path.siblings.len() - 1].elements[oracle]));
        wires.push((format!("the cap of oracle {oracle}"), caps[oracle].0[cap_digest].elements[3 - oracle]));
    }
    let mut position = index;
    for (folding, (step, &arity_bits)) in round.steps.iter().zip(&shape.fri.reduction_arity_bits).enumerate() {
        let mask = (1 << arity_bits) - 1;
        let [own, other] = [position & mask, (position ^ 5) & mask].map(|place| step.evals[place]);
        wires.push((format!("β of folding {folding}"), challenges.fri_betas[folding].0[0]));
        wires.push((format!("the queried value of folding {folding}"), own.0[folding % D]));
        wires.push((format!("another value of folding {folding}"), other.0[0]));
        wires.push((format!("a sibling in folding {folding}"), step.merkle_proof.siblings[0].elements[folding]));
        wires.push((format!("the cap of folding {folding}"), proof.commit_phase_merkle_caps[folding].0[cap_digest].elements[2]));
        position >>= arity_bits;
    }
    wires
}

/// Each wire changed twice: with all that follows from it computed anew, and alone, among the honest values of all others.
fn check_read_wires(shape: &LayerShape, seed: u64, is_checked: impl Fn(&str) -> bool) {
    let attack = Attack::new(shape, seed);
    let Attack { circuit, sample, .. } = &attack;
    let honest = circuit.fill(sample, &[]);
    for (name, target) in read_wires(circuit, shape, sample).into_iter().filter(|(name, _)| is_checked(name)) {
        let value = honest.get_target(target);
        attack.check(&name, &[(target, value)], (sample, &[(target, value + F::ONE)]));
        let mut alone = honest.clone();
        let place = alone.representative_map[target.index(alone.num_wires, alone.degree)];
        alone.values[place] = Some(value + F::ONE);
        assert!(!circuit.accepts_wires(alone), "{name} alone");
    }
}

/// The query is answered at a place of the prover's choice, honestly but for the bits of its index.
fn check_index(shape: &LayerShape, seed: u64) {
    let attack = Attack::new(shape, seed);
    let Attack { circuit, sample, .. } = &attack;
    let honest = circuit.fill(sample, &[]);
    let challenge = sample.indices[QUERY];
    let with_challenge = |challenge: F| {
        let mut other = sample.clone();
        other.indices[QUERY] = challenge;
        other
    };
    let row = circuit.index_row(&honest, challenge);
    let bit = |number: usize| (Target::wire(row, 1 + number), F::from_bool(low_part(challenge) >> number & 1 == 1));
    let bits: Vec<Wire> = (0..LOW_BITS).map(bit).collect();
    let mut bits_and_sum = bits.clone();
    bits_and_sum.push((Target::wire(row, 0), F::from_canonical_u64(low_part(challenge))));
    for number in [0, 5, shape.fri.lde_bits() - 6, shape.fri.lde_bits() - 1] {
        let drawn = with_challenge(F::from_canonical_u64(challenge.to_canonical_u64() ^ 1 << number));
        for wires in [&bits, &bits_and_sum] {
            attack.check(&format!("bit {number} of an index"), wires, (&drawn, wires));
        }
    }
    // The same sum from two bits that are none, above the index: nothing else changes.
    let mut no_bits = bits.clone();
    no_bits[40].1 += F::TWO;
    no_bits[41].1 -= F::ONE;
    attack.check("bits that are none", &bits, (sample, &no_bits));
    // The top bit is 1; as 2 it makes up for a challenge that is 2^63 more.
    let top = circuit.top_bit(&honest, challenge);
    assert_eq!(honest.get_target(top), F::ONE);
    let drawn = with_challenge(challenge + F::from_canonical_u64(1 << LOW_BITS));
    attack.check("a top bit of 2", &[(top, F::ONE)], (&drawn, &[(top, F::TWO)]));
}

#[test]
fn a_prover_that_chooses_where_it_is_queried_is_refused() {
    check_index(&dense_shape(), 81);
    check_index(&deep_shape(), 82);
}

#[test]
fn a_prover_that_writes_a_wrong_wire_is_refused() {
    check_read_wires(&deep_shape(), 83, |_| true);
}

/// What a dense layer has more of: columns of weights, and a batch at g^m·ζ.
#[test]
fn a_prover_that_writes_a_wrong_opening_of_a_dense_layer_is_refused() {
    check_read_wires(&dense_shape(), 84, |name| name.starts_with("an opening") || name.starts_with("a column"));
}
