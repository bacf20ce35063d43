//! A circuit with rows of every gate of recursion, at both ends of their sizes.

use plonky2::field::types::Field;
use plonky2::gates::arithmetic_base::ArithmeticGate;
use plonky2::gates::arithmetic_extension::ArithmeticExtensionGate;
use plonky2::gates::base_sum::BaseSumGate;
use plonky2::gates::coset_interpolation::CosetInterpolationGate;
use plonky2::gates::gate::Gate;
use plonky2::gates::multiplication_extension::MulExtensionGate;
use plonky2::gates::poseidon::PoseidonGate;
use plonky2::gates::poseidon_mds::PoseidonMdsGate;
use plonky2::gates::random_access::RandomAccessGate;
use plonky2::gates::reducing::ReducingGate;
use plonky2::gates::reducing_extension::ReducingExtensionGate;
use plonky2::hash::poseidon::SPONGE_WIDTH;
use plonky2::iop::target::Target;
use plonky2::iop::witness::{PartialWitness, WitnessWrite};
use plonky2::plonk::circuit_data::CircuitConfig;
use zkinfer_circuits::backend::Circuit;
use zkinfer_circuits::field::{Builder, D, F};

/// Rows of gates under construction, and the wires that their generators start from.
struct Rows {
    builder: Builder,
    inputs: Vec<(Target, F)>,
    n_drawn: u64,
}

impl Rows {
    /// The next element of a fixed sequence.
    fn draw(&mut self) -> F {
        self.n_drawn += 1;
        F::from_noncanonical_u64(self.n_drawn.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A row whose wires `given` have values of the sequence.
    fn row<G: Gate<F, D>>(&mut self, gate: G, given: impl IntoIterator<Item = usize>) -> usize {
        // Those that wires hold are the builder's to give.
        let n_constants = if gate.extra_constant_wires().is_empty() { gate.num_constants() } else { 0 };
        let constants = (0..n_constants).map(|_| self.draw()).collect();
        let row = self.builder.add_gate(gate, constants);
        for wire in given {
            let value = self.draw();
            self.set(row, wire, value);
        }
        row
    }

    fn set(&mut self, row: usize, wire: usize, value: F) {
        self.inputs.push((Target::wire(row, wire), value));
    }

    fn arithmetic(&mut self, config: &CircuitConfig) {
        let gate = ArithmeticGate::new_from_config(config);
        let n_operations = gate.num_ops;
        self.row(gate, (0..4 * n_operations).filter(|wire| wire % 4 < 3));
        let gate = ArithmeticExtensionGate::<D>::new_from_config(config);
        let n_operations = gate.num_ops;
        self.row(gate, (0..8 * n_operations).filter(|wire| wire % 8 < 6));
        let gate = MulExtensionGate::<D>::new_from_config(config);
        let n_operations = gate.num_ops;
        self.row(gate, (0..6 * n_operations).filter(|wire| wire % 6 < 4));
    }

    fn sums_of_limbs(&mut self) {
        for (n_limbs, sum) in [(1, 1), (63, 0x5a5a_1234_5678_9abc)] {
            let row = self.row(BaseSumGate::<2>::new(n_limbs), []);
            self.set(row, 0, F::from_canonical_u64(sum));
        }
        for (n_limbs, sum) in [(1, 3), (31, 0x1b2d_1234_5678_9abc)] {
            let row = self.row(BaseSumGate::<4>::new(n_limbs), []);
            self.set(row, 0, F::from_canonical_u64(sum));
        }
    }

    fn random_accesses(&mut self, config: &CircuitConfig) {
        for bits in 1..=6 {
            let gate = RandomAccessGate::<F, D>::new_from_config(config, bits);
            let (length, n_copies) = (1usize << bits, gate.num_copies);
            let row = self.row(gate, (0..n_copies * (2 + length)).filter(|wire| wire % (2 + length) >= 2));
            for copy in 0..n_copies {
                self.set(row, copy * (2 + length), F::from_canonical_usize((5 * copy + 1) % length));
            }
        }
    }

    /// Wires of a reduction: its output, which is generated; α and the accumulator; the coefficients.
    fn reductions(&mut self) {
        for n_coefficients in [1, 43] {
            self.row(ReducingGate::<D>::new(n_coefficients), 2..6 + n_coefficients);
        }
        for n_coefficients in [1, 32] {
            self.row(ReducingExtensionGate::<D>::new(n_coefficients), 2..6 + 2 * n_coefficients);
        }
    }

    fn interpolations(&mut self) {
        for (bits, degree) in [(1, 2), (2, 3), (3, 8), (4, 2), (4, 6)] {
            let mut gate = CosetInterpolationGate::<F, D>::new(bits);
            gate.degree = degree;
            self.row(gate, 0..1 + 2 * (1 << bits) + 2);
        }
    }

    /// The flag that swaps follows the permutation's input and output.
    fn permutations(&mut self) {
        for swap in [F::ZERO, F::ONE] {
            let row = self.row(PoseidonGate::<F, D>::new(), 0..SPONGE_WIDTH);
            self.set(row, 2 * SPONGE_WIDTH, swap);
        }
        self.row(PoseidonMdsGate::<F, D>::new(), 0..2 * SPONGE_WIDTH);
    }
}

/// The circuit, and inputs that satisfy it.
pub(super) fn every_gate(config: &CircuitConfig) -> (Circuit, PartialWitness<F>) {
    let mut rows = Rows { builder: Builder::new(config.clone()), inputs: Vec::new(), n_drawn: 0 };
    rows.arithmetic(config);
    rows.sums_of_limbs();
    rows.random_accesses(config);
    rows.reductions();
    rows.interpolations();
    rows.permutations();
    let public = rows.builder.add_virtual_public_input();
    rows.inputs.push((public, F::NEG_ONE));
    let mut inputs = PartialWitness::new();
    for &(target, value) in &rows.inputs {
        inputs.set_target(target, value).expect("a target is set once");
    }
    (rows.builder.build(), inputs)
}
