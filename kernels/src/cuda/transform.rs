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
            shared_words: words + (words >> 4) + (words >> 8),
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

    /// A step of a launch as `kernels/cuda/ntt.cu` does it. Bits are those of an element of the tile.
    struct Step {
        stages: usize,
        /// The lowest bit of a value's index.
        position: usize,
        /// The stages left that are done with it: their lowest bit, that of the value's index which it changes places with, and in a group's index.
        left: usize,
        left_bit: usize,
        exchanged: usize,
        group_bit: usize,
    }

    impl Step {
        fn alone(stages: usize, position: usize) -> Self {
            Self { stages, position, left: 0, left_bit: 0, exchanged: 0, group_bit: 0 }
        }

        /// As `ntt_group_of_thread`.
        fn group(&self, thread: usize) -> usize {
            let (distance, mask) = (self.group_bit & !3, ((1 << self.left) - 1) << (self.group_bit & 3));
            let differing = (thread ^ (thread >> distance)) & mask;
            thread ^ differing ^ (differing << distance)
        }

        /// Where value `value` of a thread is loaded from.
        fn loaded(&self, thread: usize, value: usize) -> usize {
            let (group, below) = (self.group(thread), (1 << self.position) - 1);
            ((group & !below) << self.stages) | (group & below) | (value << self.position)
        }

        /// Where it is stored to after the exchanges.
        fn stored(&self, thread: usize, value: usize) -> usize {
            (0..self.left).fold(self.loaded(thread, value), |element, k| {
                let (left, value) = (self.left_bit + k, self.position + self.exchanged + k);
                let differ = ((element >> left) ^ (element >> value)) & 1;
                element ^ (differ << left) ^ (differ << value)
            })
        }
    }

    /// Steps of a launch whose rows begin at bit `row_shift` of an element.
    fn steps(rows: usize, row_shift: usize, direction: Direction) -> Vec<Step> {
        let n_fours = rows / 4;
        let rest = rows % 4;
        let is_exchanged = n_fours > 0 && rest < 3;
        let mut steps: Vec<Step> = (0..n_fours)
            .map(|step| Step::alone(4, row_shift + 4 * step + if direction == Direction::Forward { rest } else { 0 }))
            .collect();
        if is_exchanged && direction == Direction::Forward {
            let position = row_shift + rest;
            steps[0] = Step { left: rest, left_bit: row_shift, exchanged: 4 - rest, group_bit: row_shift, ..Step::alone(4, position) };
        } else if is_exchanged {
            let position = row_shift + 4 * (n_fours - 1);
            steps[n_fours - 1] = Step { left: rest, left_bit: position + 4, group_bit: position, ..Step::alone(4, position) };
        } else if rest > 0 {
            steps.push(Step::alone(rest, if direction == Direction::Forward { row_shift } else { row_shift + 4 * n_fours }));
        }
        steps
    }

    /// Half a warp at a time reads or writes words of 64 bits, in 16 banks.
    fn check_banks(name: &str, tile_bits: usize, place: impl Fn(usize) -> usize) {
        for half in (0..1usize << tile_bits).step_by(16) {
            let banks = (half..(half + 16).min(1 << tile_bits)).map(|thread| {
                let element = place(thread);
                1u32 << ((element + (element >> 4) + (element >> 8)) % 16)
            });
            assert_eq!(banks.clone().fold(0, |seen, bank| seen | bank).count_ones() as usize, banks.count(), "{name}");
        }
    }

    #[test]
    fn steps_exchange_in_a_warp_and_find_different_banks() {
        let check = |pass: &Pass, is_gathering: bool, direction: Direction| {
            let row_shift = if is_gathering { 0 } else { pass.neighbours };
            let tile_bits = pass.rows + pass.neighbours;
            for step in steps(pass.rows, row_shift, direction) {
                let name = format!(
                    "{pass:?} {direction:?} gathers {is_gathering}, {} stages at {}, {} left",
                    step.stages, step.position, step.left
                );
                // The kernels' condition: the lane's bits are below 4, a thread's below 8.
                assert!(step.left == 0 || step.group_bit % 4 + step.left <= 4 && step.group_bit + step.left <= 8, "{name}");
                for value in 0..1 << step.stages {
                    check_banks(&name, tile_bits - step.stages, |thread| step.loaded(thread, value));
                    check_banks(&name, tile_bits - step.stages, |thread| step.stored(thread, value));
                }
            }
            if is_gathering {
                let reversed = |row: usize| row.reverse_bits() >> (usize::BITS as usize - pass.rows);
                let gathered = |i: usize| ((i & ((1 << pass.neighbours) - 1)) << pass.rows) | reversed(i >> pass.neighbours);
                check_banks(&format!("{pass:?} gathered"), tile_bits, gathered);
            }
        };
        for log_size in 1..=MAX_LOG_LEAVES {
            for pass in passes(log_size) {
                check(&pass, false, Direction::Forward);
                check(&pass, false, Direction::Inverse);
            }
            for (index, pass) in inverse_passes(log_size, true).iter().enumerate() {
                check(pass, index == 0, Direction::Inverse);
            }
        }
    }
}
