//! The passes of a transform over one column: three stages in registers at a time, and the last stages of all on transposed tiles.
//!
//! With W lanes a column is cut into *tiles* of W² elements (eight elements if W = 1). Stages above the tile join elements that are a multiple
//! of W apart: whole vectors, one twiddle for all lanes. Within a tile the first log₂ W stages are of that kind; then the tile is transposed, so
//! that lanes hold neighbouring blocks and the remaining log₂ W stages again join whole vectors, with a vector of twiddles.

use std::marker::PhantomData;

use plonky2::field::types::Field;
use zkinfer_circuits::field::F;

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

/// log₂ R stages on R vectors, given the T = R − 1 twiddles below their block.
///
/// A trait, not a closure: only functions marked `#[inline(always)]` are sure to be compiled with the vectors' features.
pub(super) trait Radix<const R: usize, const T: usize> {
    fn apply<V: Vector>(values: [V; R], twiddles: [V; T]) -> [V; R];
}

/// The two directions of a transform: butterflies, and the order of stages.
pub(super) trait Direction: Radix<8, 7> + Radix<4, 3> + Radix<2, 1> {
    const IS_FORWARD: bool;
}

/// Coefficients to values: `(a, b) → (a + c·b, a − c·b)`, far elements first.
pub(super) enum Forward {}

#[inline(always)]
fn split<V: Vector>(a: V, b: V, twiddle: V) -> (V, V) {
    a.sum_and_difference(b * twiddle)
}

impl Direction for Forward {
    const IS_FORWARD: bool = true;
}

impl Radix<8, 7> for Forward {
    #[inline(always)]
    fn apply<V: Vector>([a0, a1, a2, a3, a4, a5, a6, a7]: [V; 8], [t0, t1, t2, t3, t4, t5, t6]: [V; 7]) -> [V; 8] {
        let ((a0, a4), (a1, a5), (a2, a6), (a3, a7)) = (split(a0, a4, t0), split(a1, a5, t0), split(a2, a6, t0), split(a3, a7, t0));
        let ((a0, a2), (a1, a3), (a4, a6), (a5, a7)) = (split(a0, a2, t1), split(a1, a3, t1), split(a4, a6, t2), split(a5, a7, t2));
        let ((a0, a1), (a2, a3), (a4, a5), (a6, a7)) = (split(a0, a1, t3), split(a2, a3, t4), split(a4, a5, t5), split(a6, a7, t6));
        [a0, a1, a2, a3, a4, a5, a6, a7]
    }
}

impl Radix<4, 3> for Forward {
    #[inline(always)]
    fn apply<V: Vector>([a0, a1, a2, a3]: [V; 4], [t0, t1, t2]: [V; 3]) -> [V; 4] {
        let ((a0, a2), (a1, a3)) = (split(a0, a2, t0), split(a1, a3, t0));
        let ((a0, a1), (a2, a3)) = (split(a0, a1, t1), split(a2, a3, t2));
        [a0, a1, a2, a3]
    }
}

impl Radix<2, 1> for Forward {
    #[inline(always)]
    fn apply<V: Vector>([a0, a1]: [V; 2], [twiddle]: [V; 1]) -> [V; 2] {
        split(a0, a1, twiddle).into()
    }
}

/// Values to coefficients, twiddles inverted: `(u, v) → (u + v, (u − v)·c)`, near elements first.
pub(super) enum Inverse {}

#[inline(always)]
fn join<V: Vector>(u: V, v: V, twiddle: V) -> (V, V) {
    let (sum, difference) = u.sum_and_difference(v);
    (sum, difference * twiddle)
}

impl Direction for Inverse {
    const IS_FORWARD: bool = false;
}

impl Radix<8, 7> for Inverse {
    #[inline(always)]
    fn apply<V: Vector>([a0, a1, a2, a3, a4, a5, a6, a7]: [V; 8], [t0, t1, t2, t3, t4, t5, t6]: [V; 7]) -> [V; 8] {
        let ((a0, a1), (a2, a3), (a4, a5), (a6, a7)) = (join(a0, a1, t3), join(a2, a3, t4), join(a4, a5, t5), join(a6, a7, t6));
        let ((a0, a2), (a1, a3), (a4, a6), (a5, a7)) = (join(a0, a2, t1), join(a1, a3, t1), join(a4, a6, t2), join(a5, a7, t2));
        let ((a0, a4), (a1, a5), (a2, a6), (a3, a7)) = (join(a0, a4, t0), join(a1, a5, t0), join(a2, a6, t0), join(a3, a7, t0));
        [a0, a1, a2, a3, a4, a5, a6, a7]
    }
}

impl Radix<4, 3> for Inverse {
    #[inline(always)]
    fn apply<V: Vector>([a0, a1, a2, a3]: [V; 4], [t0, t1, t2]: [V; 3]) -> [V; 4] {
        let ((a0, a1), (a2, a3)) = (join(a0, a1, t1), join(a2, a3, t2));
        let ((a0, a2), (a1, a3)) = (join(a0, a2, t0), join(a1, a3, t0));
        [a0, a1, a2, a3]
    }
}

impl Radix<2, 1> for Inverse {
    #[inline(always)]
    fn apply<V: Vector>([a0, a1]: [V; 2], [twiddle]: [V; 1]) -> [V; 2] {
        join(a0, a1, twiddle).into()
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
    for position in 0..stride {
        let mut values = [V::ZEROS; R];
        for (value, part) in values.iter_mut().zip(&parts) {
            *value = part[position];
        }
        for (part, value) in parts.iter_mut().zip(D::apply(values, twiddles)) {
            part[position] = value;
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
    for (index, tile) in values.chunks_exact_mut(1 << log_tile(V::WIDTH)).enumerate() {
        let block = first.child(0, index);
        match V::WIDTH {
            8 => tile_of::<V, D, 8, 7>(block, tile),
            4 => tile_of::<V, D, 4, 3>(block, tile),
            _ => pass::<V, D>(block, tile, LOG_RADIX),
        }
    }
}

#[inline(always)]
fn tile_of<V: Vector, D: Direction + Radix<W, T>, const W: usize, const T: usize>(block: Block<'_>, tile: &mut [F]) {
    let far = broadcast(block.twiddles.below::<T>(block.stage, block.index));
    let near = block.twiddles.of_tile::<V, T>(block.index);
    let mut values = loaded::<V, W>(tile);
    if D::IS_FORWARD {
        values = transposed(<D as Radix<W, T>>::apply(transposed(<D as Radix<W, T>>::apply(values, far)), near));
    } else {
        values = <D as Radix<W, T>>::apply(transposed(<D as Radix<W, T>>::apply(transposed(values), near)), far);
    }
    for (row, value) in tile.chunks_exact_mut(V::WIDTH).zip(values) {
        value.store(row);
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
        V::pack_slice_mut(values).iter_mut().for_each(|value| *value *= scale);
    } else {
        values.iter_mut().for_each(|value| *value *= scale);
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
