//! Runs a [`Program`] over blocks of points: one dispatch per instruction and block, tight loops inside.

use plonky2::field::types::Field;
use rayon::prelude::*;
use zkinfer_circuits::air::Rotation;
use zkinfer_circuits::field::{F, K, ext, limbs};

use super::program::{Arithmetic, Instruction, Limb, Location, Program};
use super::transform::reverse_bits;
use crate::vector::{Dispatch, Kernel, Vector, extension_product};

/// Points of a block: the live registers of a block fit the first-level cache.
pub(crate) const BLOCK_POINTS: usize = 128;

/// In which order columns hold their values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Row r at position r.
    Natural,
    /// Cosets of G one after another, each in bit-reversed order.
    BitReversed,
}

/// Points of a domain made of cosets of G.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) log_rows: usize,
    pub(crate) order: Order,
    /// Rows of a group.
    pub(crate) period: usize,
}

impl Geometry {
    /// The position of the rotated row in the same coset.
    pub(crate) fn rotated(self, position: usize, rotation: Rotation) -> usize {
        let step = match rotation {
            Rotation::Here => 0,
            Rotation::Next => 1,
            Rotation::Period => self.period,
        };
        let mask = (1 << self.log_rows) - 1;
        let coset = position & !mask;
        match self.order {
            Order::Natural => coset | ((position + step) & mask),
            Order::BitReversed => {
                let row = reverse_bits(position & mask, self.log_rows);
                coset | reverse_bits((row + step) & mask, self.log_rows)
            }
        }
    }
}

impl Geometry {
    /// The rotated rows of a block of positions, which lies in one coset and begins at a multiple of its length.
    ///
    /// In bit-reversed order the block's rows differ in their high bits only: as long as the step does not carry into these, the rotated rows
    /// are a block again, in the same order.
    pub(crate) fn gather(self, source: &[F], first: usize, rotation: Rotation, target: &mut [F]) {
        let (start, mask) = (self.rotated(first, rotation), (1 << self.log_rows) - 1);
        let last = self.rotated(first + target.len() - 1, rotation);
        let is_block = match self.order {
            Order::Natural => last == start + target.len() - 1,
            Order::BitReversed => {
                let varying = target.len().trailing_zeros() as usize;
                let step = reverse_bits(start & mask, self.log_rows).wrapping_sub(reverse_bits(first & mask, self.log_rows)) & mask;
                let low_mask = mask >> varying;
                (reverse_bits(first & mask, self.log_rows) & low_mask) + step <= low_mask
            }
        };
        if is_block {
            target.copy_from_slice(&source[start..start + target.len()]);
            return;
        }
        for (offset, cell) in target.iter_mut().enumerate() {
            *cell = source[self.rotated(first + offset, rotation)];
        }
    }
}

/// The values of one output over a block, by coordinate.
pub(crate) type BlockOutput = [Vec<F>; 2];

/// A program with the columns it reads.
pub(crate) struct Execution<'a> {
    pub(crate) program: &'a Program,
    /// In the order of [`Program::columns`], all of one length.
    pub(crate) columns: &'a [&'a [F]],
    pub(crate) geometry: Geometry,
    pub(crate) n_points: usize,
    pub(crate) dispatch: Dispatch,
}

impl Execution<'_> {
    /// Runs the program on every block in parallel; `finish` turns a block's outputs into its result, given its first point.
    pub(crate) fn run<T: Send>(&self, finish: impl Fn(usize, &[BlockOutput]) -> T + Sync) -> Vec<T> {
        let block = BLOCK_POINTS.min(self.n_points);
        (0..self.n_points / block)
            .into_par_iter()
            .map_init(
                || Machine::new(self.program, block),
                |machine, index| {
                    machine.run(self, index * block);
                    finish(index * block, &machine.outputs)
                },
            )
            .collect()
    }
}

/// All instructions over one block.
struct Block<'a, 'e> {
    machine: &'a mut Machine,
    execution: &'a Execution<'e>,
    first: usize,
}

impl Kernel for Block<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        for instruction in &self.execution.program.instructions {
            if self.machine.block.is_multiple_of(V::WIDTH) {
                self.machine.step::<V>(self.execution, self.first, instruction);
            } else {
                self.machine.step::<F>(self.execution, self.first, instruction);
            }
        }
    }
}

/// Registers and outputs of one block.
struct Machine {
    registers: Vec<Vec<F>>,
    outputs: Vec<BlockOutput>,
    block: usize,
}

impl Machine {
    fn new(program: &Program, block: usize) -> Self {
        Self {
            registers: vec![vec![F::ZERO; block]; program.n_registers],
            outputs: vec![[vec![F::ZERO; block], vec![F::ZERO; block]]; program.n_outputs],
            block,
        }
    }

    fn run(&mut self, execution: &Execution<'_>, first: usize) {
        self.outputs.iter_mut().flatten().for_each(|limb| limb.fill(F::ZERO));
        execution.dispatch.run(Block { machine: self, execution, first });
    }

    #[inline(always)]
    fn step<V: Vector>(&mut self, execution: &Execution<'_>, first: usize, instruction: &Instruction<Location>) {
        match *instruction {
            Instruction::Gather { column, rotation, to } => {
                let mut target = self.take(to);
                execution.geometry.gather(execution.columns[column], first, rotation, &mut target);
                self.put(to, target);
            }
            Instruction::Vectors { operation, a, b, to } => {
                let mut target = self.take(to);
                vectors::<V>(operation, self.read(execution, first, a), self.read(execution, first, b), &mut target);
                self.put(to, target);
            }
            Instruction::Scalar { operation, a, scalar, to } => {
                let mut target = self.take(to);
                scalar_operation::<V>(operation, self.read(execution, first, a), scalar, &mut target);
                self.put(to, target);
            }
            Instruction::ScalarMinus { scalar, a, to } => {
                let mut target = self.take(to);
                scalar_minus::<V>(scalar, self.read(execution, first, a), &mut target);
                self.put(to, target);
            }
            Instruction::Blend { a, x, b, y, to } => {
                let mut target = self.take(to);
                blend::<V>([(self.read(execution, first, a), x), (self.read(execution, first, b), y)], &mut target);
                self.put(to, target);
            }
            Instruction::Product { a, b, to } => {
                let mut target = to.map(|to| self.take(to));
                product::<V>(self.read_pair(execution, first, a), self.read_pair(execution, first, b), &mut target);
                let [c0, c1] = target;
                self.put(to[0], c0);
                self.put(to[1], c1);
            }
            Instruction::Accumulate { accumulator, weight, value } => {
                let mut sum = std::mem::take(&mut self.outputs[accumulator]);
                self.accumulate::<V>(execution, first, weight, value, &mut sum);
                self.outputs[accumulator] = sum;
            }
            Instruction::Store { slot, value } => {
                let mut output = std::mem::take(&mut self.outputs[slot]);
                for (limb, target) in value.into_iter().zip(&mut output) {
                    match limb {
                        Limb::Scalar(scalar) => target.fill(scalar),
                        Limb::Vector(vector) => target.copy_from_slice(self.read(execution, first, vector)),
                    }
                }
                self.outputs[slot] = output;
            }
        }
    }

    #[inline(always)]
    fn accumulate<V: Vector>(&self, execution: &Execution<'_>, first: usize, weight: K, value: [Limb<Location>; 2], sum: &mut BlockOutput) {
        if let [Limb::Vector(c0), Limb::Vector(c1)] = value {
            return accumulate_product::<V>(weight, self.read_pair(execution, first, [c0, c1]), sum);
        }
        // weight·c0 + (weight·φ)·c1, for whichever of c0, c1 is a vector.
        for (limb, weight) in value.into_iter().zip([weight, weight * ext(F::ZERO, F::ONE)]) {
            for (target, weight) in sum.iter_mut().zip(limbs(weight)) {
                match limb {
                    Limb::Scalar(zero) if zero.is_zero() => {}
                    Limb::Scalar(scalar) => add_scalar::<V>(target, weight * scalar),
                    Limb::Vector(vector) => add_scaled::<V>(target, self.read(execution, first, vector), weight),
                }
            }
        }
    }

    #[inline(always)]
    fn take(&mut self, location: Location) -> Vec<F> {
        match location {
            Location::Register(register) => std::mem::take(&mut self.registers[register]),
            Location::Column(_) => unreachable!("only registers are written"),
        }
    }

    #[inline(always)]
    fn put(&mut self, location: Location, vector: Vec<F>) {
        if let Location::Register(register) = location {
            self.registers[register] = vector;
        }
    }

    #[inline(always)]
    fn read<'a>(&'a self, execution: &Execution<'a>, first: usize, location: Location) -> &'a [F] {
        match location {
            Location::Column(column) => &execution.columns[column][first..first + self.block],
            Location::Register(register) => &self.registers[register],
        }
    }

    #[inline(always)]
    fn read_pair<'a>(&'a self, execution: &Execution<'a>, first: usize, pair: [Location; 2]) -> [&'a [F]; 2] {
        pair.map(|location| self.read(execution, first, location))
    }
}

#[inline(always)]
fn vectors<V: Vector>(operation: Arithmetic, a: &[F], b: &[F], to: &mut [F]) {
    let cells = V::pack_slice_mut(to).iter_mut().zip(V::pack_slice(a).iter().zip(V::pack_slice(b)));
    match operation {
        Arithmetic::Add => {
            for (to, (&a, &b)) in cells {
                *to = a + b;
            }
        }
        Arithmetic::Sub => {
            for (to, (&a, &b)) in cells {
                *to = a - b;
            }
        }
        Arithmetic::Mul => {
            for (to, (&a, &b)) in cells {
                *to = a * b;
            }
        }
    }
}

#[inline(always)]
fn scalar_operation<V: Vector>(operation: Arithmetic, a: &[F], scalar: F, to: &mut [F]) {
    let scalar = V::from(scalar);
    let cells = V::pack_slice_mut(to).iter_mut().zip(V::pack_slice(a));
    match operation {
        Arithmetic::Add => {
            for (to, &a) in cells {
                *to = a + scalar;
            }
        }
        Arithmetic::Sub => {
            for (to, &a) in cells {
                *to = a - scalar;
            }
        }
        Arithmetic::Mul => {
            for (to, &a) in cells {
                *to = a * scalar;
            }
        }
    }
}

#[inline(always)]
fn scalar_minus<V: Vector>(scalar: F, a: &[F], to: &mut [F]) {
    let scalar = V::from(scalar);
    for (to, &a) in V::pack_slice_mut(to).iter_mut().zip(V::pack_slice(a)) {
        *to = scalar - a;
    }
}

#[inline(always)]
fn blend<V: Vector>([(a, x), (b, y)]: [(&[F], F); 2], to: &mut [F]) {
    let (x, y) = (V::from(x).factor(), V::from(y).factor());
    for (to, (&a, &b)) in V::pack_slice_mut(to).iter_mut().zip(V::pack_slice(a).iter().zip(V::pack_slice(b))) {
        *to = V::reduced(b.add_product(&y, a.add_product(&x, V::no_products())));
    }
}

/// `(a0·b0 + 7·a1·b1, a0·b1 + a1·b0)`; one element at a time, K's own product reduces less often.
#[inline(always)]
fn product<V: Vector>(a: [&[F]; 2], b: [&[F]; 2], to: &mut [Vec<F>; 2]) {
    let [to0, to1] = to;
    if V::WIDTH == 1 {
        let factors = a[0].iter().zip(a[1]).zip(b[0].iter().zip(b[1]));
        for ((to0, to1), ((&a0, &a1), (&b0, &b1))) in to0.iter_mut().zip(to1).zip(factors) {
            [*to0, *to1] = limbs(ext(a0, a1) * ext(b0, b1));
        }
        return;
    }
    let factors = V::pack_slice(a[0]).iter().zip(V::pack_slice(a[1])).zip(V::pack_slice(b[0]).iter().zip(V::pack_slice(b[1])));
    let targets = V::pack_slice_mut(to0).iter_mut().zip(V::pack_slice_mut(to1));
    for ((to0, to1), ((&a0, &a1), (&b0, &b1))) in targets.zip(factors) {
        [*to0, *to1] = extension_product([a0, a1], [b0, b1]);
    }
}

/// Four products and two reductions.
#[inline(always)]
fn accumulate_product<V: Vector>(weight: K, value: [&[F]; 2], sum: &mut BlockOutput) {
    let [sum0, sum1] = sum;
    let [w0, w1] = limbs(weight);
    let [w0, w1, w1_times_seven] = [w0, w1, w1 * F::from_canonical_u64(7)].map(|w| V::from(w).factor());
    let targets = V::pack_slice_mut(sum0).iter_mut().zip(V::pack_slice_mut(sum1));
    for ((sum0, sum1), (&c0, &c1)) in targets.zip(V::pack_slice(value[0]).iter().zip(V::pack_slice(value[1]))) {
        *sum0 += V::reduced(c1.add_product(&w1_times_seven, c0.add_product(&w0, V::no_products())));
        *sum1 += V::reduced(c1.add_product(&w0, c0.add_product(&w1, V::no_products())));
    }
}

#[inline(always)]
fn add_scalar<V: Vector>(sum: &mut [F], scalar: F) {
    for sum in V::pack_slice_mut(sum) {
        *sum += scalar;
    }
}

#[inline(always)]
fn add_scaled<V: Vector>(sum: &mut [F], values: &[F], scale: F) {
    let scale = V::from(scale);
    for (sum, &value) in V::pack_slice_mut(sum).iter_mut().zip(V::pack_slice(values)) {
        *sum += value * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_gathered_as_single_points_are() {
        for (order, log_rows, period) in
            [(Order::Natural, 8, 16), (Order::BitReversed, 8, 1), (Order::BitReversed, 8, 64), (Order::BitReversed, 9, 512)]
        {
            let geometry = Geometry { log_rows, order, period };
            let source: Vec<F> = (0..2usize << log_rows).map(F::from_canonical_usize).collect();
            for block in [1, 8, 128] {
                let mut target = vec![F::ZERO; block];
                for (first, rotation) in
                    (0..source.len()).step_by(block).flat_map(|first| [(first, Rotation::Next), (first, Rotation::Period)])
                {
                    geometry.gather(&source, first, rotation, &mut target);
                    let expected: Vec<F> = (first..first + block).map(|point| source[geometry.rotated(point, rotation)]).collect();
                    assert_eq!(target, expected, "{geometry:?}, {block} points from {first}, {rotation:?}");
                }
            }
        }
    }
}
