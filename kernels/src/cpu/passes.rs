//! The passes of a transform over one column: three stages in registers at a time, and the last stages of all on transposed tiles.
//!
//! With W lanes a column is cut into *tiles* of W² elements (eight elements if W = 1). Stages above the tile join elements that are a multiple
//! of W apart: whole vectors, one twiddle for all lanes. Within a tile the first log₂ W stages are of that kind; then the tile is transposed, so
//! that lanes hold neighbouring blocks and the remaining log₂ W stages again join whole vectors, with a vector of twiddles.

use std::marker::PhantomData;

use plonky2::field::types::Field;
use zkinfer_circuits::field::F;

use super::butterflies::{Direction, One, Radix, Two, once, ones, paired, twice, unpaired};
use super::transform::reverse_bits;
use crate::vector::{Kernel, Vector};

/// log₂ of the elements on which all remaining passes run before the next ones are touched: they stay in the first-level cache.
const LOG_LOCAL: usize = 12;
/// log₂ of the largest radix.
const LOG_RADIX: usize = 3;

/// log₂ of the elements of a tile.
pub(super) const fn log_tile(width: usize) -> usize {
    if width == 1 { LOG_RADIX } else { 2 * width.trailing_zeros() as usize }
}

/// The twiddle factors of a transform, laid out for vectors of some width.
#[derive(Debug)]
pub(super) struct Twiddles {
    /// Stage after stage, 2^ℓ at stage ℓ: all stages, or those above the transposed ones.
    stages: Vec<F>,
    /// For each tile, the vectors of the transposed stages: one, two, four …
    tiles: Vec<F>,
}

impl Twiddles {
    /// Lays out `twiddles`, 2^ℓ of them for each stage ℓ, one stage after another.
    pub(super) fn new(mut twiddles: Vec<F>, log_size: usize, width: usize) -> Self {
        let log_width = width.trailing_zeros() as usize;
        if width == 1 || log_size < log_tile(width) {
            return Self { stages: twiddles, tiles: Vec::new() };
        }
        let n_tiles = 1 << (log_size - 2 * log_width);
        let mut tiles = Vec::with_capacity(n_tiles * width * (width - 1));
        for tile in 0..n_tiles {
            for level in 0..log_width {
                let stage = &twiddles[(1 << (log_size - log_width + level)) - 1..];
                let block = |lane: usize, child: usize| ((tile * width + lane) << level) + child;
                tiles.extend((0..1 << level).flat_map(|child| (0..width).map(move |lane| stage[block(lane, child)])));
            }
        }
        twiddles.truncate((1 << (log_size - log_width)) - 1);
        twiddles.shrink_to_fit();
        Self { stages: twiddles, tiles }
    }

    /// The twiddles of the transform back.
    pub(super) fn inverted(&self) -> Self {
        let inverted = |twiddles: &[F]| F::batch_multiplicative_inverse(twiddles);
        Self { stages: inverted(&self.stages), tiles: inverted(&self.tiles) }
    }

    /// The first `N` twiddles below a block: one of `stage`, two of the next, four of the one after.
    #[inline(always)]
    fn below<const N: usize>(&self, stage: usize, block: usize) -> [F; N] {
        let mut below = [F::ZERO; N];
        for (index, twiddle) in below.iter_mut().enumerate() {
            let (level, child) = ((index + 1).ilog2() as usize, index + 1 - (1 << (index + 1).ilog2()));
            *twiddle = self.stages[(1 << (stage + level)) - 1 + (block << level) + child];
        }
        below
    }

    /// The vectors of a tile's transposed stages.
    #[inline(always)]
    fn of_tile<V: Vector, const N: usize>(&self, tile: usize) -> [V; N] {
        let vectors = &self.tiles[tile * N * V::WIDTH..(tile + 1) * N * V::WIDTH];
        loaded(vectors)
    }
}

/// The part of a transform below one block of a stage.
#[derive(Clone, Copy)]
struct Block<'a> {
    twiddles: &'a Twiddles,
    stage: usize,
    index: usize,
}

impl Block<'_> {
    /// Block `child` of those that it has become `stages` later.
    #[inline(always)]
    fn child(self, stages: usize, child: usize) -> Self {
        Self { stage: self.stage + stages, index: (self.index << stages) + child, ..self }
    }
}

/// N consecutive vectors.
#[inline(always)]
fn loaded<V: Vector, const N: usize>(from: &[F]) -> [V; N] {
    let mut vectors = [V::ZEROS; N];
    for (index, vector) in vectors.iter_mut().enumerate() {
        *vector = V::load(&from[index * V::WIDTH..]);
    }
    vectors
}

/// Each element in all lanes.
#[inline(always)]
fn broadcast<V: Vector, const N: usize>(elements: [F; N]) -> [V; N] {
    let mut vectors = [V::ZEROS; N];
    for (vector, element) in vectors.iter_mut().zip(elements) {
        *vector = V::from(element);
    }
    vectors
}

/// One or several stages of a block, in one pass over its values.
#[inline(always)]
fn pass<V: Vector, D: Direction>(block: Block<'_>, values: &mut [F], log_radix: usize) {
    match log_radix {
        3 => pass_of::<V, D, 8, 7>(block, values),
        2 => pass_of::<V, D, 4, 3>(block, values),
        _ => pass_of::<V, D, 2, 1>(block, values),
    }
}

#[inline(always)]
fn pass_of<V: Vector, D: Radix<R, T>, const R: usize, const T: usize>(block: Block<'_>, values: &mut [F]) {
    let twiddles = broadcast(block.twiddles.below::<T>(block.stage, block.index));
    let stride = values.len() / R / V::WIDTH;
    let mut parts = V::pack_slice_mut(values).chunks_exact_mut(stride);
    let parts = std::array::from_fn(|_| parts.next().expect("a block is cut into as many parts as its radix"));
    over_parts::<V, D, R, T>(parts, twiddles);
}

/// Replaces the vectors at each position of the parts.
#[inline(always)]
fn over_parts<V: Vector, D: Radix<R, T>, const R: usize, const T: usize>(parts: [&mut [V]; R], twiddles: [V; T]) {
    let stride = parts[0].len();
    let mut parts = parts.map(|part| &mut part[..stride]);
    let single = if V::WIDTH == 1 { 0 } else { stride / 2 * 2 };
    for position in (0..single).step_by(2) {
        let mut values = [Two(V::ZEROS, V::ZEROS); R];
        for (value, part) in values.iter_mut().zip(&parts) {
            *value = Two(part[position], part[position + 1]);
        }
        for (part, value) in parts.iter_mut().zip(D::apply(values, twice(twiddles))) {
            (part[position], part[position + 1]) = (value.0, value.1);
        }
    }
    for position in single..stride {
        let mut values = [One(V::ZEROS); R];
        for (value, part) in values.iter_mut().zip(&parts) {
            *value = One(part[position]);
        }
        for (part, value) in parts.iter_mut().zip(D::apply(values, once(twiddles))) {
            part[position] = value.0;
        }
    }
}

/// The first `n_stages` stages of a block, in as few passes as the largest radix allows; the inverse direction takes them backwards.
#[inline(always)]
fn sweep<V: Vector, D: Direction>(block: Block<'_>, values: &mut [F], n_stages: usize) {
    let n_passes = n_stages.div_ceil(LOG_RADIX);
    for index in 0..n_passes {
        let index = if D::IS_FORWARD { index } else { n_passes - 1 - index };
        let (first, end) = (index * n_stages / n_passes, (index + 1) * n_stages / n_passes);
        for (child, values) in values.chunks_exact_mut(values.len() >> first).enumerate() {
            pass::<V, D>(block.child(first, child), values, end - first);
        }
    }
}

/// All stages of the tiles below a block.
#[inline(always)]
fn tiles<V: Vector, D: Direction>(block: Block<'_>, values: &mut [F]) {
    let first = block.child((values.len() >> log_tile(V::WIDTH)).ilog2() as usize, 0);
    let mut pairs = values.chunks_exact_mut(2 << log_tile(V::WIDTH));
    let mut index = 0;
    for pair in &mut pairs {
        let blocks = [first.child(0, index), first.child(0, index + 1)];
        match V::WIDTH {
            8 => two_tiles::<V, D, 8, 7>(blocks, pair),
            4 => two_tiles::<V, D, 4, 3>(blocks, pair),
            2 => two_tiles::<V, D, 2, 1>(blocks, pair),
            _ => {
                let (tile0, tile1) = pair.split_at_mut(1 << log_tile(V::WIDTH));
                pass::<V, D>(blocks[0], tile0, LOG_RADIX);
                pass::<V, D>(blocks[1], tile1, LOG_RADIX);
            }
        }
        index += 2;
    }
    let last = pairs.into_remainder();
    if !last.is_empty() {
        match V::WIDTH {
            8 => tile_of::<V, D, 8, 7>(first, last),
            4 => tile_of::<V, D, 4, 3>(first, last),
            2 => tile_of::<V, D, 2, 1>(first, last),
            _ => pass::<V, D>(first, last, LOG_RADIX),
        }
    }
}

#[inline(always)]
fn tile_of<V: Vector, D: Direction + Radix<W, T>, const W: usize, const T: usize>(block: Block<'_>, tile: &mut [F]) {
    let far = once(broadcast::<V, T>(block.twiddles.below::<T>(block.stage, block.index)));
    let near = once(block.twiddles.of_tile::<V, T>(block.index));
    let mut values = loaded::<V, W>(tile);
    if D::IS_FORWARD {
        values = transposed(ones(<D as Radix<W, T>>::apply(once(values), far)));
        values = transposed(ones(<D as Radix<W, T>>::apply(once(values), near)));
    } else {
        values = ones(<D as Radix<W, T>>::apply(once(transposed(values)), near));
        values = ones(<D as Radix<W, T>>::apply(once(transposed(values)), far));
    }
    store(tile, values);
}

#[inline(always)]
fn two_tiles<V: Vector, D: Direction + Radix<W, T>, const W: usize, const T: usize>(blocks: [Block<'_>; 2], tiles: &mut [F]) {
    let (tile0, tile1) = tiles.split_at_mut(W * W);
    let far = |block: Block<'_>| block.twiddles.below::<T>(block.stage, block.index);
    let far = paired(broadcast::<V, T>(far(blocks[0])), broadcast::<V, T>(far(blocks[1])));
    let near = paired(blocks[0].twiddles.of_tile::<V, T>(blocks[0].index), blocks[1].twiddles.of_tile::<V, T>(blocks[1].index));
    let mut values = paired(loaded::<V, W>(tile0), loaded::<V, W>(tile1));
    if D::IS_FORWARD {
        values = both_transposed(<D as Radix<W, T>>::apply(values, far));
        values = both_transposed(<D as Radix<W, T>>::apply(values, near));
    } else {
        values = <D as Radix<W, T>>::apply(both_transposed(values), near);
        values = <D as Radix<W, T>>::apply(both_transposed(values), far);
    }
    let (values0, values1) = unpaired(values);
    store(tile0, values0);
    store(tile1, values1);
}

#[inline(always)]
fn both_transposed<V: Vector, const W: usize>(pairs: [Two<V>; W]) -> [Two<V>; W] {
    let (first, second) = unpaired(pairs);
    paired(transposed(first), transposed(second))
}

#[inline(always)]
fn store<V: Vector, const N: usize>(to: &mut [F], vectors: [V; N]) {
    for (row, vector) in to.chunks_exact_mut(V::WIDTH).zip(vectors) {
        vector.store(row);
    }
}

/// Lane j of vector i becomes lane i of vector j, for as many vectors as lanes.
#[inline(always)]
fn transposed<V: Vector, const W: usize>(mut rows: [V; W]) -> [V; W] {
    if W >= 8 {
        exchange_blocks(&mut rows, 4);
    }
    if W >= 4 {
        exchange_blocks(&mut rows, 2);
    }
    exchange_blocks(&mut rows, 1);
    rows
}

#[inline(always)]
fn exchange_blocks<V: Vector, const W: usize>(rows: &mut [V; W], block_len: usize) {
    for row in 0..W {
        if row & block_len == 0 {
            (rows[row], rows[row + block_len]) = rows[row].interleave(rows[row + block_len], block_len);
        }
    }
}

/// Every stage of a block, in place: its part of a transform. The inverse direction also multiplies by a factor.
pub(super) struct Transform<'a, D> {
    twiddles: &'a Twiddles,
    values: &'a mut [F],
    stage: usize,
    index: usize,
    scale: Option<F>,
    direction: PhantomData<D>,
}

impl<'a, D: Direction> Transform<'a, D> {
    /// Of the block `index` of a stage.
    pub(super) fn of_block(twiddles: &'a Twiddles, values: &'a mut [F], [stage, index]: [usize; 2], scale: Option<F>) -> Self {
        Self { twiddles, values, stage, index, scale, direction: PhantomData }
    }
}

impl<D: Direction> Kernel for Transform<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let block = Block { twiddles: self.twiddles, stage: self.stage, index: self.index };
        let values = self.values;
        let log_size = values.len().ilog2() as usize;
        if let Some(scale) = self.scale {
            scale_by::<V>(values, scale);
        }
        let Some(above_tiles) = log_size.checked_sub(log_tile(V::WIDTH)) else {
            return sweep::<F, D>(block, values, log_size);
        };
        let above_local = log_size.saturating_sub(LOG_LOCAL);
        let local_size = values.len() >> above_local;
        if D::IS_FORWARD {
            sweep::<V, D>(block, values, above_local);
        }
        for (child, values) in values.chunks_exact_mut(local_size).enumerate() {
            let block = block.child(above_local, child);
            if D::IS_FORWARD {
                sweep::<V, D>(block, values, above_tiles - above_local);
            }
            tiles::<V, D>(block, values);
            if !D::IS_FORWARD {
                sweep::<V, D>(block, values, above_tiles - above_local);
            }
        }
        if !D::IS_FORWARD {
            sweep::<V, D>(block, values, above_local);
        }
    }
}

#[inline(always)]
fn scale_by<V: Vector>(values: &mut [F], scale: F) {
    if values.len().is_multiple_of(V::WIDTH) {
        for vector in V::pack_slice_mut(values) {
            *vector *= scale;
        }
    } else {
        for value in values {
            *value *= scale;
        }
    }
}

/// The first three stages of one block over a range of positions of each of its parts, so that several threads can share a pass.
pub(super) struct PassPiece<'a, D> {
    pub(super) twiddles: &'a Twiddles,
    pub(super) parts: [&'a mut [F]; 8],
    pub(super) stage: usize,
    pub(super) index: usize,
    pub(super) direction: PhantomData<D>,
}

impl<D: Direction> Kernel for PassPiece<'_, D> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let twiddles = broadcast(self.twiddles.below::<7>(self.stage, self.index));
        over_parts::<V, D, 8, 7>(self.parts.map(V::pack_slice_mut), twiddles);
    }
}

/// A copy in bit-reversed order; the lengths are equal powers of two.
pub(super) struct BitReversed<'a> {
    pub(super) from: &'a [F],
    pub(super) to: &'a mut [F],
}

impl Kernel for BitReversed<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let log_size = self.from.len().ilog2() as usize;
        match V::WIDTH {
            8 if log_size >= 6 => reverse_by_tiles::<V, 8>(self.from, self.to, log_size),
            4 if log_size >= 4 => reverse_by_tiles::<V, 4>(self.from, self.to, log_size),
            2 if log_size >= 2 => reverse_by_tiles::<V, 2>(self.from, self.to, log_size),
            _ => {
                for (position, value) in self.to.iter_mut().enumerate() {
                    *value = self.from[reverse_bits(position, log_size)];
                }
            }
        }
    }
}

/// With W = 2^w: the index `(a, m, c)` of w, `log_size − 2w` and w bits goes to `(rev c, rev m, rev a)`. For each m the W vectors of all a are
/// read, transposed, and written as the W vectors of all c.
#[inline(always)]
fn reverse_by_tiles<V: Vector, const W: usize>(from: &[F], to: &mut [F], log_size: usize) {
    let log_width = W.ilog2() as usize;
    let stride = from.len() / W;
    for middle in 0..stride / W {
        let mut rows = [V::ZEROS; W];
        for (a, values) in from.chunks_exact(stride).enumerate() {
            rows[reverse_bits(a, log_width)] = V::load(&values[middle * W..]);
        }
        let columns = transposed::<V, W>(rows);
        let target = reverse_bits(middle, log_size - 2 * log_width) * W;
        for (c, column) in columns.into_iter().enumerate() {
            column.store(&mut to[reverse_bits(c, log_width) * stride + target..]);
        }
    }
}
