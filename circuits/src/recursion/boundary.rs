//! The boundary, usable inside any leaf: ties the input bytes and the output values to the ledger and to their commitments.
//!
//! Capacities are constants of the circuit, the sizes are witnesses. With n the number of inputs, a_i the bytes, v_i the outputs:
//!
//! - packed elements `P_k = Σ_j 256^j·a_{7k+j}`, each split into 28 base-4 limbs, so every a_i is a byte and P_k < 2^56 < p is unique;
//! - `a_i = 0` for i ≥ n, by the position of the last used element and its number of unused bytes;
//! - `balance = D_in·(Σ_i γ'^i a_i − offset·Σ_{i<n} γ'^i) − δ^out_edge·Σ_i γ'^i v_i`, with `D_in = δ^first_edge·Σ_{k<fan_out} δ^k`.
//!
//! Outputs beyond n_outputs need no constraint here: they are part of the output commitment, which the verifier computes with zeros.
//! Cost: about 0.29 rows an input byte (limbs 1/7, powers 4/43, hash 1/56, tail).

use plonky2::field::types::{Field, PrimeField64};
use plonky2::hash::hash_types::HashOutTarget;
use plonky2::iop::target::{BoolTarget, Target};
use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use plonky2::util::reducing::ReducingFactorTarget;
use thiserror::Error;

use crate::field::{Builder, F};
use crate::hash::{Tag, hash_circuit, pack_bytes};
use crate::recursion::digest::{BoundaryShape, EDGE_BITS, MAX_FAN_OUT};
use crate::recursion::gadgets::{Ext, bits_of, hash_digests, power_from_bits};
use crate::recursion::kinds::BoundaryKind;
use crate::recursion::node::PACKED_LIMBS;
use crate::recursion::salt::Salt;

const BYTES_PER_ELEMENT: usize = 7;
const LIMBS_PER_BYTE: usize = 4;
/// Bits of the number of inputs.
const SIZE_BITS: usize = 15;

/// Wires of a boundary.
pub(super) struct BoundaryTargets {
    kind: BoundaryKind,
    pub(super) packed: Vec<Target>,
    /// last\[k\] = 1 for the last used element k.
    pub(super) last: Vec<BoolTarget>,
    /// unused\[t\] = 1 if the last used element has t unused bytes.
    pub(super) unused: [BoolTarget; BYTES_PER_ELEMENT],
    offset: Target,
    input_salt: HashOutTarget,
    first_input_edge: Target,
    /// consumes\[k\] = 1 for k < fan-out.
    pub(super) consumes: [BoolTarget; MAX_FAN_OUT],
    outputs: Vec<Target>,
    n_outputs: Target,
    output_salt: HashOutTarget,
    pub(super) output_edge: Target,
    /// What the node publishes.
    pub(super) payload: HashOutTarget,
    /// The boundary's balance.
    pub(super) balance: Ext,
}

/// What a boundary is proved about.
#[derive(Clone, Debug)]
pub struct BoundaryWitness {
    /// Shape, part of the program.
    pub shape: BoundaryShape,
    /// The input bytes.
    pub input: Vec<u8>,
    /// Salt of the input commitment, [`Salt::NONE`] if the input is public.
    pub input_salt: Salt,
    /// The output values.
    pub output: Vec<F>,
    /// Salt of the output commitment, [`Salt::NONE`] if the output is public.
    pub output_salt: Salt,
}

/// A boundary that its circuit cannot carry.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum BoundaryError {
    /// Length against shape.
    #[error("the {what} has {got} elements, the program's boundary has {expected}")]
    Length {
        /// Input or output.
        what: &'static str,
        /// Elements of the program.
        expected: usize,
        /// Elements given.
        got: usize,
    },
    /// Out of range.
    #[error("{what} is {got}, outside {min} to {max} of the boundary circuit")]
    Range {
        /// Which field.
        what: &'static str,
        /// Its value.
        got: usize,
        /// Least value allowed.
        min: usize,
        /// Largest value allowed.
        max: usize,
    },
}

fn check_range(what: &'static str, got: usize, min: usize, max: usize) -> Result<(), BoundaryError> {
    if (min..=max).contains(&got) { Ok(()) } else { Err(BoundaryError::Range { what, got, min, max }) }
}

impl BoundaryWitness {
    /// Checks the witness against its own shape and the circuit's capacities.
    ///
    /// # Errors
    /// The first field that does not fit.
    pub fn check(&self, kind: BoundaryKind) -> Result<(), BoundaryError> {
        let shape = &self.shape;
        let lengths = [("input", shape.n_inputs, self.input.len()), ("output", shape.n_outputs, self.output.len())];
        for (what, expected, got) in lengths {
            if expected != got {
                return Err(BoundaryError::Length { what, expected, got });
            }
        }
        check_range("n_inputs", shape.n_inputs, 1, kind.input_capacity)?;
        check_range("n_outputs", shape.n_outputs, 1, kind.output_capacity)?;
        check_range("first_input_edge", shape.first_input_edge, 1, (1 << EDGE_BITS) - 1)?;
        check_range("output_edge", shape.output_edge, 1, (1 << EDGE_BITS) - 1)?;
        check_range("input_fan_out", shape.input_fan_out, 1, MAX_FAN_OUT)
    }
}

/// The limbs of the packed elements: `limbs[k][4j + i]` is base-4 digit i of byte 7k + j.
fn split_elements(builder: &mut Builder, packed: &[Target]) -> Vec<Vec<Target>> {
    packed.iter().map(|&element| builder.split_le_base::<4>(element, PACKED_LIMBS)).collect()
}

/// `Σ_i γ'^i a_i` over all bytes: four sums of limbs, since `a = Σ_i 4^i·limb_i`.
fn sum_of_bytes(builder: &mut Builder, limbs: &[Vec<Target>], gamma_prime: Ext) -> Ext {
    let four = F::from_canonical_usize(4);
    let mut total = builder.zero_extension();
    for digit in (0..LIMBS_PER_BYTE).rev() {
        let of_element = |element: &Vec<Target>| element.iter().copied().skip(digit).step_by(LIMBS_PER_BYTE).collect();
        let column: Vec<Target> = limbs.iter().flat_map::<Vec<Target>, _>(of_element).collect();
        let sum = ReducingFactorTarget::new(gamma_prime).reduce_base(&column, builder);
        total = builder.mul_const_add_extension(four, total, sum);
    }
    total
}

/// The size of the input from the position of its end; forces every byte beyond it to 0.
fn constrain_tail(
    builder: &mut Builder,
    packed: &[Target],
    last: &[BoolTarget],
    unused: &[BoolTarget; BYTES_PER_ELEMENT],
) -> Target {
    let (zero, one) = (builder.zero(), builder.one());
    let (mut ended, mut n_used, mut last_element) = (zero, zero, zero);
    for (k, (&element, &is_last)) in packed.iter().zip(last).enumerate() {
        // Elements after the last used one are 0.
        let beyond = builder.mul(ended, element);
        builder.assert_zero(beyond);
        last_element = builder.mul_add(is_last.target, element, last_element);
        n_used = builder.mul_const_add(F::from_canonical_usize(k + 1), is_last.target, n_used);
        ended = builder.add(ended, is_last.target);
    }
    // There is exactly one last element.
    builder.connect(ended, one);
    let n_unused = constrain_unused(builder, last_element, unused);
    let seven = F::from_canonical_usize(BYTES_PER_ELEMENT);
    let negative = builder.neg(n_unused);
    builder.mul_const_add(seven, n_used, negative)
}

/// The top `t` bytes of the last used element are 0, where unused\[t\] = 1; returns t.
fn constrain_unused(
    builder: &mut Builder,
    last_element: Target,
    unused: &[BoolTarget; BYTES_PER_ELEMENT],
) -> Target {
    let one = builder.one();
    let limbs = builder.split_le_base::<4>(last_element, PACKED_LIMBS);
    let (mut n_unused, mut total) = (builder.zero(), builder.zero());
    for (t, flag) in unused.iter().enumerate() {
        n_unused = builder.mul_const_add(F::from_canonical_usize(t), flag.target, n_unused);
        total = builder.add(total, flag.target);
    }
    builder.connect(total, one);
    // Byte j is unused if t ≥ 7 − j: the flags from t = 6 downwards accumulate while j rises from 1.
    let mut flags = builder.zero();
    for byte in 1..BYTES_PER_ELEMENT {
        flags = builder.add(flags, unused[BYTES_PER_ELEMENT - byte].target);
        for &limb in &limbs[LIMBS_PER_BYTE * byte..LIMBS_PER_BYTE * (byte + 1)] {
            let product = builder.mul(flags, limb);
            builder.assert_zero(product);
        }
    }
    n_unused
}

/// `Σ_{i<n} γ'^i`, as the S with `S·(γ' − 1) = γ'^n − 1` (γ' = 1 has no proof: probability 1/|K|).
fn sum_of_powers(builder: &mut Builder, gamma_prime: Ext, n: Target) -> Ext {
    let bits = bits_of(builder, n, SIZE_BITS);
    let power = power_from_bits(builder, gamma_prime, &bits);
    let one = builder.one_extension();
    let numerator = builder.sub_extension(power, one);
    let denominator = builder.sub_extension(gamma_prime, one);
    builder.div_extension(numerator, denominator)
}

/// `D_in = δ^first_edge·Σ_{k<fan_out} δ^k`, and the fan-out.
fn consumer_weight(
    builder: &mut Builder,
    delta: Ext,
    first_edge: Target,
    consumes: &[BoolTarget; MAX_FAN_OUT],
) -> (Ext, Target) {
    for pair in consumes.windows(2) {
        // consumes[k + 1] ≤ consumes[k].
        let rise = builder.mul_sub(pair[1].target, pair[0].target, pair[1].target);
        builder.assert_zero(rise);
    }
    let flags: Vec<Target> = consumes.iter().map(|flag| flag.target).collect();
    let fan_out = builder.add_many(&flags);
    let bits = bits_of(builder, first_edge, EDGE_BITS);
    let first = power_from_bits(builder, delta, &bits);
    let consumers = ReducingFactorTarget::new(delta).reduce_base(&flags, builder);
    (builder.mul_extension(first, consumers), fan_out)
}

impl BoundaryTargets {
    /// Adds a boundary of these capacities, under the node's γ' and δ.
    pub(super) fn build(builder: &mut Builder, kind: BoundaryKind, gamma_prime: Ext, delta: Ext) -> Self {
        let packed = builder.add_virtual_targets(kind.input_capacity.div_ceil(BYTES_PER_ELEMENT));
        let last: Vec<BoolTarget> = packed.iter().map(|_| builder.add_virtual_bool_target_safe()).collect();
        let unused = std::array::from_fn(|_| builder.add_virtual_bool_target_safe());
        let offset = builder.add_virtual_target();
        let first_input_edge = builder.add_virtual_target();
        let consumes = std::array::from_fn(|_| builder.add_virtual_bool_target_safe());
        let outputs = builder.add_virtual_targets(kind.output_capacity);
        let n_outputs = builder.add_virtual_target();
        let output_edge = builder.add_virtual_target();
        let (input_salt, output_salt) = (builder.add_virtual_hash(), builder.add_virtual_hash());

        let limbs = split_elements(builder, &packed);
        let n_inputs = constrain_tail(builder, &packed, &last, &unused);
        let bytes = sum_of_bytes(builder, &limbs, gamma_prime);
        let powers = sum_of_powers(builder, gamma_prime, n_inputs);
        let shift = builder.scalar_mul_ext(offset, powers);
        let input = builder.sub_extension(bytes, shift);
        let (input_weight, fan_out) = consumer_weight(builder, delta, first_input_edge, &consumes);
        let output_bits = bits_of(builder, output_edge, EDGE_BITS);
        let output_weight = power_from_bits(builder, delta, &output_bits);
        let output = ReducingFactorTarget::new(gamma_prime).reduce_base(&outputs, builder);
        let produced = builder.mul_extension(input_weight, input);
        let consumed = builder.mul_extension(output_weight, output);
        let balance = builder.sub_extension(produced, consumed);

        let shape = [n_inputs, offset, first_input_edge, fan_out, n_outputs, output_edge];
        let boundary = hash_circuit(builder, Tag::Boundary, &shape);
        let committed = [&[n_inputs], &input_salt.elements[..], &packed].concat();
        let input_commitment = hash_circuit(builder, Tag::Input, &committed);
        let committed = [&[n_outputs], &output_salt.elements[..], &outputs].concat();
        let output_commitment = hash_circuit(builder, Tag::Output, &committed);
        let payload = hash_digests(builder, Tag::Payload, &[boundary, input_commitment, output_commitment]);
        Self {
            kind,
            packed,
            last,
            unused,
            offset,
            input_salt,
            first_input_edge,
            consumes,
            outputs,
            n_outputs,
            output_salt,
            output_edge,
            payload,
            balance,
        }
    }

    /// Assigns a boundary that [`BoundaryWitness::check`] accepts.
    pub(super) fn set(&self, witness: &mut PartialWitness<F>, values: &BoundaryWitness) -> anyhow::Result<()> {
        values.check(self.kind)?;
        let mut packed = pack_bytes(&values.input);
        let n_used = packed.len();
        packed.resize(self.packed.len(), F::ZERO);
        debug_assert!(packed.iter().all(|element| element.to_canonical_u64() < 1 << 56));
        witness.set_target_arr(&self.packed, &packed)?;
        for (k, &last) in self.last.iter().enumerate() {
            witness.set_bool_target(last, k + 1 == n_used)?;
        }
        let n_unused = BYTES_PER_ELEMENT * n_used - values.input.len();
        for (t, &flag) in self.unused.iter().enumerate() {
            witness.set_bool_target(flag, t == n_unused)?;
        }
        for (k, &flag) in self.consumes.iter().enumerate() {
            witness.set_bool_target(flag, k < values.shape.input_fan_out)?;
        }
        let mut outputs = values.output.clone();
        outputs.resize(self.outputs.len(), F::ZERO);
        witness.set_target_arr(&self.outputs, &outputs)?;
        let shape = &values.shape;
        witness.set_target(self.offset, F::from_canonical_u8(shape.input_offset))?;
        witness.set_target(self.first_input_edge, F::from_canonical_usize(shape.first_input_edge))?;
        witness.set_target(self.n_outputs, F::from_canonical_usize(shape.n_outputs))?;
        witness.set_target(self.output_edge, F::from_canonical_usize(shape.output_edge))?;
        witness.set_hash_target(self.input_salt, values.input_salt.digest())?;
        witness.set_hash_target(self.output_salt, values.output_salt.digest())
    }
}
