//! Transforms on the device: tables of twiddles, and the launches that make up a transform (`kernels/cuda/ntt.cu` has the formulas).

use std::sync::Arc;

use plonky2::field::types::{Field, PrimeField64};
use zkinfer_circuits::backend::BackendError;
use zkinfer_circuits::field::F;

use super::device::Device;
use super::lane::Lane;
use super::launch::{Argument, Shape};
use super::memory::{Buffer, Words, WordsMut};

/// Largest log₂ of an extended domain on a device: positions of a column fit 32 bits with room.
pub(crate) const MAX_LOG_LEAVES: usize = 28;
/// Twiddles of the first level, log₂.
const LOW_BITS: usize = 10;
/// Values of a tile in shared memory, log₂.
const TILE_BITS: usize = 12;
/// Most stages of a launch that reads strided tiles: runs of at least 2^4 words are then read at once.
const STRIDED_STAGES: usize = 8;
/// Neighbours read at once where a launch gathers, log₂: a sector of 32 bytes.
const GATHERED_BITS: usize = 2;

/// Which way, and in which order values come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Direction {
    /// Coefficients to values.
    Forward,
    /// Values to coefficients.
    Inverse,
}

/// A transform whose tables are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TableKey {
    log_size: usize,
    log_cosets: usize,
    shift: u64,
    direction: Direction,
}

/// Twiddles of a transform, on the device.
#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) low: Buffer,
    pub(crate) high: Buffer,
}

impl Tables {
    /// The tables of 2^log_cosets cosets of 2^log_size points, of the coset shift·⟨w⟩.
    pub(crate) fn get(
        lane: Lane<'_>,
        log_size: usize,
        log_cosets: usize,
        shift: F,
        direction: Direction,
    ) -> Result<Arc<Self>, BackendError> {
        let key = TableKey { log_size, log_cosets, shift: shift.to_canonical_u64(), direction };
        lane.device.tables(key, || Self::make(lane, key))
    }

    fn make(lane: Lane<'_>, key: TableKey) -> Result<Self, BackendError> {
        let invert = |value: F| if key.direction == Direction::Inverse { value.inverse() } else { value };
        let shift = invert(F::from_canonical_u64(key.shift));
        // R[2^i] is a root of order 2^(i+2); R of a sum of powers of two is their product.
        let root = |i: usize| invert(F::primitive_root_of_unity(i + 2));
        let low = products((0..LOW_BITS).map(root));
        let stages = (0..key.log_size.max(1)).flat_map(|stage| {
            let factor = shift.exp_power_of_2((key.log_size).saturating_sub(stage + 1));
            low.iter().map(move |&value| (value * factor).to_canonical_u64())
        });
        let above = (key.log_size + key.log_cosets).saturating_sub(LOW_BITS + 1);
        let high: Vec<u64> = products((LOW_BITS..LOW_BITS + above).map(root)).iter().map(PrimeField64::to_canonical_u64).collect();
        let tables = Self { low: lane.upload(&stages.collect::<Vec<_>>())?, high: lane.upload(&high)? };
        lane.finish()?;
        Ok(tables)
    }
}

/// Products of all subsets of the factors: entry t multiplies those whose bit of t is set.
fn products(factors: impl Iterator<Item = F>) -> Vec<F> {
    let mut result = vec![F::ONE];
    for factor in factors {
        result.extend(result.clone().into_iter().map(|value| value * factor));
    }
    result
}

/// The stages of one launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pass {
    first_stage: usize,
    rows: usize,
    neighbours: usize,
}

impl Pass {
    fn shape(self, log_size: usize, n_transforms: usize) -> Shape {
        let tile_bits = self.rows + self.neighbours;
        let words = 1usize << tile_bits;
        Shape {
            blocks: (n_transforms as u64) << (log_size - tile_bits),
            threads: (words / 16).clamp(1, 256) as u32,
            // The padding of ntt_padded.
            shared_words: words + (words >> 4),
        }
    }

    fn counts(self) -> [Argument<'static>; 3] {
        [self.first_stage, self.rows, self.neighbours].map(|count| Argument::Count(count as u32))
    }
}

/// Launches from the first stage to the last: strided tiles above, contiguous ones below.
fn passes(log_size: usize) -> Vec<Pass> {
    let contiguous = log_size.min(TILE_BITS);
    let above = log_size - contiguous;
    let n_strided = above.div_ceil(STRIDED_STAGES);
    let mut passes = Vec::new();
    let mut first_stage = 0;
    for index in 0..n_strided {
        let rows = (above - first_stage).div_ceil(n_strided - index);
        passes.push(Pass { first_stage, rows, neighbours: TILE_BITS - rows });
        first_stage += rows;
    }
    passes.push(Pass { first_stage, rows: contiguous, neighbours: 0 });
    passes
}

/// Launches of an inverse transform, which begins below; one that gathers reads neighbours of the source.
fn inverse_passes(log_size: usize, gathers: bool) -> Vec<Pass> {
    if !gathers || log_size <= TILE_BITS {
        return passes(log_size).into_iter().rev().collect();
    }
    let rows = TILE_BITS - GATHERED_BITS;
    let first_stage = log_size - rows;
    let mut result = vec![Pass { first_stage, rows, neighbours: GATHERED_BITS }];
    let n_strided = first_stage.div_ceil(STRIDED_STAGES);
    let mut end = first_stage;
    for index in 0..n_strided {
        let rows = end.div_ceil(n_strided - index);
        end -= rows;
        result.push(Pass { first_stage: end, rows, neighbours: TILE_BITS - rows });
    }
    result
}

/// Every column of `source`, 2^log_size coefficients each, to its values on 2^log_cosets cosets of shift·⟨w⟩, in the order of leaves.
///
/// `target` has 2^(log_size + log_cosets) words for each column.
pub(crate) fn extend(
    lane: Lane<'_>,
    source: Argument<'_>,
    mut target: WordsMut<'_>,
    log_size: usize,
    log_cosets: usize,
    shift: F,
) -> Result<(), BackendError> {
    let tables = Tables::get(lane, log_size, log_cosets, shift, Direction::Forward)?;
    let n_transforms = target.len() >> log_size;
    let mut source = Some(source);
    for pass in passes(log_size) {
        let first = source.take();
        let expands = u32::from(first.is_some());
        let mut arguments = match first {
            Some(source) => vec![source, Argument::Out(target.slice_mut(..))],
            None => vec![Argument::Out(target.slice_mut(..)), Argument::Same],
        };
        arguments.extend([Argument::In(tables.low.view()), Argument::In(tables.high.view())]);
        arguments.extend([Argument::Count(log_size as u32), Argument::Count(log_cosets as u32)]);
        arguments.extend(pass.counts());
        arguments.push(Argument::Count(expands));
        lane.launch("ntt_forward", pass.shape(log_size, n_transforms), arguments)?;
    }
    Ok(())
}

/// Values on G in natural order to coefficients, column after column of 2^log_size each.
pub(crate) fn interpolate(lane: Lane<'_>, source: Words<'_>, target: WordsMut<'_>, log_size: usize) -> Result<(), BackendError> {
    inverse(lane, Some(source), target, log_size, F::ONE)
}

/// Values on shift·⟨w⟩ in bit-reversed order to coefficients, in place.
pub(crate) fn interpolate_coset(lane: Lane<'_>, values: WordsMut<'_>, log_size: usize, shift: F) -> Result<(), BackendError> {
    inverse(lane, None, values, log_size, shift)
}

fn inverse(
    lane: Lane<'_>,
    mut natural: Option<Words<'_>>,
    mut target: WordsMut<'_>,
    log_size: usize,
    shift: F,
) -> Result<(), BackendError> {
    let tables = Tables::get(lane, log_size, 0, shift, Direction::Inverse)?;
    let n_transforms = target.len() >> log_size;
    let passes = inverse_passes(log_size, natural.is_some());
    for (index, pass) in passes.iter().enumerate() {
        let scale = if index + 1 == passes.len() { F::inverse_2exp(log_size) } else { F::ONE };
        let source = natural.take();
        let gathers = u32::from(source.is_some());
        let mut arguments = match source {
            Some(source) => vec![Argument::In(source), Argument::Out(target.slice_mut(..))],
            None => vec![Argument::Out(target.slice_mut(..)), Argument::Same],
        };
        arguments.extend([Argument::In(tables.low.view()), Argument::In(tables.high.view())]);
        arguments.extend([Argument::Word(scale.to_canonical_u64()), Argument::Count(log_size as u32)]);
        arguments.extend(pass.counts());
        arguments.push(Argument::Count(gathers));
        lane.launch("ntt_inverse", pass.shape(log_size, n_transforms), arguments)?;
    }
    Ok(())
}

/// The points of the coset shift·⟨w⟩ of 2^log_size > 1 points, bit-reversed.
pub(crate) fn points(lane: Lane<'_>, mut target: WordsMut<'_>, log_size: usize, shift: F) -> Result<(), BackendError> {
    let tables = Tables::get(lane, log_size, 0, F::ONE, Direction::Forward)?;
    let arguments = vec![
        Argument::In(tables.low.view()),
        Argument::In(tables.high.view()),
        Argument::Out(target.slice_mut(..)),
        Argument::Word(shift.to_canonical_u64()),
        Argument::Count(log_size as u32),
    ];
    lane.launch("coset_points", Shape::of_items(1 << log_size), arguments)
}

impl Device {
    /// Refuses domains beyond [`MAX_LOG_LEAVES`].
    pub(crate) fn check_log_leaves(log_leaves: usize) -> Result<(), BackendError> {
        if log_leaves <= MAX_LOG_LEAVES {
            return Ok(());
        }
        Err(BackendError::Unsupported(format!("a domain of 2^{log_leaves} points on a device: at most 2^{MAX_LOG_LEAVES}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn launches_do_every_stage_once_in_tiles_that_fit() {
        for log_size in 0..=MAX_LOG_LEAVES {
            let mut stage = 0;
            for pass in passes(log_size) {
                assert_eq!(pass.first_stage, stage);
                assert!(pass.rows + pass.neighbours <= TILE_BITS && pass.first_stage + pass.rows + pass.neighbours <= log_size);
                stage += pass.rows;
            }
            assert_eq!(stage, log_size);
            let inverse = inverse_passes(log_size, true);
            for pass in &inverse {
                assert_eq!(pass.first_stage + pass.rows, stage);
                assert!(pass.rows + pass.neighbours <= TILE_BITS && pass.rows + pass.neighbours <= log_size);
                stage = pass.first_stage;
            }
            assert_eq!(stage, 0);
            // Strided tiles lie beside one another below their rows.
            assert!(inverse[1..].iter().all(|pass| pass.first_stage + pass.rows + pass.neighbours <= log_size));
        }
    }
}
