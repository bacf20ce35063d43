//! Framed Poseidon: `H(tag; x) = sponge(tag, len(x), x…)`, natively and in circuit.
//!
//! plonky2's `hash_n_to_hash_no_pad` overwrites the rate part of the state and has no padding, so that `[a]` and `[a, 0]` collide.
//! With the length absorbed first, no framed list is a prefix or a zero-extension of another.

use plonky2::field::types::Field;
use plonky2::hash::hash_types::HashOutTarget;
use plonky2::iop::target::Target;
use plonky2::plonk::config::Hasher;

use crate::field::{Builder, Digest, F, H};

/// Domains of the framed hash; the discriminants are part of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u64)]
pub enum Tag {
    /// First element of a layer's transcript.
    Layer = 0x7a6b_0001,
    /// The out-of-domain point z* of an oracle.
    ZStar = 0x7a6b_0002,
    /// Identity of an oracle.
    Link = 0x7a6b_0003,
    /// Digest of a layer kind.
    Kind = 0x7a6b_0004,
    /// Digest of a constraint listing.
    Constraints = 0x7a6b_0005,
    /// Key of a layer: kind and public scalars.
    LayerKey = 0x7a6b_0006,
    /// Step of the chain over public layer keys.
    PublicChain = 0x7a6b_0010,
    /// Step of the chain over weight links.
    SecretChain = 0x7a6b_0011,
    /// Step of the chain over main links.
    MainChain = 0x7a6b_0012,
    /// Start of the public chain.
    PublicChainStart = 0x7a6b_0013,
    /// Start of the secret chain.
    SecretChainStart = 0x7a6b_0014,
    /// Start of the main chain.
    MainChainStart = 0x7a6b_0015,
    /// Shape of the boundary.
    Boundary = 0x7a6b_0020,
    /// What a boundary node publishes.
    Payload = 0x7a6b_0021,
    /// Digest of a program.
    Program = 0x7a6b_0022,
    /// Commitment of a model.
    Model = 0x7a6b_0023,
    /// Commitment of an input.
    Input = 0x7a6b_0024,
    /// Commitment of an output.
    Output = 0x7a6b_0025,
    /// The challenges γ', δ shared by all layers.
    Global = 0x7a6b_0026,
    /// Public input of an outer proof.
    Statement = 0x7a6b_0030,
    /// Public input of a registration proof.
    Registration = 0x7a6b_0031,
    /// Digest of verifier data.
    VerifierData = 0x7a6b_0032,
    /// Identity of a parameter set.
    Parameters = 0x7a6b_0033,
    /// Leaf of the registry of node circuits.
    RegistryLeaf = 0x7a6b_0034,
    /// Inner node of the registry.
    RegistryNode = 0x7a6b_0035,
    /// Empty slot of the registry.
    RegistryEmpty = 0x7a6b_0036,
    /// Bytes hashed as field elements.
    Bytes = 0x7a6b_0040,
}

impl Tag {
    /// The tag as a field element.
    pub fn element(self) -> F {
        F::from_canonical_u64(self as u64)
    }
}

/// `H(tag; inputs)`.
pub fn hash(tag: Tag, inputs: &[F]) -> Digest {
    let mut framed = Vec::with_capacity(inputs.len() + 2);
    framed.push(tag.element());
    framed.push(F::from_canonical_usize(inputs.len()));
    framed.extend_from_slice(inputs);
    H::hash_no_pad(&framed)
}

/// `H(tag; inputs)` in circuit: ⌈(len + 2)/8⌉ Poseidon gates.
pub fn hash_circuit(builder: &mut Builder, tag: Tag, inputs: &[Target]) -> HashOutTarget {
    let mut framed = Vec::with_capacity(inputs.len() + 2);
    framed.push(builder.constant(tag.element()));
    framed.push(builder.constant(F::from_canonical_usize(inputs.len())));
    framed.extend_from_slice(inputs);
    builder.hash_n_to_hash_no_pad::<H>(framed)
}

/// `H(Tag::Bytes; length in bytes, bytes packed seven to an element, little end first)`.
pub fn hash_bytes(bytes: &[u8]) -> Digest {
    let mut elements = vec![F::from_canonical_usize(bytes.len())];
    elements.extend(pack_bytes(bytes));
    hash(Tag::Bytes, &elements)
}

/// Seven bytes to an element, little end first; the last element may hold fewer.
pub fn pack_bytes(bytes: &[u8]) -> Vec<F> {
    bytes
        .chunks(7)
        .map(|chunk| {
            let value = chunk.iter().rev().fold(0u64, |value, &byte| (value << 8) | u64::from(byte));
            F::from_canonical_u64(value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(values: &[u64]) -> Vec<F> {
        values.iter().map(|&value| F::from_canonical_u64(value)).collect()
    }

    #[test]
    fn framing_separates_zero_extension_and_appended_state() {
        assert_ne!(hash(Tag::Link, &elements(&[5])), hash(Tag::Link, &elements(&[5, 0])));
        let nine: Vec<u64> = (1..=9).collect();
        assert_ne!(hash(Tag::Link, &elements(&nine[..8])), hash(Tag::Link, &elements(&nine)));
        assert_ne!(hash(Tag::Link, &[]), hash(Tag::Kind, &[]));
    }

    #[test]
    fn packing_is_little_endian_by_seven() {
        assert_eq!(pack_bytes(&[1, 2]), elements(&[0x0201]));
        assert_eq!(pack_bytes(&[0, 0, 0, 0, 0, 0, 0, 9]), elements(&[0, 9]));
    }
}
