use plonky2::field::types::{Field, Sample};
use plonky2::gates::exponentiation::ExponentiationGate;
use plonky2::plonk::circuit_data::CircuitConfig;
use plonky2::plonk::vars::EvaluationVars;
use zkinfer_circuits::field::{K, lift, limbs};

use super::*;
use crate::vector::{Dispatch, Kernel, Level};

const N_POINTS: usize = 16;

struct EvaluateBlock<'a> {
    evaluator: &'a Evaluator,
    block: Block<'a>,
    n_constraints: usize,
}

impl Kernel for EvaluateBlock<'_> {
    type Output = Vec<Vec<F>>;

    #[inline(always)]
    fn run<V: Vector>(self) -> Vec<Vec<F>> {
        let given = self.evaluator.evaluate_block(&self.block);
        let mut points = vec![Vec::new(); N_POINTS];
        for first in (0..N_POINTS).step_by(V::WIDTH) {
            let mut values = vec![V::from(F::ONE); self.n_constraints];
            self.evaluator.evaluate(&self.block.row(first), &given, &mut Output::new(&mut values, 0, 1));
            for value in &values {
                for (lane, &element) in value.as_slice().iter().enumerate() {
                    points[first + lane].push(element);
                }
            }
        }
        points
    }
}

fn check(gate: &GateRef<F, D>) -> Evaluator {
    let (n_wires, n_constants) = (gate.0.num_wires().max(1), gate.0.num_constants().max(1));
    let mut wires = F::rand_vec(n_wires * N_POINTS);
    // Encodings that are not canonical, and the ends of the field.
    for (index, encoding) in [0, 1, u64::MAX, zkinfer_circuits::field::ORDER, zkinfer_circuits::field::ORDER - 1].into_iter().enumerate() {
        wires.iter_mut().skip(index).step_by(97).for_each(|wire| *wire = F::from_noncanonical_u64(encoding));
    }
    let constants = F::rand_vec(n_constants * N_POINTS);
    let public_inputs_hash = Digest { elements: F::rand_array() };
    let block = Block { wires: &wires, constants: &constants, public_inputs_hash: &public_inputs_hash, n_points: N_POINTS };
    let at = |columns: &[F], point: usize| -> Vec<K> { columns.iter().skip(point).step_by(N_POINTS).map(|&value| lift(value)).collect() };
    let evaluator = Evaluator::of(gate);
    for level in Level::available() {
        let kernel = EvaluateBlock { evaluator: &evaluator, block, n_constraints: gate.0.num_constraints() };
        let evaluated = Dispatch::new(level).unwrap().run(kernel);
        for (point, values) in evaluated.into_iter().enumerate() {
            let (local_wires, local_constants) = (at(&wires, point), at(&constants, point));
            let variables =
                EvaluationVars { local_constants: &local_constants, local_wires: &local_wires, public_inputs_hash: &public_inputs_hash };
            let expected: Vec<F> = gate.0.eval_unfiltered(variables).into_iter().map(|value| limbs(value)[0]).collect();
            assert_eq!(values, expected, "{} at level {}, point {point}", gate.0.id(), level.name());
        }
    }
    evaluator
}

fn check_known(gate: GateRef<F, D>) {
    assert!(!matches!(check(&gate), Evaluator::Other(_)), "{} is evaluated here", gate.0.id());
}

#[test]
fn gates_of_values_agree_with_plonky2() {
    let config = CircuitConfig::standard_recursion_config();
    check_known(GateRef::new(NoopGate));
    check_known(GateRef::new(PublicInputGate));
    check_known(GateRef::new(ConstantGate::new(config.num_constants)));
    check_known(GateRef::new(ArithmeticGate::new_from_config(&config)));
    check_known(GateRef::new(ArithmeticExtensionGate::<D>::new_from_config(&config)));
    check_known(GateRef::new(MulExtensionGate::<D>::new_from_config(&config)));
    for n_limbs in [1, 2, 31, 63] {
        check_known(GateRef::new(BaseSumGate::<2>::new(n_limbs)));
        check_known(GateRef::new(BaseSumGate::<4>::new(n_limbs)));
    }
}

#[test]
fn gates_of_lists_agree_with_plonky2() {
    let config = CircuitConfig::standard_recursion_config();
    for bits in 1..=MAX_ACCESS_BITS {
        check_known(GateRef::new(RandomAccessGate::<F, D>::new_from_config(&config, bits)));
    }
    for n_coefficients in [1, 2, 7, 32] {
        check_known(GateRef::new(ReducingGate::<D>::new(n_coefficients)));
        check_known(GateRef::new(ReducingExtensionGate::<D>::new(n_coefficients)));
    }
    check_known(GateRef::new(ReducingGate::<D>::new(43)));
}

#[test]
fn interpolation_agrees_with_plonky2_at_every_degree() {
    for bits in 1..=4 {
        let full = CosetInterpolationGate::<F, D>::new(bits);
        for degree in 2..=full.degree {
            let mut gate = full.clone();
            gate.degree = degree;
            check_known(GateRef::new(gate));
        }
    }
}

#[test]
fn poseidon_gates_agree_with_plonky2() {
    for _ in 0..4 {
        check_known(GateRef::new(PoseidonGate::<F, D>::new()));
        check_known(GateRef::new(PoseidonMdsGate::<F, D>::new()));
    }
}

#[test]
fn unknown_gates_are_left_to_plonky2() {
    for gate in [GateRef::new(ExponentiationGate::<F, D>::new(13)), GateRef::new(BaseSumGate::<3>::new(20))] {
        assert!(matches!(check(&gate), Evaluator::Other(_)));
    }
}
