//! The gates that the device evaluates: each one's kernel and table (`kernels/cuda/circuit.cu`).

use plonky2::field::types::{Field, PrimeField64};
use plonky2::gates::arithmetic_base::ArithmeticGate;
use plonky2::gates::arithmetic_extension::ArithmeticExtensionGate;
use plonky2::gates::base_sum::BaseSumGate;
use plonky2::gates::constant::ConstantGate;
use plonky2::gates::coset_interpolation::CosetInterpolationGate;
use plonky2::gates::gate::{Gate, GateRef};
use plonky2::gates::multiplication_extension::MulExtensionGate;
use plonky2::gates::noop::NoopGate;
use plonky2::gates::poseidon::PoseidonGate;
use plonky2::gates::poseidon_mds::PoseidonMdsGate;
use plonky2::gates::public_input::PublicInputGate;
use plonky2::gates::random_access::RandomAccessGate;
use plonky2::gates::reducing::ReducingGate;
use plonky2::gates::reducing_extension::ReducingExtensionGate;
use plonky2::plonk::circuit_data::CommonCircuitData;
use zkinfer_circuits::field::{D, Digest, F};

use crate::circuit::FilteredGate;

/// Longest list of a random access, as a power of two, for which there is code.
const MAX_ACCESS_BITS: usize = 6;

/// The kernels of gates, and the one that finishes a quotient.
pub(crate) const KERNELS: [&str; 13] = [
    "gate_arithmetic",
    "gate_arithmetic_extension",
    "gate_base_sum",
    "gate_constant",
    "gate_interpolation",
    "gate_mul_extension",
    "gate_poseidon",
    "gate_poseidon_mds",
    "gate_public_input",
    "gate_random_access",
    "gate_reducing",
    "gate_reducing_extension",
    "quotient_finish",
];

/// A circuit has a gate for which the device has no kernel: the circuit is proved on the host.
#[derive(Debug, thiserror::Error)]
#[error("no kernel evaluates the gate {0}")]
pub(crate) struct UnknownGate(String);

/// A gate with constraints, as the device knows it.
#[derive(Debug)]
pub(super) struct DeviceGate {
    pub(super) kernel: &'static str,
    sizes: [usize; 3],
    extras: Extras,
}

/// What a gate's table ends in.
#[derive(Debug)]
enum Extras {
    Nothing,
    PublicInputsHash,
    /// Points and weights of an interpolation.
    Elements(Vec<F>),
}

impl DeviceGate {
    /// None for a gate without constraints.
    pub(super) fn of(gate: &GateRef<F, D>) -> Result<Option<Self>, UnknownGate> {
        let any = gate.0.as_any();
        let known = |kernel, sizes| Ok(Some(Self { kernel, sizes, extras: Extras::Nothing }));
        if any.is::<NoopGate>() {
            Ok(None)
        } else if any.is::<PublicInputGate>() {
            Ok(Some(Self { kernel: "gate_public_input", sizes: [0; 3], extras: Extras::PublicInputsHash }))
        } else if any.is::<PoseidonGate<F, D>>() {
            known("gate_poseidon", [0; 3])
        } else if any.is::<PoseidonMdsGate<F, D>>() {
            known("gate_poseidon_mds", [0; 3])
        } else if let Some(gate) = any.downcast_ref::<ConstantGate>() {
            known("gate_constant", [Gate::<F, D>::num_constants(gate), 0, 0])
        } else if let Some(gate) = any.downcast_ref::<ArithmeticGate>() {
            known("gate_arithmetic", [gate.num_ops, 0, 0])
        } else if let Some(gate) = any.downcast_ref::<ArithmeticExtensionGate<D>>() {
            known("gate_arithmetic_extension", [gate.num_ops, 0, 0])
        } else if let Some(gate) = any.downcast_ref::<MulExtensionGate<D>>() {
            known("gate_mul_extension", [gate.num_ops, 0, 0])
        } else if let Some(gate) = any.downcast_ref::<BaseSumGate<2>>() {
            known("gate_base_sum", [2, gate.num_limbs, 0])
        } else if let Some(gate) = any.downcast_ref::<BaseSumGate<4>>() {
            known("gate_base_sum", [4, gate.num_limbs, 0])
        } else if let Some(gate) = any.downcast_ref::<ReducingGate<D>>() {
            known("gate_reducing", [gate.num_coeffs, 0, 0])
        } else if let Some(gate) = any.downcast_ref::<ReducingExtensionGate<D>>() {
            known("gate_reducing_extension", [gate.num_coeffs, 0, 0])
        } else if let Some(gate) = any.downcast_ref::<CosetInterpolationGate<F, D>>() {
            Ok(Some(Self::interpolation(gate)))
        } else {
            match any.downcast_ref::<RandomAccessGate<F, D>>() {
                Some(gate) if (1..=MAX_ACCESS_BITS).contains(&gate.bits) => {
                    known("gate_random_access", [gate.bits, gate.num_copies, gate.num_extra_constants])
                }
                _ => Err(UnknownGate(gate.0.id())),
            }
        }
    }

    fn interpolation(gate: &CosetInterpolationGate<F, D>) -> Self {
        let points = F::two_adic_subgroup(gate.subgroup_bits);
        let n_intermediates = (points.len() - 2) / (gate.degree - 1);
        let extras = points.iter().zip(&gate.barycentric_weights).flat_map(|(&point, &weight)| [point, weight]).collect();
        Self { kernel: "gate_interpolation", sizes: [points.len(), gate.degree, n_intermediates], extras: Extras::Elements(extras) }
    }

    /// The words of the gate's table; its constants begin at a column of the fixed oracle.
    pub(super) fn table(&self, filtered: &FilteredGate<'_>, first_constant: usize, public_inputs_hash: &Digest) -> Vec<u64> {
        let mut table: Vec<u64> = [filtered.selector, first_constant].into_iter().chain(self.sizes).map(|word| word as u64).collect();
        table.push(filtered.others.len() as u64);
        let extras: &[F] = match &self.extras {
            Extras::Nothing => &[],
            Extras::PublicInputsHash => &public_inputs_hash.elements,
            Extras::Elements(elements) => elements,
        };
        table.extend(filtered.others.iter().chain(extras).map(PrimeField64::to_canonical_u64));
        table
    }
}

/// Whether the device knows all gates of a circuit.
pub(crate) fn check_gates(common: &CommonCircuitData<F, D>) -> Result<(), UnknownGate> {
    common.gates.iter().try_for_each(|gate| DeviceGate::of(gate).map(drop))
}

#[cfg(test)]
mod tests {
    use plonky2::gates::exponentiation::ExponentiationGate;
    use plonky2::plonk::circuit_data::CircuitConfig;
    use zkinfer_circuits::recursion::node::node_common;
    use zkinfer_circuits::security::{Profile, ProfileName};

    use super::*;

    #[test]
    fn every_gate_of_a_node_is_known() {
        for name in [ProfileName::Default, ProfileName::Strict] {
            check_gates(&node_common(&Profile::new(name))).unwrap();
        }
    }

    #[test]
    fn other_gates_are_named() {
        let unknown = [
            GateRef::new(ExponentiationGate::<F, D>::new(13)),
            GateRef::new(BaseSumGate::<3>::new(20)),
            GateRef::new(RandomAccessGate::<F, D>::new_from_config(
                &CircuitConfig { num_wires: 300, num_routed_wires: 200, ..CircuitConfig::standard_recursion_config() },
                MAX_ACCESS_BITS + 1,
            )),
        ];
        for gate in unknown {
            let error = DeviceGate::of(&gate).unwrap_err();
            assert!(error.to_string().contains(&gate.0.id()), "{error}");
        }
        assert!(DeviceGate::of(&GateRef::new(NoopGate)).unwrap().is_none());
    }

    #[test]
    fn tables_hold_what_their_kernels_read() {
        let gate = GateRef::new(CosetInterpolationGate::<F, D>::new(2));
        let filtered = FilteredGate { gate: &gate, selector: 1, others: vec![F::TWO, F::NEG_ONE] };
        let table = DeviceGate::of(&gate).unwrap().unwrap().table(&filtered, 5, &Digest::default());
        assert_eq!(table[..8], [1, 5, 4, 4, 0, 2, 2, F::NEG_ONE.to_canonical_u64()]);
        assert_eq!((table.len(), table[8]), (16, 1));
        let gate = GateRef::new(PublicInputGate);
        let filtered = FilteredGate { gate: &gate, selector: 0, others: Vec::new() };
        let hash = Digest { elements: [9, 8, 7, 6].map(F::from_canonical_u64) };
        assert_eq!(DeviceGate::of(&gate).unwrap().unwrap().table(&filtered, 3, &hash), [0, 3, 0, 0, 0, 0, 9, 8, 7, 6]);
    }
}
