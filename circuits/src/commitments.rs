//! The digests that tie a statement together, natively: each function is one formula of `docs/PROTOCOL.md` §5.

use plonky2::field::types::Field;
use thiserror::Error;

use crate::field::{Digest, F, from_signed};
use crate::hash::{Tag, hash, pack_bytes};

/// Capacities of the committed input, in bytes: the least that holds the input is taken.
pub const INPUT_CAPACITIES: [usize; 4] = [64, 1024, 4096, 16384];
/// Capacities of the committed output, in values: the least that holds the output is taken.
pub const OUTPUT_CAPACITIES: [usize; 3] = [16, 256, 1024];

/// An input or output that no boundary circuit carries.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the {what} has {got} elements; it must have 1 to {limit}")]
pub struct SizeError {
    /// Input or output.
    pub what: &'static str,
    /// Elements.
    pub got: usize,
    /// The largest capacity.
    pub limit: usize,
}

fn capacity(what: &'static str, capacities: &[usize], got: usize) -> Result<usize, SizeError> {
    let limit = capacities.iter().copied().max().unwrap_or(0);
    let fitting = capacities.iter().copied().find(|&capacity| got >= 1 && got <= capacity);
    fitting.ok_or(SizeError { what, got, limit })
}

/// The capacity of the commitment of an input of `n_inputs` bytes.
///
/// # Errors
/// No input, or one above the largest capacity.
pub fn input_capacity(n_inputs: usize) -> Result<usize, SizeError> {
    capacity("input", &INPUT_CAPACITIES, n_inputs)
}

/// The capacity of the commitment of an output of `n_outputs` values.
///
/// # Errors
/// No output, or one above the largest capacity.
pub fn output_capacity(n_outputs: usize) -> Result<usize, SizeError> {
    capacity("output", &OUTPUT_CAPACITIES, n_outputs)
}

fn number(value: usize) -> F {
    F::from_noncanonical_u64(value as u64)
}

/// `H(TAG_INPUT; n_inputs, salt, bytes packed seven to an element, zero padded to the capacity)`; salt 0 when the input is public.
///
/// # Errors
/// See [`input_capacity`].
pub fn input_commitment(input: &[u8], salt: Digest) -> Result<Digest, SizeError> {
    let mut packed = pack_bytes(input);
    packed.resize(input_capacity(input.len())?.div_ceil(7), F::ZERO);
    Ok(hash(Tag::Input, &[&[number(input.len())], &salt.elements[..], &packed].concat()))
}

/// `H(TAG_OUTPUT; n_outputs, salt, values zero padded to the capacity)`; salt 0 when the output is public.
///
/// # Errors
/// See [`output_capacity`].
pub fn output_commitment(outputs: &[i64], salt: Digest) -> Result<Digest, SizeError> {
    let mut values: Vec<F> = outputs.iter().map(|&value| from_signed(value)).collect();
    values.resize(output_capacity(outputs.len())?, F::ZERO);
    Ok(hash(Tag::Output, &[&[number(outputs.len())], &salt.elements[..], &values].concat()))
}

/// The public chain before the first layer.
pub fn public_chain_start() -> Digest {
    hash(Tag::PublicChainStart, &[])
}

/// `H(TAG_PUBLIC_CHAIN; chain, layer index, layer key)`.
pub fn public_step(chain: Digest, layer_idx: usize, layer_key: Digest) -> Digest {
    hash(Tag::PublicChain, &[&chain.elements[..], &[number(layer_idx)], &layer_key.elements].concat())
}

/// `H(TAG_PROGRAM; layer count, public chain, boundary digest)`.
pub fn program_digest(n_layers: usize, public_chain: Digest, boundary: Digest) -> Digest {
    hash(Tag::Program, &[&[number(n_layers)], &public_chain.elements[..], &boundary.elements].concat())
}

/// `H(TAG_REGISTRATION; parameters id, program digest, model commitment)`: the public input of a registration proof.
pub fn registration_digest(parameters_id: Digest, program: Digest, model: Digest) -> Digest {
    hash(Tag::Registration, &[&parameters_id.elements[..], &program.elements, &model.elements].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_least_capacity_is_taken() {
        for (n_inputs, expected) in [(1, 64), (64, 64), (65, 1024), (16384, 16384)] {
            assert_eq!(input_capacity(n_inputs), Ok(expected));
        }
        assert_eq!(input_capacity(0), Err(SizeError { what: "input", got: 0, limit: 16384 }));
        assert_eq!(output_capacity(1025), Err(SizeError { what: "output", got: 1025, limit: 1024 }));
    }

    #[test]
    fn a_trailing_zero_changes_a_commitment() {
        assert_ne!(input_commitment(&[1], Digest::ZERO), input_commitment(&[1, 0], Digest::ZERO));
        assert_ne!(output_commitment(&[1], Digest::ZERO), output_commitment(&[1, 0], Digest::ZERO));
    }

    proptest! {
        #[test]
        fn each_byte_counts(input in prop::collection::vec(any::<u8>(), 1..200), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut other = input.clone();
            other[at.index(input.len())] ^= flip;
            prop_assert_ne!(input_commitment(&input, Digest::ZERO), input_commitment(&other, Digest::ZERO));
        }
    }
}
