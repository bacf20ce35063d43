//! Runs a [`Program`] over blocks of points: one dispatch per instruction and block, tight loops inside.

use plonky2::field::packed::PackedField;
use plonky2::field::types::Field;
use rayon::prelude::*;
use zkinfer_circuits::air::Rotation;
use zkinfer_circuits::field::{F, K, ext, limbs};

use super::program::{Arithmetic, Instruction, Limb, Location, Program};
use super::transform::reverse_bits;
use crate::vector::{Dispatch, Kernel, Vector};

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
    fn step<P: PackedField<Scalar = F>>(&mut self, execution: &Execution<'_>, first: usize, instruction: &Instruction<Location>) {
        match *instruction {
            Instruction::Gather { column, rotation, to } => {
                let mut target = self.take(to);
                let source = execution.columns[column];
                for (offset, cell) in target.iter_mut().enumerate() {
                    *cell = source[execution.geometry.rotated(first + offset, rotation)];
                }
                self.put(to, target);
            }
            Instruction::Vectors { operation, a, b, to } => self.write(to, |machine, target| {
                let (a, b) = (machine.read(execution, first, a), machine.read(execution, first, b));
                vectors::<P>(operation, a, b, target);
            }),
            Instruction::Scalar { operation, a, scalar, to } => self.write(to, |machine, target| {
                scalar_operation::<P>(operation, machine.read(execution, first, a), scalar, target);
            }),
            Instruction::ScalarMinus { scalar, a, to } => self.write(to, |machine, target| {
                let a = P::pack_slice(machine.read(execution, first, a));
                P::pack_slice_mut(target).iter_mut().zip(a).for_each(|(to, &a)| *to = P::from(scalar) - a);
            }),
            Instruction::Blend { a, x, b, y, to } => self.write(to, |machine, target| {
                let (a, b) = (machine.read(execution, first, a), machine.read(execution, first, b));
                let pairs = P::pack_slice(a).iter().zip(P::pack_slice(b));
                P::pack_slice_mut(target).iter_mut().zip(pairs).for_each(|(to, (&a, &b))| *to = a * x + b * y);
            }),
            Instruction::Product { a, b, to } => {
                let mut target = to.map(|to| self.take(to));
                let (a, b) = (self.read_pair(execution, first, a), self.read_pair(execution, first, b));
                product::<P>(a, b, &mut target);
                let [c0, c1] = target;
                self.put(to[0], c0);
                self.put(to[1], c1);
            }
            Instruction::Accumulate { accumulator, weight, value } => {
                let mut sum = std::mem::take(&mut self.outputs[accumulator]);
                self.accumulate::<P>(execution, first, weight, value, &mut sum);
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
    fn accumulate<P: PackedField<Scalar = F>>(
        &self,
        execution: &Execution<'_>,
        first: usize,
        weight: K,
        value: [Limb<Location>; 2],
        sum: &mut BlockOutput,
    ) {
        match value {
            [Limb::Vector(c0), Limb::Vector(c1)] => {
                let value = self.read_pair(execution, first, [c0, c1]);
                accumulate_product::<P>(weight, value, sum);
            }
            _ => {
                // weight·c0 + (weight·φ)·c1, for whichever of c0, c1 is a vector.
                for (limb, weight) in value.into_iter().zip([weight, weight * ext(F::ZERO, F::ONE)]) {
                    for (target, weight) in sum.iter_mut().zip(limbs(weight)) {
                        let target = P::pack_slice_mut(target);
                        match limb {
                            Limb::Scalar(zero) if zero.is_zero() => {}
                            Limb::Scalar(scalar) => target.iter_mut().for_each(|sum| *sum += P::from(weight * scalar)),
                            Limb::Vector(vector) => {
                                let vector = P::pack_slice(self.read(execution, first, vector));
                                target.iter_mut().zip(vector).for_each(|(sum, &value)| *sum += value * weight);
                            }
                        }
                    }
                }
            }
        }
    }

    fn take(&mut self, location: Location) -> Vec<F> {
        match location {
            Location::Register(register) => std::mem::take(&mut self.registers[register]),
            Location::Column(_) => unreachable!("only registers are written"),
        }
    }

    fn put(&mut self, location: Location, vector: Vec<F>) {
        if let Location::Register(register) = location {
            self.registers[register] = vector;
        }
    }

    fn write(&mut self, to: Location, compute: impl FnOnce(&Self, &mut [F])) {
        let mut target = self.take(to);
        compute(self, &mut target);
        self.put(to, target);
    }

    fn read<'a>(&'a self, execution: &Execution<'a>, first: usize, location: Location) -> &'a [F] {
        match location {
            Location::Column(column) => &execution.columns[column][first..first + self.block],
            Location::Register(register) => &self.registers[register],
        }
    }

    fn read_pair<'a>(&'a self, execution: &Execution<'a>, first: usize, pair: [Location; 2]) -> [&'a [F]; 2] {
        pair.map(|location| self.read(execution, first, location))
    }
}

#[inline(always)]
fn vectors<P: PackedField<Scalar = F>>(operation: Arithmetic, a: &[F], b: &[F], to: &mut [F]) {
    let cells = P::pack_slice_mut(to).iter_mut().zip(P::pack_slice(a).iter().zip(P::pack_slice(b)));
    match operation {
        Arithmetic::Add => cells.for_each(|(to, (&a, &b))| *to = a + b),
        Arithmetic::Sub => cells.for_each(|(to, (&a, &b))| *to = a - b),
        Arithmetic::Mul => cells.for_each(|(to, (&a, &b))| *to = a * b),
    }
}

#[inline(always)]
fn scalar_operation<P: PackedField<Scalar = F>>(operation: Arithmetic, a: &[F], scalar: F, to: &mut [F]) {
    let cells = P::pack_slice_mut(to).iter_mut().zip(P::pack_slice(a));
    match operation {
        Arithmetic::Add => cells.for_each(|(to, &a)| *to = a + scalar),
        Arithmetic::Sub => cells.for_each(|(to, &a)| *to = a - scalar),
        Arithmetic::Mul => cells.for_each(|(to, &a)| *to = a * scalar),
    }
}

/// `(a0·b0 + 7·a1·b1, a0·b1 + a1·b0)`; one element at a time, K's own product reduces less often.
#[inline(always)]
fn product<P: PackedField<Scalar = F>>(a: [&[F]; 2], b: [&[F]; 2], to: &mut [Vec<F>; 2]) {
    let [to0, to1] = to;
    if P::WIDTH == 1 {
        let factors = a[0].iter().zip(a[1]).zip(b[0].iter().zip(b[1]));
        for ((to0, to1), ((&a0, &a1), (&b0, &b1))) in to0.iter_mut().zip(to1).zip(factors) {
            [*to0, *to1] = limbs(ext(a0, a1) * ext(b0, b1));
        }
        return;
    }
    let seven = F::from_canonical_u64(7);
    let [a0, a1, b0, b1] = [a[0], a[1], b[0], b[1]].map(P::pack_slice);
    let factors = a0.iter().zip(a1).zip(b0.iter().zip(b1));
    let targets = P::pack_slice_mut(to0).iter_mut().zip(P::pack_slice_mut(to1));
    for ((to0, to1), ((&a0, &a1), (&b0, &b1))) in targets.zip(factors) {
        *to0 = a0 * b0 + (a1 * b1) * seven;
        *to1 = a0 * b1 + a1 * b0;
    }
}

#[inline(always)]
fn accumulate_product<P: PackedField<Scalar = F>>(weight: K, value: [&[F]; 2], sum: &mut BlockOutput) {
    let [sum0, sum1] = sum;
    if P::WIDTH == 1 {
        for ((sum0, sum1), (&c0, &c1)) in sum0.iter_mut().zip(sum1).zip(value[0].iter().zip(value[1])) {
            let [w0, w1] = limbs(weight * ext(c0, c1));
            *sum0 += w0;
            *sum1 += w1;
        }
        return;
    }
    let [w0, w1] = limbs(weight);
    let [_, w1_times_seven] = limbs(weight * ext(F::from_canonical_u64(7), F::ZERO));
    let targets = P::pack_slice_mut(sum0).iter_mut().zip(P::pack_slice_mut(sum1));
    for ((sum0, sum1), (&c0, &c1)) in targets.zip(P::pack_slice(value[0]).iter().zip(P::pack_slice(value[1]))) {
        *sum0 += c0 * w0 + c1 * w1_times_seven;
        *sum1 += c0 * w1 + c1 * w0;
    }
}
