//! Programs as data for the device's interpreter (`interpret` in `kernels/cuda/constraints.cu`).

use plonky2::field::types::{Field, PrimeField64};
use zkinfer_circuits::air::Rotation;
use zkinfer_circuits::backend::BackendError;
use zkinfer_circuits::field::{F, K, ext};

use super::lane::Lane;
use super::launch::{Argument, Shape};
use super::memory::{Buffer, Words};
use super::polynomial::words;
use crate::cpu::program::{Arithmetic, Instruction, Limb, Location, Program};

/// In the order of the enumeration `Opcode` of constraints.cu.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
enum Opcode {
    Gather,
    Add,
    Sub,
    Mul,
    AddScalar,
    SubScalar,
    MulScalar,
    ScalarSub,
    Blend,
    Product,
    Accumulate,
    AccumulateOne,
    Store,
}

/// Words of an instruction.
const INSTRUCTION_WORDS: usize = 6;
/// Marks an operand as a column.
const COLUMN_FLAG: u32 = 1 << 31;
/// Words of shared memory that any device grants a block.
const SHARED_WORDS: usize = 48 << 7;
/// Threads that take turns where registers lie in global memory.
const SCRATCH_THREADS: usize = 1 << 15;
/// Threads of a block, most first.
const THREADS: [usize; 3] = [128, 64, 32];

/// Arrays in which columns lie.
pub(crate) const N_ARRAYS: usize = 4;

/// A column's array and its offset there, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) array: usize,
    pub(crate) offset: usize,
}

/// The points at which a program runs, and where its results go.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Domain {
    pub(crate) log_rows: usize,
    pub(crate) period: usize,
    /// Cosets of G, each in bit-reversed order.
    pub(crate) n_cosets: usize,
    /// Results in natural order (of one coset) rather than bit-reversed.
    pub(crate) is_natural: bool,
}

/// Code, and what the outputs begin with: what is added to them alike at every point.
#[derive(Debug, Default)]
struct Encoded {
    code: Vec<u64>,
    initial: Vec<F>,
}

/// One instruction before it is packed; what it does not use is zero.
#[derive(Clone, Copy, Debug, Default)]
struct Fields {
    to: [u32; 2],
    a: [u32; 2],
    b: [u32; 2],
    x: F,
    y: F,
}

fn operand(location: Location) -> u32 {
    match location {
        Location::Column(column) => column as u32 | COLUMN_FLAG,
        Location::Register(register) => register as u32,
    }
}

impl Encoded {
    fn new(program: &Program) -> Self {
        let mut encoded = Self { code: Vec::new(), initial: vec![F::ZERO; 2 * program.n_outputs] };
        for &instruction in &program.instructions {
            encoded.instruction(instruction);
        }
        encoded
    }

    fn push(&mut self, opcode: Opcode, fields: Fields) {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let Fields { to, a, b, x, y } = fields;
        self.code.extend([pair(opcode as u32, to[0]), pair(to[1], a[0]), pair(a[1], b[0]), u64::from(b[1])]);
        self.code.extend([x, y].map(|scalar| scalar.to_canonical_u64()));
    }

    fn instruction(&mut self, instruction: Instruction<Location>) {
        let one = |location: Location| [operand(location), 0];
        let fields = Fields::default();
        match instruction {
            Instruction::Gather { column, rotation, to } => {
                let steps = match rotation {
                    Rotation::Here => 0,
                    Rotation::Next => 1,
                    Rotation::Period => 2,
                };
                let column = one(Location::Column(column));
                self.push(Opcode::Gather, Fields { to: one(to), a: column, x: F::from_canonical_u64(steps), ..fields });
            }
            Instruction::Vectors { operation, a, b, to } => {
                let opcode = match operation {
                    Arithmetic::Add => Opcode::Add,
                    Arithmetic::Sub => Opcode::Sub,
                    Arithmetic::Mul => Opcode::Mul,
                };
                self.push(opcode, Fields { to: one(to), a: one(a), b: one(b), ..fields });
            }
            Instruction::Scalar { operation, a, scalar, to } => {
                let opcode = match operation {
                    Arithmetic::Add => Opcode::AddScalar,
                    Arithmetic::Sub => Opcode::SubScalar,
                    Arithmetic::Mul => Opcode::MulScalar,
                };
                self.push(opcode, Fields { to: one(to), a: one(a), x: scalar, ..fields });
            }
            Instruction::ScalarMinus { scalar, a, to } => {
                self.push(Opcode::ScalarSub, Fields { to: one(to), a: one(a), x: scalar, ..fields })
            }
            Instruction::Blend { a, x, b, y, to } => self.push(Opcode::Blend, Fields { to: one(to), a: one(a), b: one(b), x, y }),
            Instruction::Product { a, b, to } => {
                self.push(Opcode::Product, Fields { to: to.map(operand), a: a.map(operand), b: b.map(operand), ..fields });
            }
            Instruction::Accumulate { accumulator, weight, value } => self.accumulate(accumulator, weight, value),
            Instruction::Store { slot, value } => self.store(slot, value),
        }
    }

    fn accumulate(&mut self, accumulator: usize, weight: K, value: [Limb<Location>; 2]) {
        let to = [accumulator as u32, 0];
        let fields = |weight: K, a: [u32; 2]| {
            let [x, y] = words(weight).map(F::from_canonical_u64);
            Fields { to, a, b: [0; 2], x, y }
        };
        if let [Limb::Vector(c0), Limb::Vector(c1)] = value {
            return self.push(Opcode::Accumulate, fields(weight, [operand(c0), operand(c1)]));
        }
        for (limb, unit) in value.into_iter().zip([ext(F::ONE, F::ZERO), ext(F::ZERO, F::ONE)]) {
            let weight = weight * unit;
            match limb {
                Limb::Vector(vector) => self.push(Opcode::AccumulateOne, fields(weight, [operand(vector), 0])),
                Limb::Scalar(scalar) => {
                    for (initial, word) in self.initial[2 * accumulator..].iter_mut().zip(words(weight)) {
                        *initial += F::from_canonical_u64(word) * scalar;
                    }
                }
            }
        }
    }

    fn store(&mut self, slot: usize, value: [Limb<Location>; 2]) {
        for (index, limb) in value.into_iter().enumerate() {
            let output = 2 * slot + index;
            match limb {
                Limb::Scalar(scalar) => self.initial[output] = scalar,
                Limb::Vector(vector) => {
                    self.push(Opcode::Store, Fields { to: [output as u32, 0], a: [operand(vector), 0], ..Fields::default() });
                }
            }
        }
    }
}

/// Runs a program: 2·n_outputs columns of a value for every point. `places` are those of [`Program::columns`].
pub(crate) fn run(
    lane: Lane<'_>,
    program: &Program,
    places: &[Place],
    arrays: [Option<Words<'_>>; N_ARRAYS],
    domain: Domain,
) -> Result<Buffer, BackendError> {
    let n_points = domain.n_cosets << domain.log_rows;
    let encoded = Encoded::new(program);
    let table: Vec<u64> = places.iter().map(|place| (place.array as u64) << 56 | place.offset as u64).collect();
    let initial: Vec<u64> = encoded.initial.iter().map(PrimeField64::to_canonical_u64).collect();
    let (code, table, initial) = (lane.upload(&encoded.code)?, lane.upload(&table)?, lane.upload(&initial)?);
    let mut outputs = lane.allocate(2 * program.n_outputs * n_points)?;
    let n_registers = program.n_registers + 2 * program.n_outputs;
    let (shape, mut scratch) = registers(lane, n_registers, n_points)?;
    let mut arguments = vec![Argument::In(code.view()), Argument::In(table.view())];
    arguments.extend(arrays.into_iter().map(|array| array.map_or(Argument::Null, Argument::In)));
    arguments.extend([Argument::In(initial.view()), Argument::Out(outputs.view_mut())]);
    let uses_scratch = scratch.is_some();
    arguments.push(scratch.as_mut().map_or(Argument::Null, |scratch| Argument::Out(scratch.view_mut())));
    let counts = [
        encoded.code.len() / INSTRUCTION_WORDS,
        program.n_registers,
        program.n_outputs,
        domain.log_rows,
        domain.period,
        n_points,
        usize::from(domain.is_natural),
        usize::from(uses_scratch),
    ];
    arguments.extend(counts.map(|count| Argument::Count(count as u32)));
    lane.launch("interpret", shape, arguments)?;
    Ok(outputs)
}

/// Where registers lie: in shared memory if those of a block fit it, else in global memory for a number of threads that take turns.
fn registers(lane: Lane<'_>, n_registers: usize, n_points: usize) -> Result<(Shape, Option<Buffer>), BackendError> {
    let fitting = THREADS.into_iter().find(|threads| threads * n_registers <= SHARED_WORDS);
    if let Some(threads) = fitting {
        let shape = Shape { blocks: n_points.div_ceil(threads) as u64, threads: threads as u32, shared_words: threads * n_registers };
        return Ok((shape, None));
    }
    let threads = THREADS[0];
    let blocks = n_points.min(SCRATCH_THREADS).div_ceil(threads);
    let scratch = lane.allocate(blocks * threads * n_registers)?;
    Ok((Shape { blocks: blocks as u64, threads: threads as u32, shared_words: 0 }, Some(scratch)))
}
