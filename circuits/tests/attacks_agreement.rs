//! The systems as data: native and in-circuit evaluation agree, degrees are as declared, listings are golden, the prover's twin agrees.
#![cfg(feature = "prover")]
#![allow(missing_docs)]

mod support;

use plonky2::field::polynomial::PolynomialValues;
use plonky2::field::types::Field;
use plonky2::iop::ext_target::ExtensionTarget;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use plonky2::plonk::circuit_data::CircuitConfig;
use rand::{Rng, SeedableRng, rngs::StdRng};
use support::forge::{Forgery, attack_config};
use support::forger::{Forger, interpolate, split};
use support::{dense_spec, golden, prove_layer, random_add, random_dense, requantize};
use zkinfer_circuits::air::system::{MAX_DEGREE, MAX_SUMMAND_DEGREE};
use zkinfer_circuits::air::{Cell, ConstraintSystem, Domain, InCircuit, Leaves, Native, Node, ORACLES, Op, OracleId, Rotation, Total};
use zkinfer_circuits::backend::reference::Reference;
use zkinfer_circuits::field::{Builder, C, D, F, K, ext, lift};
use zkinfer_circuits::kind::{LayerKind, Operator, Role};
use zkinfer_circuits::layer::theta;
use zkinfer_circuits::ops;

/// The four systems, small enough to read.
fn systems() -> Vec<ConstraintSystem> {
    let dense = LayerKind { operator: Operator::Dense, log_rows: 8, n_columns: 4 };
    let add = LayerKind { operator: Operator::Add, log_rows: 8, n_columns: 0 };
    [dense, add].iter().flat_map(|kind| [Role::Inference, Role::Registration].map(|role| ops::system(kind, role))).collect()
}

/// Values of leaves by cell, in one ring.
struct RandomLeaves<V> {
    cells: Vec<(Cell, V)>,
    parameters: Vec<V>,
    challenges: Vec<V>,
    combined: V,
}

impl<V: Copy> Leaves<V> for RandomLeaves<V> {
    fn cell(&self, cell: Cell) -> V {
        self.cells.iter().find(|(c, _)| *c == cell).expect("a cell of the system").1
    }

    fn parameter(&self, index: usize) -> V {
        self.parameters[index]
    }

    fn challenge(&self, index: usize) -> V {
        self.challenges[index]
    }

    fn combined(&self) -> V {
        self.combined
    }
}

/// Every cell of a system at every rotation.
fn all_cells(system: &ConstraintSystem) -> Vec<Cell> {
    let mut cells = Vec::new();
    for oracle in &ORACLES[..3] {
        for column in 0..system.width(*oracle) {
            for rotation in [Rotation::Here, Rotation::Next, Rotation::Period] {
                cells.push(Cell { oracle: *oracle, column, rotation });
            }
        }
    }
    cells
}

fn random_leaves<V>(system: &ConstraintSystem, mut value: impl FnMut() -> V) -> RandomLeaves<V> {
    RandomLeaves {
        cells: all_cells(system).into_iter().map(|cell| (cell, value())).collect(),
        parameters: (0..theta::LENGTH).map(|_| value()).collect(),
        challenges: (0..theta::N_CHALLENGES).map(|_| value()).collect(),
        combined: value(),
    }
}

fn named_nodes(system: &ConstraintSystem) -> Vec<(&str, Node)> {
    let constraints = system.constraints.iter().map(|c| (c.id.as_str(), c.zero));
    constraints.chain(system.summands.iter().map(|s| (s.id.as_str(), s.value))).collect()
}

fn random_k(rng: &mut StdRng) -> K {
    ext(F::from_canonical_u64(rng.r#gen::<u64>() >> 1), F::from_canonical_u64(rng.r#gen::<u64>() >> 1))
}

#[test]
fn native_and_circuit_evaluate_every_constraint_equally() {
    let mut rng = StdRng::seed_from_u64(31);
    for system in systems() {
        let native = random_leaves(&system, || random_k(&mut rng));
        let values = system.arena.evaluate(&mut Native, &native);
        let mut builder = Builder::new(CircuitConfig::standard_recursion_config());
        let targets = random_leaves(&system, || builder.add_virtual_extension_target());
        let computed = system.arena.evaluate(&mut InCircuit { builder: &mut builder }, &targets);
        let nodes = named_nodes(&system);
        for (_, node) in &nodes {
            builder.register_public_inputs(&computed[node.0 as usize].0);
        }
        let data = builder.build::<C>();
        let mut witness = PartialWitness::<F>::new();
        assign(&mut witness, &targets, &native);
        let proof = data.prove(witness).expect("evaluation has a witness");
        for ((id, node), public) in nodes.iter().zip(proof.public_inputs.chunks(D)) {
            assert_eq!(ext(public[0], public[1]), values[node.0 as usize], "{} of {}", id, system.name);
        }
        data.verify(proof).expect("an honest proof");
    }
}

fn assign(witness: &mut PartialWitness<F>, targets: &RandomLeaves<ExtensionTarget<D>>, values: &RandomLeaves<K>) {
    let cells = targets.cells.iter().zip(&values.cells).map(|((_, t), (_, v))| (*t, *v));
    let parameters = targets.parameters.iter().copied().zip(values.parameters.iter().copied());
    let challenges = targets.challenges.iter().copied().zip(values.challenges.iter().copied());
    for (target, value) in cells.chain(parameters).chain(challenges).chain([(targets.combined, values.combined)]) {
        witness.set_extension_target(target, value).expect("unset");
    }
}

/// Random columns of 16 rows on a coset of 128 points.
struct RandomColumns {
    columns: [Vec<Vec<F>>; 3],
    combined: [Vec<F>; 2],
    scalars: RandomLeaves<K>,
    point: usize,
}

const ROWS: usize = 16;
const POINTS: usize = 128;

impl Leaves<K> for RandomColumns {
    fn cell(&self, cell: Cell) -> K {
        let rows = match cell.rotation {
            Rotation::Here => 0,
            Rotation::Next => 1,
            Rotation::Period => 4,
        };
        lift(self.columns[cell.oracle as usize][cell.column][(self.point + rows * POINTS / ROWS) % POINTS])
    }

    fn parameter(&self, index: usize) -> K {
        self.scalars.parameters[index]
    }

    fn challenge(&self, index: usize) -> K {
        self.scalars.challenges[index]
    }

    fn combined(&self) -> K {
        ext(self.combined[0][self.point], self.combined[1][self.point])
    }
}

fn degree(values: &[K]) -> usize {
    let coefficients = split(values).map(|values| PolynomialValues::new(values).coset_ifft(F::coset_shift()).coeffs);
    coefficients.iter().map(|c| c.iter().rposition(|&x| x != F::ZERO).unwrap_or(0)).max().unwrap_or(0)
}

#[test]
fn degrees_of_random_columns_are_the_declared_ones() {
    let mut rng = StdRng::seed_from_u64(32);
    for system in systems() {
        let column = |rng: &mut StdRng| {
            let values: Vec<F> = (0..ROWS).map(|_| F::from_canonical_u64(rng.r#gen::<u64>() >> 1)).collect();
            support::forger::coset_values(&interpolate(&values), F::coset_shift(), POINTS)
        };
        let columns = [0, 1, 2].map(|oracle| (0..system.columns[oracle].len()).map(|_| column(&mut rng)).collect());
        let combined = [column(&mut rng), column(&mut rng)];
        let scalars = random_leaves(&system, || random_k(&mut rng));
        let mut leaves = RandomColumns { columns, combined, scalars, point: 0 };
        let mut values = Vec::new();
        for point in 0..POINTS {
            leaves.point = point;
            values.push(system.arena.evaluate(&mut Native, &leaves));
        }
        for (id, node) in named_nodes(&system) {
            let on_coset: Vec<K> = values.iter().map(|v| v[node.0 as usize]).collect();
            assert_eq!(degree(&on_coset), system.arena.degree(node) * (ROWS - 1), "{} of {}", id, system.name);
        }
        for constraint in &system.constraints {
            let factor = usize::from(constraint.domain != Domain::Every);
            assert!(system.arena.degree(constraint.zero) + factor <= MAX_DEGREE, "{}", constraint.id);
        }
        assert!(system.summands.iter().all(|s| system.arena.degree(s.value) <= MAX_SUMMAND_DEGREE));
    }
}

#[test]
fn listings_are_the_golden_ones() {
    let text: Vec<String> = systems().iter().map(ConstraintSystem::listing).collect();
    golden::check("constraints.txt", &text.join("\n"));
}

/// The leaves under a node.
fn leaves_of(system: &ConstraintSystem, node: Node) -> Vec<Op> {
    match system.arena.ops()[node.0 as usize] {
        Op::Add(a, b) | Op::Sub(a, b) | Op::Mul(a, b) => [leaves_of(system, a), leaves_of(system, b)].concat(),
        leaf => vec![leaf],
    }
}

#[test]
fn no_column_of_the_sums_oracle_occurs_in_any_expression() {
    for system in systems() {
        for (id, node) in named_nodes(&system) {
            for leaf in leaves_of(&system, node) {
                if let Op::Cell(cell) | Op::ExtCell(cell) = leaf {
                    assert_ne!(cell.oracle, OracleId::Sums, "{id} of {} reads a column of round 3", system.name);
                }
            }
        }
    }
}

#[test]
fn every_committed_column_is_constrained() {
    for system in systems() {
        let leaves: Vec<Op> = named_nodes(&system).into_iter().flat_map(|(_, node)| leaves_of(&system, node)).collect();
        for cell in all_cells(&system).into_iter().filter(|cell| cell.rotation == Rotation::Here) {
            let combined = cell.oracle == OracleId::Weights && cell.column < system.combined_columns;
            let first_half = Cell { column: cell.column & !1, ..cell };
            let read = leaves.contains(&Op::Cell(cell)) || (cell.oracle == OracleId::Projected && leaves.contains(&Op::ExtCell(first_half)));
            assert!(read || combined, "column {cell:?} of {} is constrained by nothing", system.name);
        }
    }
}

#[test]
fn the_only_total_that_a_prover_chooses_is_the_balance() {
    for system in systems() {
        let chosen = system.summands.iter().filter(|s| !matches!(s.total, Total::Zero | Total::Parameter(_))).count();
        let registration = system.name.contains("registration");
        assert_eq!(chosen, usize::from(!registration), "{}", system.name);
    }
}

#[test]
fn forger_without_hooks_is_the_reference_backend() {
    let layers = [random_dense(dense_spec(9, 7, 8, 100, 31, requantize(22, -20, 100)), 33), random_add(8, 77, 34)];
    for layer in layers {
        for role in [Role::Inference, Role::Registration] {
            let honest = prove_layer(&Reference, &layer, role);
            let forged = prove_layer(&Forger::default(), &layer, role);
            assert_eq!((honest.1, honest.2), (forged.1, forged.2), "{:?}", role);
        }
    }
    let forgery = Forgery::with_config(random_add(8, 77, 34), Role::Inference, &attack_config());
    assert_eq!(forgery.committed_balance(), forgery.honest_balance());
}
