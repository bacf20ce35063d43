//! The transcript: every challenge depends on everything absorbed before it and on nothing after; native and circuit agree; golden order.

use plonky2::field::types::Field;
use plonky2::hash::hash_types::{HashOut, MerkleCapTarget};
use plonky2::hash::merkle_tree::MerkleCap;
use plonky2::iop::challenger::Challenger;
use plonky2::iop::ext_target::ExtensionTarget;
use plonky2::iop::target::Target;
use plonky2::iop::witness::PartialWitness;
use plonky2::plonk::circuit_data::CircuitConfig;
use zkinfer_circuits::field::{Builder, C, D, F, H, K, ext};
use zkinfer_circuits::kind::Role;
use zkinfer_circuits::layer::transcript::{CircuitTranscript, Header, Transcript, after_main, after_openings, after_projected, after_sums};

use crate::support::golden;

/// Writes down what passes through a transcript.
struct Recording<T: Transcript> {
    inner: T,
    events: Vec<String>,
    challenges: Vec<T::Ext>,
}

impl<T: Transcript> Recording<T> {
    fn new(inner: T) -> Self {
        Self { inner, events: Vec::new(), challenges: Vec::new() }
    }
}

impl<T: Transcript> Transcript for Recording<T> {
    type Element = T::Element;
    type Ext = T::Ext;
    type Cap = T::Cap;

    fn constant(&mut self, value: u64) -> T::Element {
        self.events.push(format!("constant {value:#x}"));
        self.inner.constant(value)
    }

    fn observe(&mut self, elements: &[T::Element]) {
        self.events.push(format!("absorb {} of F", elements.len()));
        self.inner.observe(elements);
    }

    fn observe_ext(&mut self, elements: &[T::Ext]) {
        self.events.push(format!("absorb {} of K", elements.len()));
        self.inner.observe_ext(elements);
    }

    fn observe_cap(&mut self, cap: &T::Cap) {
        self.events.push("absorb cap".to_owned());
        self.inner.observe_cap(cap);
    }

    fn challenge(&mut self) -> T::Ext {
        let challenge = self.inner.challenge();
        self.challenges.push(challenge);
        self.events.push(format!("squeeze {}", self.challenges.len()));
        challenge
    }
}

/// Everything that a layer's transcript absorbs.
struct Items<T: Transcript> {
    header: Header<T::Element, T::Ext>,
    projected: T::Cap,
    balance: T::Ext,
    sums: T::Cap,
    openings: Vec<Vec<T::Ext>>,
}

const OPENINGS: [usize; 5] = [5, 2, 0, 1, 3];
/// Elements of F absorbed by the end of each round: α; γ and ξ; ζ; FRI's first.
const ROUND_ENDS: [usize; 4] = [17, 17 + 64 + 2, 17 + 64 + 2 + 64, 17 + 64 + 2 + 64 + 22];

/// Items from one flat list, in the order in which they are absorbed.
fn items<T: Transcript>(flat: &[T::Element], pair: fn([T::Element; 2]) -> T::Ext, cap: fn(&[T::Element]) -> T::Cap) -> Items<T> {
    let four = |start: usize| [0, 1, 2, 3].map(|k| flat[start + k]);
    let two = |start: usize| pair([flat[start], flat[start + 1]]);
    let mut position = ROUND_ENDS[2];
    let openings = OPENINGS.map(|length| {
        let values: Vec<T::Ext> = (0..length).map(|k| two(position + 2 * k)).collect();
        position += 2 * length;
        values
    });
    Items {
        header: Header {
            layer_key: four(0),
            index: flat[4],
            link_weights: four(5),
            link_main: four(9),
            gamma_prime: two(13),
            delta: two(15),
        },
        projected: cap(&flat[17..81]),
        balance: two(81),
        sums: cap(&flat[83..147]),
        openings: openings.into(),
    }
}

/// The order of prover, verifier and circuit; one more challenge stands for FRI's first.
fn run<T: Transcript>(t: &mut T, role: Role, items: &Items<T>) {
    after_main(t, role, &items.header);
    after_projected(t, &items.projected, items.balance);
    after_sums(t, &items.sums);
    after_openings(t, &items.openings);
    t.challenge();
}

fn native_items(flat: &[F]) -> Items<Recording<Challenger<F, H>>> {
    let cap = |elements: &[F]| MerkleCap(elements.chunks(4).map(|c| HashOut { elements: [c[0], c[1], c[2], c[3]] }).collect());
    items(flat, |[a, b]| ext(a, b), cap)
}

fn native(flat: &[F], role: Role) -> (Vec<K>, Vec<String>) {
    let mut recording = Recording::new(Challenger::<F, H>::new());
    run(&mut recording, role, &native_items(flat));
    (recording.challenges, recording.events)
}

fn flat() -> Vec<F> {
    (0..ROUND_ENDS[3]).map(|k| F::from_canonical_usize(1000 + 2 * k)).collect()
}

/// How many of the five challenges are drawn before an item is absorbed.
fn drawn_before(position: usize) -> usize {
    let round = ROUND_ENDS.iter().position(|&end| position < end).expect("an item of some round");
    [0, 1, 3, 4][round]
}

#[test]
fn every_challenge_depends_on_every_earlier_item_and_on_no_later_one() {
    for role in [Role::Inference, Role::Registration] {
        let (honest, _) = native(&flat(), role);
        for position in 0..ROUND_ENDS[3] {
            let mut changed = flat();
            changed[position] += F::ONE;
            let (challenges, _) = native(&changed, role);
            for (number, (old, new)) in honest.iter().zip(&challenges).enumerate() {
                assert_eq!(old == new, number < drawn_before(position), "item {position}, challenge {number}");
            }
        }
    }
    assert!(native(&flat(), Role::Inference).0.iter().zip(native(&flat(), Role::Registration).0).all(|(a, b)| *a != b));
}

fn circuit(flat: &[F], role: Role) -> (Vec<K>, Vec<String>) {
    let mut builder = Builder::new(CircuitConfig::standard_recursion_config());
    let targets: Vec<Target> = flat.iter().map(|&element| builder.constant(element)).collect();
    let (challenges, events) = {
        let mut recording = Recording::new(CircuitTranscript::new(&mut builder));
        let cap = |elements: &[Target]| {
            MerkleCapTarget(
                elements.chunks(4).map(|c| plonky2::hash::hash_types::HashOutTarget { elements: [c[0], c[1], c[2], c[3]] }).collect(),
            )
        };
        let items = items(&targets, ExtensionTarget::<D>, cap);
        run(&mut recording, role, &items);
        (recording.challenges, recording.events)
    };
    for challenge in challenges {
        builder.register_public_inputs(&challenge.0);
    }
    let data = builder.build::<C>();
    let proof = data.prove(PartialWitness::new()).expect("a transcript has a witness");
    (proof.public_inputs.chunks(D).map(|c| ext(c[0], c[1])).collect(), events)
}

#[test]
fn native_and_circuit_transcripts_are_the_golden_one() {
    let mut text = String::new();
    for role in [Role::Inference, Role::Registration] {
        let (native, circuit) = (native(&flat(), role), circuit(&flat(), role));
        assert_eq!(native, circuit, "{role:?}");
        assert_eq!(native.0.len(), 5);
        text += &format!("{role:?}: five squeezes (alpha; gamma, xi; zeta; FRI's first)\n{}\n", native.1.join("\n"));
    }
    golden::check("transcript.txt", &text);
}
