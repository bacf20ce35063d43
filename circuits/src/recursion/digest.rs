//! The digests that tie a statement together, natively: chains, boundary, commitments, shared challenges, statement.
//!
//! Each function is one formula of `docs/PROTOCOL.md` §5 and §6; the circuits compute the same lists of elements.

use plonky2::field::types::Field;
use plonky2::plonk::circuit_data::VerifierOnlyCircuitData;
use thiserror::Error;

use crate::field::{C, D, Digest, F, K, ext};
use crate::hash::{Tag, hash, pack_bytes};

/// Version of the protocol: part of every statement and of the parameters id.
pub const PROTOCOL_VERSION: u64 = 1;
/// Capacities of the committed input, in bytes: the least that holds the input is taken.
pub const INPUT_CAPACITIES: [usize; 4] = [64, 1024, 4096, 16384];
/// Capacities of the committed output, in values.
pub const OUTPUT_CAPACITIES: [usize; 3] = [16, 256, 1024];
/// Largest number of consumers of one tensor.
pub const MAX_FAN_OUT: usize = 8;
/// Edge numbers are below 2^this.
pub const EDGE_BITS: usize = 16;

/// An input or output that no boundary circuit can carry.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SizeError {
    /// No values at all.
    #[error("the {what} is empty; it must have at least one element")]
    Empty {
        /// Input or output.
        what: &'static str,
    },
    /// More than the largest capacity.
    #[error("the {what} has {got} elements, more than the largest capacity {limit}; split the model or reduce the {what}")]
    TooLarge {
        /// Input or output.
        what: &'static str,
        /// Elements.
        got: usize,
        /// The largest capacity.
        limit: usize,
    },
}

fn capacity(what: &'static str, capacities: &[usize], n_elements: usize) -> Result<usize, SizeError> {
    if n_elements == 0 {
        return Err(SizeError::Empty { what });
    }
    let limit = capacities.iter().copied().max().unwrap_or(0);
    let fitting = capacities.iter().copied().find(|&capacity| capacity >= n_elements);
    fitting.ok_or(SizeError::TooLarge { what, got: n_elements, limit })
}

/// The capacity of the commitment of an input of `n_inputs` bytes.
///
/// # Errors
/// An empty input, or one above the largest capacity.
pub fn input_capacity(n_inputs: usize) -> Result<usize, SizeError> {
    capacity("input", &INPUT_CAPACITIES, n_inputs)
}

/// The capacity of the commitment of an output of `n_outputs` values.
///
/// # Errors
/// An empty output, or one above the largest capacity.
pub fn output_capacity(n_outputs: usize) -> Result<usize, SizeError> {
    capacity("output", &OUTPUT_CAPACITIES, n_outputs)
}

fn number(value: usize) -> F {
    F::from_canonical_usize(value)
}

fn concat(parts: &[&[F]]) -> Vec<F> {
    parts.concat()
}

/// `H(TAG_INPUT; n_inputs, salt, packed bytes zero padded to the capacity)`; salt 0 when the input is public.
///
/// # Errors
/// See [`input_capacity`].
pub fn input_commitment(input: &[u8], salt: Digest) -> Result<Digest, SizeError> {
    let mut packed = pack_bytes(input);
    packed.resize(input_capacity(input.len())?.div_ceil(7), F::ZERO);
    Ok(hash(Tag::Input, &concat(&[&[number(input.len())], &salt.elements, &packed])))
}

/// `H(TAG_OUTPUT; n_outputs, salt, values zero padded to the capacity)`; salt 0 when the output is public.
///
/// # Errors
/// See [`output_capacity`].
pub fn output_commitment(output: &[F], salt: Digest) -> Result<Digest, SizeError> {
    let mut values = output.to_vec();
    values.resize(output_capacity(output.len())?, F::ZERO);
    Ok(hash(Tag::Output, &concat(&[&[number(output.len())], &salt.elements, &values])))
}

/// Where a graph meets its user: public, part of the program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BoundaryShape {
    /// Input elements, one byte each.
    pub n_inputs: usize,
    /// The input tensor is `byte − input_offset`.
    pub input_offset: u8,
    /// Number of the input tensor's first edge.
    pub first_input_edge: usize,
    /// Consumers of the input tensor: edges first_input_edge, first_input_edge + 1, ….
    pub input_fan_out: usize,
    /// Output values.
    pub n_outputs: usize,
    /// Number of the output tensor's edge to the user.
    pub output_edge: usize,
}

impl BoundaryShape {
    /// `H(TAG_BOUNDARY; …)` over the fields in order.
    pub fn digest(&self) -> Digest {
        let fields =
            [self.n_inputs, usize::from(self.input_offset), self.first_input_edge, self.input_fan_out, self.n_outputs, self.output_edge];
        hash(Tag::Boundary, &fields.map(number))
    }
}

/// `H(TAG_PAYLOAD; boundary digest, input commitment, output commitment)`: what a boundary node publishes.
pub fn payload(boundary: Digest, input: Digest, output: Digest) -> Digest {
    hash(Tag::Payload, &concat(&[&boundary.elements, &input.elements, &output.elements]))
}

/// The three chains over the layers of a model, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chains {
    /// Over layer index and layer key.
    pub public: Digest,
    /// Over link(W).
    pub secret: Digest,
    /// Over link(main).
    pub main: Digest,
}

/// What a layer adds to the chains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerIdentity {
    /// Kind and public scalars.
    pub key: Digest,
    /// Identity of the weights oracle.
    pub link_weights: Digest,
    /// Identity of the main oracle.
    pub link_main: Digest,
}

impl Chains {
    /// The chains before the first layer.
    pub fn start() -> Self {
        Self { public: hash(Tag::PublicChainStart, &[]), secret: hash(Tag::SecretChainStart, &[]), main: hash(Tag::MainChainStart, &[]) }
    }

    /// The chains after layer `index`.
    pub fn after(&self, index: usize, layer: &LayerIdentity) -> Self {
        Self {
            public: public_step(self.public, index, layer.key),
            secret: secret_step(self.secret, layer.link_weights),
            main: main_step(self.main, layer.link_main),
        }
    }
}

/// `H(TAG_PUBLIC_CHAIN; chain, index, layer key)`.
pub fn public_step(chain: Digest, index: usize, layer_key: Digest) -> Digest {
    hash(Tag::PublicChain, &concat(&[&chain.elements, &[number(index)], &layer_key.elements]))
}

/// `H(TAG_SECRET_CHAIN; chain, link(W))`.
pub fn secret_step(chain: Digest, link_weights: Digest) -> Digest {
    hash(Tag::SecretChain, &concat(&[&chain.elements, &link_weights.elements]))
}

/// `H(TAG_MAIN_CHAIN; chain, link(main))`.
pub fn main_step(chain: Digest, link_main: Digest) -> Digest {
    hash(Tag::MainChain, &concat(&[&chain.elements, &link_main.elements]))
}

/// `H(TAG_PROGRAM; layer count, public chain, boundary digest)`.
pub fn program_digest(n_layers: usize, public_chain: Digest, boundary: Digest) -> Digest {
    hash(Tag::Program, &concat(&[&[number(n_layers)], &public_chain.elements, &boundary.elements]))
}

/// `H(TAG_MODEL; salt, program digest, secret chain)`.
pub fn model_commitment(salt: Digest, program: Digest, secret_chain: Digest) -> Digest {
    hash(Tag::Model, &concat(&[&salt.elements, &program.elements, &secret_chain.elements]))
}

/// γ' and δ, shared by all layers and the boundary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalChallenges {
    /// Base of the powers over the elements of a tensor.
    pub gamma_prime: K,
    /// Base of the powers over the edges.
    pub delta: K,
}

impl GlobalChallenges {
    /// The challenges of a registration: both 0.
    pub fn zero() -> Self {
        Self { gamma_prime: K::ZERO, delta: K::ZERO }
    }
}

/// Everything that (γ', δ) depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GlobalInputs {
    /// Parameters id.
    pub parameters_id: Digest,
    /// Model commitment.
    pub model: Digest,
    /// Program digest.
    pub program: Digest,
    /// Input commitment.
    pub input: Digest,
    /// Output commitment.
    pub output: Digest,
    /// Layers.
    pub n_layers: usize,
    /// The main chain after all layers.
    pub main_chain: Digest,
}

impl GlobalInputs {
    /// `(γ', δ) = H(TAG_GLOBAL; …)`, two elements each.
    pub fn challenges(&self) -> GlobalChallenges {
        let elements = hash(
            Tag::Global,
            &concat(&[
                &self.parameters_id.elements,
                &self.model.elements,
                &self.program.elements,
                &self.input.elements,
                &self.output.elements,
                &[number(self.n_layers)],
                &self.main_chain.elements,
            ]),
        )
        .elements;
        GlobalChallenges { gamma_prime: ext(elements[0], elements[1]), delta: ext(elements[2], elements[3]) }
    }
}

/// What an outer proof states; the verifier rebuilds it from the readable statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StatementFields {
    /// Parameters id.
    pub parameters_id: Digest,
    /// Program digest.
    pub program: Digest,
    /// Model commitment.
    pub model: Digest,
    /// Input commitment.
    pub input: Digest,
    /// Output commitment.
    pub output: Digest,
    /// Predicate on the output; zero: none.
    pub predicate: Digest,
    /// The verifier's nonce.
    pub context_nonce: Digest,
}

impl StatementFields {
    /// `H(TAG_STATEMENT; version, …)`: the public input of the outer proof.
    pub fn digest(&self) -> Digest {
        hash(
            Tag::Statement,
            &concat(&[
                &[F::from_canonical_u64(PROTOCOL_VERSION)],
                &self.parameters_id.elements,
                &self.program.elements,
                &self.model.elements,
                &self.input.elements,
                &self.output.elements,
                &self.predicate.elements,
                &self.context_nonce.elements,
            ]),
        )
    }
}

/// `H(TAG_REGISTRATION; parameters id, program digest, model commitment)`: the public input of a registration proof.
pub fn registration_digest(parameters_id: Digest, program: Digest, model: Digest) -> Digest {
    hash(Tag::Registration, &concat(&[&parameters_id.elements, &program.elements, &model.elements]))
}

/// `H(TAG_VD; circuit_digest, constants_sigmas_cap)`: identity of a circuit. circuit_digest alone binds nothing.
pub fn verifier_data_digest(verifier_data: &VerifierOnlyCircuitData<C, D>) -> Digest {
    let mut elements = verifier_data.circuit_digest.elements.to_vec();
    elements.extend(verifier_data.constants_sigmas_cap.0.iter().flat_map(|digest| digest.elements));
    hash(Tag::VerifierData, &elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commitments_bind_size_and_salt() {
        let salted = Digest { elements: [F::ONE; 4] };
        let base = input_commitment(&[1, 2, 3], Digest::ZERO).unwrap();
        assert_ne!(base, input_commitment(&[1, 2, 3, 0], Digest::ZERO).unwrap());
        assert_ne!(base, input_commitment(&[1, 2, 3], salted).unwrap());
        let base = output_commitment(&[F::ONE], Digest::ZERO).unwrap();
        assert_ne!(base, output_commitment(&[F::ONE, F::ZERO], Digest::ZERO).unwrap());
        assert_ne!(base, output_commitment(&[F::ONE], salted).unwrap());
    }

    #[test]
    fn sizes_outside_the_capacities_are_refused() {
        assert_eq!(input_capacity(784), Ok(1024));
        assert_eq!(input_capacity(0), Err(SizeError::Empty { what: "input" }));
        assert_eq!(input_capacity(16385), Err(SizeError::TooLarge { what: "input", got: 16385, limit: 16384 }));
        assert_eq!(output_capacity(16), Ok(16));
        assert_eq!(output_capacity(1025), Err(SizeError::TooLarge { what: "output", got: 1025, limit: 1024 }));
    }

    /// PITFALLS 11 for the challenges that all layers share: any change of anything they are hashed from changes both.
    #[test]
    fn shared_challenges_depend_on_everything_that_was_committed() {
        let of = |value: u64| Digest { elements: std::array::from_fn(|i| F::from_canonical_u64(10 * value + i as u64)) };
        let base = GlobalInputs {
            parameters_id: of(1),
            model: of(2),
            program: of(3),
            input: of(4),
            output: of(5),
            n_layers: 6,
            main_chain: of(7),
        };
        let digests: [fn(&mut GlobalInputs) -> &mut Digest; 6] = [
            |inputs| &mut inputs.parameters_id,
            |inputs| &mut inputs.model,
            |inputs| &mut inputs.program,
            |inputs| &mut inputs.input,
            |inputs| &mut inputs.output,
            |inputs| &mut inputs.main_chain,
        ];
        let mut changed = vec![GlobalInputs { n_layers: 7, ..base }, GlobalInputs { input: base.output, output: base.input, ..base }];
        for digest in digests {
            for element in 0..4 {
                let mut inputs = base;
                digest(&mut inputs).elements[element] += F::ONE;
                changed.push(inputs);
            }
        }
        for inputs in changed {
            let (got, was) = (inputs.challenges(), base.challenges());
            assert_ne!(got.gamma_prime, was.gamma_prime, "{inputs:?}");
            assert_ne!(got.delta, was.delta, "{inputs:?}");
        }
    }

    #[test]
    fn chains_do_not_commute() {
        let layer = |value: u64| {
            let digest = Digest { elements: [F::from_canonical_u64(value); 4] };
            LayerIdentity { key: digest, link_weights: digest, link_main: digest }
        };
        let forward = Chains::start().after(0, &layer(1)).after(1, &layer(2));
        let backward = Chains::start().after(0, &layer(2)).after(1, &layer(1));
        assert_ne!(forward.public, backward.public);
        assert_ne!(forward.secret, backward.secret);
        assert_ne!(forward.main, backward.main);
    }
}
