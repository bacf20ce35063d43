//! Compiles nodes of an arena to straight-line code over blocks of points.
//!
//! Every node becomes one or two *limbs* (coordinates of K); a limb is a scalar, folded at compile time, or a vector over the block's points.
//! Only nodes that an output needs are compiled, and a vector's register is used again after its last reader.

use plonky2::field::types::Field;
use zkinfer_circuits::air::{Arena, Cell, Node, Op, OracleId, Rotation};
use zkinfer_circuits::backend::Scalars;
use zkinfer_circuits::field::{F, K, limbs};

/// A column that a program reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Column {
    /// Of an oracle.
    Oracle(OracleId, usize),
    /// A coordinate of w~.
    Combined(usize),
}

/// Where a vector is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// The block's part of a column, by its position in [`Program::columns`].
    Column(usize),
    /// A register.
    Register(usize),
}

/// One coordinate of a node: `L` locates a vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limb<L> {
    /// The same at every point.
    Scalar(F),
    /// One value per point.
    Vector(L),
}

/// An operation of the base field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Sub,
    Mul,
}

/// One instruction.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Instruction<L> {
    /// `to = column` at a rotation.
    Gather { column: usize, rotation: Rotation, to: L },
    /// `to = a ∘ b`.
    Vectors { operation: Arithmetic, a: L, b: L, to: L },
    /// `to = a ∘ scalar`.
    Scalar { operation: Arithmetic, a: L, scalar: F, to: L },
    /// `to = scalar − a`.
    ScalarMinus { scalar: F, a: L, to: L },
    /// `to = a·x + b·y`, scalars x, y.
    Blend { a: L, x: F, b: L, y: F, to: L },
    /// The product of two elements of K.
    Product { a: [L; 2], b: [L; 2], to: [L; 2] },
    /// `accumulator += weight·value`.
    Accumulate { accumulator: usize, weight: K, value: [Limb<L>; 2] },
    /// `outputs[slot] = value`.
    Store { slot: usize, value: [Limb<L>; 2] },
}

/// What happens to the value of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Sink {
    /// Added to an accumulator with a weight.
    Accumulate {
        /// Index among the accumulators.
        accumulator: usize,
        /// The weight.
        weight: K,
    },
    /// Written to an output of its own.
    Store {
        /// Index among the outputs.
        slot: usize,
    },
}

/// Straight-line code over blocks of points.
#[derive(Debug)]
pub(crate) struct Program {
    /// Columns read, by position.
    pub(crate) columns: Vec<Column>,
    pub(crate) instructions: Vec<Instruction<Location>>,
    pub(crate) n_registers: usize,
    /// Accumulators and stored outputs.
    pub(crate) n_outputs: usize,
}

/// A vector before registers are assigned: a column, or the n-th computed vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Virtual {
    Column(usize),
    Computed(usize),
}

type Value = [Limb<Virtual>; 2];

const ZERO: Limb<Virtual> = Limb::Scalar(F::ZERO);

impl Program {
    /// Code that evaluates the sinks' nodes.
    pub(crate) fn compile(arena: &Arena, scalars: Scalars<'_>, sinks: &[(Node, Sink)]) -> Self {
        let live = live_nodes(arena, sinks);
        let mut compiler = Compiler { columns: Vec::new(), code: Vec::new(), n_computed: 0, n_outputs: 0 };
        let mut values: Vec<Value> = vec![[ZERO; 2]; arena.ops().len()];
        let mut sinks_of: Vec<Vec<Sink>> = vec![Vec::new(); arena.ops().len()];
        for &(node, sink) in sinks {
            sinks_of[node.0 as usize].push(sink);
        }
        for (index, &op) in arena.ops().iter().enumerate() {
            if live[index] {
                values[index] = compiler.node(op, scalars, &values);
                sinks_of[index].iter().for_each(|&sink| compiler.sink(sink, values[index]));
            }
        }
        compiler.finish()
    }
}

fn live_nodes(arena: &Arena, sinks: &[(Node, Sink)]) -> Vec<bool> {
    let mut live = vec![false; arena.ops().len()];
    for (node, _) in sinks {
        live[node.0 as usize] = true;
    }
    for index in (0..live.len()).rev() {
        if let (true, Op::Add(a, b) | Op::Sub(a, b) | Op::Mul(a, b)) = (live[index], arena.ops()[index]) {
            live[a.0 as usize] = true;
            live[b.0 as usize] = true;
        }
    }
    live
}

struct Compiler {
    columns: Vec<Column>,
    code: Vec<Instruction<Virtual>>,
    n_computed: usize,
    n_outputs: usize,
}

impl Compiler {
    fn node(&mut self, op: Op, scalars: Scalars<'_>, values: &[Value]) -> Value {
        match op {
            Op::Constant(value) => [Limb::Scalar(F::from_canonical_u64(value)), ZERO],
            Op::Parameter(index) => [Limb::Scalar(scalars.theta[index]), ZERO],
            Op::Challenge(index) => limbs(scalars.challenges[index]).map(Limb::Scalar),
            Op::Cell(cell) => [self.cell(cell), ZERO],
            Op::ExtCell(cell) => [0, 1].map(|limb| self.cell(Cell { column: cell.column + limb, ..cell })),
            Op::Combined => [0, 1].map(|limb| Limb::Vector(self.column(Column::Combined(limb)))),
            Op::Add(a, b) => self.limbwise(Arithmetic::Add, values[a.0 as usize], values[b.0 as usize]),
            Op::Sub(a, b) => self.limbwise(Arithmetic::Sub, values[a.0 as usize], values[b.0 as usize]),
            Op::Mul(a, b) => self.product(values[a.0 as usize], values[b.0 as usize]),
        }
    }

    fn column(&mut self, column: Column) -> Virtual {
        let position = self.columns.iter().position(|&known| known == column).unwrap_or_else(|| {
            self.columns.push(column);
            self.columns.len() - 1
        });
        Virtual::Column(position)
    }

    fn cell(&mut self, cell: Cell) -> Limb<Virtual> {
        let vector = self.column(Column::Oracle(cell.oracle, cell.column));
        match (cell.rotation, vector) {
            (Rotation::Here, _) | (_, Virtual::Computed(_)) => Limb::Vector(vector),
            (rotation, Virtual::Column(column)) => {
                let to = self.computed();
                self.code.push(Instruction::Gather { column, rotation, to });
                Limb::Vector(to)
            }
        }
    }

    fn computed(&mut self) -> Virtual {
        self.n_computed += 1;
        Virtual::Computed(self.n_computed - 1)
    }

    fn limbwise(&mut self, operation: Arithmetic, a: Value, b: Value) -> Value {
        [0, 1].map(|limb| self.arithmetic(operation, a[limb], b[limb]))
    }

    fn arithmetic(&mut self, operation: Arithmetic, a: Limb<Virtual>, b: Limb<Virtual>) -> Limb<Virtual> {
        match (operation, a, b) {
            (_, Limb::Scalar(a), Limb::Scalar(b)) => Limb::Scalar(apply(operation, a, b)),
            (Arithmetic::Add | Arithmetic::Sub, Limb::Vector(_), Limb::Scalar(b)) if b.is_zero() => a,
            (Arithmetic::Add, Limb::Scalar(a), Limb::Vector(_)) if a.is_zero() => b,
            (Arithmetic::Mul, Limb::Vector(_), Limb::Scalar(b)) if b.is_one() => a,
            (Arithmetic::Mul, Limb::Scalar(a), Limb::Vector(_)) if a.is_one() => b,
            (Arithmetic::Mul, _, Limb::Scalar(zero)) | (Arithmetic::Mul, Limb::Scalar(zero), _) if zero.is_zero() => ZERO,
            (_, Limb::Vector(a), Limb::Vector(b)) => self.emit(|to| Instruction::Vectors { operation, a, b, to }),
            (_, Limb::Vector(a), Limb::Scalar(scalar)) => self.emit(|to| Instruction::Scalar { operation, a, scalar, to }),
            (Arithmetic::Sub, Limb::Scalar(scalar), Limb::Vector(a)) => self.emit(|to| Instruction::ScalarMinus { scalar, a, to }),
            (_, Limb::Scalar(scalar), Limb::Vector(a)) => self.emit(|to| Instruction::Scalar { operation, a, scalar, to }),
        }
    }

    fn emit(&mut self, instruction: impl FnOnce(Virtual) -> Instruction<Virtual>) -> Limb<Virtual> {
        let to = self.computed();
        self.code.push(instruction(to));
        Limb::Vector(to)
    }

    /// `(a0·b0 + 7·a1·b1, a0·b1 + a1·b0)`.
    fn product(&mut self, a: Value, b: Value) -> Value {
        if let ([Limb::Vector(a0), Limb::Vector(a1)], [Limb::Vector(b0), Limb::Vector(b1)]) = (a, b) {
            let to = [self.computed(), self.computed()];
            self.code.push(Instruction::Product { a: [a0, a1], b: [b0, b1], to });
            return to.map(Limb::Vector);
        }
        let seven = Limb::Scalar(F::from_canonical_u64(7));
        // Whichever of a1, b1 is a scalar takes the factor 7, at compile time.
        let (first, second) = if matches!(a[1], Limb::Scalar(_)) { (a[1], b[1]) } else { (b[1], a[1]) };
        let scaled = self.arithmetic(Arithmetic::Mul, first, seven);
        let low = self.sum_of_products([(a[0], b[0]), (scaled, second)]);
        let high = self.sum_of_products([(a[0], b[1]), (a[1], b[0])]);
        [low, high]
    }

    fn sum_of_products(&mut self, [(a, x), (b, y)]: [(Limb<Virtual>, Limb<Virtual>); 2]) -> Limb<Virtual> {
        let vector_first = |a, x| if matches!(a, Limb::Scalar(_)) { (x, a) } else { (a, x) };
        if let ((Limb::Vector(a), Limb::Scalar(x)), (Limb::Vector(b), Limb::Scalar(y))) = (vector_first(a, x), vector_first(b, y))
            && x.is_nonzero()
            && y.is_nonzero()
        {
            return self.emit(|to| Instruction::Blend { a, x, b, y, to });
        }
        let (first, second) = (self.arithmetic(Arithmetic::Mul, a, x), self.arithmetic(Arithmetic::Mul, b, y));
        self.arithmetic(Arithmetic::Add, first, second)
    }

    fn sink(&mut self, sink: Sink, value: Value) {
        let (instruction, output) = match sink {
            Sink::Accumulate { accumulator, weight } => (Instruction::Accumulate { accumulator, weight, value }, accumulator),
            Sink::Store { slot } => (Instruction::Store { slot, value }, slot),
        };
        self.n_outputs = self.n_outputs.max(output + 1);
        self.code.push(instruction);
    }

    fn finish(self) -> Program {
        let mut registers = Registers::new(&self.code, self.n_computed);
        let instructions = self.code.iter().enumerate().map(|(index, &instruction)| registers.assign(index, instruction)).collect();
        Program { columns: self.columns, instructions, n_registers: registers.n_registers, n_outputs: self.n_outputs }
    }
}

fn apply(operation: Arithmetic, a: F, b: F) -> F {
    match operation {
        Arithmetic::Add => a + b,
        Arithmetic::Sub => a - b,
        Arithmetic::Mul => a * b,
    }
}

/// Gives each computed vector a register, free again after the vector's last reader.
struct Registers {
    last_reader: Vec<usize>,
    register: Vec<usize>,
    free: Vec<usize>,
    n_registers: usize,
}

impl Registers {
    fn new(code: &[Instruction<Virtual>], n_computed: usize) -> Self {
        let mut last_reader = vec![0; n_computed];
        for (index, instruction) in code.iter().enumerate() {
            for vector in instruction.operands() {
                if let Virtual::Computed(vector) = vector {
                    last_reader[vector] = index;
                }
            }
        }
        Self { last_reader, register: vec![0; n_computed], free: Vec::new(), n_registers: 0 }
    }

    /// Targets are assigned before operands are freed: an instruction never writes a register that it reads.
    fn assign(&mut self, index: usize, instruction: Instruction<Virtual>) -> Instruction<Location> {
        for vector in instruction.targets() {
            if let Virtual::Computed(vector) = vector {
                self.register[vector] = self.free.pop().unwrap_or_else(|| {
                    self.n_registers += 1;
                    self.n_registers - 1
                });
            }
        }
        let located = instruction.map(|vector| match vector {
            Virtual::Column(column) => Location::Column(column),
            Virtual::Computed(vector) => Location::Register(self.register[vector]),
        });
        let mut freed: Vec<usize> = Vec::new();
        for vector in instruction.operands() {
            if let Virtual::Computed(vector) = vector
                && self.last_reader[vector] == index
                && !freed.contains(&self.register[vector])
            {
                freed.push(self.register[vector]);
            }
        }
        self.free.extend(freed);
        located
    }
}

impl<L: Copy> Instruction<L> {
    fn operands(&self) -> Vec<L> {
        match *self {
            Self::Gather { .. } => Vec::new(),
            Self::Vectors { a, b, .. } | Self::Blend { a, b, .. } => vec![a, b],
            Self::Scalar { a, .. } | Self::ScalarMinus { a, .. } => vec![a],
            Self::Product { a, b, .. } => [a, b].concat(),
            Self::Accumulate { value, .. } | Self::Store { value, .. } => {
                let vector = |limb| if let Limb::Vector(vector) = limb { Some(vector) } else { None };
                value.into_iter().filter_map(vector).collect()
            }
        }
    }

    fn targets(&self) -> Vec<L> {
        match *self {
            Self::Gather { to, .. } | Self::Vectors { to, .. } | Self::Scalar { to, .. } => vec![to],
            Self::ScalarMinus { to, .. } | Self::Blend { to, .. } => vec![to],
            Self::Product { to, .. } => to.to_vec(),
            Self::Accumulate { .. } | Self::Store { .. } => Vec::new(),
        }
    }

    fn map<M>(self, f: impl Fn(L) -> M) -> Instruction<M> {
        let limb = |limb| match limb {
            Limb::Scalar(scalar) => Limb::Scalar(scalar),
            Limb::Vector(vector) => Limb::Vector(f(vector)),
        };
        match self {
            Self::Gather { column, rotation, to } => Instruction::Gather { column, rotation, to: f(to) },
            Self::Vectors { operation, a, b, to } => Instruction::Vectors { operation, a: f(a), b: f(b), to: f(to) },
            Self::Scalar { operation, a, scalar, to } => Instruction::Scalar { operation, a: f(a), scalar, to: f(to) },
            Self::ScalarMinus { scalar, a, to } => Instruction::ScalarMinus { scalar, a: f(a), to: f(to) },
            Self::Blend { a, x, b, y, to } => Instruction::Blend { a: f(a), x, b: f(b), y, to: f(to) },
            Self::Product { a, b, to } => Instruction::Product { a: a.map(&f), b: b.map(&f), to: to.map(&f) },
            Self::Accumulate { accumulator, weight, value } => Instruction::Accumulate { accumulator, weight, value: value.map(limb) },
            Self::Store { slot, value } => Instruction::Store { slot, value: value.map(limb) },
        }
    }
}
