//! From a challenge to the place of a query: bits of its index, point of the domain.

use plonky2::field::types::{Field, PrimeField64};
use plonky2::iop::generator::{GeneratedValues, SimpleGenerator};
use plonky2::iop::target::{BoolTarget, Target};
use plonky2::iop::witness::{PartitionWitness, Witness, WitnessWrite};
use plonky2::plonk::circuit_data::CommonCircuitData;
use plonky2::util::serialization::{Buffer, IoResult, Read, Write};

use crate::field::{Builder, D, F};

/// The most bits that one row takes apart: 2^63 < p.
const ROW_BITS: usize = 63;

/// The low `n_bits` of a challenge, little end first, as plonky2's `low_bits` of 64 gives them, with one row in place of two.
///
/// Like there, a challenge below 2^64 − p has two decompositions: it is one with probability 2^−32, and then both are in the domain.
pub(super) fn index_bits(builder: &mut Builder, challenge: Target, n_bits: usize) -> Vec<BoolTarget> {
    let top = builder.add_virtual_bool_target_safe();
    builder.add_simple_generator(TopBitGenerator { integer: challenge, top });
    low_bits(builder, challenge, top, n_bits)
}

/// `challenge = Σ_{k<63} 2^k·bit_k + 2^63·top`, top boolean.
pub(super) fn low_bits(builder: &mut Builder, challenge: Target, top: BoolTarget, n_bits: usize) -> Vec<BoolTarget> {
    let minus_weight = builder.constant(-F::from_canonical_u64(1 << ROW_BITS));
    let low = builder.mul_add(minus_weight, top.target, challenge);
    let mut bits = builder.split_le(low, ROW_BITS);
    bits.truncate(n_bits);
    bits
}

/// `start·root^r`, r the number whose bits, big end first, are `bits`.
pub(super) fn walk(builder: &mut Builder, start: Target, root: F, bits: &[BoolTarget]) -> Target {
    let mut power = root;
    bits.iter().rev().fold(start, |product, bit| {
        // product·(1 + bit·(root^(2^k) − 1))
        let next = builder.arithmetic(power - F::ONE, F::ONE, product, bit.target, product);
        power *= power;
        next
    })
}

/// Finds bit 63 of an element's canonical form; proves nothing.
#[derive(Debug, Default)]
pub(crate) struct TopBitGenerator {
    integer: Target,
    top: BoolTarget,
}

impl SimpleGenerator<F, D> for TopBitGenerator {
    fn id(&self) -> String {
        "zkinfer TopBitGenerator".to_owned()
    }

    fn dependencies(&self) -> Vec<Target> {
        vec![self.integer]
    }

    fn run_once(&self, witness: &PartitionWitness<F>, out_buffer: &mut GeneratedValues<F>) -> anyhow::Result<()> {
        let integer = witness.get_target(self.integer).to_canonical_u64();
        out_buffer.set_bool_target(self.top, integer >> ROW_BITS == 1)
    }

    fn serialize(&self, dst: &mut Vec<u8>, _: &CommonCircuitData<F, D>) -> IoResult<()> {
        dst.write_target(self.integer)?;
        dst.write_target_bool(self.top)
    }

    fn deserialize(src: &mut Buffer, _: &CommonCircuitData<F, D>) -> IoResult<Self> {
        Ok(Self { integer: src.read_target()?, top: src.read_target_bool()? })
    }
}
