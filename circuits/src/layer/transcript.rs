//! The order of a layer's transcript, written once for prover, verifier and circuit (`docs/PROTOCOL.md` §2).

use plonky2::field::types::Field;
use plonky2::hash::hash_types::{HashOutTarget, MerkleCapTarget};
use plonky2::hash::merkle_tree::MerkleCap;
use plonky2::iop::challenger::{Challenger, RecursiveChallenger};
use plonky2::iop::ext_target::ExtensionTarget;
use plonky2::iop::target::Target;

use super::shape::LAYER_VERSION;
use crate::field::{Builder, D, Digest, F, H, K};
use crate::hash::Tag;
use crate::kind::Role;

/// A duplex sponge over native values or targets.
pub trait Transcript {
    /// An element of F.
    type Element: Copy;
    /// An element of K.
    type Ext: Copy;
    /// A Merkle cap.
    type Cap;
    /// A constant of F.
    fn constant(&mut self, value: u64) -> Self::Element;
    /// Absorbs elements of F.
    fn observe(&mut self, elements: &[Self::Element]);
    /// Absorbs elements of K.
    fn observe_ext(&mut self, elements: &[Self::Ext]);
    /// Absorbs a cap.
    fn observe_cap(&mut self, cap: &Self::Cap);
    /// Squeezes an element of K.
    fn challenge(&mut self) -> Self::Ext;
}

/// What is known before α is drawn.
#[derive(Clone, Copy, Debug)]
pub struct Header<E, X> {
    /// Key of the layer: its kind and its public scalars.
    pub layer_key: [E; 4],
    /// Index of the layer in its program.
    pub index: E,
    /// Identity of the weights oracle.
    pub link_weights: [E; 4],
    /// Identity of the main oracle (it contains the oracle's cap).
    pub link_main: [E; 4],
    /// γ', drawn after the main oracles of all layers.
    pub gamma_prime: X,
    /// δ, likewise.
    pub delta: X,
}

/// Round 1: absorbs the header, draws α.
pub fn after_main<T: Transcript>(t: &mut T, role: Role, header: &Header<T::Element, T::Ext>) -> T::Ext {
    let role = match role {
        Role::Inference => 1,
        Role::Registration => 2,
    };
    let start = [Tag::Layer as u64, LAYER_VERSION, role].map(|value| t.constant(value));
    t.observe(&start);
    t.observe(&header.layer_key);
    t.observe(&[header.index]);
    t.observe(&header.link_weights);
    t.observe(&header.link_main);
    t.observe_ext(&[header.gamma_prime, header.delta]);
    t.challenge()
}

/// Round 2: absorbs the projected oracle and the claimed balance, draws γ and ξ.
pub fn after_projected<T: Transcript>(t: &mut T, cap: &T::Cap, balance: T::Ext) -> [T::Ext; 2] {
    t.observe_cap(cap);
    t.observe_ext(&[balance]);
    [t.challenge(), t.challenge()]
}

/// Round 3: absorbs the sums oracle, draws ζ.
pub fn after_sums<T: Transcript>(t: &mut T, cap: &T::Cap) -> T::Ext {
    t.observe_cap(cap);
    t.challenge()
}

/// Absorbs all openings; FRI's own transcript follows.
pub fn after_openings<T: Transcript>(t: &mut T, batches: &[Vec<T::Ext>]) {
    for batch in batches {
        t.observe_ext(batch);
    }
}

impl Transcript for Challenger<F, H> {
    type Element = F;
    type Ext = K;
    type Cap = MerkleCap<F, H>;

    fn constant(&mut self, value: u64) -> F {
        F::from_canonical_u64(value)
    }

    fn observe(&mut self, elements: &[F]) {
        self.observe_elements(elements);
    }

    fn observe_ext(&mut self, elements: &[K]) {
        self.observe_extension_elements::<D>(elements);
    }

    fn observe_cap(&mut self, cap: &MerkleCap<F, H>) {
        Challenger::observe_cap::<H>(self, cap);
    }

    fn challenge(&mut self) -> K {
        self.get_extension_challenge::<D>()
    }
}

/// The transcript inside a circuit.
#[derive(Debug)]
pub struct CircuitTranscript<'a> {
    /// The circuit.
    pub builder: &'a mut Builder,
    /// plonky2's challenger.
    pub challenger: RecursiveChallenger<F, H, D>,
}

impl<'a> CircuitTranscript<'a> {
    /// An empty transcript.
    pub fn new(builder: &'a mut Builder) -> Self {
        let challenger = RecursiveChallenger::new(builder);
        Self { builder, challenger }
    }
}

impl Transcript for CircuitTranscript<'_> {
    type Element = Target;
    type Ext = ExtensionTarget<D>;
    type Cap = MerkleCapTarget;

    fn constant(&mut self, value: u64) -> Target {
        self.builder.constant(F::from_canonical_u64(value))
    }

    fn observe(&mut self, elements: &[Target]) {
        self.challenger.observe_elements(elements);
    }

    fn observe_ext(&mut self, elements: &[Self::Ext]) {
        self.challenger.observe_extension_elements(elements);
    }

    fn observe_cap(&mut self, cap: &MerkleCapTarget) {
        self.challenger.observe_cap(cap);
    }

    fn challenge(&mut self) -> Self::Ext {
        self.challenger.get_extension_challenge(self.builder)
    }
}

/// `z*(O)`: the point at which a shared oracle is opened in every proof that uses it.
pub fn star_point(cap: &MerkleCap<F, H>) -> K {
    let digest = crate::hash::hash(Tag::ZStar, &cap.flatten());
    crate::field::ext(digest.elements[0], digest.elements[1])
}

/// `link(O) = H(Link; n, columns, rate_bits, cap, values at z*)`.
pub fn link(log_rows: usize, rate_bits: usize, cap: &MerkleCap<F, H>, values: &[K]) -> Digest {
    let mut elements: Vec<F> = [1 << log_rows, values.len(), rate_bits].map(F::from_canonical_usize).to_vec();
    elements.extend(cap.flatten());
    elements.extend(values.iter().flat_map(|&value| crate::field::limbs(value)));
    crate::hash::hash(Tag::Link, &elements)
}

fn cap_elements(cap: &MerkleCapTarget) -> Vec<Target> {
    cap.0.iter().flat_map(|digest| digest.elements).collect()
}

/// [`star_point`] in circuit.
pub fn star_point_circuit(builder: &mut Builder, cap: &MerkleCapTarget) -> ExtensionTarget<D> {
    let digest = crate::hash::hash_circuit(builder, Tag::ZStar, &cap_elements(cap));
    ExtensionTarget([digest.elements[0], digest.elements[1]])
}

/// [`link`] in circuit.
pub fn link_circuit(
    builder: &mut Builder,
    log_rows: usize,
    rate_bits: usize,
    cap: &MerkleCapTarget,
    values: &[ExtensionTarget<D>],
) -> HashOutTarget {
    let numbers = [1 << log_rows, values.len(), rate_bits].map(F::from_canonical_usize);
    let mut elements: Vec<Target> = numbers.into_iter().map(|number| builder.constant(number)).collect();
    elements.extend(cap_elements(cap));
    elements.extend(values.iter().flat_map(|value| value.0));
    crate::hash::hash_circuit(builder, Tag::Link, &elements)
}
