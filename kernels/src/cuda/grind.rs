//! Grinding on the device: the smallest nonce, block after block.

use plonky2::field::types::PrimeField64;
use plonky2::iop::challenger::Challenger;
use zkinfer_circuits::backend::BackendError;
use zkinfer_circuits::field::{F, H, ORDER};

use super::lane::Lane;
use super::launch::{Argument, Shape};
use crate::poseidon::Pending;

/// Nonces of a launch, log₂: at least this many, and at most.
const LOG_BLOCK: std::ops::RangeInclusive<u32> = 10..=22;

/// The smallest nonce whose challenge has `bits` leading zeros.
pub(crate) fn grind(lane: Lane<'_>, challenger: &Challenger<F, H>, bits: u32) -> Result<u64, BackendError> {
    let none = || BackendError::Unsupported(format!("no nonce has a challenge with {bits} leading zeros"));
    let mask = u64::MAX.checked_shr(bits).map_or(u64::MAX, |low| !low);
    if bits > u64::BITS {
        return Err(none());
    }
    let Pending { state, position } = Pending::of(challenger);
    let prepared = lane.upload(&state.map(|word| word.to_canonical_u64()))?;
    let mut best = lane.upload(&[u64::MAX])?;
    let block = 1u64 << (bits + 1).clamp(*LOG_BLOCK.start(), *LOG_BLOCK.end());
    let mut first = 0;
    while first < ORDER {
        let count = block.min(ORDER - first);
        let arguments = vec![
            Argument::In(prepared.view()),
            Argument::Out(best.view_mut()),
            Argument::Word(first),
            Argument::Word(mask),
            Argument::Count(count as u32),
            Argument::Count(position as u32),
        ];
        lane.launch("grind_nonces", Shape::of_items(count), arguments)?;
        let found = lane.download(&best.view())?[0];
        if found != u64::MAX {
            return Ok(found);
        }
        first += count;
    }
    Err(none())
}
